package keysource

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const gcpKeyName = "projects/acme-prod/locations/europe-west3/keyRings/keyward/cryptoKeys/keyset"

// gcpAccount is a service account's key, made once: that takes a while.
var gcpAccount = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// fakeGCP speaks Cloud KMS's REST, and gives out access tokens for a service account's signature.
func fakeGCP(t *testing.T) *fake {
	account, err := gcpAccount()
	if err != nil {
		t.Fatal(err)
	}
	f := newFake(t, answerGCP)
	der, err := x509.MarshalPKCS8PrivateKey(account)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "keyward@acme-prod.iam.gserviceaccount.com", "private_key_id": "1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": f.server.URL + "/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "account.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", path)
	f.source = "gcpkms://" + gcpKeyName + "?endpoint=" + f.server.URL
	return f
}

func answerGCP(f *fake, w http.ResponseWriter, r *http.Request, body []byte, now fault) error {
	if r.URL.Path == "/token" {
		if err := checkAssertion(body); err != nil {
			return err
		}
		w.Header().Set("Content-Type", "application/json")
		return reply(w, 200, map[string]any{"access_token": "ya29.fake", "token_type": "Bearer", "expires_in": 3600})
	}
	if got := r.Header.Get("Authorization"); got != "Bearer ya29.fake" {
		return fmt.Errorf("authorization %q", got)
	}
	refuse := func(code int, status, message string) error {
		return reply(w, code, map[string]any{"error": map[string]any{"code": code, "status": status, "message": message}})
	}
	switch now {
	case denied:
		return refuse(403, "PERMISSION_DENIED", "Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied on resource")
	case disabled:
		return refuse(400, "FAILED_PRECONDITION", gcpKeyName+"/cryptoKeyVersions/1 is not enabled, current state is: DISABLED.")
	case noSuchKey:
		return refuse(404, "NOT_FOUND", "CryptoKey "+gcpKeyName+" not found.")
	case throttled:
		return refuse(429, "RESOURCE_EXHAUSTED", "Quota exceeded")
	case broken:
		return refuse(503, "UNAVAILABLE", "")
	}
	var in struct {
		Plaintext, PlaintextCrc32c, Ciphertext, CiphertextCrc32c       string
		AdditionalAuthenticatedData, AdditionalAuthenticatedDataCrc32c string
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return err
	}
	context := unbase64(in.AdditionalAuthenticatedData)
	if len(context) == 0 || in.AdditionalAuthenticatedDataCrc32c != crc32c(context) {
		return errors.New("additional data missing, or damaged")
	}
	switch r.URL.Path {
	case "/v1/" + gcpKeyName + ":encrypt":
		if in.PlaintextCrc32c != crc32c(unbase64(in.Plaintext)) {
			return errors.New("plaintext damaged")
		}
		sealed := f.encrypt(unbase64(in.Plaintext), context)
		return reply(w, 200, map[string]any{"name": gcpKeyName + "/cryptoKeyVersions/1", "ciphertext": sealed, "ciphertextCrc32c": crc32c(sealed)})
	case "/v1/" + gcpKeyName + ":decrypt":
		plain, ok := f.decrypt(unbase64(in.Ciphertext), context)
		if !ok {
			return refuse(400, "INVALID_ARGUMENT", "Decryption failed: verify that 'name' refers to the correct CryptoKey.")
		}
		return reply(w, 200, map[string]any{"plaintext": plain, "plaintextCrc32c": crc32c(plain)})
	}
	return fmt.Errorf("path %q", r.URL.Path)
}

// checkAssertion verifies what a service account signs to get a token (RFC 7523).
func checkAssertion(body []byte) error {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return err
	}
	parts := strings.Split(form.Get("assertion"), ".")
	if len(parts) != 3 || form.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
		return errors.New("no assertion")
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || !strings.Contains(string(claims), gcpScope) {
		return fmt.Errorf("claims %q: %w", claims, err)
	}
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil {
		return err
	}
	account, err := gcpAccount()
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	return rsa.VerifyPKCS1v15(&account.PublicKey, crypto.SHA256, sum[:], signature)
}
