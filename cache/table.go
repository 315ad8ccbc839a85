package cache

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/ristretto/v2"
	"golang.org/x/sync/singleflight"

	"github.com/keyward/keyward/store"
)

// A kind is what the tables of credentials, assistants and tokens differ in. K is what a row is asked for by.
type kind[K comparable, V any] struct {
	place func(K) place
	owner func(id string) (hash uint64, ok bool) // of a Change's ID; not ok: it names nobody
	clone func(K) K                              // a caller's key may lie in the memory of its request
	name  func(dst []byte, key K) []byte         // without ambiguity
	read  func(context.Context, K) (*V, error)
	owns  func(*V, K) bool // the row is the one that was asked for

	strict   func(K) bool // nil: none is
	fallback func(K) *V
	same     func(a, b *V) bool
	named    func(K) store.Change // what a change to the row is announced as
}

// A place is where a key's row and its owner's generation are found. Two keys may share either, so neither is taken for the key.
type place struct{ row, owner uint64 }

// An entry is never changed once it is in a table. A nil row says that there was none.
type entry[K comparable, V any] struct {
	key   K // compared on every hit: places are hashes, and another org's row would be a catastrophe
	row   *V
	stamp stamp         // taken before the row was read
	begun time.Duration // when reading it began
}

// supersedes says whether e may take old's place: a loader that was slow must not push out what a later one has read.
func (e *entry[K, V]) supersedes(old *entry[K, V]) bool {
	return e.key != old.key || !e.stamp.before(old.stamp) && e.begun >= old.begun
}

// A table is the cache of one kind of row.
//
// The hit path allocates nothing and takes no lock of ours; ristretto read-locks one of its 256 shards for a map access. The keys handed to
// ristretto are hashes, not strings, because building a string for every request would cost more than the rest. They are made of length-
// delimited parts under random seeds, and the whole key, with the org in it, stands in the entry.
type table[K comparable, V any] struct {
	*core
	kind[K, V]
	fence   fence
	rows    *ristretto.Cache[uint64, *entry[K, V]]
	none    latest[K, V] // the store does not have them
	landed  latest[K, V] // just read, and not in rows
	flights singleflight.Group

	counts                        [64]counter // by place, so that no two orgs' requests meet on one cache line
	stale, loads, errors, evicted atomic.Uint64
}

// landings is how many rows are remembered that ristretto did not take. It lets a row in that is asked for more often than the one that would
// have to go, so one that is new to a full cache is refused at first: those who ask for it at the same time would all read it.
const landings = 256

// A counter counts the lookups of some keys. Those that have begun and neither hit nor missed yet are inside ristretto, which must not be
// closed under them. One that finds a row to be known to be missing has not missed.
type counter struct {
	begun, hit, missed, negative atomic.Uint64
	_                            [32]byte
}

func newTable[K comparable, V any](c *core, k kind[K, V]) (*table[K, V], error) {
	t := &table[K, V]{core: c, kind: k, none: newLatest[K, V](c.NegativeSize), landed: newLatest[K, V](landings)}
	rows, err := ristretto.NewCache(&ristretto.Config[uint64, *entry[K, V]]{
		NumCounters: counters(c.Size),
		MaxCost:     int64(c.Size),
		BufferItems: 64, // ristretto's advice
		// Without it, 1000 would be bytes, and hold 17 entries.
		IgnoreInternalCost: true,
		KeyToHash:          func(h uint64) (uint64, uint64) { return h, 0 },
		ShouldUpdate:       func(e, old *entry[K, V]) bool { return e.supersedes(old) },
		OnEvict:            func(*ristretto.Item[*entry[K, V]]) { t.evicted.Add(1) },
	})
	if err != nil {
		return nil, fmt.Errorf("cache: %w", err)
	}
	t.rows = rows
	return t, nil
}

// counters is how many ristretto counts lookups with. It lets a row in that is asked for more often than one that would go, and halves its counts
// after as many lookups as it has counters. It advises ten per row, and then the last rows that deserve their place have been asked for once in
// that time or not at all: chance decides, and that loses six points of the hits that knowing every frequency would have. With a hundred it is half
// a point. One takes about four bytes, so for a great cache the advice stands.
func counters(size int) int64 {
	const enough = 1 << 20
	return int64(max(10*size, min(100*size, enough)))
}

// get is the hit path, and the door to the other one.
func (t *table[K, V]) get(ctx context.Context, key K) (row *V, cached bool, err error) {
	p := t.place(key)
	n := &t.counts[p.row%uint64(len(t.counts))]
	n.begun.Add(1)
	if t.closed.Load() { // after begun: either close sees this lookup, or this lookup sees that it is closed
		n.missed.Add(1)
		return nil, false, errClosed
	}
	now := t.clock()
	held, ok := t.rows.Get(p.row)
	if !ok || held.key != key {
		held = t.landed.get(p, key)
	}
	if held != nil && held.row != nil && t.holds(held, p, now) {
		n.hit.Add(1)
		return held.row, true, nil
	}
	if t.knownMissing(held, p, key, now) {
		n.negative.Add(1)
		return nil, true, store.ErrNotFound
	}
	n.missed.Add(1)
	return t.load(ctx, p, key, held)
}

// holds says whether an entry answers a request without the store. The feed is asked first: it is live when it has announced everything, so that
// what it announces while it comes back is seen in the fence.
func (t *table[K, V]) holds(e *entry[K, V], p place, now time.Duration) bool {
	age, ttl := now-e.begun, t.TTL
	if e.row == nil {
		ttl = t.NegativeTTL
	}
	return age <= ttl && (age <= confirmWithin || t.FeedLive()) && t.fence.stands(e.stamp, p.owner)
}

// knownMissing: the store said, seconds ago, that there is no such row. held is what the rows have under this key.
func (t *table[K, V]) knownMissing(held *entry[K, V], p place, key K, now time.Duration) bool {
	if held != nil && held.row == nil && t.holds(held, p, now) {
		return true
	}
	e := t.none.get(p, key)
	return e != nil && t.holds(e, p, now)
}

// change makes worthless what was read of the rows that a Change names.
func (t *table[K, V]) change(id string) {
	if owner, ok := t.owner(id); ok {
		t.fence.raise(owner)
		return
	}
	t.fence.raiseAll()
}

func (t *table[K, V]) addTo(s *Stats) {
	for i := range t.counts {
		s.Hits += t.counts[i].hit.Load()
		s.Misses += t.counts[i].missed.Load()
		s.NegativeHits += t.counts[i].negative.Load()
	}
	s.Stale += t.stale.Load()
	s.Loads += t.loads.Load()
	s.LoadErrors += t.errors.Load()
	s.Evictions += t.evicted.Load()
	s.Entries += int(t.rows.MaxCost() - t.rows.RemainingCost())
}

// close waits for the lookups that are inside ristretto: it panics when it is used while it closes. The loads have ended by then.
func (t *table[K, V]) close() {
	for i := range t.counts {
		n := &t.counts[i]
		for n.begun.Load() != n.hit.Load()+n.missed.Load()+n.negative.Load() { // nanoseconds each; no new ones get past closed
			time.Sleep(50 * time.Microsecond)
		}
	}
	t.rows.Close()
}
