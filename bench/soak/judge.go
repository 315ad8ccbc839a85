package soak

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/keyward/keyward/bench/load"
)

// grace is how long after its end a fault still explains what it allows: a store that is back is in use within two seconds.
const grace = 2 * time.Second

// Outcomes that have no status.
const (
	good   = ""
	broken = "broken off" // no whole answer: the connection was closed or reset, or the answer did not end
	wrong  = "wrong"      // an answer that is another's, or not what was sent: nothing ever explains it
)

// whoseMark stands in an outcome before the org or assistant that it befell.
const whoseMark = " of "

func rule() string {
	return fmt.Sprintf("A call that does not end as its kind says is unexpected, unless (1) the time from its start to its end overlaps with a fault, or with the %v after it, "+
		"(2) the fault befalls the sidecar that was called, and (3) the fault's list has this outcome for this kind of call. "+
		"A wrong answer, one that belongs to another request or is not whole and looks so, is never explained.", grace)
}

// A window is one fault's time.
type window struct {
	fault      *fault
	begin, end time.Time // zero end: it lasts
	explained  map[string]int
}

// A Failure is a call that did not end as its kind says.
type Failure struct {
	Kind    string  `json:"kind"`
	Sidecar string  `json:"sidecar"`
	Outcome string  `json:"outcome"`
	Whose   string  `json:"whose,omitempty"` // org or assistant, where the kind has one
	Begin   float64 `json:"begin"`           // seconds since the run's start
	End     float64 `json:"end"`
	Near    string  `json:"near,omitempty"` // faults that were under way, whether they explain it or not
}

// A judge keeps the outcomes of all calls.
type judge struct {
	begun time.Time
	say   func(string) // takes the first unexpected failures as they happen; nil: nobody does

	mu      sync.Mutex
	kinds   map[string]*tally
	windows []*window
	bad     []Failure // the first ones
	count   int       // of all unexpected ones
}

type tally struct {
	sent, good, explained, unexpected int
	latency                           *hdrhistogram.Histogram // of those that went well
}

const keptFailures = 200

func newJudge() *judge { return &judge{begun: time.Now(), kinds: map[string]*tally{}} }

// open begins a fault's window.
func (j *judge) open(f *fault) *window {
	j.mu.Lock()
	defer j.mu.Unlock()
	w := &window{fault: f, begin: time.Now(), explained: map[string]int{}}
	j.windows = append(j.windows, w)
	return w
}

func (j *judge) shut(w *window) {
	j.mu.Lock()
	defer j.mu.Unlock()
	w.end = time.Now()
}

// took notes a call's end. A fault that explains it has begun already, so that it can be judged at once.
func (j *judge) took(kind, sidecar, outcome string, begin, end time.Time) {
	outcome, whose, _ := strings.Cut(outcome, whoseMark)
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.kinds[kind]
	if t == nil {
		t = &tally{latency: load.NewHistogram()}
		j.kinds[kind] = t
	}
	t.sent++
	if outcome == good {
		t.good++
		load.Record(t.latency, end.Sub(begin))
		return
	}
	near := []string{}
	for _, w := range slices.Backward(j.windows) {
		if begin.After(w.begin) && !w.end.IsZero() && begin.After(w.end.Add(grace)) {
			continue
		}
		if end.Before(w.begin) {
			continue
		}
		if w.fault.explains(kind, sidecar, outcome) {
			t.explained++
			w.explained[kind+": "+outcome]++
			return
		}
		near = append(near, w.fault.name)
	}
	t.unexpected++
	j.count++
	if j.say != nil && j.count <= 20 {
		j.say(fmt.Sprintf("unexpected: %s %s at %s after %v, took %v (%s)", kind, outcome, sidecar, begin.Sub(j.begun).Round(time.Second/10), end.Sub(begin).Round(time.Millisecond), or(strings.Join(near, ", "), "no fault")))
	}
	if len(j.bad) < keptFailures {
		j.bad = append(j.bad, Failure{
			Kind: kind, Sidecar: sidecar, Outcome: outcome, Whose: whose, Begin: begin.Sub(j.begun).Seconds(), End: end.Sub(j.begun).Seconds(), Near: strings.Join(near, ", "),
		})
	}
}

// explains says whether the fault allows this outcome.
func (f *fault) explains(kind, sidecar, outcome string) bool {
	if outcome == wrong || f.only != "" && !strings.HasPrefix(sidecar, f.only) {
		return false
	}
	for _, a := range f.allows {
		if slices.Contains(a.kinds, kind) && slices.Contains(a.outcomes, outcome) {
			return true
		}
	}
	return false
}

// totals are sent and unexpected so far.
func (j *judge) totals() (sent, unexpected int, fault string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, t := range j.kinds {
		sent += t.sent
	}
	if n := len(j.windows); n > 0 && j.windows[n-1].end.IsZero() {
		fault = j.windows[n-1].fault.name
	}
	return sent, j.count, fault
}
