// Package soak keeps the built program under all kinds of load at once, with a fault after the other, and says at the end whether it is where it was.
//
// Three sidecars run: two share a PostgreSQL, one has SQLite, and each store holds the credentials of all orgs. Callers, senders of webhooks and
// operators share a constant rate of arrivals among kinds of calls (kinds.go), each of which checks its whole outcome. Faults (faults.go) come in turn.
//
// What must hold, and is the run's verdict:
//
//   - No unexpected outcome: each call ends as its kind says, or overlaps with a fault that names this very outcome for this very kind (judge.go).
//   - Nothing lost: the app has every webhook that was acknowledged as stored.
//   - Back to where it was: memory, descriptors and goroutines under the same load, before the first fault and some time after the last one (sample.go).
//   - No panic and no end: each sidecar is the process that was started.
package soak

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"
)

// Options of a run.
type Options struct {
	Binary string        // the built program
	Dir    string        // scratch, private; its name leaves room for sockets' paths
	Time   time.Duration // in all, without the time in which the orgs are stored
	Orgs   int           // in each store
	Rate   float64       // arrivals per second, of all kinds
	Faults []string      // only these; none: all

	Say  func(format string, args ...any) // the line that shows how far it is
	Line func(string)                     // a line that stays
}

// A plan is how the time of a run is spent.
type plan struct {
	warm, cool time.Duration // load without faults, before and after
	every      time.Duration // from one fault to the next
	fault      time.Duration // how long one lasts
	faults     int
	sample     time.Duration // from one measurement to the next
}

// planned: an hour has a fault every minute. Shorter runs have them closer together, so that each comes once at least. The end takes its
// time: connections that a fault left behind are kept for 50 s in case they are needed.
func planned(total time.Duration, faults int) plan {
	p := plan{
		warm: max(total/20, min(total/5, time.Minute)), cool: max(total/20, min(total*55/100, 80*time.Second)), sample: max(total/360, 500*time.Millisecond),
	}
	between := total - p.warm - p.cool
	p.every = min(time.Minute, between/time.Duration(faults))
	p.faults = int(between / p.every)
	p.fault = min(8*time.Second, p.every/3)
	return p
}

// Run soaks, and reports. An error is what kept it from being carried out; whether the bar was met is the report's to say.
func Run(ctx context.Context, o Options) (r *Report, err error) {
	f, err := newField(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	p := planned(o.Time, len(f.faults))
	r = &Report{Minutes: o.Time.Minutes(), Rate: o.Rate, Orgs: o.Orgs, Store: f.stores(), Rule: rule(), Left: f.left}
	f.judge.begun, f.judge.say = time.Now(), o.Line
	defer log.SetOutput(log.Writer())
	log.SetOutput(&f.unasked)

	loadCtx, endLoad := context.WithCancel(ctx)
	defer endLoad()
	var load, watch sync.WaitGroup
	load.Go(func() { f.load(loadCtx, o.Rate) })
	watchCtx, endWatch := context.WithCancel(ctx)
	defer endWatch()
	watch.Go(func() { f.watch(watchCtx, p.sample, o) })
	watch.Go(func() { f.lateness(watchCtx) })

	err = f.phases(ctx, p)
	endWatch()
	watch.Wait()
	endLoad()
	load.Wait()
	if err != nil {
		return nil, err
	}
	o.Say("soak: waiting for what the app has not got yet")
	f.app.settle(ctx, time.Minute)
	f.conclude(r, p)
	return r, nil
}

// phases are the run's: warm, faults in turn, calm.
func (f *field) phases(ctx context.Context, p plan) error {
	if err := sleep(ctx, p.warm); err != nil {
		return err
	}
	f.firstFault = time.Now()
	for i := range p.faults {
		due := f.firstFault.Add(time.Duration(i) * p.every)
		if err := sleep(ctx, time.Until(due)); err != nil {
			return err
		}
		if err := f.strike(ctx, &f.faults[i%len(f.faults)], p.fault); err != nil {
			return err
		}
	}
	f.lastFault = time.Now()
	return sleep(ctx, p.cool)
}

// strike carries out one fault. Its window opens before it begins and closes when it is over.
func (f *field) strike(ctx context.Context, what *fault, d time.Duration) error {
	if !what.possible(f) {
		return nil
	}
	w := f.judge.open(what)
	defer f.judge.shut(w)
	if err := what.do(ctx, f, d); err != nil {
		return fmt.Errorf("fault %q: %w", what.name, err)
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
