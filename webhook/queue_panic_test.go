package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/store"
)

// TestQueueOutlivesPanics has what the queue calls panic, with the webhook's body as the panic's value: the process lives, everything is
// delivered all the same, and the body is neither printed nor stored as the problem.
func TestQueueOutlivesPanics(t *testing.T) {
	const deliveries, secret = 60, "secret-of-the-tenant"
	db := openStore(t, stores["sqlite"](t))
	a := newTaker(t, nil)
	log := &lockedText{}
	var logged, sent, panics atomic.Int64
	hook := zerolog.HookFunc(func(*zerolog.Event, zerolog.Level, string) {
		if logged.Add(1)%7 == 0 {
			panics.Add(1)
			panic(errors.New(secret))
		}
	})
	q := NewQueue(QueueOptions{Store: db, Keys: queueKeys, Log: zerolog.New(log).Hook(hook), Backoff: 1, BackoffMax: 1, Attempts: 100, Poll: 20 * time.Millisecond, Lease: 400 * time.Millisecond})
	to, err := parseTarget(a.url)
	if err != nil {
		t.Fatal(err)
	}
	inner := q.targets.to(to)
	for at := range q.targets.all {
		q.targets.all[at] = wayFunc{inner, func(ctx context.Context, r *question) (*appAnswer, error) {
			if sent.Add(1)%3 == 0 {
				panics.Add(1)
				panic(secret)
			}
			return inner.ask(ctx, r)
		}}
	}
	go q.Run()
	t.Cleanup(func() { _ = q.Shutdown(t.Context()) })
	var all []*store.Delivery
	for i := range deliveries {
		all = append(all, take(t, q, a.url, fmt.Sprint("group", i), secret))
	}
	for _, d := range all {
		isDone(t, db, d, store.Delivered)
	}
	if n := panics.Load(); n < deliveries/3 {
		t.Errorf("only %d panics", n)
	}
	if text := log.String(); strings.Contains(text, secret) || !strings.Contains(text, "panicked with a string") {
		t.Errorf("the log quotes a panic's value, or does not say that there was one:\n%s", text)
	}
	eventually(t, "nothing is under way", func() bool { return q.Stats().UnderWay.Load() == 0 })
}

type lockedText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A wayFunc is a way to an app that asks differently.
type wayFunc struct {
	way
	asks func(context.Context, *question) (*appAnswer, error)
}

func (w wayFunc) ask(ctx context.Context, q *question) (*appAnswer, error) { return w.asks(ctx, q) }
