package scenario

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/keyward/keyward/bench/load"
	"github.com/keyward/keyward/bench/provider"
	"github.com/keyward/keyward/bench/report"
)

const roundTrip = 40 * time.Millisecond

// cold is what a short-lived process pays for a call on a link of 40 ms: a connection of its own each time. Directly that is TCP's round trip, TLS's and
// the request's; through the sidecar, whose connection to the provider is open, the request's alone.
func cold(ctx context.Context, e *Env) error {
	link, err := provider.NewLink(e.provider.Address(), roundTrip)
	if err != nil {
		return err
	}
	e.atEnd(link.Close)
	dir, err := e.folder()
	if err != nil {
		return err
	}
	s, err := StartSidecar(ctx, SidecarOptions{Binary: e.Binary, Dir: dir, Args: e.upstreams(link.Address())})
	if err != nil {
		return err
	}
	e.atEnd(s.Stop)
	if err := s.resend(ctx, org); err != nil {
		return err
	}
	straight, err := e.directly(direct, "api.resend.com", nil)
	if err != nil {
		return err
	}
	straight.target.Address = link.Address()
	through := s.contender(keyward, nil)
	if err := call(ctx, through.target, email(org, ""), newTally()); err != nil { // the pool's first connection
		return err
	}
	requests := map[string][]byte{direct: email(org, "Authorization: Bearer "+provider.KeyOf(org)+"\r\n"), keyward: email(org, "")}
	calls := max(2, int(e.Time/(100*time.Millisecond)))
	runs := []report.Run{{Scenario: "cold", Peer: direct, Concurrency: 1}, {Scenario: "cold", Peer: keyward, Concurrency: 1}}
	for n := range e.Rounds {
		for i, c := range []contender{straight, through} {
			e.Say("cold: %s, round %d of %d", c.name, n+1, e.Rounds)
			own := newTally()
			m := meter{e: e, c: c}
			m.begin(ctx)
			begun := time.Now()
			for range calls {
				if err := call(ctx, c.target, requests[c.name], own); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
			seconds := time.Since(begun).Seconds()
			m.end(ctx)
			r := roundOf(own.latency)
			r.Seconds = seconds
			if err := m.into(&r); err != nil {
				return err
			}
			runs[i].Rounds = append(runs[i].Rounds, r)
		}
	}
	for _, r := range runs {
		e.Done(r)
	}
	return nil
}

// call makes one request on a connection of its own.
func call(ctx context.Context, t load.Target, request []byte, own *tally) error {
	begun := time.Now()
	l, err := dial(ctx, t)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	if _, err := l.Write(request); err != nil {
		return err
	}
	if _, err := l.head(200); err != nil {
		return err
	}
	load.Record(own.latency, time.Since(begun))
	return nil
}

// start is from the start of the program to its first answer, with a store that has the credential, and the memory of the idle process.
func start(ctx context.Context, e *Env) error {
	dir, err := e.folder()
	if err != nil {
		return err
	}
	s, err := e.sidecarIn(ctx, dir)
	if err != nil {
		return err
	}
	if err := s.resend(ctx, org); err != nil {
		return err
	}
	if err := s.Drain(); err != nil {
		return err
	}
	run := report.Run{Scenario: "start", Peer: keyward, Concurrency: 1}
	for n := range e.Rounds {
		e.Say("start: round %d of %d", n+1, e.Rounds)
		r, err := e.startOnce(ctx, dir)
		if err != nil {
			return err
		}
		run.Rounds = append(run.Rounds, r)
	}
	e.Done(run)
	return nil
}

// startOnce is several starts; the last one's memory is looked at once it is idle.
func (e *Env) startOnce(ctx context.Context, dir string) (report.Round, error) {
	own := newTally()
	begun := time.Now()
	var rss int64
	const starts = 3
	for i := range starts {
		socket := filepath.Join(dir, "caller.sock")
		_ = os.Remove(socket) // what the last one left: nobody answers there
		from := time.Now()
		s, err := launchSidecar(SidecarOptions{Binary: e.Binary, Dir: dir, Args: e.upstreams(e.provider.Address())})
		if err != nil {
			return report.Round{}, err
		}
		err = firstAnswer(ctx, s, own, from)
		if err == nil && i == starts-1 {
			time.Sleep(500 * time.Millisecond)
			rss, err = MemoryOf(s.PIDs(), "VmRSS")
		}
		if err != nil {
			_ = s.Stop()
			return report.Round{}, err
		}
		if err := s.Drain(); err != nil {
			return report.Round{}, err
		}
	}
	r := roundOf(own.latency)
	r.Seconds = time.Since(begun).Seconds()
	r.PeakRSS = rss
	extra(&r, "idle_rss_bytes", float64(rss))
	return r, nil
}

// firstAnswer asks until the sidecar answers.
func firstAnswer(ctx context.Context, s *Sidecar, own *tally, from time.Time) error {
	deadline := from.Add(20 * time.Second)
	for {
		err := call(ctx, s.Target(), email(org, ""), newTally())
		if err == nil {
			load.Record(own.latency, time.Since(from))
			return nil
		}
		select {
		case <-s.ended:
			log, _ := os.Open(filepath.Join(s.Dir, "log"))
			text, _ := io.ReadAll(io.LimitReader(log, 2000))
			return fmt.Errorf("keyward ended: %s", text)
		default:
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no answer: %w", err)
		}
		time.Sleep(200 * time.Microsecond)
	}
}
