package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"
)

// keyOthers reads what other processes on the store have written down, and SQLite may not have.
type keyOthers struct {
	mu       sync.Mutex
	dir      *os.Root   // nil: nobody is looked for
	mine     int        // the slot of this process's own reserve
	reserves []*os.File // :: slot → the reserve
}

// ask says what SQLite and others know of a key.
func (d *DB) ask(ctx context.Context, key string) (known, error) {
	if found, err := d.lite.keyLog.askOthers(key); found != askSQLite || err != nil { // first: SQLite has it before it is out of there
		return found, err
	}
	until, err := d.lite.seen.until(ctx, d.r, key)
	if err != nil {
		return 0, err
	}
	if until.After(time.Now()) {
		return kept, nil
	}
	return unheard, nil
}

// askOthers says what others have written down of a key.
func (l *keyLog) askOthers(key string) (known, error) {
	l.mu.Lock()
	alone, apart := l.on && time.Now().Before(l.trust), l.apart
	l.mu.Unlock()
	if alone || len(key) != keySize {
		return askSQLite, nil
	}
	until, forgotten, err := l.others.read(logKey([]byte(key)), apart)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%w: reading what other sidecars have written down: %w", ErrUnavailable, err)
	case until > micros(time.Now()) && until != forgotten:
		return kept, nil
	case forgotten != 0:
		return leaving, nil
	}
	return askSQLite, nil
}

// read reads until when a key is kept, and until when one was that is forgotten; 0: none.
func (o *keyOthers) read(k logKey, logs bool) (until, forgotten int64, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dir == nil {
		return 0, 0, nil
	}
	if err := o.find(); err != nil {
		return 0, 0, err
	}
	for slot, f := range o.reserves {
		if slot == o.mine {
			continue
		}
		v, err := inReserve(f, k)
		if err != nil {
			return 0, 0, err
		}
		if until = max(until, v); v < 0 {
			forgotten = -v
		}
	}
	if !logs {
		return until, forgotten, nil
	}
	for _, name := range logNames { // last: a reserve says of keys in the log that they are forgotten until that is emptied
		v, err := inLog(o.dir, name, k)
		if err != nil {
			return 0, 0, err
		}
		until = max(until, v)
	}
	return until, forgotten, nil
}

// find opens the reserves that have come. None goes, and each has a slot behind the others.
func (o *keyOthers) find() error {
	for slot := len(o.reserves); slot < reserveSlots; slot++ {
		f, err := regular(o.dir.OpenFile(reserveName(slot), os.O_RDONLY|noLink, 0))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		o.reserves = append(o.reserves, f)
	}
	return nil
}

func (o *keyOthers) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range o.reserves {
		_ = f.Close()
	}
	o.reserves, o.dir = nil, nil
}

// inLog is until when a key is kept by a file of the log of somebody who lives.
func inLog(dir *os.Root, name string, key logKey) (until int64, err error) {
	f, err := regular(dir.OpenFile(name, os.O_RDONLY|noLink, 0))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return 0, err
	}
	defer f.Close()
	err = eachRecord(f, func(_ int64, b *[recordSize]byte) bool {
		until = newer(until, b, key)
		return true
	})
	return until, err
}

// inReserve is what is written down of a key in the reserve of somebody who lives. Its records stand together.
func inReserve(f *os.File, key logKey) (until int64, err error) {
	err = eachRecord(f, func(_ int64, b *[recordSize]byte) bool {
		until = newer(until, b, key)
		return *b != [recordSize]byte{}
	})
	return until, err
}

// newer is what is known of a key behind one more record.
func newer(before int64, b *[recordSize]byte, key logKey) int64 {
	if [keySize]byte(b[recordSize-keySize:]) != key {
		return before
	}
	_, until, whole := readRecord(b)
	if !whole {
		return before
	}
	return until
}
