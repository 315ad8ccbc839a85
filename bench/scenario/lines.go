package scenario

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/keyward/keyward/bench/load"
	"github.com/keyward/keyward/bench/report"
)

// A talk is what one connection does until its time is over. It records latencies into its own histogram, and may count in its own figures.
type talk func(ctx context.Context, l *line, until time.Time, own *tally) error

// A tally is what one connection found.
type tally struct {
	latency *hdrhistogram.Histogram
	more    map[string]*hdrhistogram.Histogram
	counts  map[string]float64
}

func newTally() *tally {
	return &tally{load.NewHistogram(), map[string]*hdrhistogram.Histogram{}, map[string]float64{}}
}

func (t *tally) record(name string, d time.Duration) {
	h := t.more[name]
	if h == nil {
		h = load.NewHistogram()
		t.more[name] = h
	}
	load.Record(h, d)
}

func (t *tally) merge(o *tally) {
	t.latency.Merge(o.latency)
	for name, h := range o.more {
		if t.more[name] == nil {
			t.more[name] = load.NewHistogram()
		}
		t.more[name].Merge(h)
	}
	for name, n := range o.counts {
		t.counts[name] += n
	}
}

// talksInTurn is inTurn for what is more than one short answer per request.
func (e *Env) talksInTurn(ctx context.Context, scenario string, conns int, d time.Duration, of func(contender) talk, all ...contender) error {
	runs := make([]report.Run, len(all))
	for i, c := range all {
		runs[i] = report.Run{Scenario: scenario, Peer: c.name, Concurrency: conns}
	}
	for n := range e.Rounds {
		for i, c := range all {
			e.Say("%s c=%d: %s, round %d of %d", scenario, conns, c.name, n+1, e.Rounds)
			r, err := e.talkRound(ctx, c, conns, d, of(c))
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			runs[i].Rounds = append(runs[i].Rounds, r)
		}
	}
	for _, r := range runs {
		e.Done(r)
	}
	return nil
}

func (e *Env) talkRound(ctx context.Context, c contender, conns int, d time.Duration, t talk) (report.Round, error) {
	lines := make([]*line, conns)
	for i := range lines {
		l, err := dial(ctx, c.target)
		if err != nil {
			return report.Round{}, err
		}
		defer func() { _ = l.Close() }()
		lines[i] = l
	}
	tallies := make([]*tally, conns)
	errs := make([]error, conns)
	m := meter{e: e, c: c}
	m.begin(ctx)
	begun := time.Now()
	until := begun.Add(d)
	var all sync.WaitGroup
	for i, l := range lines {
		tallies[i] = newTally()
		all.Go(func() { errs[i] = t(ctx, l, until, tallies[i]) })
	}
	all.Wait()
	seconds := time.Since(begun).Seconds()
	m.end(ctx)
	sum := newTally()
	for _, t := range tallies {
		sum.merge(t)
	}
	r := roundOf(sum.latency)
	r.Seconds = seconds
	for name, h := range sum.more {
		extra(&r, name+"_p50_us", float64(h.ValueAtPercentile(50))/1e3)
		extra(&r, name+"_p99_us", float64(h.ValueAtPercentile(99))/1e3)
	}
	for name, n := range sum.counts {
		extra(&r, name, n)
	}
	return r, errors.Join(errors.Join(errs...), m.into(&r))
}
