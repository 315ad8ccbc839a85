package admin

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestOverTCPOnlyTheProbesAnswerWithoutAToken(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	tcp := "http://" + s.tcp
	for _, path := range []string{"/healthz", "/readyz", "/readyz?verbose"} {
		if a := s.askAt(tcp, "GET", path, ""); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, path := range []string{"/api/orgs", "/api/audit", "/api/openapi.json", acmeTwilio, "/no/such/path", "/"} {
		a := s.askAt(tcp, "GET", path, "")
		if p := s.isProblem(a, 401, "unauthenticated"); !strings.Contains(p.Detail, "socket") || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("does not say what is needed: %s", p.Detail)
		}
	}
}

func TestOverTCPWebPagesAreRefused(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	tcp := "http://" + s.tcp
	refuse := func(code, header string) {
		t.Helper()
		s.isProblem(s.askAt(tcp, "GET", "/readyz", "", header), 403, code)
		s.isProblem(s.askAt(tcp, "GET", "/api/orgs", "", header), 403, code)
	}
	refuse("host_forbidden", "Host: evil.example")
	refuse("host_forbidden", "Host: evil.example:7452")
	refuse("host_forbidden", "Host: 192.0.2.7")
	refuse("host_forbidden", "Host: localhost.evil.example")
	refuse("browser_request", "Origin: http://evil.example")
	refuse("browser_request", "Origin: null")
	refuse("browser_request", "Sec-Fetch-Site: cross-site")
	refuse("browser_request", "Sec-Fetch-Site: same-site")
	for _, header := range []string{"Host: localhost:7452", "Host: [::1]:7452", "Host: keyward.localhost", "Origin: http://" + s.tcp, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"} {
		if a := s.askAt(tcp, "GET", "/readyz", "", header); a.status != 200 {
			t.Errorf("%s: %d %s", header, a.status, a.body)
		}
	}
}

func TestReadyzSaysWhatIsWrong(t *testing.T) {
	var feed, keys error
	s := newServer(t, sqliteURL(t), func(o *Options) {
		o.Checks = []Check{
			{Name: "store", Run: func(context.Context) error { return nil }},
			{Name: "feed", Run: func(context.Context) error { return feed }, Degrades: true},
			{Name: "keys", Run: func(context.Context) error { return keys }},
		}
	})
	tell := func(status int, short, long string) {
		t.Helper()
		if a := s.ask("GET", "/readyz", ""); a.status != status || a.body != short {
			t.Errorf("%d %q", a.status, a.body)
		}
		if a := s.ask("GET", "/readyz?verbose", ""); a.status != status || a.body != long+short {
			t.Errorf("%d %q", a.status, a.body)
		}
	}
	tell(200, "ok\n", "[+]store ok\n[+]feed ok\n[+]keys ok\n")
	feed = errors.New("cable cut")
	tell(200, "degraded\n", "[+]store ok\n[!]feed failed: cable cut\n[+]keys ok\n")
	keys = errors.New("none")
	tell(503, "not ready\n", "[+]store ok\n[!]feed failed: cable cut\n[-]keys failed: none\n")
	if a := s.askAt("http://"+s.tcp, "GET", "/readyz?verbose", ""); strings.Contains(a.body, "cable") {
		t.Errorf("TCP tells the reason: %q", a.body)
	}
	if a := s.ask("GET", "/healthz", ""); a.status != 200 || a.body != "ok\n" {
		t.Errorf("alive is not ready: %d %q", a.status, a.body)
	}
}

func TestReadyzDoesNotHang(t *testing.T) {
	free := make(chan struct{})
	defer close(free)
	s := newServer(t, sqliteURL(t), func(o *Options) {
		o.Checks = []Check{{Name: "stuck", Run: func(context.Context) error { <-free; return nil }}}
	})
	start := time.Now()
	if a := s.ask("GET", "/readyz?verbose", ""); a.status != 503 || !strings.Contains(a.body, "[-]stuck failed: no answer in time") {
		t.Errorf("%d %q", a.status, a.body)
	}
	if took := time.Since(start); took > checkTimeout+8*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	for _, path := range []string{"/", "/api", "/api/", "/api/orgs/", "/api/orgs//integrations", "/api/../api/orgs", "/api/orgs/acme/integrations/twilio/", "/api/orgs/a/../b/integrations"} {
		s.refuse(404, "not_found", "GET", path, "")
	}
	for _, org := range []string{"a%2F..%2Fb", "%2E%2E"} { // encoded, it is a name, and no org has such a one
		s.refuse(400, "bad_request", "GET", "/api/orgs/"+org+"/integrations", "")
	}
	a := s.ask("POST", acmeTwilio, "{}")
	s.isProblem(a, 405, "method_not_allowed")
	if a.header.Get("Allow") != "DELETE, GET, HEAD, PATCH, PUT" {
		t.Errorf("Allow: %s", a.header.Get("Allow"))
	}
	if a := s.must(200, "HEAD", "/api/orgs", ""); a.body != "" {
		t.Errorf("HEAD with a body")
	}
}

func TestPanicIsA500WithoutItsValue(t *testing.T) {
	s := newServer(t, sqliteURL(t), func(o *Options) { o.Stats = func() map[string]any { panic("s3cret value") } })
	s.refuse(500, "internal_error", "GET", "/api/stats", "")
	if log := s.log.String(); strings.Contains(log, "s3cret") || !strings.Contains(log, "peer_test.go") {
		t.Errorf("the log should hold the stack and not the value: %s", log)
	}
	s.must(200, "GET", "/api/orgs", "")
}
