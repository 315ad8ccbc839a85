// Package load makes requests and measures the answers: in a closed loop, where each connection sends its next request when it has its
// answer, and in an open loop, where requests arrive at a constant rate whatever the answers do.
//
// One thread does it all, on an event loop over non-blocking descriptors, with requests formatted beforehand and answers looked at no more
// than it takes to find their end: the generator shares the machine's few cores with what it measures.
//
// In an open loop the latency counts from the intended start. If an answer is late, the requests that should have been sent meanwhile were
// late too, and they say so; a loop that only counts from the moment of sending hides a stall behind the one request that met it. Arrivals
// are paced by the kernel's timer with a slack of 1 ns up to shortly before they are due, and by spinning from there: time.Sleep is about
// 1 ms coarse, and an open loop paced by it measures the timer.
package load

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Options say what to send.
type Options struct {
	Target Target
	// Conns are the connections: of a closed loop its concurrency, of an open one the most requests in flight.
	Conns int
	// Rate is arrivals per second; 0 is a closed loop.
	Rate float64
	// Duration is how long requests are begun.
	Duration time.Duration
	// Warm is how long a closed loop over the same connections goes before, uncounted.
	Warm time.Duration
	// Begin and End, if set, are called when the counted requests begin and when the last has its answer, the connections still open.
	Begin, End func()
	// Requests, if not 0, ends the loop after so many.
	Requests int64
	// Request appends the next request. It is called by one goroutine.
	Request func(dst []byte) []byte
	// Good says which statuses are no error; nil: 2xx.
	Good func(status int) bool
	// Drain is how long answers are awaited after the last request; 0: 10 s. What has not come by then counts as an error, at its age.
	Drain time.Duration
}

// A Result is what one loop found.
type Result struct {
	// Latency is in nanoseconds, of good answers and of bad.
	Latency *hdrhistogram.Histogram
	// Lag is how late an open loop itself began what a free connection waited for, in nanoseconds: the generator's own share.
	Lag      *hdrhistogram.Histogram
	Requests int64
	Errors   int64
	// Seconds is from the first request to the last answer.
	Seconds float64
	// FirstError says what went wrong first; nil if nothing did.
	FirstError error
	// Statuses counts the answers that were not good. :: status → answers
	Statuses map[int]int64
}

// Longest is the longest latency that a histogram tells from a longer one.
const Longest = 5 * time.Minute

// NewHistogram has three significant digits, from 1 ns to Longest.
func NewHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(Longest), 3) }

// Record adds a latency.
func Record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(int64(d), 1), int64(Longest))) // within its range, so that it cannot fail
}

// Run makes the requests. It returns an error only when it could not go on; answers that are not good are counted.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Conns < 1 || o.Request == nil || o.Duration <= 0 || o.Rate < 0 || math.IsInf(o.Rate, 0) || math.IsNaN(o.Rate) {
		return nil, errors.New("a load needs connections, requests and a duration")
	}
	if o.Drain == 0 {
		o.Drain = 10 * time.Second
	}
	if o.Good == nil {
		o.Good = func(status int) bool { return status/100 == 2 }
	}
	l, err := newLoop(o)
	if err != nil {
		return nil, err
	}
	defer l.close()
	// The loop must not move between threads: the timer's slack is the thread's.
	type outcome struct {
		r   *Result
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := l.run(ctx)
		done <- outcome{r, err}
	}()
	out := <-done
	if out.err != nil {
		return nil, fmt.Errorf("loading %s:%s: %w", o.Target.Network, o.Target.Address, out.err)
	}
	return out.r, nil
}
