package main

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/internal/memdir"
)

// asAdmin asks over --admin-listen and returns status and body.
func asAdmin(t *testing.T, address, token, method, path, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Timeout: 30 * time.Second}
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// Over --admin-listen the API is for who has an admin token: all of it for an operator, one org's part for a token bound to it; and a
// token that is revoked in one sidecar is refused by another on the same store.
func TestAdminListenTakesTokens(t *testing.T) {
	t.Parallel()
	here, there := freeport.New(t), freeport.New(t)
	dir, second := memdir.New(t), memdir.New(t)
	s := serve(t, dir, "--admin-listen", here)
	serve(t, second, "--admin-listen", there, "--data-dir", dir+"/data")
	ops := strings.TrimSpace(s.must("", "admin-tokens", "add", "--name", "ops", "--role", "operator"))
	acme := strings.TrimSpace(s.must("", "admin-tokens", "add", "--name", "acme-backend", "--org", "acme"))
	ops, acme = firstLine(ops), firstLine(acme)
	is := func(want int, address, token, method, path, body string) string {
		t.Helper()
		status, answer := asAdmin(t, address, token, method, path, body)
		if status != want {
			t.Errorf("%s %s: %d, want %d: %s", method, path, status, want, answer)
		}
		return answer
	}
	const resend = `{"credentials":{"api_key":"re_12345678_abcdefghijklmnopqrstuvwx"}}`
	for _, address := range []string{here, there} {
		is(401, address, "", "GET", "/api/orgs", "")
		is(401, address, "kwa"+strings.Repeat("0", 43), "GET", "/api/orgs", "")
		is(200, address, "", "GET", "/readyz", "")
	}
	is(201, here, acme, "PUT", "/api/integrations/resend", resend)
	is(201, there, ops, "PUT", "/api/orgs/globex/integrations/resend", resend)
	is(404, there, acme, "GET", "/api/orgs/globex/integrations/resend", "")
	if answer := is(200, there, acme, "GET", "/api/orgs/acme/integrations/resend", ""); !strings.Contains(answer, `"provider":"resend"`) || strings.Contains(answer, "abcdef") {
		t.Errorf("%s", answer)
	}
	s.must("", "admin-tokens", "revoke", "acme-backend")
	for _, address := range []string{here, there} {
		is(401, address, acme, "GET", "/api/integrations", "")
		is(200, address, ops, "GET", "/api/orgs", "")
	}
	if strings.Contains(s.log.String(), ops[3:12]) {
		t.Error("the log holds a token")
	}
}

// firstLine is what stands on stdout, of a command whose stderr is read with it.
func firstLine(s string) string {
	for line := range strings.Lines(s) {
		if strings.HasPrefix(line, "kwa") {
			return strings.TrimSpace(line)
		}
	}
	return s
}

// typed is for tests that type commands as people do: with curl.
func typed(t *testing.T) {
	t.Helper()
	if os.Getenv("KEYWARD_TEST_NO_CURL") == "1" {
		t.Skip("NOT TESTED AS TYPED: KEYWARD_TEST_NO_CURL=1 is set")
	}
}
