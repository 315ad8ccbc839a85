package cache

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/store"
)

// A memory is a Fallback that has every row it was given, and drops what is in doubt.
type memory struct {
	mu   sync.Mutex
	rows map[store.Ref]*store.Credential
}

func (m *memory) Credential(ref store.Ref) *store.Credential {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rows[ref]
}
func (m *memory) Assistant(string) *store.Assistant { return nil }
func (m *memory) Token([32]byte) *store.Token       { return nil }
func (m *memory) Doubt(change store.Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for ref := range m.rows {
		if ref.Org == change.ID {
			delete(m.rows, ref)
		}
	}
}

func (m *memory) put(ref store.Ref, version int64) {
	m.rows[ref] = &store.Credential{Ref: ref, Version: version, SealedVersion: version, Active: true}
}

var other = store.Ref{Org: "other", Provider: "twilio"}

// With the store down, the fallback serves what the cache does not hold, and what it holds for too long.
func TestFallback(t *testing.T) {
	m := &memory{rows: map[store.Ref]*store.Credential{}}
	m.put(acme, 1)
	m.put(other, 3)
	bubble(t, Options{MaxStale: time.Minute, FeedLive: never, Fallback: m}, func(t *testing.T, f *fake, c *Cache) {
		f.down.Store(true)
		time.Sleep(2 * time.Minute)
		for ref, want := range map[store.Ref]int64{acme: 1, other: 3} {
			if row, cached, err := c.Credential(t.Context(), ref); err != nil || row.Version != want || !cached {
				t.Errorf("%v: %v, %v", ref, row, err)
			}
		}
		if _, _, err := c.Credential(t.Context(), store.Ref{Org: "nobody", Provider: "twilio"}); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("an org that the fallback does not know: %v", err)
		}
		f.down.Store(false)
		time.Sleep(maxBackoff)
		if got := version(t, c, acme); got != 1 {
			t.Errorf("version %d", got)
		}
	})
}

// What the store has said is gone, or is another one, is not served from the fallback afterwards, though no change was heard of.
func TestFallbackLearnsWhatTheStoreSays(t *testing.T) {
	m := &memory{rows: map[store.Ref]*store.Credential{}}
	m.put(acme, 1)
	m.put(other, 3)
	bubble(t, Options{FeedLive: never, Fallback: m}, func(t *testing.T, f *fake, c *Cache) {
		f.remove(acme)
		f.put(other, 4)
		time.Sleep(2 * time.Second)
		if _, _, err := c.Credential(t.Context(), acme); !errors.Is(err, store.ErrNotFound) {
			t.Fatalf("deleted: %v", err)
		}
		if got := version(t, c, other); got != 4 {
			t.Fatalf("version %d", got)
		}
		f.down.Store(true)
		time.Sleep(time.Minute)
		for _, ref := range []store.Ref{acme, other} {
			if row, _, err := c.Credential(t.Context(), ref); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%v: served %v, %v", ref, row, err)
			}
		}
	})
}

// A strict org is refused while the store cannot be reached, warm or not; all others go on.
func TestStrict(t *testing.T) {
	m := &memory{rows: map[store.Ref]*store.Credential{}}
	m.put(acme, 1)
	m.put(other, 3)
	strict := func(org string) bool { return org == acme.Org }
	bubble(t, Options{MaxStale: time.Hour, FeedLive: never, Fallback: m, Strict: strict}, func(t *testing.T, f *fake, c *Cache) {
		f.down.Store(true)
		time.Sleep(time.Second + time.Nanosecond)
		if _, _, err := c.Credential(t.Context(), acme); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("strict: %v", err)
		}
		if got := version(t, c, other); got != 3 {
			t.Errorf("another org: version %d", got)
		}
		f.down.Store(false)
		time.Sleep(maxBackoff)
		if got := version(t, c, acme); got != 1 {
			t.Errorf("strict, with the store back: version %d", got)
		}
	})
}
