package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/internal/pgtest"
	"github.com/keyward/keyward/standin"
)

const acmeGoogle = "/api/orgs/acme/integrations/google_calendar"

// sharedStore is what sidecars on one PostgreSQL are started with: the store, and the key source that they share.
func sharedStore(t *testing.T) []string {
	t.Helper()
	return keysFor(t, pgtest.New(t))
}

// keysFor is what sidecars on a store are started with: the store, and new keys.
func keysFor(t *testing.T, store string) []string {
	t.Helper()
	key := "file:" + filepath.Join(memdir.New(t), "keys.json")
	mustKeys(t, "generate", "--key", key)
	return []string{"KEYWARD_STORE=" + store, "--key", key}
}

// googleClient is the OAuth client of acme's sample.
func googleClient(t *testing.T) (id, secret string) {
	t.Helper()
	for _, c := range standin.Sample("acme") {
		if c.Provider == standin.GoogleCalendar {
			return c.Fields["client_id"], c.Fields["client_secret"]
		}
	}
	t.Fatal("no sample")
	return "", ""
}

// consent begins acme's consent at one sidecar, agrees to it, and returns the URL that the browser comes back to.
func (s *served) consent() string {
	s.t.Helper()
	req, _ := http.NewRequest("GET", "http://keyward"+acmeGoogle+"/connect", nil)
	resp, err := s.client("admin.sock").Transport.RoundTrip(req)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = resp.Body.Close()
	page, err := resp.Location()
	if err != nil {
		s.t.Fatalf("connect: %d, %v", resp.StatusCode, err)
	}
	req, _ = http.NewRequest("GET", page.String(), nil)
	req.Host = "accounts.google.com"
	if resp, err = http.DefaultTransport.RoundTrip(req); err != nil {
		s.t.Fatal(err)
	}
	_ = resp.Body.Close()
	back, err := resp.Location()
	if err != nil {
		s.t.Fatalf("the consent page: %d, %v", resp.StatusCode, err)
	}
	return back.String()
}

// calendars asks Google for acme's calendars through the sidecar, and returns the status and Keyward's own error, if it is one.
func calendars(c *http.Client) string {
	req, err := http.NewRequest("GET", "http://www.googleapis.com/calendar/v3/users/me/calendarList", nil)
	if err != nil {
		return err.Error()
	}
	req.Header.Set("Keyward-Org", "acme")
	resp, err := c.Do(req)
	if err != nil {
		return err.Error()
	}
	_ = resp.Body.Close()
	return strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", resp.Header.Get("Keyward-Error")))
}

// From nothing to a calendar: the consent begins at one sidecar, the browser comes back to its TCP listener, and another sidecar's callers
// use it. Taken back, it is shown as one to connect again; connected again, it works.
func TestConsentFromTheFirstClickToTheCalendar(t *testing.T) {
	set, up := standins(t, standin.Options{}, "acme")
	id, secret := googleClient(t)
	flags := append(sharedStore(t), append(up, "--google-client-id", id, "KEYWARD_GOOGLE_CLIENT_SECRET="+secret)...)
	// Browsers come back to the first; the second has no listener for them.
	one, two := serve(t, memdir.New(t), append(slices.Clone(flags), "--admin-listen", "127.0.0.1:0")...), serve(t, memdir.New(t), flags...)
	callers := two.client("caller.sock")
	if got := calendars(callers); got != "424 credential_missing" {
		t.Fatalf("before: %s", got)
	}
	finish := func() {
		t.Helper()
		resp, err := http.Get(one.consent())
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Fatalf("callback: %d %s", resp.StatusCode, resp.Header.Get("Keyward-Error"))
		}
		for end := time.Now().Add(time.Minute); calendars(callers) != "200"; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("connected, and the calendar says %s", calendars(callers))
			}
		}
	}
	finish()
	set.Revoke("acme")
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_ = calendars(callers)
		_, shown := one.admin("GET", acmeGoogle, "")
		if shown["verification"] == "invalid" && shown["reconnect"] == acmeGoogle+"/connect" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("taken back, and shown as %v", shown)
		}
	}
	finish()
	if _, shown := two.admin("GET", acmeGoogle, ""); shown["reconnect"] != nil || shown["verification"] != "valid" {
		t.Errorf("%v", shown)
	}
}

// Two sidecars renew at the same time at a provider that replaces the refresh token whenever it is used, and voids the old one: whoever
// comes second goes on with what the first was given, and what is stored is what is good.
func TestReplacedRefreshTokensOfTwoSidecars(t *testing.T) { // beside no other: a change must be with every sidecar within a second
	set, up := standins(t, standin.Options{RotateRefresh: true}, "acme")
	flags := append(sharedStore(t), up...)
	one, two := serve(t, memdir.New(t), flags...), serve(t, memdir.New(t), flags...)
	one.must(sampleJSON(t, "acme", "google_calendar"), "credentials", "set", "--org", "acme", "--provider", "google_calendar")
	clients := []*http.Client{one.client("caller.sock"), two.client("caller.sock")}
	for round := range 8 {
		set.ExpireTokens("acme")
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				if got := calendars(clients[i%2]); got != "200" {
					t.Errorf("round %d: %s", round, got)
				}
			})
		}
		all.Wait()
		time.Sleep(400 * time.Millisecond)
	}
	_, shown := two.admin("GET", acmeGoogle, "")
	kept, _ := shown["fields"].(map[string]any)["refresh_token"].(string)
	if good := set.RefreshToken("acme"); len(kept) < 5 || !strings.HasSuffix(good, strings.TrimPrefix(kept, "…")) {
		t.Errorf("kept %s, and good is another", kept)
	}
	if shown["reconnect"] != nil || shown["is_active"] != true {
		t.Errorf("%v", shown)
	}
	t.Logf("%d exchanges", len(set.AccessTokens("acme")))
}
