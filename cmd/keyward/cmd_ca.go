package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyward/keyward/ca"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

const (
	caPrintExample  = "keyward ca --run-dir .keyward --org acme"
	caShowExample   = "keyward ca show --run-dir .keyward >keyward-ca.pem\nkeyward ca show --json"
	caRotateExample = "keyward ca rotate --data-dir .keyward\nkeyward ca rotate --data-dir .keyward --now"
	caEnvExample    = `
keyward ca env --run-dir .keyward --org acme
keyward callers add --name web --org acme >token && eval "$(keyward ca env --org acme --token-file token)"
keyward ca env --org acme --for node`
)

// runFolder adds the flag by which commands find what the sidecar has laid out for apps.
func runFolder(f *flags) *string {
	return f.String("run-dir", ".keyward", "`DIR` where the sidecar has put its certificate, as serve takes it")
}

// published is the root that the sidecar has laid out for apps.
func published(dir string) (*x509.Certificate, []byte, error) {
	path := filepath.Join(dir, ca.RootFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, notFound{fmt.Errorf("no local CA at %s yet: the first start of keyward serve --intercept makes one; --run-dir names its folder", path)}
	}
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, nil, fmt.Errorf("%s holds no certificate; start the sidecar again, which writes it", path)
	}
	root, err := x509.ParseCertificate(block.Bytes)
	return root, b, err
}

// A caItem is the local CA as it is shown.
type caItem struct {
	Name      string    `json:"name"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	SHA256    string    `json:"sha256"`
	Hosts     []string  `json:"hosts"`     // that it can vouch for
	Uncovered []string  `json:"uncovered"` // that it cannot, and that this version knows
	File      string    `json:"file"`
	Bundle    string    `json:"bundle"` // the same behind the certificates that the machine itself trusts
}

// cmdCAShow prints the certificate alone on stdout, so that it can be sent to a file.
func cmdCAShow(_ context.Context, f *flags, args []string, std stdio) error {
	dir, asJSON := runFolder(f), f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	root, text, err := published(*dir)
	if err != nil {
		return err
	}
	if *asJSON {
		sum := sha256.Sum256(root.Raw)
		covers := func(h string) bool {
			return slices.ContainsFunc(root.PermittedDNSDomains, func(d string) bool { return h == d || strings.HasSuffix(h, "."+d) })
		}
		return printJSON(std.out, caItem{
			Name: root.Subject.CommonName, NotBefore: root.NotBefore, NotAfter: root.NotAfter, SHA256: hex.EncodeToString(sum[:]), Hosts: root.PermittedDNSDomains,
			Uncovered: append([]string{}, slices.DeleteFunc(interceptedHosts(provider.All), covers)...), File: absolute(*dir, ca.RootFile), Bundle: absolute(*dir, ca.BundleFile),
		})
	}
	_, err = std.out.Write(text)
	return err
}

// cmdCARotate changes the file; a sidecar that runs takes it over within a second.
func cmdCARotate(_ context.Context, f *flags, args []string, std stdio) error {
	dir := f.String("data-dir", ".keyward", "`DIR` that holds the CA's key, as serve takes it")
	now := f.Bool("now", false, "have the CA from before vouch for nothing: its key may be known to others; apps fail until they trust the new one")
	more := f.StringArray("host", nil, "a `HOST` of the configuration's providers: that it vouches for this one too; repeatable; what it vouches for already stays")
	if err := f.parse(args); err != nil {
		return err
	}
	hosts := append(interceptedHosts(provider.All), *more...)
	for _, h := range *more {
		if problem := provider.HostProblem(h); problem != "" {
			return usagef("%s %q: %s", f.at("host"), h, problem)
		}
	}
	old, err := ca.Load(*dir)
	if errors.Is(err, fs.ErrNotExist) {
		return notFound{fmt.Errorf("no local CA in %s yet: the first start of keyward serve --intercept makes one; --data-dir names its folder", *dir)}
	}
	if err != nil && !*now {
		return err
	}
	var next *ca.Authority
	if err != nil { // a key that others could read, or a file that is no good, is what --now is for
		next, err = ca.Generate(hosts, time.Now())
	} else {
		next, err = old.Rotate(append(hosts, old.Root().PermittedDNSDomains...), time.Now(), !*now)
	}
	if err != nil {
		return err
	}
	if err := next.Save(*dir); err != nil {
		return err
	}
	fmt.Fprintf(std.err, "made %q; a sidecar that runs uses it within a second\n", next.Root().Subject.CommonName)
	if *now {
		fmt.Fprintln(std.err, "apps that trust the CA from before fail until they are started again with the new certificate; take the old one out of every trust store")
	} else {
		fmt.Fprintf(std.err, "apps that trust the CA from before are served until %s; start them again before, and they read the new one\n", time.Now().Add(ca.Overlap).Format(time.DateOnly))
	}
	return nil
}

// languages are what ca env has variables for.
var languages = []string{"node", "python", "go", "java", "curl"}

// cmdCAPrint is all that an app needs, at one look; ca show and ca env are its halves, for scripts.
func cmdCAPrint(_ context.Context, f *flags, args []string, std stdio) error {
	certificate, exports, err := appNeeds(f, args)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "%s\n%s", certificate, exports)
	return err
}

func cmdCAEnv(_ context.Context, f *flags, args []string, std stdio) error {
	_, exports, err := appNeeds(f, args)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(std.out, exports)
	return err
}

// appNeeds reads the flags, and makes of them the certificate that an app trusts and the lines that set its variables.
func appNeeds(f *flags, args []string) (certificate []byte, exports string, err error) {
	dir := runFolder(f)
	at := f.String("ca-dir", "", "`DIR` where the app finds "+ca.RootFile+" and "+ca.BundleFile+"; empty: --run-dir")
	proxy := f.String("proxy", "127.0.0.1:7450", "`HOST:PORT` of the sidecar, as serve --listen has it")
	org := f.String("org", "", "the `ORG` that the app acts for; empty: the caller's only one")
	tokenFile := f.String("token-file", "", "`FILE` that holds the app's caller token; empty: the shell's variable TOKEN does")
	only := f.StringArray("for", nil, "a `LANGUAGE` that the app is written in: "+strings.Join(languages, ", ")+"; repeatable; none: all")
	if err := f.parse(args); err != nil {
		return nil, "", err
	}
	for _, l := range *only {
		if err := f.oneOf("for", l, languages...); err != nil {
			return nil, "", usagef("%w", err)
		}
	}
	if *org != "" && !store.IsOrg(*org) {
		return nil, "", usagef("%s %q: is no org id", f.at("org"), *org)
	}
	host, port, err := net.SplitHostPort(*proxy)
	if err != nil || host == "" || port == "" || strings.ContainsAny(*proxy, "/@'\" $`\\") {
		return nil, "", usagef("%s %q: must be an address and a port, as 127.0.0.1:7450", f.at("proxy"), *proxy)
	}
	if _, certificate, err = published(*dir); err != nil {
		return nil, "", err
	}
	if *at == "" {
		*at = *dir
	}
	e := environment{host: host, port: port, org: *org, root: absolute(*at, ca.RootFile), bundle: absolute(*at, ca.BundleFile)}
	if *tokenFile != "" {
		if e.token, err = readToken(*tokenFile); err != nil {
			return nil, "", usagef("%s: %w", f.at("token-file"), err)
		}
	}
	return certificate, e.exports(func(l string) bool { return len(*only) == 0 || slices.Contains(*only, l) }), nil
}

// readToken reads a token. What is no token is not quoted: it may be another secret.
func readToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", plainError(err)
	}
	token := strings.TrimSpace(string(b))
	if !strings.HasPrefix(token, "kwt") || strings.ContainsFunc(token, func(r rune) bool {
		return !strings.ContainsRune("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", r)
	}) {
		return "", errors.New("holds no caller token; keyward callers add prints one")
	}
	return token, nil
}

func absolute(dir, name string) string {
	path := filepath.Join(dir, name)
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}

// An environment is what an app needs to call through the sidecar.
type environment struct {
	host, port, org, token string // an empty token is the shell's TOKEN
	root, bundle           string
}

// exports are lines for a shell.
func (e environment) exports(wanted func(language string) bool) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	user := url.User(e.token)
	if e.org != "" {
		user = url.UserPassword(e.token, e.org)
	}
	through := "'http://" + user.String() + "@" + net.JoinHostPort(e.host, e.port) + "'"
	if e.token == "" {
		line("# TOKEN is what `keyward callers add` has printed")
		through = `"http://${TOKEN:?is what keyward callers add has printed}` + strings.Trim(through, "'")[len("http://"):] + `"`
	}
	line("# the proxy; HTTP_PROXY is for twilio-node, which reads no other name")
	line("export HTTPS_PROXY=%s", through)
	line(`export https_proxy="$HTTPS_PROXY" HTTP_PROXY="$HTTPS_PROXY"`)
	line("export NO_PROXY=localhost,127.0.0.1,::1 no_proxy=localhost,127.0.0.1,::1")
	if wanted("node") {
		line("# Node, and from 22.21 and 24 on its own fetch")
		line("export NODE_EXTRA_CA_CERTS=%s NODE_USE_ENV_PROXY=1", quoted(e.root))
	}
	if wanted("python") || wanted("go") {
		line("# Go, Python's ssl, and all that uses OpenSSL")
		line("export SSL_CERT_FILE=%s", quoted(e.bundle))
	}
	if wanted("python") {
		line("# Python's requests")
		line("export REQUESTS_CA_BUNDLE=%s", quoted(e.bundle))
	}
	if wanted("curl") {
		line("# curl")
		line("export CURL_CA_BUNDLE=%s", quoted(e.bundle))
	}
	if wanted("java") {
		line("# Java: it reads no PEM, so once: keytool -importcert -noprompt -alias keyward -file %s -keystore keyward.p12 -storetype PKCS12 -storepass changeit", quoted(e.root))
		line("# and it sends the token when it is asked for it: docs/unchanged-apps.md")
		line(`export JAVA_TOOL_OPTIONS="-Dhttps.proxyHost=%s -Dhttps.proxyPort=%s -Dhttp.nonProxyHosts=localhost|127.* -Djdk.http.auth.tunneling.disabledSchemes= -Djavax.net.ssl.trustStore=$PWD/keyward.p12 -Djavax.net.ssl.trustStorePassword=changeit"`, e.host, e.port)
	}
	return b.String()
}

// quoted is a word of a shell.
func quoted(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+,:@", r))
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
