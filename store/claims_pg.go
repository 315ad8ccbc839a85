package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Claims and confirmations that come at the same time share a statement. PostgreSQL takes little longer for twenty keys than for one: at
// 2,000 messages a second, each on its own, it would be what keeps the machine busy.
const (
	keyLanes = 2  // statements of a kind under way at a time: who comes while both are busy shares the next
	maxKeys  = 64 // in a statement
)

// A keyBatch gathers keys for one statement.
type keyBatch struct {
	query string // its rows are the keys that it took
	asked chan *keyAsked
}

type keyAsked struct {
	ctx   context.Context
	key   string
	until time.Time // of a confirmation
	taken bool
	done  chan error
}

// take returns whether the statement took a key.
func (b *keyBatch) take(ctx context.Context, d *DB, key string, until time.Time) (bool, error) {
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	a := &keyAsked{ctx: bounded, key: key, until: until, done: make(chan error, 1)}
	select {
	case b.asked <- a:
	case <-bounded.Done():
		return false, failure(ctx, bounded, bounded.Err())
	case <-d.closing.Done():
		return false, fmt.Errorf("%w: it is closed", ErrUnavailable)
	}
	select {
	case err := <-a.done:
		return a.taken, err
	case <-bounded.Done():
		return false, failure(ctx, bounded, bounded.Err())
	}
}

// run is one lane. It is owned by the DB.
func (b *keyBatch) run(d *DB) {
	for {
		var first *keyAsked
		select {
		case <-d.closing.Done():
			return
		case first = <-b.asked:
		}
		b.write(d, b.gather(first))
	}
}

// gather takes what is waiting, but for those who have given up. Of two of the same key the later is not taken: the earlier is about to be.
func (b *keyBatch) gather(first *keyAsked) []*keyAsked {
	batch := make([]*keyAsked, 0, 8)
	for a := first; ; {
		switch {
		case a.ctx.Err() != nil: // and hears that from there
		case slices.ContainsFunc(batch, func(o *keyAsked) bool { return o.key == a.key }):
			a.done <- nil
		default:
			batch = append(batch, a)
		}
		if len(batch) == maxKeys {
			return batch
		}
		select {
		case a = <-b.asked:
		default:
			return batch
		}
	}
}

func (b *keyBatch) write(d *DB, batch []*keyAsked) {
	if len(batch) == 0 {
		return
	}
	slices.SortFunc(batch, func(x, y *keyAsked) int { return strings.Compare(x.key, y.key) }) // in all sidecars alike: two never wait for each other
	ctx, cancel := context.WithDeadline(context.Background(), latest(batch))                  // not that of one of them, which must not end the others' statement
	defer cancel()
	keys, untils := make([][]byte, len(batch)), make([]int64, len(batch))
	for i, a := range batch {
		keys[i], untils[i] = []byte(a.key), micros(a.until)
	}
	var taken map[string]bool
	err := d.once(ctx, func(ctx context.Context) error {
		taken = make(map[string]bool, len(batch))
		rows, err := d.w.QueryContext(ctx, b.query, keys, untils, ClaimLease.Microseconds())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var key []byte
			if err := rows.Scan(&key); err != nil {
				return err
			}
			taken[string(key)] = true
		}
		return rows.Err()
	})
	for _, a := range batch {
		a.taken = taken[a.key]
		a.done <- err
	}
}

// latest is when the last of a batch gives up. What was written after that would stay, and nobody would know of it.
func latest(batch []*keyAsked) time.Time {
	var last time.Time
	for _, a := range batch {
		d, ok := a.ctx.Deadline()
		if !ok {
			return time.Now().Add(readTimeout)
		}
		if d.After(last) {
			last = d
		}
	}
	return last
}
