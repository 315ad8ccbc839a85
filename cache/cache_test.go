package cache

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyward/keyward/store"
)

func TestHit(t *testing.T) {
	f := newFake()
	f.put(acme, 1)
	c := newCache(t, f, Options{FeedLive: always})
	first, cached, err := c.Credential(t.Context(), acme)
	if err != nil || cached {
		t.Fatalf("cached %v, %v", cached, err)
	}
	again, cached, err := c.Credential(t.Context(), acme)
	if err != nil || !cached || again != first {
		t.Errorf("cached %v, %v; the same row: %v", cached, err, again == first)
	}
	if s := c.Stats(); s.Hits != 1 || s.Misses != 1 || s.Loads != 1 || s.Entries != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestHitsAllocateNothing(t *testing.T) {
	f := newFake()
	f.put(acme, 1)
	token := [32]byte{1}
	f.assistants["asst_1"] = &store.Assistant{ID: "asst_1", Org: "acme"}
	f.tokens[token] = &store.Token{Hash: token}
	c := newCache(t, f, Options{FeedLive: always, NegativeTTL: time.Hour})
	ctx := t.Context()
	org := []byte("acme")
	for name, ask := range map[string]func(){
		"credential": func() { _, _, _ = c.Credential(ctx, store.Ref{Org: view(org), Provider: "twilio"}) },
		"missing":    func() { _, _, _ = c.Credential(ctx, store.Ref{Org: view(org[:2]), Provider: "twilio"}) },
		"assistant":  func() { _, _ = c.Assistant(ctx, "asst_1") },
		"token":      func() { _, _ = c.Token(ctx, token) },
	} {
		ask()
		if n := testing.AllocsPerRun(1000, ask); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// ristretto counts bytes of its own unless told not to: then 1,000 holds 17.
func TestSizeIsHeld(t *testing.T) {
	f := newFake()
	c := newCache(t, f, Options{Size: 1000, FeedLive: always})
	refs := make([]store.Ref, 1000)
	for i := range refs {
		refs[i] = store.Ref{Org: fmt.Sprint("org", i), Provider: "resend"}
		f.put(refs[i], 1)
		version(t, c, refs[i])
	}
	f.reads.Store(0)
	for _, ref := range refs {
		version(t, c, ref)
	}
	if n := f.reads.Load(); n != 0 {
		t.Errorf("%d of 1,000 were not there any more", n)
	}
	if s := c.Stats(); s.Entries != 1000 || s.Evictions != 0 {
		t.Errorf("stats %+v", s)
	}
	// More than that make room for each other.
	for i := range 5000 {
		ref := store.Ref{Org: fmt.Sprint("more", i), Provider: "resend"}
		f.put(ref, 1)
		version(t, c, ref)
	}
	if s := c.Stats(); s.Entries > 1000 || s.Evictions == 0 {
		t.Errorf("stats %+v", s)
	}
}

// Random ids cost no memory but the table's own, and push out no real row.
func TestMadeUpIdsCostNothing(t *testing.T) {
	f := newFake()
	f.put(acme, 1)
	c := newCache(t, f, Options{Size: 1000, NegativeSize: 1024, NegativeTTL: time.Hour, FeedLive: always})
	version(t, c, acme)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 30_000 {
		if _, err := c.Assistant(t.Context(), fmt.Sprintf("asst_%016d", i)); !errors.Is(err, store.ErrNotFound) {
			t.Fatal(err)
		}
		if got := version(t, c, store.Ref{Org: fmt.Sprint("made-up", i%1000), Provider: "twilio"}); got != 0 {
			t.Fatal(got)
		}
	}
	if _, err := c.Assistant(t.Context(), strings.Repeat("x", 1<<20)); !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	grown := int64(1 << 62)
	for tries := 0; grown > 1<<20; tries++ { // the goroutine of the last load may be on its way out, and hold the long name
		if tries == 20 {
			t.Fatalf("30,000 made-up ids cost %d bytes", grown)
		}
		time.Sleep(time.Duration(tries) * 20 * time.Millisecond)
		runtime.GC()
		runtime.ReadMemStats(&after)
		grown = int64(after.HeapAlloc) - int64(before.HeapAlloc)
	}
	f.reads.Store(0)
	if version(t, c, acme); f.reads.Load() != 0 {
		t.Error("they pushed out a real row")
	}
	if s := c.Stats(); s.Entries != 1 {
		t.Errorf("%d entries", s.Entries)
	}
}

// What is missing is remembered for a while, and seen at once when it is made.
func TestNegative(t *testing.T) {
	bubble(t, Options{NegativeTTL: 3 * time.Second, FeedLive: always}, func(t *testing.T, f *fake, c *Cache) {
		ref := store.Ref{Org: "new", Provider: "twilio"}
		for range 100 {
			if got := version(t, c, ref); got != 0 {
				t.Fatal(got)
			}
		}
		if n := f.reads.Load(); n != 1 {
			t.Errorf("%d reads", n)
		}
		if s := c.Stats(); s.NegativeHits != 99 {
			t.Errorf("stats %+v", s)
		}
		f.put(ref, 1)
		if got := version(t, c, ref); got != 0 {
			t.Errorf("version %d: the test does not test what it says", got)
		}
		c.Apply(changed(ref))
		if got := version(t, c, ref); got != 1 {
			t.Errorf("version %d after it was made", got)
		}
		f.remove(ref) // unheard
		c.Apply(store.Change{})
		version(t, c, ref)
		f.put(ref, 2) // unheard
		time.Sleep(3*time.Second + time.Nanosecond)
		if got := version(t, c, ref); got != 2 {
			t.Errorf("version %d past the negative TTL", got)
		}
	})
	bubble(t, Options{NegativeTTL: time.Hour, FeedLive: never}, func(t *testing.T, f *fake, c *Cache) {
		ref := store.Ref{Org: "new", Provider: "twilio"}
		version(t, c, ref)
		f.put(ref, 1)
		time.Sleep(time.Second + time.Nanosecond)
		if got := version(t, c, ref); got != 1 {
			t.Errorf("version %d with the feed down", got)
		}
	})
}

// ristretto panics when it is used while it closes. The cache may be closed at any moment.
func TestCloseUnderLoad(t *testing.T) {
	for range 20 {
		f := newFake()
		for i := range 100 {
			f.put(coldRef(i), 1)
		}
		c, err := New(f, Options{Size: 50, FeedLive: always})
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		closed := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-closed:
						if _, _, err := c.Credential(context.Background(), coldRef(i%100)); !errors.Is(err, store.ErrUnavailable) {
							t.Errorf("after Close: %v", err)
						}
						return
					default:
						_, _, _ = c.Credential(context.Background(), coldRef(i%100))
						_, _ = c.Assistant(context.Background(), "nobody")
						c.Apply(changed(coldRef(i % 100)))
						runtime.Gosched()
					}
				}
			})
		}
		time.Sleep(time.Millisecond)
		c.Close()
		close(closed)
		c.Close()
		c.Apply(store.Change{})
		_ = c.Stats()
		wg.Wait()
	}
}

// Close ends loads that are under way and leaves no goroutine behind.
func TestCloseWaits(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	f := newFake()
	f.whileReading(hang)
	c, err := New(f, Options{LoadTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error)
	go func() {
		_, _, err := c.Credential(context.Background(), acme)
		got <- err
	}()
	for f.reads.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	c.Close()
	if err := <-got; !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the caller under way got %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	_, err := New(newFake(), Options{Size: -1, TTL: -1, MaxStale: -1, NegativeTTL: -1, NegativeSize: -1, LoadTimeout: -1})
	if err == nil {
		t.Fatal("negative options were taken")
	}
	for _, want := range []string{"size -1", "TTL -1ns", "max stale -1ns", "negative TTL", "negative size", "load timeout"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	if _, err := New(newFake(), Options{Size: 1 << 30}); err == nil {
		t.Error("a size of 1<<30 was taken")
	}
	newCache(t, newFake(), Options{Size: 1, NegativeSize: 1})
}
