package assistant

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/internal/storetest"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/standin"
	"github.com/keyward/keyward/store"
)

var by = store.Actor{Name: "test", From: "process"}

// A world is a store, a stand-in of Vapi, and as many sidecars' managers as the test wants.
type world struct {
	t    testing.TB
	url  string // of the store
	keys *seal.Keyring
	vapi *standin.Set
	db   *store.DB // the test's own view

	mu    sync.Mutex
	asked []string // method and path, in order
}

func newWorld(t testing.TB, url string, orgs ...string) *world {
	t.Helper()
	w := &world{t: t, url: url, keys: seal.Generate(), vapi: standin.New(standin.Options{Keep: -1})}
	t.Cleanup(func() { _ = w.vapi.Close() })
	if _, err := w.vapi.Start(); err != nil {
		t.Fatal(err)
	}
	w.db = w.open()
	if _, err := w.db.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, org := range orgs {
		w.org(org)
	}
	return w
}

func (w *world) open() *store.DB {
	w.t.Helper()
	db, err := store.Open(context.Background(), w.url, store.Options{Log: zerolog.Nop()})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = db.Close() })
	return db
}

// org gives an org a credential and an agent for each role.
func (w *world) org(org string) {
	w.t.Helper()
	for _, c := range standin.Sample(org) {
		if c.Provider != standin.Vapi {
			continue
		}
		w.vapi.Expect(c)
		values, bad := provider.Vapi.Parse(c.JSON())
		if len(bad) > 0 {
			w.t.Fatal(bad)
		}
		k := &credential.Keeper{DB: w.db, Keys: w.keys}
		if _, err := k.Put(context.Background(), by, store.Ref{Org: org, Provider: "vapi"}, values, credential.PutOptions{}); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, role := range []string{store.Inbound, store.Outbound} {
		w.agent(org, role, `{"firstMessage":"Hello, `+role+`","model":{"provider":"openai","model":"gpt-4o","temperature":0.7},"silenceTimeoutSeconds":30}`)
	}
}

func (w *world) agent(org, role, config string) {
	w.t.Helper()
	if err := w.db.PutAgent(context.Background(), by, &store.Agent{Org: org, Role: role, Name: "Front desk " + role, Config: []byte(config)}, -1); err != nil {
		w.t.Fatal(err)
	}
}

// manager is one sidecar's, with a connection to the store of its own.
func (w *world) manager(change ...func(*Options)) *Manager {
	w.t.Helper()
	o := Options{
		Keeper: &credential.Keeper{DB: w.open(), Keys: w.keys}, Ask: w.ask, Log: zerolog.Nop(), Limit: 20 * time.Second,
		lease: 20 * time.Second, settle: 200 * time.Millisecond, later: time.Second,
	}
	for _, f := range change {
		f(&o)
	}
	m := New(o)
	w.t.Cleanup(m.Close)
	return m
}

// ask asks the stand-in, as the proxy does.
func (w *world) ask(ctx context.Context, q *provider.Question) (provider.Reply, error) {
	defer q.Wipe()
	r := provider.Request{Method: []byte(q.Method), Host: q.Provider.DefaultHost(q.Secret), Path: []byte(q.Path)}
	if err := q.Provider.Inject(&r, q.Secret); err != nil {
		return provider.Reply{}, err
	}
	w.mu.Lock()
	path, _, _ := strings.Cut(q.Path, "?")
	w.asked = append(w.asked, q.Method+" "+path)
	w.mu.Unlock()
	req, err := http.NewRequestWithContext(ctx, q.Method, w.vapi.URL()+q.Path, bytes.NewReader(q.Body))
	if err != nil {
		return provider.Reply{}, err
	}
	req.Host = r.Host
	req.Header.Set(r.Header, string(r.Value))
	req.Header.Set("Content-Type", q.Type)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return provider.Reply{}, &provider.NoAnswerError{Code: "upstream_unreachable", Detail: "no answer", Sent: true}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return provider.Reply{}, &provider.NoAnswerError{Code: "upstream_unreachable", Detail: "half an answer", Sent: true}
	}
	reply := provider.Reply{Status: resp.StatusCode, Body: b}
	if resp.StatusCode == http.StatusTooManyRequests {
		reply.RetryAfter = 20 * time.Millisecond // the stand-in's second is long for a test
	}
	return reply, nil
}

// count is how often Vapi was asked with that method and the beginning of a path.
func (w *world) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, one := range w.asked {
		if strings.HasPrefix(one, what) {
			n++
		}
	}
	return n
}

// ensure must succeed.
func (w *world) ensure(m *Manager, org, role string) Result {
	w.t.Helper()
	r, err := m.Ensure(w.t.Context(), by, org, role)
	if err != nil {
		w.t.Fatalf("%s %s: %v", org, role, err)
	}
	return r
}

// holds fails the test unless the org has exactly one assistant for the role at Vapi, and exactly that one is mapped.
func (w *world) holds(org, role string) string {
	w.t.Helper()
	var ids []string
	for _, a := range w.vapi.Made(org, standin.Vapi, "assistant") {
		metadata, _ := a["metadata"].(map[string]any)
		if metadata[markRole] == role && metadata[markOrg] == org {
			ids = append(ids, a["id"].(string))
		}
	}
	mapped, err := w.db.AssistantsOf(context.Background(), org, role)
	if err != nil {
		w.t.Fatal(err)
	}
	if len(ids) != 1 || len(mapped) != 1 || mapped[0].ID != ids[0] {
		w.t.Fatalf("%s %s: Vapi has %v, mapped are %v", org, role, ids, mapped)
	}
	return ids[0]
}

// remote is the assistant as Vapi has it.
func (w *world) remote(org, id string) map[string]any {
	for _, a := range w.vapi.Made(org, standin.Vapi, "assistant") {
		if a["id"] == id {
			return a
		}
	}
	return nil
}

// isError says whether err is an Error of that status and code.
func isError(err error, status int, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status && e.Code == code
}

var sqliteURL = storetest.SQLite

func engines(t *testing.T, test func(t *testing.T, url string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, sqliteURL(t)) })
	t.Run("postgres", func(t *testing.T) { test(t, storetest.Postgres(t)) })
}

// late has the first POST given up, and come to Vapi when arrive is called, which returns when it was done.
func (w *world) late(ask func(context.Context, *provider.Question) (provider.Reply, error)) (asks func(context.Context, *provider.Question) (provider.Reply, error), arrive func()) {
	var first sync.Once
	begin, done := make(chan struct{}), make(chan struct{})
	asks = func(ctx context.Context, q *provider.Question) (provider.Reply, error) {
		late := false
		if q.Method == http.MethodPost {
			first.Do(func() { late = true })
		}
		if !late {
			return ask(ctx, q)
		}
		go func() {
			defer close(done)
			<-begin
			if _, err := ask(context.WithoutCancel(ctx), q); err != nil {
				w.t.Errorf("the late request: %v", err)
			}
		}()
		return provider.Reply{}, &provider.NoAnswerError{Code: "upstream_timeout", Detail: "no answer in time", Sent: true}
	}
	return asks, func() { close(begin); <-done }
}
