package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// A Mark is a figure that Keyward is to reach, and what this result says of it.
type Mark struct {
	Figure, Goal string
	Measured     string // empty: not measured
	Verdict      string // of the Mark constants
}

// Verdicts on marks. By the median alone, while the rounds leave both open: said with "within the noise".
const (
	MarkReached       = "reached"
	MarkMissed        = "not reached"
	MarkRatherReached = "reached, within the noise"
	MarkRatherMissed  = "not reached, within the noise"
	MarkUnmeasured    = "not measured"
)

// goal is what a measured figure is held against.
type goal struct {
	limit float64
	least bool // the figure must be at least the limit, not at most
}

func (g goal) String() string {
	if g.least {
		return "≥ "
	}
	return "≤ "
}

// verdict on a median and the range that the rounds leave open.
func (g goal) verdict(r Ratio) string {
	if math.IsNaN(r.Value) {
		return MarkUnmeasured
	}
	good := func(v float64) bool { return v <= g.limit }
	if g.least {
		good = func(v float64) bool { return v >= g.limit }
	}
	low, high := good(r.Low), good(r.High)
	switch {
	case low && high:
		return MarkReached
	case !low && !high:
		return MarkMissed
	case good(r.Value):
		return MarkRatherReached
	}
	return MarkRatherMissed
}

// mark is a row: the measured value in a unit, divided by per.
func mark(figure string, g goal, unit string, per float64, r Ratio) Mark {
	m := Mark{Figure: figure, Goal: g.String() + plain(g.limit/per) + unit, Verdict: g.verdict(r)}
	if m.Verdict != MarkUnmeasured {
		m.Measured = plain(r.Value/per) + unit
		if r.Low != r.High {
			m.Measured += fmt.Sprintf(" (%s to %s)", plain(r.Low/per), plain(r.High/per))
		}
	}
	return m
}

func plain(v float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
}

const (
	mib      = 1 << 20
	ms       = 1000 // µs
	openLoop = -1   // in place of a concurrency
)

// run finds one; nil: it was not measured.
func (r *Result) run(scenario, peer string, concurrency int) *Run {
	for i, run := range r.Runs {
		if run.Scenario == scenario && run.Peer == peer && (concurrency == openLoop && run.Rate > 0 || run.Rate == 0 && run.Concurrency == concurrency) {
			return &r.Runs[i]
		}
	}
	return nil
}

// over is one peer's figure to another's.
func (r *Result) over(scenario, one, other string, concurrency int, f string) Ratio {
	a, b := r.run(scenario, one, concurrency), r.run(scenario, other, concurrency)
	if a == nil || b == nil {
		return NoRatio
	}
	return Paired(a.Values(figure(f)), b.Values(figure(f)))
}

// added is one peer's figure less another's.
func (r *Result) added(scenario, one, other string, concurrency int, f string) Ratio {
	a, b := r.run(scenario, one, concurrency), r.run(scenario, other, concurrency)
	if a == nil || b == nil {
		return NoRatio
	}
	va, vb := a.Values(figure(f)), b.Values(figure(f))
	var d []float64
	for i := range min(len(va), len(vb)) {
		d = append(d, va[i]-vb[i])
	}
	return middle(d)
}

func (r *Result) own(scenario, peer string, concurrency int, f string) Ratio {
	run := r.run(scenario, peer, concurrency)
	if run == nil {
		return NoRatio
	}
	return middle(run.Values(figure(f)))
}

func (r *Result) extra(scenario, peer string, concurrency int, name string) []float64 {
	run := r.run(scenario, peer, concurrency)
	if run == nil {
		return nil
	}
	return run.Extra(name)
}

// worst is for what may never happen: the most of all rounds.
func worst(v []float64) Ratio {
	if len(v) == 0 {
		return NoRatio
	}
	most := v[0]
	for _, x := range v {
		most = max(most, x)
	}
	return Ratio{most, most, most}
}

// WriteMarks prints the marks, or nothing where none was measured.
func (r *Result) WriteMarks(w io.Writer) error {
	t := &stickyWriter{w: w}
	tab := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	any := false
	fmt.Fprintln(tab, "figure\tmark\tmeasured\t")
	for _, m := range r.Marks() {
		if m.Verdict == MarkUnmeasured {
			continue
		}
		any = true
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\n", m.Figure, m.Goal, m.Measured, m.Verdict)
	}
	if !any {
		return nil
	}
	t.printf("\nmarks\n")
	return tab.Flush()
}
