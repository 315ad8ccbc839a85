package proxy

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/provider"
)

// A measure is what one provider's requests did since the start. Everybody adds to it at once, so it is atomics alone: one addition to
// one place for each thing that is measured, no lock and no memory.
type measure struct {
	requests        atomic.Uint64
	classes         [Classes]class
	dialled, reused atomic.Uint64
	open            atomic.Int64 // connections, idle ones included
}

// A class is what is measured of the answers of one class: 1xx to 5xx.
type class struct {
	ended                  atomic.Uint64
	answers, own, upstream histogram
	examples               [examples]atomic.Pointer[Example] // of answers
}

// Classes is how many classes of answers there are.
const Classes = 5

// classOf is where an answer of that status is counted.
func classOf(status int) int { return min(max(status/100-1, 0), Classes-1) }

// A histogram counts durations by their microseconds, in steps of a sixteenth of the power of two below: what is read out of it is right
// to about 3 %, from 16 µs to hours. (The usual libraries allocate, lock, or are made for one writer.)
type histogram [buckets]atomic.Uint64

const (
	stepBits = 4                                    // 16 steps to a power of two
	maxBits  = 36                                   // 2^36 µs are 19 hours; longer counts as that
	buckets  = (maxBits - stepBits + 1) << stepBits // the first two powers share one row of exact steps
	longest  = time.Duration(1<<maxBits-1) * time.Microsecond
)

func (h *histogram) record(d time.Duration) {
	h[bucketOf(uint64(min(max(d, 0), longest).Microseconds()))].Add(1)
}

func (h *histogram) addTo(d *Durations) {
	for i := range h {
		d[i] += h[i].Load()
	}
}

// bucketOf is where a number below 2^maxBits is counted.
func bucketOf(us uint64) int {
	shift := max(bits.Len64(us)-stepBits-1, 0)
	return shift<<stepBits + int(us>>shift)
}

// middleOf is the number in the middle of what is counted in a bucket.
func middleOf(i int) float64 {
	if i < 2<<stepBits {
		return float64(i)
	}
	shift := i>>stepBits - 1
	low := (i - shift<<stepBits) << shift
	return float64(low) + float64(int(1)<<shift-1)/2
}

// newMeasures makes one for each provider; the map is never changed.
func newMeasures(providers []*provider.Provider) map[*provider.Provider]*measure {
	all := map[*provider.Provider]*measure{}
	for _, p := range providers {
		all[p] = &measure{}
	}
	return all
}

// A Measure is a copy of what was measured of one provider since the start. Two of them tell what happened in between: see Since.
type Measure struct {
	Provider string
	Requests uint64    // that were let through to it
	Errors   uint64    // answered 5xx: the provider's own, and what kept Keyward from getting an answer
	Answers  Durations // from the request's arrival to the head of the provider's answer
	Own      Durations // of that, what Keyward itself took
}

// Durations are a histogram's counts.
type Durations [buckets]uint64

// Measures copies what was measured, in the order of Options.Providers, into the memory of into.
func (p *Proxy) Measures(into []Measure) []Measure {
	into = into[:0]
	for _, v := range p.providers {
		m := p.measured[v]
		into = append(into, Measure{})
		c := &into[len(into)-1]
		c.Provider, c.Requests, c.Errors = v.Name, m.requests.Load(), m.classes[classOf(500)].ended.Load()
		for k := range m.classes {
			m.classes[k].answers.addTo(&c.Answers)
			m.classes[k].own.addTo(&c.Own)
		}
	}
	return into
}

// Since is what happened after an earlier copy.
func (m *Measure) Since(earlier *Measure) Measure {
	d := Measure{Provider: m.Provider, Requests: m.Requests - earlier.Requests, Errors: m.Errors - earlier.Errors}
	for i := range d.Answers {
		d.Answers[i] = m.Answers[i] - earlier.Answers[i]
		d.Own[i] = m.Own[i] - earlier.Own[i]
	}
	return d
}

// Quantile is the duration that a share q of all is not longer than; false: nothing was measured.
func (d *Durations) Quantile(q float64) (time.Duration, bool) {
	var all uint64
	for _, n := range d {
		all += n
	}
	if all == 0 {
		return 0, false
	}
	rank := min(uint64(q*float64(all)), all-1)
	for i, n := range d {
		if rank < n {
			return time.Duration(middleOf(i) * float64(time.Microsecond)), true
		}
		rank -= n
	}
	return longest, true
}
