package webhook

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
	"github.com/keyward/keyward/trace"
)

// QueueOptions are what a Queue works with. Zero values mean the defaults.
type QueueOptions struct {
	Store *store.DB
	Keys  *seal.Keyring // seals what waits in the store, and opens it
	Log   zerolog.Logger

	Tracer *trace.Tracer // nil: nothing is traced

	Attempts   int           // before a delivery is dead; default 12
	Backoff    time.Duration // before the second attempt, doubling from then on; default 1s
	BackoffMax time.Duration // the longest delay; default 5m

	Workers int           // attempts at once, for each target; default 16
	Timeout time.Duration // of an attempt; default 30s
	Poll    time.Duration // how often the store is asked for what other sidecars accepted, and for what is due; default 1s
	Lease   time.Duration // how long after a crash of this sidecar others take over what it had under way; default 10s
	Keep    time.Duration // how long what was delivered is kept, for redelivery; default 72h
}

const (
	maxUnderWay = 256 // attempts at once, over all targets
	sweepEvery  = time.Minute
	keyWait     = 30 * time.Second // before a delivery is looked at again whose key is not here
	longest     = 2 * time.Second  // between two tries to write an outcome down
)

// A Queue delivers what was accepted: at least once, in order per group, with retries. Several on one store, in this process and in
// others, share the work. It is made by NewQueue, worked off by Run and ended by Shutdown.
type Queue struct {
	o       QueueOptions
	owner   string // of leases: names this queue among all others
	targets *targets
	stats   QueueStats

	wake     chan struct{} // holds one when there may be something to do
	stop     chan struct{} // closed by Shutdown: lease no more
	stopOnce sync.Once
	running  atomic.Bool
	done     chan struct{}   // closed at the end of Run
	cut      context.Context // ends when attempts under way are to be cut off
	cutOff   context.CancelFunc
	owned    sync.WaitGroup

	mu       sync.Mutex
	underWay map[string]struct{} // :: delivery id
	busy     map[string]int      // :: target → attempts under way
}

// QueueStats count attempts since the start: those that the app took, those that are tried again, and the last ones that failed.
type QueueStats struct {
	Delivered, Failed, Dead, UnderWay atomic.Int64
}

// NewQueue makes a Queue. Nothing is delivered before Run.
func NewQueue(o QueueOptions) *Queue {
	o.Attempts = or(o.Attempts, 12)
	o.Workers = or(o.Workers, 16)
	o.Backoff = or(o.Backoff, time.Second)
	o.BackoffMax = max(or(o.BackoffMax, 5*time.Minute), o.Backoff)
	o.Timeout = or(o.Timeout, 30*time.Second)
	o.Poll = or(o.Poll, time.Second)
	o.Lease = or(o.Lease, 10*time.Second)
	o.Keep = or(o.Keep, 72*time.Hour)
	host, _ := os.Hostname()
	q := &Queue{
		o: o, owner: fmt.Sprintf("%s %d %s", host, os.Getpid(), rand.Text()[:8]), targets: newTargets(),
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		underWay: map[string]struct{}{}, busy: map[string]int{},
	}
	q.cut, q.cutOff = context.WithCancel(context.Background())
	return q
}

// Accept is Options.Accept: the store's, and delivers at once what it took. What is stored is sealed.
func (q *Queue) Accept(ctx context.Context, d *store.Delivery) (duplicate bool, err error) {
	duplicate, err = q.o.Store.AcceptDelivery(ctx, sealed(q.o.Keys, d))
	if err == nil && !duplicate {
		q.Wake()
	}
	return duplicate, err
}

// Wake makes the queue look for what is due now, instead of at the next poll.
func (q *Queue) Wake() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Stats are the numbers since the start.
func (q *Queue) Stats() *QueueStats { return &q.stats }

// Run delivers until Shutdown.
func (q *Queue) Run() {
	q.running.Store(true)
	defer close(q.done)
	beats, stopBeats := context.WithCancel(context.Background())
	var beside sync.WaitGroup
	beside.Go(func() { q.heartbeat(beats) })
	beside.Go(func() { q.sweep(beats) })
	timer := time.NewTimer(0)
	defer timer.Stop()
	down := false // and it is in the log
	for {
		select {
		case <-q.stop:
			q.owned.Wait() // with their leases renewed
			stopBeats()
			beside.Wait()
			q.targets.close()
			return
		case <-q.wake:
		case <-timer.C:
		}
		if q.stopping() {
			continue
		}
		err := q.guarded("looking for webhooks to deliver", q.lookAround)
		switch {
		case err == nil && down:
			q.o.Log.Info().Msg("webhooks are delivered again")
		case err != nil && !down:
			q.o.Log.Warn().Err(err).Msg("the store cannot be asked for webhooks to deliver; they wait")
		}
		down = err != nil
		timer.Reset(q.o.Poll)
	}
}

// Shutdown begins no further attempt and waits for those under way; when ctx ends they are cut off, and left to other sidecars or the next
// start.
func (q *Queue) Shutdown(ctx context.Context) error {
	q.stopOnce.Do(func() { close(q.stop) })
	if !q.running.Load() {
		return nil // Run, if it comes, ends at once
	}
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
	}
	q.cutOff()
	<-q.done
	return ctx.Err()
}

func (q *Queue) stopping() bool {
	select {
	case <-q.stop:
		return true
	default:
		return false
	}
}

// lookAround leases what is due, as much as there are workers free, target by target: one that is slow or down keeps none from another.
func (q *Queue) lookAround() error {
	ctx := context.Background() // the store has time limits of its own
	due, err := q.o.Store.DueTargets(ctx)
	if err != nil {
		return err
	}
	for _, target := range due {
		free := q.free(target)
		if free <= 0 {
			continue
		}
		leased, err := q.o.Store.LeaseDeliveries(ctx, q.owner, target, free, q.o.Lease)
		if err != nil {
			return err
		}
		for _, d := range leased {
			q.begin(d)
		}
	}
	return nil
}

func (q *Queue) free(target string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return min(q.o.Workers-q.busy[target], maxUnderWay-len(q.underWay))
}

func (q *Queue) begin(d *store.Delivery) {
	q.mu.Lock()
	q.underWay[d.ID] = struct{}{}
	q.busy[d.Target]++
	q.mu.Unlock()
	q.stats.UnderWay.Add(1)
	q.owned.Go(func() {
		var retry time.Duration
		// What is not written down is delivered again when the lease has ended: at least once.
		_ = q.guarded("an attempt", func() error { retry = q.attempt(d); return nil })
		q.mu.Lock()
		delete(q.underWay, d.ID)
		if q.busy[d.Target]--; q.busy[d.Target] == 0 {
			delete(q.busy, d.Target)
		}
		q.mu.Unlock()
		q.stats.UnderWay.Add(-1)
		q.Wake() // there is a worker free, and the next of the group may go
		if retry > 0 && retry < q.o.Poll {
			time.AfterFunc(retry+time.Millisecond, q.Wake)
		}
	})
}

// attempt makes one attempt and writes down what became of it. It returns after how long there is to be another; 0: there is none, or at
// once.
func (q *Queue) attempt(d *store.Delivery) (retry time.Duration) {
	began := time.Now()
	err := opened(q.o.Keys, d)
	if err == nil {
		err = q.guarded("delivering", func() error { return q.deliver(q.cut, d) })
	}
	var o store.Outcome
	ev := q.o.Log.Info()
	what := "webhook delivered"
	switch {
	case err == nil:
		o = store.Outcome{State: store.Delivered}
		q.stats.Delivered.Add(1)
	case errors.Is(err, errCut) && q.cut.Err() != nil:
		ev, what = q.o.Log.Warn(), "webhook given back" // whoever takes it next has all the attempts that were left
	case errors.Is(err, seal.ErrUnknownKey): // who has the key has all the attempts that were left
		err = fmt.Errorf("sealed by the key %q, which is not in the keyring", d.KeyID)
		o = store.Outcome{Retry: keyWait, Problem: err.Error()}
		ev, what = q.o.Log.Error(), "webhook not delivered: its key is missing; put it back into the key source and start anew"
	case d.Attempts >= q.o.Attempts, errors.Is(err, errOpen):
		o = store.Outcome{State: store.Dead, Problem: err.Error()}
		ev, what = q.o.Log.Error(), "webhook dead: the last attempt failed; it is kept, and keyward webhooks redeliver sends it again"
		q.stats.Dead.Add(1)
	default:
		retry = backoff(d.Attempts, q.o.Backoff, q.o.BackoffMax)
		o = store.Outcome{State: store.Pending, Retry: retry, Problem: err.Error()}
		ev, what = q.o.Log.Warn().Dur("again_in", retry), "webhook not delivered"
		q.stats.Failed.Add(1)
	}
	if err != nil {
		ev = ev.Str("problem", err.Error())
	}
	ev.Str("delivery", d.ID).Str("org", d.Org).Str("provider", d.Provider).Str("type", d.Type).Int("attempt", d.Attempts).
		Int64("bytes", d.BodySize).Dur("took", time.Since(began)).Msg(what)
	q.finish(d, o)
	return retry
}

// guarded turns a panic into an error: nothing that the queue does may end the process, and its value, which may hold anything, is neither
// printed nor stored.
func (q *Queue) guarded(what string, do func() error) (err error) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		err = fmt.Errorf("%s panicked with a %T", what, v)
		defer func() { _ = recover() }() // of the log itself
		q.o.Log.Error().Str("type", fmt.Sprintf("%T", v)).Bytes("stack", debug.Stack()).Msg("panic while delivering webhooks")
	}()
	return do()
}

// finish writes the outcome down. While the store cannot be reached it goes on trying, with the worker: what was delivered and is not known
// to be, is delivered again.
func (q *Queue) finish(d *store.Delivery, o store.Outcome) {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, longest) {
		err := q.o.Store.FinishDelivery(context.Background(), q.owner, d, o)
		switch {
		case err == nil:
			return
		case errors.Is(err, store.ErrConflict):
			q.o.Log.Warn().Str("delivery", d.ID).Msg("another sidecar took a webhook over that was under way here: the app may see it twice, with the same id")
			return
		case !errors.Is(err, store.ErrUnavailable):
			q.o.Log.Error().Err(err).Str("delivery", d.ID).Msg("what became of a webhook cannot be written down; it will be delivered again")
			return
		}
		select {
		case <-q.cut.Done():
			return
		case <-time.After(pause):
		}
	}
}

// heartbeat keeps the leases of what is under way.
func (q *Queue) heartbeat(ctx context.Context) {
	tick := time.NewTicker(q.o.Lease / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		q.mu.Lock()
		ids := make([]string, 0, len(q.underWay))
		for id := range q.underWay {
			ids = append(ids, id)
		}
		q.mu.Unlock()
		if len(ids) == 0 {
			continue
		}
		if err := q.guarded("renewing leases", func() error { return q.o.Store.RenewLeases(ctx, q.owner, ids, q.o.Lease) }); err != nil && ctx.Err() == nil {
			q.o.Log.Warn().Err(err).Msg("the leases of webhooks under way could not be renewed")
		}
	}
}

// sweep deletes what is over, and first seals what is not, or by a key that retires.
func (q *Queue) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	resealed := false
	for {
		if !resealed {
			var n int
			err := q.guarded("sealing stored webhooks", func() (err error) { n, err = Reseal(ctx, q.o.Store, q.o.Keys); return err })
			if n > 0 {
				q.o.Log.Info().Int("deliveries", n).Msg("sealed stored webhooks with the primary key")
			}
			if resealed = err == nil; !resealed && ctx.Err() == nil && !errors.Is(err, store.ErrUnavailable) {
				q.o.Log.Warn().Err(err).Msg("stored webhooks could not be sealed anew; it is tried again")
			}
		}
		if err := q.guarded("deleting old webhooks", func() error { _, err := q.o.Store.Sweep(ctx, time.Now().Add(-q.o.Keep)); return err }); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrUnavailable) {
			q.o.Log.Warn().Err(err).Msg("old webhooks could not be deleted")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
