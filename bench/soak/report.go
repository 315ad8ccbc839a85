package soak

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/keyward/keyward/bench/report"
)

// A Report is what a run found. Times are in seconds since the run's start.
type Report struct {
	Machine report.Machine `json:"machine"`
	Commit  string         `json:"commit"`
	Date    time.Time      `json:"date"`

	Minutes float64  `json:"minutes"`
	Rate    float64  `json:"rate"` // arrivals per second
	Orgs    int      `json:"orgs"` // in each store
	Store   string   `json:"store"`
	Rule    string   `json:"rule"`
	Left    []string `json:"left,omitempty"` // what was left out, and why
	Late    float64  `json:"late_ms"`        // how much later than it wanted the harness itself ran, at the worst

	Calls      []Calls   `json:"calls"`
	Unexpected int       `json:"unexpected"`
	Failures   []Failure `json:"failures,omitempty"` // the first unexpected ones
	Held       int64     `json:"held,omitempty"`     // calls for which the harness had no room
	Faults     []Fault   `json:"faults"`
	Delivered  Delivered `json:"delivered"`
	Returned   []Return  `json:"returned"`
	Trouble    []string  `json:"trouble,omitempty"` // panics, sidecars that ended, webhooks that nobody verified
	Logged     []string  `json:"logged"`            // what sidecars logged as warnings and errors, and how often
	Samples    []Sample  `json:"samples"`
	Passed     bool      `json:"passed"`
}

// Calls are those of one kind.
type Calls struct {
	Kind       string  `json:"kind"`
	About      string  `json:"about"`
	Sent       int     `json:"sent"`
	Good       int     `json:"good"`
	Explained  int     `json:"explained"`
	Unexpected int     `json:"unexpected"`
	P50        float64 `json:"p50_ms"` // of the good ones, milliseconds; the machine is shared and has faults
	P99        float64 `json:"p99_ms"`
}

// A Fault is one that was carried out.
type Fault struct {
	Name      string         `json:"name"`
	Begin     float64        `json:"begin"`
	End       float64        `json:"end"`
	Explained map[string]int `json:"explained,omitempty"` // :: kind and outcome → calls
}

// Delivered are the webhooks that were acknowledged as stored.
type Delivered struct {
	Acknowledged int `json:"acknowledged"`
	Lost         int `json:"lost"`
	Twice        int `json:"twice"` // came more than once, under the same id; at least once is what is promised
}

// A Return is whether one figure of one sidecar came back to where it was.
type Return struct {
	Sidecar string `json:"sidecar"`
	Figure  string `json:"figure"`
	Start   int64  `json:"start"`
	Most    int64  `json:"most"`
	End     int64  `json:"end"`
	Bound   int64  `json:"bound"`
	Back    bool   `json:"back"`
}

// conclude fills in what was found, and the verdict.
func (f *field) conclude(r *Report, p plan) {
	r.Samples = f.watched.all
	r.Held = f.held.Load()
	r.Late = float64(f.late.Load()) / 1e6
	f.judge.mu.Lock()
	defer f.judge.mu.Unlock()
	r.Unexpected, r.Failures = f.judge.count, f.judge.bad
	for _, k := range kinds {
		t := f.judge.kinds[k.name]
		if t == nil {
			r.Trouble = append(r.Trouble, "no call of the kind "+k.name+" was made")
			continue
		}
		r.Calls = append(r.Calls, Calls{
			Kind: k.name, About: k.about, Sent: t.sent, Good: t.good, Explained: t.explained, Unexpected: t.unexpected,
			P50: float64(t.latency.ValueAtPercentile(50)) / 1e6, P99: float64(t.latency.ValueAtPercentile(99)) / 1e6,
		})
	}
	for _, w := range f.judge.windows {
		r.Faults = append(r.Faults, Fault{Name: w.fault.name, Begin: w.begin.Sub(f.judge.begun).Seconds(), End: w.end.Sub(f.judge.begun).Seconds(), Explained: w.explained})
	}
	f.app.mu.Lock()
	r.Delivered = Delivered{Acknowledged: f.app.taken, Lost: len(f.app.acked), Twice: f.app.twice}
	if f.app.strangers > 0 {
		r.Trouble = append(r.Trouble, fmt.Sprintf("%d webhooks came to the app that were not verified", f.app.strangers))
	}
	f.app.mu.Unlock()
	if n := f.unasked.Load(); n > 0 {
		r.Trouble = append(r.Trouble, fmt.Sprintf("%d answers came to connections on which nothing was asked", n))
	}
	f.returned(r, p)
	for _, n := range f.nodes {
		n.log.mu.Lock()
		for _, p := range n.log.panics {
			r.Trouble = append(r.Trouble, n.name+" panicked: "+p)
		}
		for _, said := range slices.Sorted(maps.Keys(n.log.errors)) {
			r.Logged = append(r.Logged, fmt.Sprintf("%s: %d × %s", n.name, n.log.errors[said], said))
		}
		n.log.mu.Unlock()
		if n.Ended() {
			r.Trouble = append(r.Trouble, n.name+" ended")
		}
	}
	r.Passed = r.Unexpected == 0 && r.Delivered.Lost == 0 && len(r.Trouble) == 0 && r.Held == 0 &&
		!slices.ContainsFunc(r.Returned, func(x Return) bool { return !x.Back })
}

// returned compares the last half of the time before the first fault with the last third of the time after the last one: the same load, no fault.
func (f *field) returned(r *Report, p plan) {
	first, last := f.firstFault.Sub(f.judge.begun).Seconds(), f.lastFault.Sub(f.judge.begun).Seconds()
	for _, n := range f.nodes {
		for i := range figures {
			x := &figures[i]
			start, ok := f.watched.between(n.name, x, first-p.warm.Seconds()/2, first)
			end, ok2 := f.watched.between(n.name, x, last+p.cool.Seconds()*2/3, last+p.cool.Seconds()+1)
			if !ok || !ok2 {
				left := x.name + " could not be read"
				if x.name == "descriptors" {
					left += ": run it as root"
				}
				if !slices.Contains(r.Left, left) {
					r.Left = append(r.Left, left)
				}
				continue
			}
			one := Return{Sidecar: n.name, Figure: x.name, Start: start, End: end, Bound: start + int64(x.share*float64(start)) + x.more}
			for i := range r.Samples {
				if s := &r.Samples[i]; s.Sidecar == n.name {
					one.Most = max(one.Most, x.of(s))
				}
			}
			one.Back = end <= one.Bound
			r.Returned = append(r.Returned, one)
		}
	}
}

// WriteMarkdown writes the report for people; the chart's file is named in it.
func (r *Report) WriteMarkdown(w io.Writer, chart string) error {
	var b bytes.Buffer
	verdict := "**Passed**"
	if !r.Passed {
		verdict = "**Not passed**"
	}
	fmt.Fprintf(&b, "# Soak of %s\n\n%s: %.4g minutes at %.4g calls per second, %d orgs in each store, %s, a fault every %.3g s.\n\n", r.Date.Format("2 January 2006"), verdict,
		r.Minutes, r.Rate, r.Orgs, r.Store, r.between())
	fmt.Fprintf(&b, "Commit %s, on %d cores of %s, %s, %s.\n\n", r.Commit, r.Machine.Cores, r.Machine.CPU, r.Machine.Kernel, r.Machine.Go)
	fmt.Fprintf(&b, "The harness itself ran up to %.0f ms later than it wanted: the machine has other work besides.\n\n", r.Late)
	for _, l := range append(slices.Clone(r.Trouble), r.Left...) {
		fmt.Fprintf(&b, "- %s\n", l)
	}
	fmt.Fprintf(&b, "![memory, descriptors and goroutines over the time](%s)\n\n", chart)
	b.WriteString("## Back to where it was\n\nUnder the same load, before the first fault and some time after the last. Medians; of the live heap the least.\n\n")
	b.WriteString("| sidecar | figure | start | most | end | at most | |\n|---|---|---|---|---|---|---|\n")
	for _, x := range r.Returned {
		show := number
		if x.Figure == figures[0].name || x.Figure == figures[1].name {
			show = mebi
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s |\n", x.Sidecar, x.Figure, show(x.Start), show(x.Most), show(x.End), show(x.Bound), mark(x.Back))
	}
	fmt.Fprintf(&b, "\n## Calls\n\n%s\n\n| kind | what | sent | good | explained by a fault | unexpected | p50 ms | p99 ms |\n|---|---|---|---|---|---|---|---|\n", r.Rule)
	for _, c := range r.Calls {
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %.2f | %.0f |\n", c.Kind, c.About, c.Sent, c.Good, c.Explained, c.Unexpected, c.P50, c.P99)
	}
	fmt.Fprintf(&b, "\nTimes are of a shared machine, generator and providers on it, faults included: they say that nothing hung, and no more.\n"+
		"Webhooks acknowledged as stored: %d; lost: %d; delivered more than once, under the same id: %d.\n", r.Delivered.Acknowledged, r.Delivered.Lost, r.Delivered.Twice)
	r.writeFaults(&b)
	if len(r.Logged) > 0 {
		b.WriteString("\n## Warnings and errors in the logs\n\n")
		for _, l := range r.Logged {
			fmt.Fprintf(&b, "- %s\n", l)
		}
	}
	if len(r.Failures) > 0 {
		b.WriteString("\n## Unexpected\n\n| at | sidecar | kind | outcome | whose | took s | faults under way |\n|---|---|---|---|---|---|---|\n")
		for _, x := range r.Failures[:min(len(r.Failures), 40)] {
			fmt.Fprintf(&b, "| %.1f | %s | %s | %s | %s | %.2f | %s |\n", x.Begin, x.Sidecar, x.Kind, x.Outcome, x.Whose, x.End-x.Begin, x.Near)
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// writeFaults sums up each fault: how often, what it may cost, what it did cost.
func (r *Report) writeFaults(b *bytes.Buffer) {
	b.WriteString("\n## Faults\n\n| fault | what | times | may cost | did cost |\n|---|---|---|---|---|\n")
	for i := range faults {
		x := &faults[i]
		times, cost := 0, map[string]int{}
		for _, f := range r.Faults {
			if f.Name == x.name {
				times++
				for what, n := range f.Explained {
					cost[what] += n
				}
			}
		}
		var may, did []string
		for _, a := range x.allows {
			may = append(may, strings.Join(a.kinds, ", ")+": "+strings.Join(a.outcomes, ", "))
		}
		for _, what := range slices.Sorted(maps.Keys(cost)) {
			did = append(did, fmt.Sprintf("%d × %s", cost[what], what))
		}
		where := x.about
		if x.only != "" {
			where += " (" + x.only + ")"
		}
		fmt.Fprintf(b, "| %s | %s | %d | %s | %s |\n", x.name, where, times, or(strings.Join(may, "; "), "nothing"), or(strings.Join(did, "; "), "nothing"))
	}
}

// between is how many seconds lie from one fault to the next.
func (r *Report) between() float64 {
	if len(r.Faults) < 2 {
		return 0
	}
	return (r.Faults[len(r.Faults)-1].Begin - r.Faults[0].Begin) / float64(len(r.Faults)-1)
}

func number(v int64) string { return fmt.Sprint(v) }

func mebi(v int64) string { return fmt.Sprintf("%.1f MiB", float64(v)/(1<<20)) }

func mark(ok bool) string {
	if ok {
		return "back"
	}
	return "NOT BACK"
}

// WriteSummary says in a few lines how it went.
func (r *Report) WriteSummary(w io.Writer) error {
	var b bytes.Buffer
	sent := 0
	for _, c := range r.Calls {
		sent += c.Sent
	}
	fmt.Fprintf(&b, "%d calls, %d unexpected; %d webhooks acknowledged, %d lost; %d faults\n", sent, r.Unexpected, r.Delivered.Acknowledged, r.Delivered.Lost, len(r.Faults))
	for _, x := range r.Returned {
		if !x.Back {
			fmt.Fprintf(&b, "%s: %s did not come back: %d at the start, %d at the end, at most %d\n", x.Sidecar, x.Figure, x.Start, x.End, x.Bound)
		}
	}
	for _, t := range append(slices.Clone(r.Trouble), r.Left...) {
		fmt.Fprintln(&b, t)
	}
	most := map[string]int{}
	for _, x := range r.Failures {
		most[x.Kind+": "+x.Outcome+" ("+or(x.Near, "no fault")+")"]++
	}
	for _, what := range slices.Sorted(maps.Keys(most)) {
		fmt.Fprintf(&b, "unexpected: %d × %s\n", most[what], what)
	}
	if r.Held > 0 {
		fmt.Fprintf(&b, "%d calls were held back: the harness had no room for them\n", r.Held)
	}
	fmt.Fprintln(&b, map[bool]string{true: "passed", false: "NOT PASSED"}[r.Passed])
	_, err := w.Write(b.Bytes())
	return err
}
