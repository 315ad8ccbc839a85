package keysource

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeVault is Vault's transit engine.
func fakeVault(t *testing.T) *fake {
	for _, name := range []string{"VAULT_ADDR", "VAULT_TOKEN", "VAULT_NAMESPACE", "VAULT_CACERT"} {
		t.Setenv(name, "")
	}
	f := newFake(t, answerVault)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("hvs.fake\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f.source = "hcvault://" + strings.TrimPrefix(f.server.URL, "http://") + "/transit/keys/keyward?scheme=http&namespace=team&token_file=" + token
	return f
}

func answerVault(f *fake, w http.ResponseWriter, r *http.Request, body []byte, now fault) error {
	refuse := func(status int, words ...string) error {
		return reply(w, status, map[string]any{"errors": words})
	}
	if r.Header.Get("X-Vault-Token") != "hvs.fake" || r.Header.Get("X-Vault-Namespace") != "team" || r.Header.Get("X-Vault-Request") != "true" {
		return fmt.Errorf("header %v", r.Header)
	}
	switch now {
	case denied:
		return refuse(403, "1 error occurred:\n\t* permission denied\n\n")
	case disabled:
		return refuse(400, "ciphertext or signature version is disallowed by policy (too old)")
	case noSuchKey:
		return refuse(400, "encryption key not found")
	case throttled:
		return refuse(429, "request path \"transit/decrypt/keyward\": rate limit quota exceeded")
	case broken:
		return refuse(503, "Vault is sealed")
	}
	var in struct{ Plaintext, Ciphertext string }
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return err
	}
	switch r.URL.Path {
	case "/v1/transit/encrypt/keyward":
		plain, err := base64.StdEncoding.DecodeString(in.Plaintext)
		if err != nil || len(plain) == 0 {
			return fmt.Errorf("plaintext: %w", err)
		}
		return reply(w, 200, map[string]any{"data": map[string]any{"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(f.encrypt(plain, nil)), "key_version": 1}})
	case "/v1/transit/decrypt/keyward":
		sealed, isSealed := strings.CutPrefix(in.Ciphertext, "vault:v1:")
		if !isSealed {
			return refuse(400, "invalid ciphertext: no prefix")
		}
		plain, ok := f.decrypt(unbase64(sealed), nil)
		if !ok {
			return refuse(400, "cipher: message authentication failed")
		}
		return reply(w, 200, map[string]any{"data": map[string]any{"plaintext": plain}})
	}
	return fmt.Errorf("path %q", r.URL.Path)
}
