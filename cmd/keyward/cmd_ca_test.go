package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/ca"
	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/provider"
)

// callerAddress is where callers connect over TCP, as the start line has it.
func (s *served) callerAddress() string {
	s.t.Helper()
	s.says("keyward is ready")
	found := regexp.MustCompile(`callers (127\.0\.0\.1:[0-9]+)`).FindStringSubmatch(s.log.String())
	if found == nil {
		s.t.Fatalf("no address:\n%s", s.log)
	}
	return found[1]
}

// unchanged asks Resend as an app does that knows a proxy and nothing else, trusting the roots in a file.
func (s *served) unchanged(token, org, rootFile string) (string, error) {
	pem, err := os.ReadFile(rootFile)
	if err != nil {
		return "", err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	proxy := &url.URL{Scheme: "http", Host: s.callerAddress(), User: url.UserPassword(token, org)}
	c := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	resp, err := c.Get("https://api.resend.com/domains")
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// TestInterceptionFromStartToRotation is the program's whole part: the CA is made, apps trust it, it is rotated while they run and without
// one of them being turned away, and a CA that is not trusted any more is not.
func TestInterceptionFromStartToRotation(t *testing.T) {
	typed(t)
	t.Parallel()
	dir := memdir.New(t)
	s := serve(t, dir, "--listen", "127.0.0.1:0", "--intercept", "--upstream", "api.resend.com="+echo(t))
	data := filepath.Join(dir, "data")
	s.must(`{"api_key":"re_unchanged_0001"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	token := regexp.MustCompile(`kwt[0-9A-Za-z]{43}`).FindString(s.must("", "callers", "add", "--name", "web", "--org", "acme"))
	if st, err := os.Stat(filepath.Join(data, ca.KeyFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("the CA's key: %v %v", st, err)
	}
	first := filepath.Join(t.TempDir(), "first.pem")
	if err := os.WriteFile(first, []byte(s.must("", "ca", "show")), 0o600); err != nil {
		t.Fatal(err)
	}
	works := func(root string) {
		t.Helper()
		if got, err := s.unchanged(token, "acme", root); err != nil || got != "BEARER RE_UNCHANGED_0001" {
			t.Fatalf("%q %v\n%s", got, err, s.log)
		}
	}
	works(first)
	works(filepath.Join(dir, ca.RootFile))
	var shown caItem
	if err := json.Unmarshal([]byte(s.must("", "ca", "show", "--json")), &shown); err != nil {
		t.Fatal(err)
	}
	for _, p := range provider.All {
		for _, h := range p.Hosts {
			if !slices.Contains(shown.Hosts, h) {
				t.Errorf("%s of %s is not covered", h, p.Name)
			}
		}
	}
	rotate := func(args ...string) {
		t.Helper()
		before := s.must("", "ca", "show")
		if out, err := program(append([]string{"ca", "rotate", "--data-dir", data}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		eventually(t, "the new CA is in force", func() bool { return s.must("", "ca", "show") != before })
	}
	rotate("--host", "api.custom.example")
	if a, err := ca.Load(data); err != nil || !a.Covers("api.custom.example") {
		t.Errorf("the further host is not covered: %v", err)
	}
	works(first)
	works(filepath.Join(dir, ca.RootFile))
	rotate("--now")
	if got, err := s.unchanged(token, "acme", first); err == nil {
		t.Errorf("a CA that is not to be trusted still counts: %q", got)
	}
	explained := func() int { return strings.Count(s.log.String(), "give it the variables of keyward ca env") }
	eventually(t, "the log says why", func() bool { return explained() == 1 })
	// OpenSSL says it in another way.
	out, err := exec.Command("curl", "-sS", "--max-time", "60", "--cacert", first, "-x", "http://"+token+":acme@"+s.callerAddress(), "https://api.resend.com/domains").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "certificate") {
		t.Errorf("curl: %v: %s", err, out)
	}
	eventually(t, "the log says why of curl too", func() bool { return explained() == 2 })
	works(filepath.Join(dir, ca.RootFile))

	// A file that is no good changes nothing.
	if err := os.WriteFile(filepath.Join(data, ca.KeyFile), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.says("the CA from before stays")
	works(filepath.Join(dir, ca.RootFile))
}

// TestCAEnvIsReadyToPaste: a shell takes the lines as they are, and curl then works with no word about Keyward.
func TestCAEnvIsReadyToPaste(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	s := serve(t, dir, "--listen", "127.0.0.1:0", "--intercept", "--upstream", "api.resend.com="+echo(t))
	s.must(`{"api_key":"re_unchanged_0002"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	token := filepath.Join(t.TempDir(), "token")
	cmd := program("callers", "add", "--run-dir", dir, "--name", "web", "--org", "acme")
	out, err := cmd.Output()
	if err != nil || os.WriteFile(token, out, 0o600) != nil {
		t.Fatal(err)
	}
	keyward, err := exec.LookPath("keyward")
	if err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{
		"a token in a file":   `eval "$("$K" ca env --run-dir "$D" --proxy "$P" --org acme --token-file "$T")"`,
		"a token in variable": `TOKEN=$(cat "$T"); eval "$("$K" ca env --run-dir "$D" --proxy "$P" --org acme)"`,
		"no org, curl alone":  `eval "$("$K" ca env --run-dir "$D" --proxy "$P" --for curl --token-file "$T")"`,
	} {
		sh := exec.Command("sh", "-eu", "-c", script+"\ncurl -sS --max-time 60 https://api.resend.com/domains")
		sh.Env = append(os.Environ(), "K="+keyward, "D="+dir, "T="+token, "P="+s.callerAddress())
		if out, err := sh.CombinedOutput(); err != nil || string(out) != "BEARER RE_UNCHANGED_0002" {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
	all := s.must("", "ca", "env", "--org", "acme")
	for _, name := range []string{"HTTPS_PROXY=", "HTTP_PROXY=", "NO_PROXY=", "NODE_EXTRA_CA_CERTS=", "NODE_USE_ENV_PROXY=", "SSL_CERT_FILE=", "REQUESTS_CA_BUNDLE=", "CURL_CA_BUNDLE=", "JAVA_TOOL_OPTIONS="} {
		if !strings.Contains(all, name) {
			t.Errorf("no %s in\n%s", name, all)
		}
	}
	// All that an app needs, at one look: the certificate, and the same lines.
	if both, want := s.must("", "ca", "--org", "acme"), s.must("", "ca", "show")+"\n"+all; both != want || s.must("", "ca", "print", "--org", "acme") != want {
		t.Errorf("keyward ca alone:\n%s", both)
	}
	if only := s.must("", "ca", "env", "--for", "node"); strings.Contains(only, "CURL_CA_BUNDLE") || !strings.Contains(only, "NODE_EXTRA_CA_CERTS") {
		t.Errorf("for node:\n%s", only)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--for", "cobol"}, "must be one of node, python, go, java, curl"},
		{[]string{"--org", "no org"}, "is no org id"},
		{[]string{"--proxy", "127.0.0.1"}, "must be an address and a port"},
		{[]string{"--proxy", "$(reboot):1"}, "must be an address and a port"},
		{[]string{"--token-file", "/dev/null"}, "holds no caller token"},
	} {
		if out, code := s.run("", append([]string{"ca", "env"}, c.args...)...); code != 2 || !strings.Contains(out, c.want) {
			t.Errorf("%v: %d %s", c.args, code, out)
		}
	}
}

func TestCACommandsBeforeThereIsOne(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, args := range [][]string{{"ca", "show", "--run-dir", dir}, {"ca", "env", "--run-dir", dir}, {"ca", "rotate", "--data-dir", dir}} {
		out, err := program(args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitNotFound || !strings.Contains(string(out), "the first start of keyward serve --intercept makes one") {
			t.Errorf("%v: %v %s", args, err, out)
		}
	}
}

// TestACAThatOthersCouldReadStopsTheStart, and rotate --now is what mends it.
func TestACAThatOthersCouldReadStopsTheStart(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	data := filepath.Join(dir, "data")
	a, err := ca.Generate(interceptedHosts(provider.All)[:1], time.Now())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(data, ca.KeyFile)
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.Save(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	s := start(t, dir, "--intercept")
	s.says("chmod 600 it")
	if out, err := program("ca", "rotate", "--data-dir", data, "--now").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ca.Load(data); err != nil || len(b.Uncovered(interceptedHosts(provider.All))) > 0 {
		t.Errorf("%v", err)
	}
	// A host of the configuration's providers is named, and stays; one that no provider can have is refused.
	for _, args := range [][]string{{"--host", "api.example.com"}, nil} {
		if out, err := program(append([]string{"ca", "rotate", "--data-dir", data}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if b, err := ca.Load(data); err != nil || !b.Covers("api.example.com") {
			t.Errorf("%v: it does not cover the host: %v", args, err)
		}
	}
	if out, err := program("ca", "rotate", "--data-dir", data, "--host", "*.example.com").CombinedOutput(); err == nil || !strings.Contains(string(out), "no wildcards") {
		t.Errorf("%v: %s", err, out)
	}
	// A CA that was made before some hosts were known is said at the start.
	if err := a.Save(data); err != nil {
		t.Fatal(err)
	}
	serve(t, memdir.New(t), "--data-dir", data, "--intercept").says("run keyward ca rotate, with --host")
}
