package keysource

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// A vaultTransit is a key of Vault's transit engine, or OpenBao's. The token is read anew for each call: an agent may have renewed it.
type vaultTransit struct {
	address   string // empty: VAULT_ADDR
	mount     string // of the engine: transit
	key       string
	namespace string // empty: VAULT_NAMESPACE, or none
	tokenFile string // empty: VAULT_TOKEN, or ~/.vault-token
	ca        string // PEM file; empty: VAULT_CACERT, or the system's
}

var vaultKey = regexp.MustCompile(`^([A-Za-z0-9._/-]+)/keys/([A-Za-z0-9._-]+)$`)

func parseVault(name string, o *options) (service, error) {
	host, path, _ := strings.Cut(name, "/")
	m := vaultKey.FindStringSubmatch(strings.Trim(path, "/"))
	if m == nil || strings.Contains(path, "..") {
		return nil, errors.New("then come the server, the engine and the key, as hcvault://vault.internal:8200/transit/keys/keyward; the server may be left out for VAULT_ADDR")
	}
	v := &vaultTransit{
		mount: m[1], key: m[2], namespace: o.take("namespace"), tokenFile: o.take("token_file"), ca: o.take("ca"),
	}
	scheme := o.take("scheme")
	if host == "" {
		return v, nil
	}
	if u, err := url.Parse("https://" + host); err != nil || u.Host != host || u.User != nil {
		return nil, errors.New("the server must be a host, and a port if it is not 443, as vault.internal:8200")
	}
	switch scheme {
	case "", "https":
		v.address = "https://" + host
	case "http":
		v.address = "http://" + host
	default:
		return nil, errors.New("scheme: must be https, or http for a loopback address")
	}
	return v, v.check(v.address)
}

// check keeps a token from going over the network in the clear.
func (v *vaultTransit) check(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return errors.New("VAULT_ADDR: must be a URL, as https://vault.internal:8200")
	}
	if u.Scheme == "http" && !isLoopback(u.Hostname()) {
		return errors.New("plain http would show the token and the keys to the network; use https, or a loopback address")
	}
	return nil
}

func (v *vaultTransit) wrap(ctx context.Context, plain []byte) ([]byte, error) {
	var out struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	err := v.call(ctx, "encrypt", map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)}, &out)
	return []byte(out.Data.Ciphertext), err
}

func (v *vaultTransit) unwrap(ctx context.Context, wrapped []byte) ([]byte, error) {
	var out struct {
		Data struct {
			Plaintext []byte `json:"plaintext"`
		} `json:"data"`
	}
	err := v.call(ctx, "decrypt", map[string]any{"ciphertext": string(wrapped)}, &out)
	return out.Data.Plaintext, err
}

func (v *vaultTransit) call(ctx context.Context, verb string, in, out any) error {
	address := v.address
	if address == "" {
		if address = strings.TrimSuffix(os.Getenv("VAULT_ADDR"), "/"); address == "" {
			return errors.New("the source names no server, and VAULT_ADDR is not set")
		}
		if err := v.check(address); err != nil {
			return err
		}
	}
	token, err := v.token()
	if err != nil {
		return err
	}
	transport, err := v.transport()
	if err != nil {
		return err
	}
	header := http.Header{"X-Vault-Token": {token}, "X-Vault-Request": {"true"}}
	namespace := v.namespace
	if namespace == "" {
		namespace = os.Getenv("VAULT_NAMESPACE")
	}
	if namespace != "" {
		header.Set("X-Vault-Namespace", namespace)
	}
	status, body, err := post(ctx, newClient(transport), address+"/v1/"+v.mount+"/"+verb+"/"+v.key, header, in)
	if err != nil {
		return err
	}
	defer clear(body)
	if status != http.StatusOK {
		return explainVault(status, body, verb == "decrypt")
	}
	if err := json.Unmarshal(body, out); err != nil {
		return unavailable("its answer is not what was expected")
	}
	return nil
}

// token is where Vault's own client looks for it.
func (v *vaultTransit) token() (string, error) {
	path := v.tokenFile
	if path == "" {
		if t := os.Getenv("VAULT_TOKEN"); t != "" {
			return t, nil
		}
		home, err := os.UserHomeDir()
		if err != nil {
			return "", errors.New("no Vault token: add ?token_file=…, or set VAULT_TOKEN")
		}
		path = filepath.Join(home, ".vault-token")
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("no Vault token: %s does not exist; add ?token_file=…, or set VAULT_TOKEN", path)
	}
	if err != nil {
		return "", fmt.Errorf("reading the Vault token: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (v *vaultTransit) transport() (*http.Transport, error) {
	t := newTransport()
	ca := v.ca
	if ca == "" {
		ca = os.Getenv("VAULT_CACERT")
	}
	if ca == "" {
		return t, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate of Vault's authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading the certificate of Vault's authority: no PEM certificate in %q", ca)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}

func explainVault(status int, body []byte, quote bool) error {
	var e struct {
		Errors []string `json:"errors"`
	}
	_ = json.Unmarshal(body, &e) // a proxy in between may answer anything
	words := fmt.Sprintf("status %d", status)
	if quote && len(e.Errors) > 0 {
		words = strings.Join(e.Errors, "; ")
	}
	all := strings.Join(e.Errors, " ")
	switch {
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return refused(errDenied, words)
	case status == http.StatusTooManyRequests:
		return unavailable("it asks to come again later")
	case status == http.StatusServiceUnavailable && strings.Contains(all, "sealed"):
		return unavailable("Vault is sealed: unseal it")
	case status == http.StatusBadRequest && strings.Contains(all, "key not found"), status == http.StatusNotFound:
		return refused(errNoKey, words)
	case status == http.StatusBadRequest && strings.Contains(all, "disallowed by policy"): // min_decryption_version is past it
		return refused(errors.New("the version of the key that wrapped it is not allowed any more: lower min_decryption_version, then rewrap"), words)
	case status >= 500, status < 400:
		return unavailable(words)
	case status == http.StatusBadRequest && quote:
		return errWrongKey
	}
	return refused(errors.New("it refused"), words)
}
