// Package scenario is what the benchmarks measure: each scenario starts what it needs, has its contenders take their rounds in turn, and
// reports a run for each.
//
// Contenders of one scenario send the same requests to the same stand-in provider, in a process of its own, over the same kind of load; they
// differ in what stands between. Rounds go A B A B, so that what the machine does meanwhile meets all alike.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyward/keyward/bench/load"
	"github.com/keyward/keyward/bench/peer"
	"github.com/keyward/keyward/bench/provider"
	"github.com/keyward/keyward/bench/report"
)

// An Env is what scenarios run in.
type Env struct {
	Binary string // the built program
	Dir    string // scratch, private; its name leaves room for sockets' paths
	Keep   string // a folder for what is dear to make and may be used again
	Peers  []peer.Peer

	Rounds int
	Time   time.Duration // of a round
	// Orgs and Misses are how many orgs the scenarios zipf and miss have.
	Orgs, Misses int

	// Profiles, if not empty, is a folder for CPU profiles of the sidecars.
	Profiles string

	// Say shows progress. Done takes a finished run. Left takes what had to be left out, and why.
	Say  func(format string, args ...any)
	Done func(report.Run)
	Left func(format string, args ...any)

	scenario string
	provider *provider.Process
	caFile   string
	folders  int
	stops    []func() error // what the scenario started, in order
}

// A Scenario is one of All.
type Scenario struct {
	Name  string
	About string
	run   func(context.Context, *Env) error
}

// All are the scenarios in the order in which they run.
var All = []Scenario{
	{"hit", "a warm org, 200 B in and 500 B out, against every peer", hit},
	{"miss", "an org that is not in the cache: SQLite and PostgreSQL", miss},
	{"zipf", "many orgs of unequal weight, a cache for a few", zipf},
	{"assistant", "the org by assistant id instead of by name", assistant},
	{"webhook", "a Vapi tool call: whose, verified, answered by the app", webhook},
	{"stream", "chunked audio: time to the first byte, and each chunk's way", stream},
	{"websocket", "echo round trips", websocket},
	{"upload", "a multipart body of 100 MB, and the memory meanwhile", upload},
	{"rotate", "the credential replaced and the old one revoked all the time", rotate},
	{"cold", "a new connection per call on a link of 40 ms", cold},
	{"start", "from the start to the first answer, and memory when idle", start},
}

// Run runs one scenario, with a stand-in of its own.
func (s Scenario) Run(ctx context.Context, e *Env) (err error) {
	e.scenario = s.Name
	if err := e.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	if err := s.run(ctx, e); err != nil {
		return fmt.Errorf("scenario %s: %w", s.Name, err)
	}
	return nil
}

func (e *Env) open() error {
	p, err := provider.Launch(provider.Options{})
	if err != nil {
		return err
	}
	e.provider = p
	e.caFile = filepath.Join(e.Dir, "ca.pem")
	return os.WriteFile(e.caFile, p.CA(), 0o600)
}

func (e *Env) close() error {
	var errs []error
	for _, stop := range slices.Backward(e.stops) {
		errs = append(errs, stop())
	}
	errs = append(errs, e.provider.Close())
	e.stops, e.provider = nil, nil
	return errors.Join(errs...)
}

// atEnd stops it when the scenario is over.
func (e *Env) atEnd(stop func() error) { e.stops = append(e.stops, stop) }

// folder makes a private folder with a short name.
func (e *Env) folder() (string, error) {
	e.folders++
	dir := filepath.Join(e.Dir, fmt.Sprint(e.folders))
	return dir, os.Mkdir(dir, 0o700)
}

// sidecar starts the program with all providers' hosts sent to the stand-in; it is stopped when the scenario is over.
func (e *Env) sidecar(ctx context.Context, args ...string) (*Sidecar, error) {
	dir, err := e.folder()
	if err != nil {
		return nil, err
	}
	return e.sidecarIn(ctx, dir, args...)
}

func (e *Env) sidecarIn(ctx context.Context, dir string, args ...string) (*Sidecar, error) {
	o := SidecarOptions{Binary: e.Binary, Dir: dir, Args: append(e.upstreams(e.provider.Address()), args...)}
	if e.Profiles != "" {
		o.Profile = filepath.Join(e.Profiles, e.scenario+"-"+filepath.Base(dir)+".prof")
	}
	s, err := StartSidecar(ctx, o)
	if err == nil {
		e.atEnd(s.Stop)
	}
	return s, err
}

// upstreams are the flags that send every provider's host to an address.
func (e *Env) upstreams(address string) []string {
	args := []string{"--upstream-ca", e.caFile}
	for _, host := range []string{"api.resend.com", "api.vapi.ai", "api.elevenlabs.io"} {
		args = append(args, "--upstream", host+"=https://"+address)
	}
	return args
}

// A shape is a kind of load.
type shape struct {
	conns    int
	rate     float64
	requests int64 // so many and no more
}

func (s shape) String() string {
	if s.rate > 0 {
		return fmt.Sprintf("%.0f/s", s.rate)
	}
	return fmt.Sprintf("c=%d", s.conns)
}

// A contender is one of those that take their rounds in turn.
type contender struct {
	name    string
	target  load.Target
	request func(dst []byte) []byte
	pids    []int
	mallocs func(context.Context) float64 // nil: not known
	// around, if set, is called before each round and returns what is called after it: what else goes on meanwhile.
	around func(context.Context) (func(*report.Round) error, error)
}

// inTurn has the contenders take their rounds under each load in turn, and hands each run over.
func (e *Env) inTurn(ctx context.Context, scenario string, shapes []shape, all ...contender) ([]report.Run, error) {
	var runs []report.Run
	for _, s := range shapes {
		these, err := e.inTurnKeeping(ctx, scenario, []shape{s}, all...)
		if err != nil {
			return nil, err
		}
		for _, r := range these {
			e.Done(r)
		}
		runs = append(runs, these...)
	}
	return runs, nil
}

// inTurnKeeping leaves it to the caller to hand the runs over.
func (e *Env) inTurnKeeping(ctx context.Context, scenario string, shapes []shape, all ...contender) ([]report.Run, error) {
	var runs []report.Run
	for _, s := range shapes {
		these := make([]report.Run, len(all))
		for i, c := range all {
			these[i] = report.Run{Scenario: scenario, Peer: c.name, Concurrency: s.conns, Rate: s.rate}
		}
		for n := range e.Rounds {
			for i, c := range all {
				e.Say("%s %v: %s, round %d of %d", scenario, s, c.name, n+1, e.Rounds)
				r, err := e.round(ctx, c, s)
				if err != nil {
					return nil, fmt.Errorf("%s under %v: %w", c.name, s, err)
				}
				these[i].Rounds = append(these[i].Rounds, r)
			}
		}
		runs = append(runs, these...)
	}
	return runs, nil
}

// warm loads without counting.
func (e *Env) warm(ctx context.Context, c contender, conns int, d time.Duration) error {
	r, err := load.Run(ctx, load.Options{Target: c.target, Request: c.request, Conns: conns, Duration: d})
	if err != nil {
		return err
	}
	if r.Errors > 0 {
		return fmt.Errorf("warming %s: %d of %d requests failed: %w", c.name, r.Errors, r.Requests, r.FirstError)
	}
	return nil
}

// round is one turn of one contender.
func (e *Env) round(ctx context.Context, c contender, s shape) (report.Round, error) {
	after := func(*report.Round) error { return nil }
	if c.around != nil {
		var err error
		if after, err = c.around(ctx); err != nil {
			return report.Round{}, err
		}
	}
	m := meter{e: e, c: c}
	duration := e.Time
	if s.requests > 0 {
		duration = time.Minute
	}
	r, err := load.Run(ctx, load.Options{
		Target: c.target, Request: c.request, Conns: s.conns, Rate: s.rate, Duration: duration, Warm: e.Time / 10, Requests: s.requests,
		Begin: func() { m.begin(ctx) }, End: func() { m.end(ctx) }, Drain: 2*time.Second + e.Time,
	})
	if err != nil {
		return report.Round{}, errors.Join(err, after(&report.Round{}))
	}
	if r.Errors == r.Requests {
		return report.Round{}, errors.Join(fmt.Errorf("no request went well: %w", r.FirstError), after(&report.Round{}))
	}
	round := roundOf(r.Latency)
	round.Requests, round.Errors, round.Seconds = r.Requests, r.Errors, r.Seconds
	if s.rate > 0 {
		round.Extra = map[string]float64{"lag_p50_us": float64(r.Lag.ValueAtPercentile(50)) / 1e3, "lag_p99_us": float64(r.Lag.ValueAtPercentile(99)) / 1e3}
	}
	if r.Errors > 0 {
		e.Left("%s: %d of %d requests failed under %v, the first with: %v", c.name, r.Errors, r.Requests, s, r.FirstError)
	}
	return round, errors.Join(m.into(&round), after(&round))
}
