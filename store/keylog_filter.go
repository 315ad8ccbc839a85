package store

import (
	"context"
	"database/sql"
	"iter"
	"time"

	"github.com/dgraph-io/ristretto/v2/z"
)

// A keyFilter says of most keys that SQLite does not have them, without asking it. It forgets none: the keys that SQLite has forgotten are out of it
// when it is made anew, which is when it has become full.
type keyFilter struct {
	all, next *z.Bloom // nil: it may have any; next is being made
	room      int      // how many more keys there is room for
}

// leastKeys is how many there is room for at least: in 128 KiB. Only tests change it.
var leastKeys = 1 << 16

// keysAtOnce is how many are read at once to make it. Only tests change it.
var keysAtOnce = 2000

// mistaken is the share of the keys that SQLite does not have of which it is asked all the same.
const mistaken = 0.01

func (f *keyFilter) may(k logKey) bool { return f.all == nil || f.all.Has(k.hash()) }

// add puts a key in that SQLite is about to get.
func (f *keyFilter) add(key string) {
	if len(key) != keySize {
		return
	}
	k := logKey([]byte(key))
	f.room--
	if f.all != nil {
		f.all.Add(k.hash())
	}
	if f.next != nil {
		f.next.Add(k.hash())
	}
}

const (
	seenKeys  = "SELECT key FROM webhook_seen WHERE key > $1 ORDER BY key LIMIT $2"
	countSeen = "SELECT count(*) FROM webhook_seen"
)

// fillFilter makes the filter anew, from what SQLite has and what it gets meanwhile; from then on the log is in force. It takes turns with
// others: only the first read may be long.
func (d *DB) fillFilter(ctx context.Context) error {
	l := &d.lite.keyLog
	var n int
	err := d.read(ctx, time.Minute, func(ctx context.Context) error { return d.r.QueryRowContext(ctx, countSeen).Scan(&n) })
	if err != nil {
		return err
	}
	l.mu.Lock()
	for range l.kept() {
		n++
	}
	l.mu.Unlock()
	size := max(leastKeys, 2*n)
	next := z.NewBloomFilter(float64(size), mistaken)
	l.mu.Lock()
	l.filter.next, l.filter.room = next, size-n
	for key := range l.kept() { // SQLite may get them behind where it is being read
		next.Add(key.hash())
	}
	l.mu.Unlock()
	// What SQLite was told of before that is not in it, nor to be read until its write is over.
	if err := d.direct(ctx, func(*keyWriter) error { return nil }); err != nil {
		return err
	}
	for after := []byte{}; ; {
		begun := time.Now()
		keys, err := d.seenKeys(ctx, after)
		if err != nil {
			return err
		}
		l.mu.Lock()
		for _, key := range keys {
			if len(key) == keySize {
				next.Add((*logKey)(key).hash())
			}
		}
		if len(keys) == 0 {
			l.filter.all, l.filter.next, l.on = next, nil, true
		}
		l.mu.Unlock()
		if len(keys) == 0 {
			return nil
		}
		after = keys[len(keys)-1]
		select {
		case <-time.After(time.Since(begun)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// kept are the keys that are kept here. The caller holds mu.
func (l *keyLog) kept() iter.Seq[logKey] {
	return func(yield func(logKey) bool) {
		for _, f := range []*keyFile{l.fresh, l.moving} {
			if f == nil {
				continue
			}
			for key := range f.keys {
				if !yield(key) {
					return
				}
			}
		}
		if l.reserve == nil {
			return
		}
		for key := range l.reserve.keys {
			if !yield(key) {
				return
			}
		}
	}
}

func (d *DB) seenKeys(ctx context.Context, after []byte) (keys [][]byte, err error) {
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		keys = keys[:0]
		return d.list(ctx, func(rows *sql.Rows) error {
			var key []byte
			err := rows.Scan(&key)
			keys = append(keys, key)
			return err
		}, seenKeys, after, keysAtOnce)
	})
	return keys, err
}
