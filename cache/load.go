package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/keyward/keyward/store"
)

// While the breaker is open, a request waits this long for the probe that it set off, and no longer: an org that is not in the cache is to
// be refused within 50 ms, and one that is can wait a little for a store that may be back.
const (
	coldPatience = 40 * time.Millisecond
	warmPatience = 250 * time.Millisecond
)

// maxReads bounds how often a row is read again because changes overtake slow reads.
const maxReads = 3

var (
	errRefused  = fmt.Errorf("%w: it did not answer a moment ago", store.ErrUnavailable)
	errWaiting  = fmt.Errorf("%w: it does not answer", store.ErrUnavailable)
	errChanging = fmt.Errorf("%w: the row changes faster than it can be read", store.ErrUnavailable)
)

// load asks the store, together with everyone else who asks for the same. held, which may be nil, is what the cache has but may not use
// unasked.
func (t *table[K, V]) load(ctx context.Context, p place, key K, held *entry[K, V]) (*V, bool, error) {
	if t.breaker.refuses(t.clock()) {
		return t.without(held, p, key, errRefused)
	}
	key = t.clone(key)
	asked := t.clock()
	for range maxReads {
		// The flight is named by the generation too: a request that comes after a change must not join a load that began before it.
		s := t.fence.at(p.owner)
		flight := t.flights.DoChan(t.flight(key, s), func() (any, error) { return t.fetch(p, key, s) })
		e, err := t.await(ctx, flight, held)
		if err != nil {
			return t.without(held, p, key, err)
		}
		// A load that was slow must not hand out a row for longer than any revoked one may be used. If the generation fell while the row was
		// read, then after this call began, and at most the age of the load ago. If nobody hears of changes, it may have changed at any moment
		// since it was read, and this call may have joined a load that began long before. The feed is asked first, as in holds.
		deaf := asked-e.begun > confirmWithin && !t.FeedLive()
		if deaf || !t.fence.stands(s, p.owner) && t.clock()-e.begun > confirmWithin {
			continue
		}
		if e.row == nil {
			return nil, false, store.ErrNotFound
		}
		return e.row, false, nil
	}
	return nil, false, errChanging
}

func (t *table[K, V]) flight(key K, s stamp) string {
	var buf [128]byte
	b := t.name(buf[:0], key)
	b = binary.BigEndian.AppendUint64(b, s.all)
	b = binary.BigEndian.AppendUint64(b, s.own)
	return string(b)
}

// await waits for a flight: as long as its load may take, or, while the store seems down, not that long. A caller that goes away leaves
// the flight to the others.
func (t *table[K, V]) await(ctx context.Context, flight <-chan singleflight.Result, held *entry[K, V]) (*entry[K, V], error) {
	var enough <-chan time.Time
	if t.breaker.isOpen() {
		patience := coldPatience
		if held != nil && held.row != nil {
			patience = warmPatience
		}
		timer := time.NewTimer(patience)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case r := <-flight:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*entry[K, V]), nil
	case <-enough:
		return nil, errWaiting
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, context.Cause(ctx))
	}
}

// without is the answer when the store cannot be reached: what the cache has, unless a change named it or it is too old; else what the
// fallback has.
func (t *table[K, V]) without(held *entry[K, V], p place, key K, err error) (*V, bool, error) {
	if t.strict != nil && t.strict(key) {
		return nil, false, err
	}
	if held != nil && held.row != nil && t.fence.unnamed(held.stamp, p.owner) && t.clock()-held.begun <= t.MaxStale {
		t.stale.Add(1)
		return held.row, true, nil
	}
	if t.Fallback == nil || held != nil && held.row == nil { // the store has said that it is gone
		return nil, false, err
	}
	row := t.fallback(key)
	if row == nil || !t.owns(row, key) {
		return nil, false, err
	}
	t.stale.Add(1)
	return row, true, nil
}

// compare tells the fallback when the store has said something else than it has.
func (t *table[K, V]) compare(key K, row *V) {
	if t.Fallback == nil {
		return
	}
	if have := t.fallback(key); have != nil && (row == nil || !t.same(row, have)) {
		t.Fallback.Doubt(t.named(key))
	}
}

// fetch is one flight: it reads the row and puts it into the cache. Its only error is store.ErrUnavailable.
func (t *table[K, V]) fetch(p place, key K, s stamp) (*entry[K, V], error) {
	if !t.begin() {
		return nil, errClosed
	}
	defer t.end()
	begun := t.clock()
	// Another flight may have landed between the caller's look and this one's start.
	if e, ok := t.rows.Get(p.row); ok && e.key == key && t.holds(e, p, begun) {
		return e, nil
	}
	if e := t.landed.get(p, key); e != nil && t.holds(e, p, begun) {
		return e, nil
	}
	if e := t.none.get(p, key); e != nil && t.holds(e, p, begun) {
		return e, nil
	}
	admitted, probe := t.breaker.enter(begun)
	if !admitted {
		return nil, errRefused
	}
	row, err := t.ask(key)
	t.breaker.leave(t.clock(), probe, err == nil)
	if err != nil {
		return nil, err
	}
	t.compare(key, row)
	e := &entry[K, V]{key: key, row: row, stamp: s, begun: begun}
	t.keep(p, e)
	return e, nil
}

// ask reads one row: nil if there is none.
func (t *table[K, V]) ask(key K) (row *V, err error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.LoadTimeout)
	defer cancel()
	t.loads.Add(1)
	defer func() {
		if v := recover(); v != nil { // in a goroutine of the flight, where it would end the process; the value may hold anything, so only its type
			row, err = nil, fmt.Errorf("%w: reading it panicked with a %T\n%s", store.ErrUnavailable, v, debug.Stack())
		}
		if err != nil {
			t.errors.Add(1)
		}
	}()
	row, err = t.read(ctx, key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil
	case errors.Is(err, store.ErrUnavailable):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	case row == nil || !t.owns(row, key):
		return nil, fmt.Errorf("%w: it answered with a row that was not asked for", store.ErrUnavailable)
	}
	return row, nil
}

// keep puts an entry into the cache, where whoever comes after the flight finds it.
func (t *table[K, V]) keep(p place, e *entry[K, V]) {
	if e.row != nil {
		t.rows.Set(p.row, e, 1)
		t.rows.Wait() // Set is buffered: without it, those who come next would load again
		held, ok := t.rows.Get(p.row)
		if old := t.landed.get(p, e.key); old != nil && e.supersedes(old) || old == nil && (!ok || held.key != e.key) {
			t.landed.put(p, e) // what landed before must not be served again when the rows drop this one
		}
		return
	}
	if _, held := t.rows.Get(p.row); held {
		t.rows.Set(p.row, e, 1) // what was there must not be served when the store goes down: it is known to be gone
	}
	if t.landed.get(p, e.key) != nil {
		t.landed.put(p, e) // likewise
	}
	if len(t.name(nil, e.key)) <= maxRemembered {
		t.none.put(p, e)
	}
}
