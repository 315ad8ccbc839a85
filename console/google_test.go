package console_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/console"
	"github.com/keyward/keyward/store"
)

// An org that took its consent back is shown with the one thing that mends it.
func TestConsentThatWasTakenBackIsShownWithReconnect(t *testing.T) {
	s := newServer(t)
	p := s.loggedIn(s.operator)
	const link = `href="/orgs/acme/integrations/google_calendar/connect"`
	p.get("/orgs/acme").wants(t, 200, link, "Connect")
	p.post("/orgs/acme/integrations/google_calendar", "client_id", "1-a.apps.googleusercontent.com", "client_secret", "GOCSPX-0123456789abcdef", "refresh_token", "1//0123456789abcdef").wants(t, 200, "Saved.")
	if strings.Contains(p.get("/orgs/acme").body, "Reconnect") {
		t.Error("it asks to reconnect while the consent stands")
	}
	ref := store.Ref{Org: "acme", Provider: "google_calendar"}
	if err := s.db.SetVerified(context.Background(), store.Actor{Name: "test"}, ref, 1, store.Verification{State: store.Reconnect, Problem: "the consent was taken back"}); err != nil {
		t.Fatal(err)
	}
	p.get("/orgs/acme").wants(t, 200, `<span class="badge bad">Reconnect</span>`, link, "the consent was taken back")
	p.get("/orgs/acme/integrations/google_calendar/connect").wants(t, 501, "this sidecar cannot ask for a consent")
}

// The person is sent on to where the API says, with the cookie that binds the consent to this browser, and by a navigation: the API is told
// so, whatever the browser says of itself.
func TestConnectSendsThePersonOn(t *testing.T) {
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/whoami":
			_ = json.NewEncoder(w).Encode(map[string]string{"name": "admin token ops"})
		case "/api/orgs/acme/integrations/google_calendar/connect":
			if r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Authorization") != "Bearer kwa1" {
				t.Errorf("asked with %v", r.Header)
			}
			w.Header().Set("Location", "https://accounts.google.com/o/oauth2/v2/auth?state=1")
			http.SetCookie(w, &http.Cookie{Name: "__Host-keyward-consent", Value: "1", Path: "/", Secure: true})
			w.WriteHeader(http.StatusFound)
		}
	})
	srv := httptest.NewServer(console.New(console.Options{API: api, Log: zerolog.Nop(), Open: func() string { return "kwa1" }}))
	defer srv.Close()
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Get(srv.URL + "/orgs/acme/integrations/google_calendar/connect")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if to := resp.Header.Get("Location"); resp.StatusCode != http.StatusSeeOther || to != "https://accounts.google.com/o/oauth2/v2/auth?state=1" {
		t.Errorf("%d to %s", resp.StatusCode, to)
	}
	if all := strings.Join(resp.Header.Values("Set-Cookie"), "\n"); !strings.Contains(all, "__Host-keyward-consent=1") {
		t.Errorf("cookies: %s", all)
	}
}
