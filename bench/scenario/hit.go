package scenario

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/keyward/keyward/bench/load"
	"github.com/keyward/keyward/bench/peer"
	"github.com/keyward/keyward/bench/provider"
	"github.com/keyward/keyward/bench/report"
)

const (
	keyward = "keyward"
	direct  = "direct"
	// Again is direct once more: what lies between the two is what the machine and the harness add to every difference.
	Again = "direct again"
	org   = "acme"
)

// email is the usual request, 200 bytes in all but what an endpoint adds.
func email(org, header string) []byte {
	head := "POST /emails HTTP/1.1\r\nHost: api.resend.com\r\nKeyward-Org: " + org + "\r\nX-Bench-Org: " + org + "\r\n" + header +
		"User-Agent: bench/1.0\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n"
	return []byte(head + `{"to":"a@acme.example","text":"` + strings.Repeat("x", 40-33) + `"}`)
}

// same sends the same bytes each time.
func same(request []byte) func([]byte) []byte {
	return func(dst []byte) []byte { return append(dst, request...) }
}

// resend stores an org's credential for the usual request.
func (s *Sidecar) resend(ctx context.Context, org string) error {
	return s.SetCredential(ctx, org, "resend", map[string]any{"api_key": provider.KeyOf(org)})
}

// contender is the sidecar with these requests.
func (s *Sidecar) contender(name string, request func([]byte) []byte) contender {
	return contender{name: name, target: s.Target(), request: request, pids: s.PIDs(), mallocs: s.Mallocs}
}

// directly is the same request without anything between, the credential in the caller's hands.
func (e *Env) directly(name, host string, request func([]byte) []byte) (contender, error) {
	to, err := directTLS(e.provider.CA(), host)
	if err != nil {
		return contender{}, err
	}
	return contender{name: name, target: load.Target{Network: "tcp", Address: e.provider.Address(), TLS: to}, request: request}, nil
}

// hit is what a request costs when its org is warm, against every peer that is installed: closed loops, then an open loop at half of what the
// sidecar can carry.
func hit(ctx context.Context, e *Env) error {
	var all []contender
	for _, p := range e.Peers {
		if p.Name() == keyward {
			continue // the scenario starts it itself, below, with what it measures besides
		}
		dir, err := e.folder()
		if err != nil {
			return err
		}
		at, err := p.Start(ctx, peer.Upstream{
			Address: e.provider.Address(), Host: "api.resend.com", CA: e.provider.CA(), CAFile: e.caFile,
			Name: "Authorization", Value: "Bearer " + provider.KeyOf(org), Dir: dir,
		})
		if err != nil {
			e.Left("%s: %v", p.Name(), err)
			_ = p.Stop()
			continue
		}
		e.atEnd(p.Stop)
		all = append(all, contender{
			name: p.Name(), target: load.Target{Network: at.Network, Address: at.Address, TLS: at.TLS},
			request: same(email(org, at.Header)), pids: p.PIDs(),
		})
	}
	s, err := e.sidecar(ctx)
	if err != nil {
		return err
	}
	if err := s.resend(ctx, org); err != nil {
		return err
	}
	if i := slices.IndexFunc(all, func(c contender) bool { return c.name == direct }); i >= 0 {
		again := all[i]
		again.name = Again
		all = append(all, again)
	}
	all = append(all, s.contender(keyward, same(email(org, ""))))
	runs, err := e.inTurn(ctx, "hit", []shape{{conns: 1}, {conns: 16}, {conns: 64}}, all...)
	if err != nil {
		return err
	}
	return e.hitOpen(ctx, runs, all)
}

// hitOpen loads with half of the sidecar's maximal rate. Who cannot carry it has no latency to speak of and is left out.
func (e *Env) hitOpen(ctx context.Context, runs []report.Run, all []contender) error {
	most := map[string]float64{}
	for _, r := range runs {
		most[r.Peer] = max(most[r.Peer], rateOf(r))
	}
	rate := math.Floor(most[keyward]/2/500) * 500 // in steps, so that two runs have the same
	if rate < 500 {
		return fmt.Errorf("the sidecar carries %.0f requests a second", most[keyward])
	}
	all = slices.DeleteFunc(all, func(c contender) bool {
		if most[c.name] > rate*1.15 {
			return false
		}
		e.Left("%s: carries %.0f requests a second at most, so it has no part in the open loop at %.0f", c.name, most[c.name], rate)
		return true
	})
	_, err := e.inTurn(ctx, "hit", []shape{{conns: 64, rate: rate}}, all...)
	return err
}

// rateOf is the median of the rounds' requests per second.
func rateOf(r report.Run) float64 {
	var all []float64
	for _, round := range r.Rounds {
		all = append(all, float64(round.Requests)/max(round.Seconds, 1e-9))
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[len(all)/2]
}
