package cache

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyward/keyward/store"
)

// bubble runs a test whose time is its own. The store holds version 1 of acme and the cache has just loaded it.
func bubble(t *testing.T, o Options, fn func(t *testing.T, f *fake, c *Cache)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put(acme, 1)
		c, err := New(f, o)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		version(t, c, acme)
		f.reads.Store(0)
		fn(t, f, c)
	})
}

func TestTTL(t *testing.T) {
	bubble(t, Options{TTL: time.Minute, FeedLive: always}, func(t *testing.T, f *fake, c *Cache) {
		f.put(acme, 2) // and the change goes unheard
		time.Sleep(time.Minute)
		if got := version(t, c, acme); got != 1 || f.reads.Load() != 0 {
			t.Errorf("after the TTL: version %d, %d reads", got, f.reads.Load())
		}
		time.Sleep(time.Nanosecond)
		if got := version(t, c, acme); got != 2 || f.reads.Load() != 1 {
			t.Errorf("past the TTL: version %d, %d reads", got, f.reads.Load())
		}
	})
}

// The age of a row counts from the beginning of its load, not from its end: the store may have answered with what it knew then.
func TestTTLCountsFromTheLoadsBeginning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put(acme, 1)
		f.whileReading(func(context.Context, string) error { time.Sleep(time.Second); return nil })
		c, err := New(f, Options{TTL: time.Minute, FeedLive: always})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		version(t, c, acme)
		time.Sleep(59*time.Second + time.Nanosecond)
		version(t, c, acme)
		if n := f.reads.Load(); n != 2 {
			t.Errorf("%d reads", n)
		}
	})
}

// With the change feed down, a row is confirmed with the store before it is used, unless that was done within the last second.
func TestFeedDown(t *testing.T) {
	live := true
	bubble(t, Options{FeedLive: func() bool { return live }}, func(t *testing.T, f *fake, c *Cache) {
		time.Sleep(time.Minute)
		f.put(acme, 2)
		live = false
		if got := version(t, c, acme); got != 2 || f.reads.Load() != 1 {
			t.Errorf("not confirmed for a minute: version %d, %d reads", got, f.reads.Load())
		}
		for range 100 {
			time.Sleep(10 * time.Millisecond)
			version(t, c, acme)
		}
		if n := f.reads.Load(); n != 1 {
			t.Errorf("%d reads within the second", n)
		}
		f.put(acme, 3)
		time.Sleep(time.Nanosecond)
		if got := version(t, c, acme); got != 3 {
			t.Errorf("version %d, a second after the last confirmation", got)
		}
		live = true
		time.Sleep(time.Minute)
		if n := f.reads.Load(); version(t, c, acme) != 3 || f.reads.Load() != n {
			t.Error("asked the store although the feed is back")
		}
	})
}

// A feed that comes back has announced what it had missed before it is said to be live. However late a lookup asks it, what was announced counts.
func TestFeedComesBackDuringALookup(t *testing.T) {
	var c *Cache
	back := func() bool { c.Apply(store.Change{}); return true }
	f := newFake()
	f.put(acme, 1)
	now := time.Now()
	c = newCache(t, f, Options{FeedLive: back, Now: func() time.Time { return now }})
	version(t, c, acme)
	f.put(acme, 2) // unheard: the feed was down
	now = now.Add(time.Minute)
	if got := version(t, c, acme); got != 2 {
		t.Errorf("version %d, a minute after it was replaced", got)
	}
}

// Without a FeedLive nobody says that changes are heard of, so the cache does not count on it.
func TestNoFeed(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, f *fake, c *Cache) {
		f.put(acme, 2)
		time.Sleep(time.Second + time.Nanosecond)
		if got := version(t, c, acme); got != 2 {
			t.Errorf("version %d", got)
		}
	})
}

// With the store down, warm orgs go on until max stale, counted from the last confirmation.
func TestMaxStale(t *testing.T) {
	bubble(t, Options{TTL: time.Minute, MaxStale: 10 * time.Minute, FeedLive: never}, func(t *testing.T, f *fake, c *Cache) {
		f.down.Store(true)
		for range 600 {
			time.Sleep(time.Second)
			row, cached, err := c.Credential(t.Context(), acme)
			if err != nil || row.Version != 1 || !cached {
				t.Fatalf("served %v, %v, %v", row, cached, err)
			}
		}
		time.Sleep(time.Nanosecond)
		if _, _, err := c.Credential(t.Context(), acme); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("past max stale: %v", err)
		}
		f.down.Store(false)
		time.Sleep(maxBackoff)
		if got := version(t, c, acme); got != 1 {
			t.Errorf("version %d when the store is back", got)
		}
		if s := c.Stats(); s.Stale == 0 || s.StoreDown {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestNoMaxStale(t *testing.T) {
	bubble(t, Options{FeedLive: never}, func(t *testing.T, f *fake, c *Cache) {
		f.down.Store(true)
		time.Sleep(time.Second + time.Nanosecond)
		if _, _, err := c.Credential(t.Context(), acme); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}

// A gap in the feed leaves room for doubt: with the store down, the row goes on. One that a change has named does not, down or not.
func TestStoreDownAfterAChange(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change store.Change
		served bool
	}{
		{"anyone", store.Change{}, true},
		{"this org", changed(acme), false},
		{"another org", store.Change{Kind: store.KindCredential, ID: "globex"}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, Options{MaxStale: time.Hour, FeedLive: always}, func(t *testing.T, f *fake, c *Cache) {
				f.down.Store(true)
				c.Apply(tt.change)
				for range 3 {
					_, _, err := c.Credential(t.Context(), acme)
					if tt.served != (err == nil) || err != nil && !errors.Is(err, store.ErrUnavailable) {
						t.Errorf("got %v", err)
					}
					time.Sleep(time.Second)
				}
			})
		})
	}
}

// What the store said is gone does not come back when the store goes down, though no change was heard of.
func TestDeletedUnheardThenStoreDown(t *testing.T) {
	bubble(t, Options{TTL: time.Minute, MaxStale: time.Hour, FeedLive: always}, func(t *testing.T, f *fake, c *Cache) {
		f.remove(acme)
		time.Sleep(time.Minute + time.Nanosecond)
		if got := version(t, c, acme); got != 0 {
			t.Fatalf("version %d", got)
		}
		f.down.Store(true)
		time.Sleep(time.Minute)
		if _, _, err := c.Credential(t.Context(), acme); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("got %v", err)
		}
	})
}

// The injected clock is the one that counts.
func TestNow(t *testing.T) {
	now := time.Now()
	f := newFake()
	f.put(acme, 1)
	c := newCache(t, f, Options{TTL: time.Minute, FeedLive: always, Now: func() time.Time { return now }})
	version(t, c, acme)
	now = now.Add(time.Minute)
	version(t, c, acme)
	if n := f.reads.Load(); n != 1 {
		t.Errorf("%d reads within the TTL", n)
	}
	now = now.Add(1)
	version(t, c, acme)
	if n := f.reads.Load(); n != 2 {
		t.Errorf("%d reads past the TTL", n)
	}
}
