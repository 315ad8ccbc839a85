package store

import (
	"container/list"
	"context"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unique"
)

const (
	useInterval = time.Minute     // between two writes of one row; what a crash loses at most
	useRetry    = 5 * time.Second // after a failure
	useBatch    = 500             // rows of one statement
	maxUses     = 1 << 17         // ids of each kind that are kept until they are written: 131,072
)

// A Usage keeps count of which assistants and which callers' tokens are used, off the path of the requests: they add to a number in memory,
// and every minute what has changed is written, in batches. A row is written once a minute at most, whatever its load. Several sidecars on
// one store add to the same rows. While the store cannot be reached the numbers are kept, in bounded memory.
//
// It is made by NewUsage, runs in Run and is ended by Stop; Flush then writes what is left.
type Usage struct {
	db         *DB
	assistants tally
	tokens     tally
	now        func() time.Time

	stop     chan struct{}
	stopOnce sync.Once
	writing  sync.Mutex // one at a time
}

// UsageStats say what a Usage holds, and what it could not keep.
type UsageStats struct {
	Held    int64 `json:"held"`    // ids in memory
	Dropped int64 `json:"dropped"` // uses of ids that were pushed out by others before they could be written
}

// NewUsage makes a Usage of d. Nothing is written before Run.
func NewUsage(d *DB) *Usage {
	u := &Usage{db: d, now: time.Now, stop: make(chan struct{})}
	u.assistants = tally{limit: maxUses, query: assistantUses, lite: assistantUsesLite}
	u.tokens = tally{limit: maxUses, query: tokenUses, lite: tokenUsesLite}
	return u
}

// Assistant says that an assistant of the store was used. It takes no lock and allocates nothing, but for an id that was not used for a
// while. The id may lie in a request's memory. A nil Usage counts nothing.
func (u *Usage) Assistant(id string, at time.Time) {
	if u != nil {
		u.assistants.add(id, at.Unix())
	}
}

// Token is Assistant for a caller's token, by its ID.
func (u *Usage) Token(id string, at time.Time) {
	if u != nil {
		u.tokens.add(id, at.Unix())
	}
}

// Stats are the numbers now.
func (u *Usage) Stats() UsageStats {
	return UsageStats{
		Held:    u.assistants.held.Load() + u.tokens.held.Load(),
		Dropped: u.assistants.dropped.Load() + u.tokens.dropped.Load(),
	}
}

// Run writes what was used, every minute, until Stop.
func (u *Usage) Run() {
	timer := time.NewTimer(useInterval)
	defer timer.Stop()
	down := false // and it is in the log
	for {
		select {
		case <-u.stop:
			return
		case <-timer.C:
		}
		began := time.Now()
		err := u.write(context.Background(), false) // the store has time limits of its own
		switch {
		case err == nil && down:
			u.db.log.Info().Msg("when assistants and callers were last used is written again")
		case err != nil && !down:
			u.db.log.Warn().Err(err).Msg("when assistants and callers were last used cannot be written; it is kept, and tried again")
		}
		pause := time.Until(began.Add(useInterval))
		if down = err != nil; down {
			pause = useRetry
		}
		timer.Reset(pause)
	}
}

// Stop ends Run, which its owner waits for.
func (u *Usage) Stop() { u.stopOnce.Do(func() { close(u.stop) }) }

func (u *Usage) stopped() bool {
	select {
	case <-u.stop:
		return true
	default:
		return false
	}
}

// Flush writes whatever was used, however lately it was written.
func (u *Usage) Flush(ctx context.Context) error { return u.write(ctx, true) }

// write writes what is due: every row that was used and was not written within the last minute; all: whatever was used.
func (u *Usage) write(ctx context.Context, all bool) error {
	u.writing.Lock()
	defer u.writing.Unlock()
	for _, t := range []*tally{&u.assistants, &u.tokens} {
		now := u.now()
		due := t.due(now, all)
		for len(due) > 0 && (all || !u.stopped()) {
			n := min(useBatch, len(due))
			if err := u.db.writeUses(ctx, t, due[:n]); err != nil {
				return err
			}
			for _, p := range due[:n] {
				p.of.written = now
				if p.of.n.Add(-p.n) < 0 {
					t.dropped.Add(-p.n) // pushed out meanwhile, and written all the same
				}
			}
			due = due[n:]
		}
	}
	return nil
}

// A tally counts the uses of the rows of one kind.
//
// The map's keys are handles, which are pointers: to look one up, no string is put behind an interface.
type tally struct {
	known   sync.Map // :: unique.Handle[string] → *use
	held    atomic.Int64
	dropped atomic.Int64
	limit   int

	mu    sync.Mutex // of entering and leaving
	order list.List  // of *use, those that came first or were not used for longest in front

	query, lite string // see writeUses
}

// A use is how often an id was used and is not written yet.
type use struct {
	id   unique.Handle[string]
	n    atomic.Int64 // gone and less: it has left the tally, and who adds to it comes too late
	last atomic.Int64 // seconds since 1970

	written time.Time // by the last write; only write and due look at it
	place   *list.Element
	passed  int64 // last, when it was put behind the others; under the tally's mu
}

const gone = math.MinInt64 / 2

// add counts one use, at so many seconds since 1970.
func (t *tally) add(id string, at int64) {
	h := unique.Make(id) // copies an id that it does not know
	v, ok := t.known.Load(h)
	for {
		if !ok {
			v = t.enter(h)
		}
		u := v.(*use)
		if u.last.Load() < at {
			u.last.Store(at)
		}
		if u.n.Add(1) > 0 {
			return
		}
		ok = false
	}
}

// enter finds or makes the use of an id.
func (t *tally) enter(h unique.Handle[string]) any {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v, ok := t.known.Load(h); ok {
		return v
	}
	if t.order.Len() >= t.limit {
		t.push()
	}
	u := &use{id: h}
	u.place = t.order.PushBack(u)
	t.known.Store(h, u)
	t.held.Add(1)
	return u
}

// push pushes one out that was not used for long: the first that was not used since it was last looked at, of a few.
func (t *tally) push() {
	const looks = 16
	for range looks {
		u := t.order.Front().Value.(*use)
		last := u.last.Load()
		if last == u.passed {
			break
		}
		u.passed = last
		t.order.MoveToBack(u.place)
	}
	u := t.order.Front().Value.(*use)
	if lost := u.n.Swap(gone); lost > 0 {
		t.dropped.Add(lost)
	}
	t.leave(u)
}

// leave takes one out whose n is gone.
func (t *tally) leave(u *use) {
	t.known.Delete(u.id)
	t.order.Remove(u.place)
	t.held.Add(-1)
}

// A pending is what is to be written of a use.
type pending struct {
	of   *use
	id   string
	last int64
	n    int64
}

// due is what is to be written, by id: who locks rows in the order of their ids waits for others in turn. What was not used since it was
// last written leaves the tally.
func (t *tally) due(now time.Time, all bool) (due []pending) {
	t.known.Range(func(_, v any) bool {
		u := v.(*use)
		n := u.n.Load() // before last: what is counted is not later than that
		switch {
		case !all && now.Sub(u.written) < useInterval:
		case n > 0:
			due = append(due, pending{u, u.id.Value(), u.last.Load(), n})
		case n == 0:
			t.mu.Lock()
			if u.n.CompareAndSwap(0, gone) {
				t.leave(u)
			}
			t.mu.Unlock()
		}
		return true
	})
	slices.SortFunc(due, func(a, b pending) int { return strings.Compare(a.id, b.id) })
	return due
}
