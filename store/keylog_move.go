package store

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// move begins to give SQLite the keys of a file, and what is in the reserve. The caller holds keyLog.mu.
func (k *keyKeeper) move(f *keyFile) {
	k.l.moving, k.l.moved = f, make(chan struct{})
	k.listed, k.puts = false, -1
	// What comes from now on may be that a key of the other file is forgotten: it stays until that has its turn.
	if r := k.l.reserve; r != nil && (k.l.fresh == nil || k.l.fresh.next == 0) {
		k.puts = r.puts
	}
}

// list lists what is to be moved, once it is known of each key that it was written down: SQLite must not get another one.
func (k *keyKeeper) list(f *keyFile) {
	f.writes.Wait()
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	k.rest = k.rest[:0]
	for key, until := range f.keys {
		if k.l.reserve.of(key) != -until {
			k.rest = append(k.rest, keyUntil{key, until})
		}
	}
	if r := k.l.reserve; r != nil {
		for key, a := range r.keys {
			k.rest = append(k.rest, keyUntil{key, a.until})
		}
	}
	k.atOnce = max(moveAtOnce, len(k.rest)/moveWithin)
	slices.SortFunc(k.rest, func(a, b keyUntil) int { // neighbours share a page; what is forgotten is, before it is kept anew
		return cmp.Or(slices.Compare(a.key[:], b.key[:]), cmp.Compare(a.until, b.until))
	})
	k.listed = true
}

// setAside has the reserve have its room, as soon as there is some.
func (k *keyKeeper) setAside() {
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	if !k.l.reserve.ready {
		_ = k.l.reserve.prepare()
	}
}

// pending begins to move what is in the reserve, if anything is.
func (k *keyKeeper) pending() bool {
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	if !k.waiting() {
		return false
	}
	k.turn()
	return true
}

// waiting says whether something is in the reserve that SQLite may be given. The caller holds keyLog.mu.
func (k *keyKeeper) waiting() bool { return k.l.reserve.pending() && !k.heir }

// turn has the files take turns, if there is a log. The caller holds keyLog.mu, and nothing is moving.
func (k *keyKeeper) turn() {
	f := k.l.fresh
	if f == nil {
		k.move(&keyFile{})
		return
	}
	k.l.fresh, k.spare, k.turned = k.spare, nil, time.Now()
	k.move(f)
}

// moveAll gives SQLite all that is kept here.
func (k *keyKeeper) moveAll(ctx context.Context) error {
	for {
		for k.l.moving != nil {
			if err := k.moveSome(ctx); err != nil {
				return err
			}
		}
		k.l.mu.Lock()
		more := k.l.fresh != nil && k.l.fresh.next > 0 || k.waiting()
		if more {
			k.turn()
		}
		k.l.mu.Unlock()
		if !more {
			return nil
		}
	}
}

// moveSome gives SQLite some of the keys that are moving, and empties their file when it has all.
func (k *keyKeeper) moveSome(ctx context.Context) error {
	f := k.l.moving // set by this goroutine alone
	if f == nil {
		return nil
	}
	if !k.listed {
		k.list(f)
	}
	if n := min(len(k.rest), k.atOnce); n > 0 {
		some := k.rest[:n]
		err := k.d.direct(ctx, func(w *keyWriter) error {
			return w.whole(ctx, func() error {
				for i := range some {
					if err := w.tell(some[i]); err != nil {
						return err
					}
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
		if k.rest = k.rest[n:]; len(k.rest) > 0 {
			return nil
		}
	}
	return k.end(f)
}

// tell tells SQLite that a key is kept, or forgotten.
func (k *keyWriter) tell(what keyUntil) (err error) {
	key := string(what.key[:])
	if what.until < 0 {
		return k.forget(key, time.UnixMicro(-what.until))
	}
	_, err = k.keep(key, time.UnixMicro(what.until))
	return err
}

// end is called when SQLite has what was moving.
func (k *keyKeeper) end(f *keyFile) error {
	for _, file := range append(slices.Clone(k.left), f) { // a reserve last: it says of keys in the log that they are forgotten
		if file.f == nil {
			continue
		}
		if err := file.empty(); err != nil {
			return err
		}
	}
	closeAll(k.left)
	k.left = nil
	if err := k.over(); err != nil {
		return err
	}
	if f.f != nil {
		f.keys, f.next = map[logKey]int64{}, 0
		k.spare = f
	}
	if k.joined && k.wants && !k.mine {
		return k.leave()
	}
	return nil
}

// over has nothing be moving any more.
func (k *keyKeeper) over() error {
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	if err := k.l.reserve.empty(k.puts); err != nil {
		return err
	}
	k.l.moving = nil
	close(k.l.moved)
	return nil
}
