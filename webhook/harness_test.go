package webhook

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/cache"
	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/internal/storetest"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// A world is a server on a real store and a real cache, with an app behind it.
type world struct {
	t      testing.TB
	s      *Server
	db     *store.DB
	keeper *credential.Keeper
	app    *app
	url    string
	log    *lockedBuffer
	now    time.Time

	mu       sync.Mutex
	accepted []*store.Delivery
	down     bool // what is to be stored is not
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// An app records what it is sent, as it arrived, and answers as it is told.
type app struct {
	*httptest.Server
	mu     sync.Mutex
	got    []string
	bodies [][]byte
	answer http.HandlerFunc
}

func newApp(t testing.TB) *app {
	a := &app{}
	a.Server = httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(a.Server.Close)
	return a
}

func (a *app) serve(w http.ResponseWriter, r *http.Request) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\n", r.Method, r.RequestURI)
	for name, values := range r.Header {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	body, _ := io.ReadAll(r.Body)
	a.mu.Lock()
	a.got = append(a.got, b.String())
	a.bodies = append(a.bodies, body)
	answer := a.answer
	a.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"assistantId":"from the app"}`)
}

func (a *app) answers(h http.HandlerFunc) { a.mu.Lock(); defer a.mu.Unlock(); a.answer = h }

func (a *app) count() int { a.mu.Lock(); defer a.mu.Unlock(); return len(a.got) }

func (a *app) last() (head string, body []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.got) == 0 {
		return "", nil
	}
	return a.got[len(a.got)-1], a.bodies[len(a.bodies)-1]
}

var by = store.Actor{Name: "test", From: "test"}

const (
	vapiOrg  = "11111111-1111-4111-8111-111111111111"
	vapiOrg2 = "22222222-2222-4222-8222-222222222222"
	phoneID  = "33333333-3333-4333-8333-333333333333"
	acmeSID  = "AC0123456789abcdef0123456789abcdef"
	otherSID = "ACffffffffffffffffffffffffffffffff"
)

// newWorld has the orgs acme and globex.
func newWorld(t testing.TB, change ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, app: newApp(t), log: &lockedBuffer{}, now: time.Now()}
	db, err := store.Open(context.Background(), storetest.SQLite(t), store.Options{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.MigrateUp(context.Background()); err != nil {
		t.Fatal(err)
	}
	c, err := cache.New(db, cache.Options{Size: 100, TTL: time.Minute, MaxStale: time.Minute, FeedLive: db.FeedLive})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	w.db = db
	keys := seal.Generate()
	w.keeper = &credential.Keeper{DB: db, Keys: keys}
	o := Options{
		Store: c, Keys: keys, Log: zerolog.New(w.log), AccountOwner: db.AccountOwner, Now: func() time.Time { return w.now },
		Accept: func(ctx context.Context, d *store.Delivery) (bool, error) {
			if w.isDown() {
				return false, store.ErrUnavailable
			}
			duplicate, err := db.AcceptDelivery(ctx, d)
			if err == nil && !duplicate {
				w.mu.Lock()
				w.accepted = append(w.accepted, d)
				w.mu.Unlock()
			}
			return duplicate, err
		},
		Memory: &memory{db, w},
		Routes: []Route{{Target: w.app.URL + "/hooks"}},
	}
	for _, f := range change {
		f(&o)
	}
	if w.s, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		_ = db.Watch(ctx, func(ch store.Change) { c.Apply(ch); w.s.Apply(ch) })
	}()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "http://" + l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- w.s.Serve(l) }()
	t.Cleanup(func() {
		w.s.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		stop()
		<-watched
	})
	for org, values := range map[string]map[string]map[string]any{
		"acme": {
			"vapi":            {"api_key": "vapi-key-acme", "vapi_org_id": vapiOrg, "phone_number_ids": []string{phoneID}, "webhook_secret": "vapi_test"},
			"twilio":          {"account_sid": acmeSID, "auth_token": "12345"},
			"resend":          {"api_key": "re_acme", "webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
			"elevenlabs":      {"api_key": "sk_acme", "agent_ids": []string{"xyz"}, "webhook_secret": "wsec_test"},
			"google_calendar": {"client_id": "id", "client_secret": "cs", "refresh_token": "rt", "channel_token": "channel-token-acme"},
		},
		"globex": {
			"vapi":       {"api_key": "vapi-key-globex", "vapi_org_id": vapiOrg2, "webhook_secret": "globex_secret"},
			"twilio":     {"account_sid": otherSID, "auth_token": "98765"},
			"elevenlabs": {"api_key": "sk_globex", "agent_ids": []string{"their_agent"}, "webhook_secret": "wsec_globex"},
		},
	} {
		for name, fields := range values {
			w.set(org, name, fields)
		}
	}
	w.assistant("asst_acme", "acme")
	w.assistant("asst_globex", "globex")
	return w
}

// A memory is the store's, unless the store is down.
type memory struct {
	*store.DB
	w *world
}

func (m *memory) ClaimSeen(ctx context.Context, key string) (store.Claim, error) {
	if m.w.isDown() {
		return 0, store.ErrUnavailable
	}
	return m.DB.ClaimSeen(ctx, key)
}

func (m *memory) ConfirmSeen(ctx context.Context, key string, until time.Time) (bool, error) {
	if m.w.isDown() {
		return false, store.ErrUnavailable
	}
	return m.DB.ConfirmSeen(ctx, key, until)
}

func (w *world) isDown() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.down }

func (w *world) setDown(down bool) { w.mu.Lock(); defer w.mu.Unlock(); w.down = down }

// set stores an org's credential.
func (w *world) set(org, name string, fields map[string]any) {
	w.t.Helper()
	data, err := json.Marshal(fields)
	if err != nil {
		w.t.Fatal(err)
	}
	values, bad := provider.Named(name).Parse(data)
	if len(bad) > 0 {
		w.t.Fatalf("%s %s: %v", org, name, bad)
	}
	if _, err := w.keeper.Put(context.Background(), by, store.Ref{Org: org, Provider: name}, values, credential.PutOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) assistant(id, org string) {
	w.t.Helper()
	if err := w.db.PutAssistant(context.Background(), by, &store.Assistant{ID: id, Org: org}, -1); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) deliveries() []*store.Delivery {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*store.Delivery(nil), w.accepted...)
}

// A sent is the answer to a delivery.
type sent struct {
	status int
	header http.Header
	body   string
	last   bool // the connection closes behind it
}

// post sends a delivery; headers are "Name: value".
func (w *world) post(target, body string, headers ...string) sent {
	w.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: hooks.example\r\nContent-Length: %d\r\n", target, len(body))
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	return w.raw(b.String() + "\r\n" + body)
}

// raw sends bytes over a connection of its own.
func (w *world) raw(request string) sent {
	w.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		w.t.Fatalf("reading the answer: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatalf("reading the answer's body: %v", err)
	}
	return sent{resp.StatusCode, resp.Header, string(body), resp.Close}
}

// vapi sends a Vapi message of acme's with the shared secret; the members go into "message".
func vapi(members string) string { return `{"message":{` + members + `}}` }

const acmeSecret = "X-Vapi-Secret: vapi_test"
