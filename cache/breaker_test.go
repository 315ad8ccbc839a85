package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/store"
)

// coldRef is an org that the cache has not met.
func coldRef(i int) store.Ref { return store.Ref{Org: fmt.Sprint("cold", i), Provider: "twilio"} }

// A store behind a network that swallows everything: the first to ask waits for the time-out, everyone after that is refused within 50 ms,
// and only one at a time tries again.
func TestColdOrgsAreRefusedAtOnce(t *testing.T) {
	bubble(t, Options{MaxStale: time.Hour, FeedLive: never, LoadTimeout: 2 * time.Second}, func(t *testing.T, f *fake, c *Cache) {
		time.Sleep(2 * time.Second)
		f.whileReading(hang)
		ask := func(ref store.Ref) (time.Duration, error) {
			start := time.Now()
			_, _, err := c.Credential(t.Context(), ref)
			return time.Since(start), err
		}
		if took, err := ask(coldRef(0)); !errors.Is(err, store.ErrUnavailable) || took != 2*time.Second {
			t.Errorf("the first: %v after %v", err, took)
		}
		for i := range 1000 {
			if took, err := ask(coldRef(i)); !errors.Is(err, store.ErrUnavailable) || took > 50*time.Millisecond {
				t.Fatalf("cold: %v after %v", err, took)
			}
			if took, err := ask(acme); err != nil || took > warmPatience {
				t.Fatalf("warm: %v after %v", err, took)
			}
			time.Sleep(7 * time.Millisecond)
		}
		// 7 s and more at one probe per 2 s time-out and back-off.
		if n := f.reads.Load(); n > 6 {
			t.Errorf("%d reads of a store that does not answer", n)
		}
	})
}

// When the store is back, the first probe opens the way for everyone, within the back-off, and each org costs one query.
func TestRecovery(t *testing.T) {
	bubble(t, Options{FeedLive: always}, func(t *testing.T, f *fake, c *Cache) {
		for i := range 100 {
			f.put(coldRef(i), 1)
		}
		f.down.Store(true)
		for i := range 2000 { // the back-off grows to its limit
			_, _, _ = c.Credential(t.Context(), coldRef(i%100))
			time.Sleep(5 * time.Millisecond)
		}
		if n := f.reads.Load(); n > 10_000/500+5 {
			t.Errorf("%d reads within 10 s of a store that is down", n)
		}
		if !c.Stats().StoreDown {
			t.Error("the stats do not say that the store is down")
		}
		f.down.Store(false)
		f.reads.Store(0)
		time.Sleep(maxBackoff)
		if _, _, err := c.Credential(t.Context(), coldRef(0)); err != nil {
			t.Errorf("the probe: %v", err)
		}
		var wg sync.WaitGroup
		for i := range 1000 {
			wg.Go(func() {
				if _, _, err := c.Credential(context.Background(), coldRef(i%100)); err != nil {
					t.Errorf("after the probe: %v", err)
				}
			})
		}
		wg.Wait()
		if n := f.reads.Load(); n != 100 {
			t.Errorf("%d reads for 100 orgs", n)
		}
	})
}

// A probe that takes longer than its caller will wait still opens the way.
func TestSlowProbe(t *testing.T) {
	bubble(t, Options{FeedLive: always}, func(t *testing.T, f *fake, c *Cache) {
		f.put(coldRef(0), 1)
		f.down.Store(true)
		_, _, _ = c.Credential(t.Context(), coldRef(0))
		f.down.Store(false)
		f.whileReading(func(context.Context, string) error { time.Sleep(time.Second); return nil })
		time.Sleep(firstBackoff)
		if _, _, err := c.Credential(t.Context(), coldRef(0)); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("the caller of the probe: %v", err)
		}
		time.Sleep(time.Second)
		if got := version(t, c, coldRef(0)); got != 1 || f.reads.Load() != 2 {
			t.Errorf("version %d after %d reads", got, f.reads.Load())
		}
	})
}

func TestBreaker(t *testing.T) {
	var b breaker
	enter := func(now time.Duration, wantAdmitted, wantProbe bool) {
		t.Helper()
		admitted, probe := b.enter(now)
		if admitted != wantAdmitted || probe != wantProbe {
			t.Errorf("at %v: admitted %v, probe %v", now, admitted, probe)
		}
	}
	enter(0, true, false)
	enter(0, true, false)
	b.leave(10, false, false)
	b.leave(20, false, false) // the second failure of the same outage changes nothing
	enter(10+firstBackoff-1, false, false)
	enter(10+firstBackoff, true, true)
	enter(10+firstBackoff, false, false) // one probe at a time
	b.leave(time.Second, true, false)
	enter(time.Second+2*firstBackoff-1, false, false)
	enter(time.Second+2*firstBackoff, true, true)
	b.leave(2*time.Second, true, true)
	enter(2*time.Second, true, false)
	for range 10 {
		b.leave(0, true, false)
	}
	if b.backoff > maxBackoff {
		t.Errorf("back-off %v", b.backoff)
	}
}
