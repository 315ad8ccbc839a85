package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// liveFor is how long after its last proof a feed counts as live. With it, the promise holds that no revoked value is used for more than
// a second: a feed is live at most this long after a moment up to which it has announced everything.
const liveFor = 900 * time.Millisecond

// dead is the beat of a feed that is down.
const dead = -1

// A watcher is one Watch call.
type watcher struct {
	fn    func(Change)
	proof atomic.Int64 // what beat was last, but for dead; 0: it never was anything else
	beat  atomic.Int64 // everything that was committed before this moment (nanoseconds of the DB's clock) has been announced; or dead
}

// prove notes that everything that was committed before a moment has been announced.
func (w *watcher) prove(at int64) {
	w.beat.Store(at)
	w.proof.Store(at)
}

// Watch calls fn for every Change until ctx ends or the DB is closed. After any gap, the first connection included, it calls fn(Change{}):
// anyone's rows may have changed. Writes of this DB are announced before they return. fn is called from several goroutines at once; it must
// be quick, and neither write to the store nor close it.
//
// On PostgreSQL, one connection listens for what triggers notify. On SQLite, the file is asked every 100 ms whether others have committed.
func (d *DB) Watch(ctx context.Context, fn func(Change)) error {
	w := &watcher{fn: fn}
	w.beat.Store(dead)
	if !d.join(w) {
		return errClosed
	}
	defer d.leave(w)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.closing, cancel)()

	if d.lite != nil {
		d.poll(ctx, w)
	} else {
		d.listen(ctx, w)
	}
	if d.closing.Err() != nil {
		return errClosed
	}
	return ctx.Err()
}

var errClosed = errors.New("watching the store: it is closed")

func (d *DB) join(w *watcher) bool {
	d.watching.Lock()
	defer d.watching.Unlock()
	if d.closing.Err() != nil {
		return false
	}
	d.feeds.Add(1)
	all := append(slices.Clone(*d.watchers.Load()), w)
	d.watchers.Store(&all)
	return true
}

// leave returns when nobody calls w any more.
func (d *DB) leave(w *watcher) {
	d.watching.Lock()
	defer d.watching.Unlock()
	rest := slices.DeleteFunc(slices.Clone(*d.watchers.Load()), func(x *watcher) bool { return x == w })
	d.watchers.Store(&rest)
	d.feeds.Done()
}

// FeedLive says whether whatever was committed up to a moment ago has been announced to every watcher. While it is false, a cached value
// must be confirmed with the store before it is used. It takes no lock and allocates nothing: it is asked on every request.
func (d *DB) FeedLive() bool {
	all := *d.watchers.Load()
	now := d.now()
	for _, w := range all {
		if beat := w.beat.Load(); beat == dead || now-beat > int64(liveFor) {
			return false
		}
	}
	return len(all) > 0
}

// FeedAge is how long ago it was last proven that whatever was committed had been announced to every watcher; false: never, or the feed is
// down.
func (d *DB) FeedAge() (age time.Duration, live bool) {
	all := *d.watchers.Load()
	now := d.now()
	for _, w := range all {
		beat := w.beat.Load()
		if beat == dead {
			return 0, false
		}
		age = max(age, time.Duration(now-beat))
	}
	return age, len(all) > 0
}

// FeedProof is how long ago that was last proven, also while the feed is down; if it never was, since the store was opened.
func (d *DB) FeedProof() (age time.Duration) {
	now := d.now()
	for _, w := range *d.watchers.Load() {
		age = max(age, time.Duration(now-w.proof.Load()))
	}
	return age
}

// now is the moment on the DB's own clock, which nobody sets.
func (d *DB) now() int64 { return int64(time.Since(d.started)) }

// announce tells every watcher.
func (d *DB) announce(changes ...Change) {
	d.watching.RLock()
	defer d.watching.RUnlock()
	for _, w := range *d.watchers.Load() {
		for _, c := range changes {
			w.fn(c)
		}
	}
}

// announceTo tells one watcher, from its own feed.
func (d *DB) announceTo(w *watcher, c Change) {
	d.watching.RLock()
	defer d.watching.RUnlock()
	w.fn(c)
}

// parseChange reads a notification; what it does not know may be about anything.
func parseChange(payload string) Change {
	kind, id, ok := strings.Cut(payload, ":")
	switch k := Kind(kind); {
	case !ok || id == "":
		return Change{}
	case k == KindCredential, k == KindAssistant, k == KindToken:
		return Change{k, id}
	}
	return Change{}
}
