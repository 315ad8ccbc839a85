package webhook

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/internal/storetest"
	"github.com/keyward/keyward/store"
)

// stores are what the queue is tested on.
var stores = map[string]func(testing.TB) string{
	"sqlite":   storetest.SQLite,
	"postgres": storetest.Postgres,
}

func openStore(t testing.TB, url string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

// runQueue runs a queue that is in a hurry; change may alter its options.
func runQueue(t testing.TB, db *store.DB, change ...func(*QueueOptions)) *Queue {
	t.Helper()
	o := QueueOptions{Store: db, Keys: queueKeys, Log: zerolog.New(zerolog.NewTestWriter(t)), Backoff: 10 * time.Millisecond, BackoffMax: 40 * time.Millisecond, Timeout: 30 * time.Second, Lease: 20 * time.Second}
	for _, f := range change {
		f(&o)
	}
	q := NewQueue(o)
	go q.Run()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = q.Shutdown(ctx)
	})
	return q
}

// A taker is an app that writes down what it was sent. answer says with what it answers, and how often it was asked for this id.
type taker struct {
	url string
	mu  sync.Mutex
	got []taken
}

type taken struct {
	id, body, uri string
	header        http.Header
}

func newTaker(t testing.TB, answer func(got taken, nth int) int) *taker {
	a := &taker{}
	s := httptest.NewServer(a.handler(answer))
	t.Cleanup(s.Close)
	a.url = s.URL + "/hooks"
	return a
}

func (a *taker) handler(answer func(got taken, nth int) int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sidecar was killed in the middle of it
		}
		got := taken{r.Header.Get("Keyward-Delivery-Id"), string(body), r.RequestURI, r.Header}
		a.mu.Lock()
		nth := 1
		for _, g := range a.got {
			if g.id == got.id {
				nth++
			}
		}
		a.got = append(a.got, got)
		a.mu.Unlock()
		status := http.StatusNoContent
		if answer != nil {
			status = answer(got, nth)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}
}

func (a *taker) all() []taken { a.mu.Lock(); defer a.mu.Unlock(); return slices.Clone(a.got) }

func (a *taker) bodies() (bodies []string) {
	for _, g := range a.all() {
		bodies = append(bodies, g.body)
	}
	return bodies
}

func eventually(t testing.TB, what string, true func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !true(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came about: " + what)
		}
	}
}

func take(t testing.TB, q *Queue, target, group, body string) *store.Delivery {
	t.Helper()
	d := &store.Delivery{Org: "acme", Provider: "vapi", Type: "status-update", Group: group, Target: target, Method: "POST", Path: "/webhooks/vapi", Body: []byte(body)}
	if duplicate, err := q.Accept(t.Context(), d); err != nil || duplicate {
		t.Fatal(duplicate, err)
	}
	return d
}

func state(t testing.TB, db *store.DB, id string) *store.Delivery {
	t.Helper()
	d, err := db.Delivery(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func isDone(t testing.TB, db *store.DB, d *store.Delivery, want store.State) {
	t.Helper()
	eventually(t, string(want), func() bool { return state(t, db, d.ID).State == want })
}
