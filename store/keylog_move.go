package store

import (
	"context"
	"slices"
	"time"
)

// move begins to give SQLite the keys of a file. The caller holds keyLog.mu.
func (k *keyKeeper) move(f *keyFile) {
	k.l.moving, k.l.moved = f, make(chan struct{})
	k.rest = k.rest[:0]
	for key, until := range f.keys {
		k.rest = append(k.rest, keyUntil{key, until})
	}
	k.atOnce = max(moveAtOnce, len(k.rest)/moveWithin)
	slices.SortFunc(k.rest, func(a, b keyUntil) int { return slices.Compare(a.key[:], b.key[:]) }) // neighbours share a page
}

// turn has the files take turns. The caller holds keyLog.mu, and nothing is moving.
func (k *keyKeeper) turn() {
	f := k.l.fresh
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
		more := k.l.fresh != nil && k.l.fresh.next > 0
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
	if n := min(len(k.rest), k.atOnce); n > 0 {
		some := k.rest[:n]
		err := k.d.direct(ctx, func(w *keyWriter) error {
			return w.whole(ctx, func() error {
				for i := range some {
					if _, err := w.keep(string(some[i].key[:]), time.UnixMicro(some[i].until)); err != nil {
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

// end is called when SQLite has what was moving.
func (k *keyKeeper) end(f *keyFile) error {
	for _, file := range append(slices.Clone(k.left), f) {
		if file.f == nil {
			continue
		}
		if err := file.empty(); err != nil {
			return err
		}
	}
	closeAll(k.left)
	k.left = nil
	k.l.mu.Lock()
	k.l.moving = nil
	close(k.l.moved)
	k.l.mu.Unlock()
	if f.f != nil {
		f.keys, f.next = map[logKey]int64{}, 0
		k.spare = f
	}
	if k.joined && k.wants && !k.mine {
		return k.leave()
	}
	return nil
}
