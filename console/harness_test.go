package console_test

import (
	"bufio"
	"bytes"
	"context"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/admin"
	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/console"
	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/internal/storetest"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// A server is the console beside the real API, on a real port, over a real store.
type server struct {
	t        *testing.T
	db       *store.DB
	keys     *seal.Keyring
	url      string
	operator string
	stop     chan struct{}
	log      *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *syncBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *syncBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func newServer(t *testing.T) *server {
	t.Helper()
	ctx := context.Background()
	s := &server{t: t, keys: seal.Generate(), stop: make(chan struct{}), log: &syncBuffer{}}
	log := zerolog.New(s.log)
	db, err := store.Open(ctx, storetest.SQLite(t), store.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.MigrateUp(ctx); err != nil {
		t.Fatal(err)
	}
	s.db = db
	api := admin.New(admin.Options{
		DB: db, Keeper: &credential.Keeper{DB: db, Keys: s.keys}, Log: log, UID: uint32(os.Geteuid()), Version: "test",
		Checks: []admin.Check{{Name: "store", Run: db.Ping}},
		Traffic: func() admin.Traffic {
			return admin.Traffic{Window: 10, Providers: []admin.ProviderTraffic{{Provider: "acme_api"}, {Provider: "untitled"}}}
		},
	})
	api.Mount(console.New(console.Options{API: api.Inside(), Log: log, Titles: map[string]string{"acme_api": "The Acme"}, Stop: s.stop}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "http://" + l.Addr().String()
	srv := api.Server()
	go func() { _ = srv.Serve(admin.Wiping(l)) }()
	t.Cleanup(func() { _ = srv.Close() })
	s.operator = s.token("ops", "")
	return s
}

// token makes an admin token: an operator's, or one that is bound to the org.
func (s *server) token(name, org string) string {
	s.t.Helper()
	plain, hash := caller.NewAdminToken()
	role := store.RoleOperator
	if org != "" {
		role = store.RoleOrg
	}
	if err := s.db.PutAdminToken(context.Background(), store.Actor{Name: "test"}, &store.AdminToken{Name: name, Hash: hash, Role: role, Org: org}); err != nil {
		s.t.Fatal(err)
	}
	return plain
}

// A person is a browser without a script.
type person struct {
	s    *server
	http *http.Client
	csrf string
}

// A secureJar sends Secure cookies to loopback over http, as browsers do.
type secureJar struct{ *cookiejar.Jar }

func (j secureJar) SetCookies(u *url.URL, c []*http.Cookie) { j.Jar.SetCookies(https(u), c) }
func (j secureJar) Cookies(u *url.URL) []*http.Cookie       { return j.Jar.Cookies(https(u)) }

func https(u *url.URL) *url.URL { v := *u; v.Scheme = "https"; return &v }

func (s *server) person() *person {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	p := &person{s: s, http: &http.Client{Jar: secureJar{jar}, Timeout: time.Minute}}
	s.t.Cleanup(p.http.CloseIdleConnections)
	return p
}

// loggedIn is a person with a session for the token.
func (s *server) loggedIn(token string) *person {
	s.t.Helper()
	p := s.person()
	if a := p.post("/login", "token", token); a.status != 200 || !strings.Contains(a.body, "Log out") {
		s.t.Fatalf("logging in: %d %s", a.status, a.body)
	}
	return p
}

type answer struct {
	status int
	path   string // after redirects
	header http.Header
	body   string
}

func (p *person) do(method, path, body string, headers ...string) answer {
	p.s.t.Helper()
	req, err := http.NewRequest(method, p.s.url+path, strings.NewReader(body))
	if err != nil {
		p.s.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Set(name, value)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		p.s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.s.t.Fatal(err)
	}
	if m := regexp.MustCompile(`name="csrf" value="([^"]+)"`).FindSubmatch(b); m != nil {
		p.csrf = string(m[1])
	}
	return answer{resp.StatusCode, resp.Request.URL.RequestURI(), resp.Header, string(b)}
}

func (p *person) get(path string) answer { p.s.t.Helper(); return p.do("GET", path, "") }

// post sends a form with the session's own token.
func (p *person) post(path string, pairs ...string) answer {
	p.s.t.Helper()
	q := url.Values{"csrf": {p.csrf}}
	for i := 0; i < len(pairs); i += 2 {
		q.Add(pairs[i], pairs[i+1])
	}
	return p.do("POST", path, q.Encode())
}

func (a answer) wants(t *testing.T, status int, texts ...string) {
	t.Helper()
	if a.status != status {
		t.Errorf("%s: %d, not %d", a.path, a.status, status)
	}
	for _, text := range texts {
		if !strings.Contains(html.UnescapeString(a.body), text) {
			t.Errorf("%s does not say %q:\n%s", a.path, text, a.body)
		}
	}
}

// open asks for a stream.
func (p *person) open(path string) *bufio.Reader {
	p.s.t.Helper()
	req, err := http.NewRequest("GET", p.s.url+path, nil)
	if err != nil {
		p.s.t.Fatal(err)
	}
	resp, err := p.http.Do(req)
	if err != nil {
		p.s.t.Fatal(err)
	}
	p.s.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		p.s.t.Fatalf("%s: %d %v", path, resp.StatusCode, resp.Header)
	}
	return bufio.NewReader(resp.Body)
}

// next is the data of the next event.
func next(t *testing.T, stream *bufio.Reader) string {
	t.Helper()
	for {
		line, err := stream.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			return data
		}
	}
}
