package load_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/bench/load"
	"github.com/keyward/keyward/bench/provider"
)

// How late an answer is that is to show, and what a machine may add to any: another program's turns, many of them, but less than what shows.
const (
	late      = time.Second
	lateEvery = 100
	slack     = 200 * time.Millisecond
)

// TestOpenLoopShowsLateAnswersExactly: of 1,000 answers exactly 10 are late, so that the 99th percentile is still a prompt one, and whatever lies
// above it is late by a second and no more.
func TestOpenLoopShowsLateAnswersExactly(t *testing.T) {
	undisturbed(t, func(j *judge) {
		r := run(t, provider.Options{DelayEvery: lateEvery, Delay: late}, load.Options{Conns: 64, Rate: 500, Requests: 1000, Duration: time.Minute})
		if r.Requests != 1000 {
			t.Fatalf("%d requests, not 1000", r.Requests)
		}
		j.prompt(r, 98.9)
		j.prompt(r, 99)
		j.late(r, 99.1, late)
		j.late(r, 99.9, late)
		j.late(r, 100, late)
	})
}

// TestOpenLoopShowsMoreLateAnswersAtP99: with one in 90 late, the 99th percentile is late as well.
func TestOpenLoopShowsMoreLateAnswersAtP99(t *testing.T) {
	undisturbed(t, func(j *judge) {
		r := run(t, provider.Options{DelayEvery: 90, Delay: late}, load.Options{Conns: 64, Rate: 500, Requests: 1000, Duration: time.Minute})
		j.prompt(r, 98.8)
		j.late(r, 99, late)
		j.late(r, 99.9, late)
	})
}

// stalled is a load during which nothing is answered for a while, from the nth request on.
func stalled(t *testing.T, o load.Options, n int, stall time.Duration) *load.Result {
	t.Helper()
	p := start(t, provider.Options{})
	with := options(p)
	o.Target = with.Target
	o.Request = func(dst []byte) []byte {
		if n--; n == 0 {
			p.Stall(stall)
		}
		return with.Request(dst)
	}
	return finished(t, o)
}

// TestOpenLoopHidesNoStall: for 900 ms of 3 s nothing is answered. Whatever should have been sent meanwhile waited for what was left of it.
func TestOpenLoopHidesNoStall(t *testing.T) {
	const stall = 900 * time.Millisecond
	undisturbed(t, func(j *judge) {
		r := stalled(t, load.Options{Conns: 4, Rate: 500, Duration: 3 * time.Second}, 400, stall)
		if r.Requests != 1500 {
			t.Errorf("%d requests, not 1500", r.Requests)
		}
		// 450 of 1,500 waited, evenly from 900 ms down to nothing: a quarter of them less than 225 ms, and so on.
		j.late(r, 100, stall)
		j.late(r, 70+30*0.75, stall*3/4)
		j.late(r, 70+30*0.5, stall/2)
		j.prompt(r, 65)
	})
}

// TestClosedLoopHidesAStall says why there is an open loop: the same stall is met by four requests only.
func TestClosedLoopHidesAStall(t *testing.T) {
	const stall = 900 * time.Millisecond
	undisturbed(t, func(j *judge) {
		r := stalled(t, load.Options{Conns: 4, Requests: 1000, Duration: time.Minute}, 400, stall)
		j.late(r, 100, stall)
		j.prompt(r, 99)
	})
}

// TestOpenLoopKeepsItsPace: half of the requests begin when they are due, but for what the kernel's timer shows itself to be late meanwhile. A
// loop paced by time.Sleep is late by half a millisecond more.
func TestOpenLoopKeepsItsPace(t *testing.T) {
	for _, rate := range []float64{100, 1000} {
		undisturbed(t, func(j *judge) {
			p := start(t, provider.Options{})
			var r *load.Result
			own := timersLag(func() { r = runAt(t, p, load.Options{Conns: 64, Rate: rate, Duration: time.Second}) })
			if r.Requests != int64(rate) {
				t.Errorf("%v a second for a second: %d requests", rate, r.Requests)
			}
			j.atMost("half of the lags", time.Duration(r.Lag.ValueAtPercentile(50)), 100*time.Microsecond+own)
		})
	}
}

func TestClosedLoopKeepsItsConcurrency(t *testing.T) {
	undisturbed(t, func(j *judge) {
		r := run(t, provider.Options{DelayEvery: 1, Delay: 100 * time.Millisecond}, load.Options{Conns: 8, Duration: 2 * time.Second})
		most := int64(8 * 2000 / 100)
		if r.Requests > most+8 {
			t.Errorf("8 at a time, each 100 ms: %d requests in two seconds, more than %d", r.Requests, most)
		}
		j.atMost("of 160 were missing", time.Duration(most-r.Requests), 60)
	})
}

func TestWrongCredentialIsAnError(t *testing.T) {
	p := start(t, provider.Options{})
	o := options(p)
	o.Conns, o.Duration, o.Requests = 2, time.Second, 10
	o.Request = func(dst []byte) []byte {
		return append(dst, "GET /emails HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer other\r\n\r\n"...)
	}
	r, err := load.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Requests != 10 || r.Errors != 10 || r.Statuses[401] != 10 {
		t.Errorf("%d requests, %d errors, %v", r.Requests, r.Errors, r.Statuses)
	}
	if st := p.Stats(); st.Unauthorized != 10 || st.Conns != 2 {
		t.Errorf("the provider counts %+v", st)
	}
}

func TestRevokedGenerationIsRefused(t *testing.T) {
	p := start(t, provider.Options{})
	p.Revoke("acme", 3)
	for generation, want := range map[int]int64{3: 5, 4: 0} {
		o := options(p)
		o.Conns, o.Duration, o.Requests = 1, time.Second, 5
		o.Request = func(dst []byte) []byte {
			return fmt.Appendf(dst, "GET /emails HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s.%d\r\n\r\n", provider.KeyOf("acme"), generation)
		}
		r, err := load.Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if r.Errors != want {
			t.Errorf("generation %d after the end of 3: %d errors, not %d", generation, r.Errors, want)
		}
	}
}

func TestSilenceIsAnError(t *testing.T) {
	p := start(t, provider.Options{})
	p.Stall(5 * time.Second)
	r := runAt(t, p, load.Options{Conns: 2, Rate: 20, Duration: 200 * time.Millisecond, Drain: 100 * time.Millisecond})
	if r.Requests != 4 || r.Errors != 4 || r.FirstError == nil {
		t.Errorf("%d requests, %d errors, %v: want 4 that never came", r.Requests, r.Errors, r.FirstError)
	}
}

func start(t *testing.T, o provider.Options) *provider.Provider {
	t.Helper()
	p, err := provider.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func options(p *provider.Provider) load.Options {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.CA())
	body := "0123456789"
	request := fmt.Sprintf("POST /emails HTTP/1.1\r\nHost: api.resend.com\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", provider.KeyOf("acme"), len(body), body)
	return load.Options{
		Target:  load.Target{Network: "tcp", Address: p.Address(), TLS: &tls.Config{RootCAs: roots, ServerName: "api.resend.com"}},
		Request: func(dst []byte) []byte { return append(dst, request...) },
	}
}

func run(t *testing.T, p provider.Options, o load.Options) *load.Result {
	t.Helper()
	return runAt(t, start(t, p), o)
}

func runAt(t *testing.T, p *provider.Provider, o load.Options) *load.Result {
	t.Helper()
	with := options(p)
	o.Target, o.Request = with.Target, with.Request
	return finished(t, o)
}

func finished(t *testing.T, o load.Options) *load.Result {
	t.Helper()
	r, err := load.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if r.Errors > 0 && o.Drain == 0 {
		t.Fatalf("%d errors of %d: %v", r.Errors, r.Requests, r.FirstError)
	}
	return r
}

// A judge collects what does not fit.
type judge struct{ wrong []string }

// undisturbed measures until everything fits. What does not fit while nothing disturbed us is wrong; a machine that stands still now and then
// shows in a loop that hides nothing, so what was measured meanwhile is measured again.
func undisturbed(t *testing.T, measure func(j *judge)) {
	t.Helper()
	const mayBeWrong, calm, patience = 3, 5 * time.Millisecond, 3 * time.Minute
	wrong := 0
	for begun := time.Now(); ; {
		var j judge
		stood := standstill(func() { measure(&j) })
		if len(j.wrong) == 0 || t.Failed() {
			return
		}
		t.Logf("the machine stood still for up to %v: %s", stood, strings.Join(j.wrong, "; "))
		if stood <= calm {
			wrong++
		}
		if wrong == mayBeWrong || time.Since(begun) > patience {
			t.Errorf("each time something did not fit, %d times undisturbed", wrong)
			return
		}
	}
}

// standstill is the longest that the machine kept two sleepers beyond their time while f ran.
func standstill(f func()) time.Duration {
	over := make(chan struct{})
	longest := make(chan time.Duration, 2)
	for range cap(longest) {
		go func() {
			var most time.Duration
			for {
				select {
				case <-over:
					longest <- most
					return
				default:
				}
				begun := time.Now()
				time.Sleep(time.Millisecond)
				most = max(most, time.Since(begun)-time.Millisecond)
			}
		}()
	}
	f()
	close(over)
	return max(<-longest, <-longest)
}

// timersLag is by how much half of the kernel's timers were late while f ran.
func timersLag(f func()) time.Duration {
	over, lag := make(chan struct{}), make(chan time.Duration)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var lags []time.Duration
		for {
			select {
			case <-over:
				slices.Sort(lags)
				lag <- lags[len(lags)/2]
				return
			default:
			}
			const short = time.Millisecond
			begun := time.Now()
			ts := unix.NsecToTimespec(int64(short))
			_ = unix.Nanosleep(&ts, nil)
			lags = append(lags, max(time.Since(begun)-short, 0))
		}
	}()
	f()
	close(over)
	return <-lag
}

func (j *judge) atMost(what string, d, most time.Duration) {
	if d > most {
		j.wrong = append(j.wrong, fmt.Sprintf("%s: %v, more than %v", what, d, most))
	}
}

func (j *judge) prompt(r *load.Result, percentile float64) {
	j.atMost(fmt.Sprintf("p%v, a prompt answer", percentile), time.Duration(r.Latency.ValueAtPercentile(percentile)), slack)
}

func (j *judge) late(r *load.Result, percentile float64, by time.Duration) {
	if d := time.Duration(r.Latency.ValueAtPercentile(percentile)); d < by*97/100 || d > by+slack {
		j.wrong = append(j.wrong, fmt.Sprintf("p%v: %v, not %v", percentile, d, by))
	}
}
