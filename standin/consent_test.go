package standin_test

import (
	"crypto/sha256"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"github.com/keyward/keyward/standin"
)

const verifier = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"

// consent is the code that a consent yields, and the state that comes with it.
func (g *rig) consent(change ...string) (code, state string) {
	g.t.Helper()
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"response_type": {"code"}, "client_id": {fields("acme", standin.GoogleCalendar)["client_id"]}, "redirect_uri": {"http://127.0.0.1:1/back"},
		"scope": {"https://www.googleapis.com/auth/calendar"}, "state": {"s"}, "access_type": {"offline"}, "prompt": {"consent"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	for _, c := range change {
		name, value, _ := strings.Cut(c, "=")
		q.Set(name, value)
	}
	res, body := g.call("GET accounts.google.com/o/oauth2/v2/auth?"+q.Encode(), "")
	back, err := url.Parse(res.Header.Get("Location"))
	if err != nil || res.StatusCode != 302 || back.Path != "/back" {
		return body, ""
	}
	return back.Query().Get("code"), back.Query().Get("state") + back.Query().Get("error")
}

func (g *rig) trade(change ...string) (int, map[string]any) {
	g.t.Helper()
	f := fields("acme", standin.GoogleCalendar)
	form := url.Values{
		"grant_type": {"authorization_code"}, "client_id": {f["client_id"]}, "client_secret": {f["client_secret"]},
		"redirect_uri": {"http://127.0.0.1:1/back"}, "code_verifier": {verifier},
	}
	for _, c := range change {
		name, value, _ := strings.Cut(c, "=")
		form.Set(name, value)
	}
	res, body := g.call("POST oauth2.googleapis.com/token", form.Encode(), "Content-Type: application/x-www-form-urlencoded")
	return res.StatusCode, decode(g.t, body)
}

func TestAConsentYieldsACodeAndThatTokens(t *testing.T) {
	g := start(t, standin.Options{})
	code, state := g.consent()
	if code == "" || state != "s" {
		t.Fatalf("%q %q", code, state)
	}
	status, tokens := g.trade("code=" + code)
	refresh, _ := tokens["refresh_token"].(string)
	if status != 200 || refresh == "" || tokens["scope"] != "https://www.googleapis.com/auth/calendar" {
		t.Fatalf("%d %v", status, tokens)
	}
	if res, body := g.token("acme", refresh); res.StatusCode != 200 {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if status, again := g.trade("code=" + code); status != 400 || again["error"] != "invalid_grant" {
		t.Errorf("a code twice: %d %v", status, again)
	}
}

func TestAConsentIsHeldToTheProtocol(t *testing.T) {
	g := start(t, standin.Options{})
	for change, want := range map[string]string{"code_challenge_method=plain": "sinvalid_request", "code_challenge=short": "sinvalid_request", "response_type=token": "sinvalid_request"} {
		if code, state := g.consent(change); code != "" || state != want {
			t.Errorf("%s: %q %q", change, code, state)
		}
	}
	for change, want := range map[string]string{"client_id=nobody": "invalid_client", "redirect_uri=/relative": "redirect_uri_mismatch"} {
		if page, _ := g.consent(change); !strings.Contains(page, want) {
			t.Errorf("%s: %q", change, page)
		}
	}
	for _, change := range []string{"code_verifier=" + strings.Repeat("x", 43), "redirect_uri=http://127.0.0.1:1/other", "client_secret=wrong"} {
		code, _ := g.consent()
		if status, answer := g.trade("code="+code, change); status < 400 {
			t.Errorf("%s: %d %v", change, status, answer)
		}
	}
	code, _ := g.consent("access_type=online")
	if _, tokens := g.trade("code=" + code); tokens["refresh_token"] != nil {
		t.Errorf("online access: %v", tokens)
	}
	g.Deny(true)
	if code, state := g.consent(); code != "" || state != "saccess_denied" {
		t.Errorf("denied: %q %q", code, state)
	}
}
