package store

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// A keyReserve is room on the disk that was set aside for what must be written down of a key when nothing else can be, since the disk is full:
// that a message was answered, and that one was not after all. Else a kill would bring back a key that was forgotten, and the
// provider's next attempt would be refused as a copy.
//
// Each process has one for as long as it lives. A key has one record in it, which is overwritten: a message needs one at most. SQLite gets them
// with the next keys that it is given, and until it has them no message is taken whose record might find no room.
//
// Who is not alone looks into the others' as well: a copy may come to another sidecar than the message did.
type keyReserve struct {
	f    *os.File
	slot int
	// Guarded by keyLog.mu.
	ready bool // it has its room
	full  bool // the disk had none for something that is here
	keys  map[logKey]aside
	next  int64 // where the next record goes
	puts  int   // how often something was put here
}

// An aside is a record of a reserve: until when its key is kept; negative: it was kept until then, and is forgotten.
type aside struct{ until, at int64 }

const (
	reserveSlots   = 16      // processes that take webhooks on one store at most
	reserveRecords = 1 << 14 // 704 KiB
)

func reserveName(slot int) string { return fmt.Sprintf("%d.reserve", slot) }

// openReserve opens the first reserve that nobody has, with what somebody left in it.
func openReserve(l *lite, dir *os.Root) (*keyReserve, error) {
	for slot := range reserveSlots {
		f, err := l.openOwn(dir, reserveName(slot))
		if err != nil {
			return nil, err
		}
		free, err := lock(f, syscall.LOCK_EX)
		if err != nil || !free {
			_ = f.Close()
			if err != nil {
				return nil, err
			}
			continue
		}
		r := &keyReserve{f: f, slot: slot, keys: map[logKey]aside{}}
		err = eachRecord(f, func(at int64, b *[recordSize]byte) bool {
			if k, until, whole := readRecord(b); whole && at < reserveRecords*recordSize {
				r.keys[k], r.next = aside{until, at}, at+recordSize
			}
			return true
		})
		if err != nil {
			_ = f.Close()
			return nil, err
		}
		_ = r.prepare() // said by who finds no room
		return r, nil
	}
	return nil, fmt.Errorf("%d others take webhooks on this store already", reserveSlots)
}

// prepare sets the room aside. What is not written may have no place on the disk yet, whatever the size of the file.
func (r *keyReserve) prepare() error {
	b := make([]byte, reserveRecords*recordSize)
	for i := range r.next { // no gap, where a kill or the disk cut emptying it short: others read up to the first
		b[i] = 0xff
	}
	for k, a := range r.keys {
		putRecord((*[recordSize]byte)(b[a.at:]), k, a.until)
	}
	_, err := r.f.WriteAt(b, 0)
	r.ready = err == nil
	return err
}

// of is what is written down of a key: 0 is nothing.
func (r *keyReserve) of(k logKey) int64 {
	if r == nil {
		return 0
	}
	return r.keys[k].until
}

func (r *keyReserve) pending() bool { return r != nil && len(r.keys) > 0 }

// put writes a record over the one of the same key, or behind the last.
func (r *keyReserve) put(k logKey, until int64) error {
	before, again := r.keys[k]
	at := r.next
	switch {
	case again:
		at = before.at
	case !r.ready || at >= reserveRecords*recordSize:
		return errors.New("the room that was set aside for it is full")
	}
	var b [recordSize]byte
	putRecord(&b, k, until)
	r.puts++
	if _, err := r.f.WriteAt(b[:], at); err != nil {
		return err
	}
	if r.keys[k] = (aside{until, at}); !again {
		r.next += recordSize
	}
	return nil
}

// empty is called once SQLite has what was there after so many puts. What came since stays, with the rest: SQLite is given it again.
func (r *keyReserve) empty(puts int) error {
	if r == nil || r.next == 0 || r.puts != puts {
		return nil
	}
	if _, err := r.f.WriteAt(make([]byte, r.next), 0); err != nil {
		r.ready = false // prepare writes anew what is not emptied
		return err
	}
	r.keys, r.next, r.full = map[logKey]aside{}, 0, false
	return nil
}

// room says whether there is room to write down what becomes of one more message, while there are so many others.
func (l *keyLog) room(others int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.reserve
	if r == nil || r.ready && !r.full && len(r.keys)+others < reserveRecords/2 { // the other half is that of messages whose answer is on its way
		return nil
	}
	return fmt.Errorf("%w: the disk of the store has no room to write down what becomes of a webhook", ErrUnavailable)
}

// keepAside keeps a key in the reserve, for which there was no room elsewhere.
func (l *keyLog) keepAside(key string, until time.Time) (duplicate bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch l.look(key) {
	case kept:
		return true, nil
	case leaving:
		return false, errLeaving
	}
	l.filter.add(key)
	return false, l.setAside(logKey([]byte(key)), micros(until), true)
}

// forgetAside forgets a key of which that could be written nowhere else.
func (l *keyLog) forgetAside(key string, until time.Time, noRoom bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	k, was := logKey([]byte(key)), micros(until)
	if now := l.reserve.of(k); now != 0 && now != was { // it is forgotten, or somebody else's since
		return nil
	}
	return l.setAside(k, -was, noRoom)
}

// setAside puts a record in the reserve. The caller holds mu.
func (l *keyLog) setAside(k logKey, until int64, noRoom bool) error {
	if l.reserve == nil {
		return errors.New("no room was set aside for it")
	}
	err := l.reserve.put(k, until)
	l.reserve.full = l.reserve.full || noRoom && err == nil
	return err
}

// errLeaving: the same key is being forgotten, and may be kept anew once SQLite has forgotten it.
var errLeaving = fmt.Errorf("%w: it is being forgotten that this webhook was answered", ErrUnavailable)

// noRoom says whether an error is one of the disk, which may be full.
func noRoom(err error) bool {
	for _, is := range []error{syscall.ENOSPC, syscall.EDQUOT, sqlite3.FULL, sqlite3.IOERR} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}
