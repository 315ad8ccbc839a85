package cache

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyward/keyward/store"
)

func TestManyMissesAreOneLoad(t *testing.T) {
	f := newFake()
	f.put(acme, 1)
	f.whileReading(func(context.Context, string) error { time.Sleep(5 * time.Millisecond); return nil })
	c := newCache(t, f, Options{FeedLive: always, NegativeTTL: time.Hour, LoadTimeout: time.Hour})
	for _, ref := range []store.Ref{acme, {Org: "nobody", Provider: "twilio"}} {
		f.reads.Store(0)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				<-start
				if i%4 == 0 { // and those who come when it has just landed
					time.Sleep(5 * time.Millisecond)
				}
				row, _, err := c.Credential(context.Background(), ref)
				if ref == acme && (err != nil || row.Org != "acme") || ref != acme && !errors.Is(err, store.ErrNotFound) {
					t.Errorf("%v: %v, %v", ref, row, err)
				}
			})
		}
		close(start)
		wg.Wait()
		if n := f.reads.Load(); n != 1 {
			t.Errorf("%v: 1,000 callers made %d loads", ref, n)
		}
	}
}

// A full cache of busy orgs does not let a new one in at its first request; those who come just after it do not load it again all the same.
func TestManyMissesAreOneLoadWhenTheCacheIsFull(t *testing.T) {
	f := newFake()
	c := newCache(t, f, Options{Size: 16, FeedLive: always})
	for i := range 16_000 {
		busy := store.Ref{Org: "busy" + string(rune('a'+i%16)), Provider: "twilio"}
		if i < 16 {
			f.put(busy, 1)
		}
		version(t, c, busy)
	}
	for i := range 20 {
		quiet := store.Ref{Org: "quiet" + string(rune('a'+i)), Provider: "twilio"}
		f.put(quiet, 1)
		f.reads.Store(0)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				for range 20 {
					if row, _, err := c.Credential(context.Background(), quiet); err != nil || row.Ref != quiet {
						t.Errorf("%v: %v, %v", quiet, row, err)
					}
				}
			})
		}
		wg.Wait()
		if n := f.reads.Load(); n != 1 {
			t.Errorf("%v: 1,000 requests made %d loads", quiet, n)
		}
		f.put(quiet, 2)
		c.Apply(changed(quiet))
		if v := version(t, c, quiet); v != 2 {
			t.Errorf("%v: version %d after a change", quiet, v)
		}
	}
}

// The load is the cache's own: the caller that set it off may go away without failing those who joined.
func TestCallerGoesAway(t *testing.T) {
	f := newFake()
	f.put(acme, 1)
	inside, release := make(chan struct{}), make(chan struct{})
	f.whileReading(func(ctx context.Context, _ string) error {
		close(inside)
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	c := newCache(t, f, Options{FeedLive: always, LoadTimeout: time.Hour})
	first, cancel := context.WithCancel(context.Background())
	gone := make(chan error)
	go func() {
		_, _, err := c.Credential(first, acme)
		gone <- err
	}()
	<-inside
	stays := make(chan error)
	go func() {
		_, _, err := c.Credential(context.Background(), acme)
		stays <- err
	}()
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the one that went away got %v", err)
	}
	close(release)
	if err := <-stays; err != nil {
		t.Errorf("the one that stayed got %v", err)
	}
	if n := f.reads.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}
}

// A row that a change has overtaken is not handed out once it may be older than a revoked one is allowed to be.
func TestSlowLoadIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put(acme, 1)
		c, err := New(f, Options{FeedLive: always, LoadTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f.whileReading(func(context.Context, string) error { time.Sleep(2 * time.Second); return nil })
		got := make(chan int64)
		go func() { got <- version(t, c, acme) }()
		time.Sleep(100 * time.Millisecond)
		f.put(acme, 2)
		c.Apply(changed(acme))
		if v := <-got; v != 2 {
			t.Errorf("served version %d, 1.9 s after it was replaced", v)
		}
	})
}

// While changes go unheard, who joins a load that began more than a second ago is not answered with what it has read: it may be long replaced.
func TestSlowLoadIsNotJoinedForLongWhileTheFeedIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put(acme, 1)
		c, err := New(f, Options{FeedLive: never, LoadTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f.whileReading(func(context.Context, string) error { time.Sleep(2 * time.Second); return nil })
		first := make(chan int64)
		go func() { first <- version(t, c, acme) }()
		time.Sleep(100 * time.Millisecond)
		f.put(acme, 2)
		time.Sleep(500 * time.Millisecond)
		soon := make(chan int64)
		go func() { soon <- version(t, c, acme) }()
		time.Sleep(900 * time.Millisecond)
		if v := version(t, c, acme); v != 2 {
			t.Errorf("version %d, asked for 1.4 s after it was replaced", v)
		}
		if a, b, n := <-first, <-soon, f.reads.Load(); a != 1 || b != 1 || n != 2 {
			t.Errorf("those who came within a second got versions %d and %d, after %d reads", a, b, n)
		}
	})
}

// One that changes faster than it can be read is refused in the end, not read for ever.
func TestRowThatChangesAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put(acme, 1)
		c, err := New(f, Options{FeedLive: always, LoadTimeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f.whileReading(func(context.Context, string) error {
			c.Apply(changed(acme))
			time.Sleep(2 * time.Second)
			return nil
		})
		if _, _, err := c.Credential(t.Context(), acme); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}

// A store that answers with someone else's row is not believed.
func TestForeignRow(t *testing.T) {
	f := newFake()
	f.credentials[acme] = &store.Credential{Ref: store.Ref{Org: "globex", Provider: "twilio"}}
	f.assistants["a"] = &store.Assistant{ID: "b", Org: "globex"}
	f.tokens[[32]byte{1}] = &store.Token{Hash: [32]byte{2}}
	for name, ask := range map[string]func(*Cache) error{
		"credential": func(c *Cache) error { _, _, err := c.Credential(t.Context(), acme); return err },
		"assistant":  func(c *Cache) error { _, err := c.Assistant(t.Context(), "a"); return err },
		"token":      func(c *Cache) error { _, err := c.Token(t.Context(), [32]byte{1}); return err },
	} {
		if err := ask(newCache(t, f, Options{FeedLive: always})); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An error of another sort is an ErrUnavailable too, with its cause: the Reader's contract knows no others.
func TestOtherErrors(t *testing.T) {
	f := newFake()
	cause := errors.New("no such column")
	f.whileReading(func(context.Context, string) error { return cause })
	c := newCache(t, f, Options{FeedLive: always})
	if _, _, err := c.Credential(t.Context(), acme); !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, cause) {
		t.Errorf("got %v", err)
	}
}

// A panic in the store is one request's error, not the end of the process; its value is not quoted.
func TestStorePanics(t *testing.T) {
	f := newFake()
	f.whileReading(func(context.Context, string) error { panic("sk_live_secret") })
	c := newCache(t, f, Options{FeedLive: always})
	_, _, err := c.Credential(t.Context(), acme)
	if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "panicked with a string") || strings.Contains(err.Error(), "sk_live") {
		t.Errorf("got %v", err)
	}
}

// The key may lie in the memory of a request that is long over when someone else asks for the same.
func TestKeysAreCopied(t *testing.T) {
	f := newFake()
	f.put(acme, 1)
	c := newCache(t, f, Options{FeedLive: always})
	request := []byte("acmetwilio")
	if got := version(t, c, store.Ref{Org: view(request[:4]), Provider: view(request[4:])}); got != 1 {
		t.Fatal(got)
	}
	if got := version(t, c, store.Ref{Org: "nobody", Provider: view(request[4:])}); got != 0 {
		t.Fatal(got)
	}
	copy(request, "xxxxxxxxxxxxxxxxxxxx")
	f.reads.Store(0)
	if got := version(t, c, acme); got != 1 || f.reads.Load() != 0 {
		t.Errorf("version %d after %d reads", got, f.reads.Load())
	}
	if got := version(t, c, store.Ref{Org: "nobody", Provider: "twilio"}); got != 0 || f.reads.Load() != 0 {
		t.Errorf("version %d after %d reads", got, f.reads.Load())
	}
}
