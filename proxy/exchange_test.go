package proxy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/store"
)

// google is a calendar and its token endpoint: it gives out numbered access tokens for refresh tokens that it knows.
type google struct {
	mu      sync.Mutex
	refresh string // the one that is good
	n       int    // of the newest access token
	good    string // access token
	rotate  bool
	life    int
	asked   atomic.Int64
	seen    []string // Authorization values at the calendar
	bodies  []string
}

func (g *google) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.Host == "oauth2.googleapis.com" {
		g.asked.Add(1)
		_ = r.ParseForm()
		w.Header().Set("Content-Type", "application/json")
		if r.PostForm.Get("refresh_token") != g.refresh || r.PostForm.Get("client_secret") != "client-secret-acme" || r.PostForm.Get("grant_type") != "refresh_token" {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"error":"invalid_grant","error_description":"Token has been expired or revoked."}`)
			return
		}
		g.n++
		g.good = fmt.Sprintf("ya29.token-%d", g.n)
		rotated := ""
		if g.rotate {
			g.refresh = fmt.Sprintf("refresh-acme-%d", g.n+1)
			rotated = fmt.Sprintf(`,"refresh_token":%q`, g.refresh)
		}
		_, _ = fmt.Fprintf(w, `{"access_token":%q,"expires_in":%d,"token_type":"Bearer"%s}`, g.good, g.life, rotated)
		return
	}
	b, _ := io.ReadAll(r.Body)
	g.seen = append(g.seen, r.Header.Get("Authorization"))
	g.bodies = append(g.bodies, string(b))
	if r.Header.Get("Authorization") != "Bearer "+g.good {
		w.WriteHeader(401)
		_, _ = io.WriteString(w, `{"error":{"code":401,"message":"Invalid Credentials"}}`)
		return
	}
	_, _ = io.WriteString(w, "calendar")
}

func newGoogle(t *testing.T, g *google, change ...func(*Options)) *world {
	t.Helper()
	if g.life == 0 {
		g.life = 3599
	}
	g.refresh = "refresh-acme-1"
	srv := httptest.NewServer(g)
	t.Cleanup(srv.Close)
	return newWorld(t, srv.URL, change...)
}

const calendar = "GET /calendar/v3/users/me/calendarList HTTP/1.1\r\nHost: www.googleapis.com\r\nKeyward-Org: acme\r\n\r\n"

func TestTokenIsMintedOnceAndKept(t *testing.T) {
	g := &google{}
	w := newGoogle(t, g)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if resp := w.raw("unix", calendar); resp.StatusCode != 200 {
				t.Errorf("status %d: %s", resp.StatusCode, bodyOf(resp))
			}
		})
	}
	all.Wait()
	if n := g.asked.Load(); n != 1 {
		t.Errorf("50 requests asked for %d tokens, want 1", n)
	}
}

func TestTokenIsRenewedEarly(t *testing.T) {
	g := &google{life: 61} // a second more than the margin
	w := newGoogle(t, g)
	w.raw("unix", calendar)
	time.Sleep(1100 * time.Millisecond)
	w.raw("unix", calendar)
	if n := g.asked.Load(); n != 2 {
		t.Errorf("asked for %d tokens, want a second one before the first had ended", n)
	}
}

func TestTokenIsRenewedOnceOnA401(t *testing.T) {
	for name, head := range map[string]string{
		"without a body": calendar,
		"with a body":    "POST /calendar/v3/calendars/primary/events HTTP/1.1\r\nHost: www.googleapis.com\r\nKeyward-Org: acme\r\nContent-Length: 4\r\n\r\nbody",
	} {
		t.Run(name, func(t *testing.T) {
			g := &google{}
			w := newGoogle(t, g)
			w.raw("unix", head)
			g.mu.Lock()
			g.good = "revoked meanwhile"
			g.mu.Unlock()
			if resp := w.raw("unix", head); resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
			if n := g.asked.Load(); n != 2 {
				t.Errorf("asked for %d tokens, want 2", n)
			}
			if name == "with a body" && g.bodies[2] != "body" {
				t.Errorf("bodies %q", g.bodies)
			}
		})
	}
}

func TestSecond401IsPassedOn(t *testing.T) {
	g := &google{}
	w := newGoogle(t, g)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		g.mu.Lock()
		g.seen = append(g.seen, r.Header.Get("Authorization"))
		g.mu.Unlock()
		rw.WriteHeader(401)
	}))
	defer srv.Close()
	to, _ := url.Parse(srv.URL)
	oauth := *w.p.at([]byte("oauth2.googleapis.com"))
	back, _ := url.Parse("http://" + oauth.address)
	if err := w.p.SetUpstreams(map[string]*url.URL{"www.googleapis.com": to, "oauth2.googleapis.com": back}); err != nil {
		t.Fatal(err)
	}
	if resp := w.raw("unix", calendar); resp.StatusCode != 401 || problemCode(resp) != "" {
		t.Errorf("got %d %q, want the provider's own 401", resp.StatusCode, problemCode(resp))
	}
	if len(g.seen) != 2 || g.seen[0] == g.seen[1] {
		t.Errorf("the calendar saw %q, want two different tokens", g.seen)
	}
}

func TestRejectedCredential(t *testing.T) {
	g := &google{}
	w := newGoogle(t, g)
	g.refresh = "another"
	for range 3 {
		if resp := w.raw("unix", calendar); resp.StatusCode != 424 || problemCode(resp) != "credential_rejected" {
			t.Errorf("got %d %q", resp.StatusCode, problemCode(resp))
		}
	}
	if n := g.asked.Load(); n != 1 {
		t.Errorf("the token endpoint was asked %d times for a credential it had rejected", n)
	}
	w.set("acme", "google_calendar", strings.Replace(credentialsOf["acme"]["google_calendar"], "refresh-acme-1", "another", 1), 2)
	if resp := w.raw("unix", calendar); resp.StatusCode != 200 {
		t.Errorf("after the credential was replaced: %d", resp.StatusCode)
	}
}

func TestRotatedRefreshTokenIsStored(t *testing.T) {
	g := &google{rotate: true}
	var w *world
	var stored []string
	w = newGoogle(t, g, func(o *Options) {
		o.Rotated = func(_ context.Context, row *store.Credential, field string, value []byte) (int64, error) {
			stored = append(stored, field+"="+string(value))
			w.set(row.Org, row.Provider, strings.Replace(credentialsOf["acme"]["google_calendar"], "refresh-acme-1", string(value), 1), row.Version+1)
			return row.Version + 1, nil
		}
	})
	for i := range 3 {
		if resp := w.raw("unix", calendar); resp.StatusCode != 200 {
			t.Fatalf("request %d: %d %s", i, resp.StatusCode, bodyOf(resp))
		}
		w.raw("unix", calendar) // the new version of the credential needs no new token
		g.mu.Lock()
		g.good = "revoked meanwhile"
		g.mu.Unlock()
	}
	if got := fmt.Sprint(stored); got != "[refresh_token=refresh-acme-2 refresh_token=refresh-acme-3 refresh_token=refresh-acme-4]" {
		t.Errorf("stored %s", got)
	}
}

// TestPathPassesAsItCame: where no rule and no secret route applies, not a byte of the path is looked at twice.
func TestPathPassesAsItCame(t *testing.T) {
	g := &google{life: 3599, refresh: "refresh-acme-1"}
	seen := make(chan string, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Host != "oauth2.googleapis.com" {
			seen <- r.RequestURI
		}
		g.ServeHTTP(rw, r)
	}))
	defer srv.Close()
	w := newWorld(t, srv.URL)
	const path = "/calendar/v3/calendars/a%40b%2Fc//d/%2e/../e%23;x?q=%41&&z"
	w.raw("unix", "GET "+path+" HTTP/1.1\r\nHost: www.googleapis.com\r\nKeyward-Org: acme\r\n\r\n")
	if got := <-seen; got != path {
		t.Errorf("got %q, want %q", got, path)
	}
}

func TestGoogleParametersAreDropped(t *testing.T) {
	g := &google{}
	seen := make(chan string, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Host != "oauth2.googleapis.com" {
			seen <- r.URL.RawQuery
		}
		g.ServeHTTP(rw, r)
	}))
	defer srv.Close()
	g.life, g.refresh = 3599, "refresh-acme-1"
	w := newWorld(t, srv.URL)
	for query, want := range map[string]string{
		"key=k&maxResults=1":          "maxResults=1",
		"maxResults=1&access_token=t": "maxResults=1",
		"oauth_token=t":               "",
		"a=1&%6Bey=k&b=2":             "a=1&b=2",
		"keys=1&mykey=2&q=key%3D":     "keys=1&mykey=2&q=key%3D",
	} {
		w.raw("unix", strings.Replace(calendar, " HTTP", "?"+query+" HTTP", 1))
		if got := <-seen; got != want {
			t.Errorf("%q became %q, want %q", query, got, want)
		}
	}
}
