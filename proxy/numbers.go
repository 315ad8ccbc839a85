package proxy

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/trace"
)

// A counter counts by names that are all in the program, so that there are only so many: codes of refusals, what is wrong with a head.
// They are known from the start, and looking one up takes no lock.
type counter[K comparable] map[K]*atomic.Uint64

func newCounter[K comparable](names ...K) counter[K] {
	c := counter[K]{}
	for _, n := range names {
		c[n] = &atomic.Uint64{}
	}
	return c
}

// add counts a name; one that is not known is a mistake of ours, which a test finds, and not a panic.
func (c counter[K]) add(name K) {
	if n := c[name]; n != nil {
		n.Add(1)
	}
}

func (c counter[K]) copied() map[K]uint64 {
	all := make(map[K]uint64, len(c))
	for name, n := range c {
		all[name] = n.Load()
	}
	return all
}

// Numbers are what there is to know of a Proxy beside its Stats and Measures: what is, at this moment, and what was since the start.
type Numbers struct {
	Connections   int                // of callers, open
	HeldUp        map[string]uint64  // connections of callers that were not served at once, by why
	Tunnels       map[Tunnel]uint64  // that CONNECT has asked for
	Unrouted      [Classes]uint64    // requests that were answered before it was known which provider they are for, by class
	Refusals      map[string]uint64  // by code
	RefusedHeads  map[string]uint64  // by what is wrong with them
	MaskedAnswers uint64             // in which fields that hold secrets were overwritten
	Providers     []*ProviderNumbers // in the order of Options.Providers
}

// ProviderNumbers are those of one provider.
type ProviderNumbers struct {
	Provider string
	InFlight int64 // requests that wait for it, or are answered by it
	Open     int64 // connections to it, idle ones included
	Idle     int64
	Dialled  uint64
	Reused   uint64
	Classes  [Classes]ClassNumbers
}

// ClassNumbers are those of the answers of one class.
type ClassNumbers struct {
	Requests uint64
	Answers  Durations // from the request's arrival to the head of the answer
	Own      Durations // of that, what Keyward itself took
	Upstream Durations // and what the provider took
	Examples []Example // of Answers
}

// An Example is one request of those that a histogram counts, by the trace in which it can be looked at.
type Example struct {
	Took  time.Duration
	At    time.Time
	Trace trace.Context
}

// examples is how many are kept of a histogram: one of each power of two.
const examples = maxBits + 1

func exampleOf(d time.Duration) int {
	return bits.Len64(uint64(min(max(d, 0), longest).Microseconds()))
}

// Numbers copies them.
func (p *Proxy) Numbers() Numbers {
	n := Numbers{
		Connections: p.conns.count(), HeldUp: p.heldUp.copied(), Tunnels: p.tunnels.copied(), Refusals: p.refusals.copied(), RefusedHeads: p.heads.copied(), MaskedAnswers: p.masked.Load(),
	}
	for i := range p.unrouted {
		n.Unrouted[i] = p.unrouted[i].Load()
	}
	idle := map[*provider.Provider]int64{}
	for _, u := range *p.hosts.Load() {
		u.mu.Lock()
		idle[u.provider] += int64(len(u.idle))
		u.mu.Unlock()
	}
	for _, v := range p.providers {
		m := p.measured[v]
		one := &ProviderNumbers{
			Provider: v.Name, InFlight: p.inflight.providers[v].Load(), Open: m.open.Load(), Idle: idle[v], Dialled: m.dialled.Load(), Reused: m.reused.Load(),
		}
		for k := range m.classes {
			from, to := &m.classes[k], &one.Classes[k]
			to.Requests = from.ended.Load()
			from.answers.addTo(&to.Answers)
			from.own.addTo(&to.Own)
			from.upstream.addTo(&to.Upstream)
			for i := range from.examples {
				if e := from.examples[i].Load(); e != nil {
					to.Examples = append(to.Examples, *e)
				}
			}
		}
		n.Providers = append(n.Providers, one)
	}
	return n
}

// Dials are how many connections to providers were made for requests, and how many requests found one that had been.
func (p *Proxy) Dials() (dialled, reused uint64) {
	for _, m := range p.measured {
		dialled += m.dialled.Load()
		reused += m.reused.Load()
	}
	return dialled, reused
}

// Within counts how many durations are below each bound but not below the one before, and how many are not below the last. Bounds are
// exact where they are multiples of a sixteenth of the power of two below them, in microseconds, as 25 µs and its doubles are. total is the
// sum of all, right to 3 %.
func (d *Durations) Within(bounds []time.Duration) (counts []uint64, total time.Duration) {
	counts = make([]uint64, len(bounds)+1)
	k := 0
	for i, n := range d {
		for k < len(bounds) && middleOf(i) >= float64(bounds[k].Microseconds()) {
			k++
		}
		counts[k] += n
		total += time.Duration(float64(n) * middleOf(i) * float64(time.Microsecond))
	}
	return counts, total
}
