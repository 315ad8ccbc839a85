package store

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"
)

// A keyLog keeps the keys of messages that were answered while this process alone answers any on an SQLite file: in memory, and in a log
// beside the file, where they outlive the process. SQLite gets them a moment later, many in one transaction: there a key costs a tenth of
// what it costs by itself, and no answer waits for it, nor behind another one that does.
//
// A key that is in none of the two is looked up in SQLite only if a filter of all that SQLite has does not rule it out.
//
// It is in force between the two moments at which keylog_alone.go says that this process is alone, and that somebody else wants to join.
// What was kept here before the second is in SQLite when the other one begins.
type keyLog struct {
	mu     sync.Mutex
	on     bool          // keys are kept here
	trust  time.Time     // but not after this, when somebody may have joined without this process
	fresh  *keyFile      // those that came since SQLite last got some
	moving *keyFile      // those that SQLite is being given; nil: none
	moved  chan struct{} // closed when it has those
	filter keyFilter     // every key that SQLite may have

	reserve *keyReserve // for a full disk; nil: this process has none
	apart   bool        // somebody has a log and does not let this process join
	others  keyOthers
}

// keySize is what a key has that can be kept here: a SHA-256. All others go to SQLite.
const keySize = 32

type logKey [keySize]byte

// maxFresh is how many keys, or records, wait for SQLite at most: one that can be read and not written must not let them grow for ever. Only
// tests change it.
var maxFresh = 1 << 17

// What the log knows of a key.
type known int

const (
	unheard   known = iota + 1 // neither here nor in SQLite
	kept                       // it is kept, and has not run out
	askSQLite                  // SQLite may have it
	leaving                    // it is forgotten, and SQLite may not know yet
)

// find says what is known of a key.
func (l *keyLog) find(key string) known {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.look(key)
}

func (l *keyLog) look(key string) known {
	if len(key) != keySize {
		return askSQLite
	}
	k := logKey([]byte(key))
	aside := l.reserve.of(k)
	switch {
	case aside < 0 || aside == 0 && l.moving.drops(k):
		return leaving
	case aside > micros(time.Now()) || l.fresh.has(k) || l.moving.has(k):
		return kept
	}
	if l.on && time.Now().Before(l.trust) && !l.filter.may(k) {
		return unheard
	}
	return askSQLite
}

// keep keeps a key until a time. Not done: it is SQLite's to keep.
func (l *keyLog) keep(key string, until time.Time) (done, duplicate bool, err error) {
	f, at, found := l.enter(key, until)
	switch {
	case f != nil:
		return true, false, l.written(f, at, key, until)
	case found == leaving:
		return true, false, errLeaving
	}
	return found == kept, found == kept, nil
}

// enter takes a key in that is nowhere yet, and says where it is to be written.
func (l *keyLog) enter(key string, until time.Time) (f *keyFile, at int64, found known) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if found = l.look(key); found != unheard || len(l.fresh.keys) >= maxFresh || l.fresh.next >= int64(maxFresh)*recordSize {
		return nil, 0, found
	}
	l.filter.add(key)
	f = l.fresh
	f.keys[logKey([]byte(key))] = micros(until)
	return f, f.reserve(), found
}

// written writes a key down where it was entered, or in the reserve.
func (l *keyLog) written(f *keyFile, at int64, key string, until time.Time) error {
	defer f.writes.Done()
	k := logKey([]byte(key))
	err := f.write(at, k, micros(until))
	if err == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(f.keys, k)
	if noRoom(err) && l.setAside(k, micros(until), true) == nil {
		return nil
	}
	return fmt.Errorf("%w: writing down that a webhook was answered: %w", ErrUnavailable, err)
}

// told notes that SQLite is about to get a key, and says what is known of it here. The caller holds the connection for writes, until SQLite has it:
// fillFilter waits for that.
func (l *keyLog) told(key string) known {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.filter.add(key)
	return l.look(key)
}

// forget forgets a key that is kept until a time. Not done: SQLite may have it.
func (l *keyLog) forget(ctx context.Context, key string, until time.Time) (done bool, err error) {
	if len(key) != keySize {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, keyWait)
	defer cancel()
	k, was := logKey([]byte(key)), micros(until)
	for {
		l.mu.Lock()
		if l.reserve.of(k) == was {
			defer l.mu.Unlock()
			return true, l.setAside(k, -was, false)
		}
		if moving, moved := l.moving, l.moved; moving != nil && moving.keys[k] == was {
			if l.reserve != nil && l.reserve.full { // it may take long until SQLite has it
				defer l.mu.Unlock()
				return true, l.setAside(k, -was, true)
			}
			l.mu.Unlock()
			select {
			case <-moved: // it is SQLite's then
				continue
			case <-ctx.Done():
				return false, fmt.Errorf("%w: forgetting a webhook that was not answered: %w", ErrUnavailable, ctx.Err())
			}
		}
		f := l.fresh
		if f == nil || f.keys[k] != was {
			l.mu.Unlock()
			return false, nil
		}
		delete(f.keys, k)
		at := f.reserve()
		l.mu.Unlock()
		defer f.writes.Done()
		if err := f.write(at, k, forgotten); err != nil {
			return true, fmt.Errorf("%w: writing down that a webhook was not answered: %w", ErrUnavailable, err)
		}
		return true, nil
	}
}

// A keyFile is one of the two files of the log, and the keys in it. Its records are written where their place was reserved, in any order, and
// each says whether it is whole.
type keyFile struct {
	f      *os.File
	keys   map[logKey]int64 // :: key → until, Unix microseconds; negative: it was kept until then, and is forgotten. Guarded by keyLog.mu, as next is
	next   int64            // where the next record goes
	writes sync.WaitGroup   // records that have a place and are not written
}

// has says whether it holds a key that has not run out.
func (f *keyFile) has(k logKey) bool {
	if f == nil {
		return false
	}
	until, ok := f.keys[k]
	return ok && until > micros(time.Now())
}

// drops says whether it holds that a key is forgotten.
func (f *keyFile) drops(k logKey) bool { return f != nil && f.keys[k] < 0 }

// add takes in the keys of another file. One that is forgotten in either is, unless it is kept until another time.
func (f *keyFile) add(keys map[logKey]int64) {
	for k, until := range keys {
		switch was := f.keys[k]; {
		case until > 0 && was == -until:
		case until < 0 && was > 0 && was != -until:
		default:
			f.keys[k] = until
		}
	}
}

// reserve takes the place of a record. Whoever does calls writes.Done when it is written.
func (f *keyFile) reserve() int64 {
	at := f.next
	f.next += recordSize
	f.writes.Add(1)
	return at
}

func (f *keyFile) write(at int64, k logKey, until int64) error {
	var b [recordSize]byte
	putRecord(&b, k, until)
	_, err := f.f.WriteAt(b[:], at)
	return err
}

// hash is what a filter goes by: a key is one already.
func (k *logKey) hash() uint64 { return binary.LittleEndian.Uint64(k[:8]) }
