package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/internal/canary"
	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/internal/storetest"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// A server is the API on a real unix socket and a real TCP port, over a real store.
type server struct {
	t      testing.TB
	db     *store.DB
	keeper *credential.Keeper
	log    *logBuffer
	socket string
	tcp    string
	http   *http.Client
	known  canary.Set // the secrets that were sent
}

// logBuffer is a log that can be read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *logBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

var sqliteURL = storetest.SQLite

// newServer runs the API; change may alter the options.
func newServer(t testing.TB, url string, change ...func(*Options)) *server {
	t.Helper()
	ctx := context.Background()
	s := &server{t: t, log: &logBuffer{}}
	log := zerolog.New(s.log)
	db, err := store.Open(ctx, url, store.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.MigrateUp(ctx); err != nil {
		t.Fatal(err)
	}
	s.db, s.keeper = db, &credential.Keeper{DB: db, Keys: seal.Generate()}
	o := Options{DB: db, Keeper: s.keeper, Log: log, UID: uint32(os.Geteuid()), Version: "test", Local: nothingLocal}
	for _, f := range change {
		f(&o)
	}
	dir := memdir.New(t)
	s.socket = filepath.Join(dir, "admin.sock")
	srv := New(o).Server()
	for _, at := range [][2]string{{"unix", s.socket}, {"tcp", "127.0.0.1:0"}} {
		l, err := net.Listen(at[0], at[1])
		if err != nil {
			t.Fatal(err)
		}
		s.tcp = l.Addr().String()
		go func() { _ = srv.Serve(l) }()
	}
	s.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		var d net.Dialer
		if addr == "keyward:80" {
			return d.DialContext(ctx, "unix", s.socket)
		}
		return d.DialContext(ctx, "tcp", addr)
	}}}
	t.Cleanup(func() { s.http.CloseIdleConnections(); _ = srv.Close(); s.leftNoSecret() })
	return s
}

// leftNoSecret looks for every secret that was sent in the log and in the audit log.
func (s *server) leftNoSecret() {
	s.t.Helper()
	if leak := s.known.LeakOrToken(s.log.String()); leak != "" {
		s.t.Errorf("the log holds %s", leak)
	}
	events, err := s.db.Events(context.Background(), store.EventFilter{Limit: 1_000_000})
	if err != nil {
		return // the test has closed it, or taken it away
	}
	for _, e := range events {
		if leak := s.known.LeakOrToken(fmt.Sprintf("%+v", e)); leak != "" {
			s.t.Errorf("the audit log holds %s: %s by %q", leak, e.Action, e.Actor.Name)
		}
	}
}

// shows fails the test when an answer holds a secret. A new token is in one answer, and in no other.
func (s *server) shows(method, path string, a answer) {
	s.t.Helper()
	text := fmt.Sprint(a.header, a.body)
	leak := s.known.LeakOrToken(text)
	if method == http.MethodPost && a.status == http.StatusCreated && (path == "/api/callers" || path == "/api/admin-tokens") {
		leak = s.known.Leak(text)
	}
	if leak != "" {
		s.t.Errorf("the answer to %s %s holds %s", method, path, leak)
	}
}

// An answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) problem() Problem { var p Problem; _ = json.Unmarshal([]byte(a.body), &p); return p }

func (a answer) object(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	return m
}

// ask sends one request over the socket; headers are "Name: value".
func (s *server) ask(method, path, body string, headers ...string) answer {
	s.t.Helper()
	return s.askAt("http://keyward", method, path, body, headers...)
}

func (s *server) askAt(base, method, path, body string, headers ...string) answer {
	s.t.Helper()
	req, err := http.NewRequest(method, base+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			req.Host = value
		}
		req.Header.Add(name, value)
	}
	s.known.Learn(body)
	resp, err := s.http.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	a := answer{resp.StatusCode, resp.Header, string(b)}
	s.shows(method, path, a)
	c, err := theContract()
	if err != nil {
		s.t.Fatal(err)
	}
	c.hold(s.t, req, body, a)
	return a
}

// must asks and fails the test unless the status is the given one.
func (s *server) must(status int, method, path, body string, headers ...string) answer {
	s.t.Helper()
	a := s.ask(method, path, body, headers...)
	if a.status != status {
		s.t.Fatalf("%s %s: %d, want %d: %s", method, path, a.status, status, a.body)
	}
	return a
}

// refuse asks and fails the test unless the answer is that problem, whole.
func (s *server) refuse(status int, code, method, path, body string, headers ...string) Problem {
	s.t.Helper()
	return s.isProblem(s.ask(method, path, body, headers...), status, code)
}

func (s *server) isProblem(a answer, status int, code string) Problem {
	s.t.Helper()
	p := a.problem()
	if a.status != status || p.Status != status || p.Code != code || a.header.Get("Keyward-Error") != code {
		s.t.Fatalf("%d %s (Keyward-Error %q), want %d %s: %s", a.status, p.Code, a.header.Get("Keyward-Error"), status, code, a.body)
	}
	if a.header.Get("Content-Type") != "application/problem+json" || p.Type != "urn:keyward:error:"+code || p.Title == "" || p.Detail == "" {
		s.t.Fatalf("not a whole problem: %v %s", a.header, a.body)
	}
	if p.RequestID == "" || p.RequestID != a.header.Get("Keyward-Request-Id") {
		s.t.Fatalf("request_id %q, header %q", p.RequestID, a.header.Get("Keyward-Request-Id"))
	}
	return p
}

const (
	twilioSID   = "AC0123456789abcdef0123456789abcdef"
	twilioToken = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"
)

func twilioFields(sid, token string) string {
	return `{"account_sid":"` + sid + `","auth_token":"` + token + `"}`
}

func twilioBody(sid, token string) string { return `{"credentials":` + twilioFields(sid, token) + `}` }

const acmeTwilio = "/api/orgs/acme/integrations/twilio"

// engines runs a test on both stores.
func engines(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, sqliteURL(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, storetest.Postgres(t)) })
}

// nothingLocal switches nothing off.
var nothingLocal = Local{List: func() []LocalOff { return nil }, Set: func(store.Ref, bool) (bool, error) { return true, nil }}
