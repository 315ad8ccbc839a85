package report

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// Load names the load of a run.
func (r Run) Load() string {
	if r.Rate > 0 {
		return fmt.Sprintf("%.0f/s", r.Rate)
	}
	return fmt.Sprintf("c=%d", r.Concurrency)
}

// Base is the run of the same scenario and load that r stands against: direct, else the sidecar's warm org; nil: none, or r itself.
func (r *Result) Base(run Run) *Run {
	for _, name := range []string{"direct", "keyward hit"} {
		for i, b := range r.Runs {
			if b.Peer == name && b.Scenario == run.Scenario && b.Concurrency == run.Concurrency && b.Rate == run.Rate {
				if run.Peer == name {
					return nil
				}
				return &r.Runs[i]
			}
		}
	}
	return nil
}

// Added is how much longer than its base a run takes at a figure: the median of the rounds' differences.
func Added(run Run, base *Run, f Figure) float64 {
	a, b := run.Values(f), base.Values(f)
	var d []float64
	for i := range min(len(a), len(b)) {
		d = append(d, a[i]-b[i])
	}
	return Median(d)
}

// Group are the runs that took their rounds in turn.
type Group struct {
	Scenario, Load string
	Runs           []Run
}

// Groups are in the order of the runs.
func (r *Result) Groups() []Group {
	var all []Group
	for _, run := range r.Runs {
		i := slices.IndexFunc(all, func(g Group) bool { return g.Scenario == run.Scenario && g.Load == run.Load() })
		if i < 0 {
			i = len(all)
			all = append(all, Group{Scenario: run.Scenario, Load: run.Load()})
		}
		all[i].Runs = append(all[i].Runs, run)
	}
	return all
}

// WriteTable prints every run: medians of its rounds, and beside them what it adds to its base and how many times the base's it is.
func (r *Result) WriteTable(w io.Writer) error {
	t := &stickyWriter{w: w}
	t.printf("%s, %d cores, %s, %s\ncommit %s, %s\n", r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go, r.Commit, r.Date.Format("2006-01-02 15:04 UTC"))
	for _, g := range r.Groups() {
		r.writeGroup(t, g)
	}
	for _, l := range r.Left {
		t.printf("\nleft out: %s", l)
	}
	t.printf("\nTimes are µs, medians of the rounds. +p50 and +p99 are what is added to direct (or to the sidecar's own hit); × is how many times as long, (from–to) what\nthe rounds leave open.\n")
	return t.err
}

func (r *Result) writeGroup(w *stickyWriter, g Group) {
	w.printf("\n%s %s\n", g.Scenario, g.Load)
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(cells ...string) { _, _ = io.WriteString(tab, strings.Join(cells, "\t")+"\t\n") } // w keeps the error
	line("", "p50", "p99", "p99.9", "+p50", "+p99", "× p50", "× p99", "requests/s", "cpu", "allocs", "MiB", "conns", "errors")
	for _, run := range g.Runs {
		line(r.cells(run)...)
	}
	_ = tab.Flush()
	for _, run := range g.Runs {
		if s := run.Extras(); s != "" {
			w.printf("  %s: %s\n", run.Peer, s)
		}
	}
}

// Line is a finished run in one line, for progress.
func (r *Result) Line(run Run) string {
	m := func(name string) float64 { return Median(run.Values(figure(name))) }
	s := fmt.Sprintf("%-10s %-8s %-18s p50 %8s  p99 %8s  %8s/s", run.Scenario, run.Load(), run.Peer, number(m("p50")), number(m("p99")), number(m("requests")))
	if cpu := m("cpu"); cpu > 0 {
		s += "  cpu " + number(cpu)
	}
	if n := run.Errors(); n > 0 {
		s += fmt.Sprintf("  %d ERRORS", n)
	}
	return s
}

// Errors of all rounds.
func (r Run) Errors() int64 {
	var n int64
	for _, round := range r.Rounds {
		n += round.Errors
	}
	return n
}

// Extra is the figure's values in the rounds that have it.
func (r Run) Extra(name string) []float64 {
	var v []float64
	for _, round := range r.Rounds {
		if x, ok := round.Extra[name]; ok {
			v = append(v, x)
		}
	}
	return v
}

// ExtraNames are the figures that only this run's scenario has.
func (r Run) ExtraNames() []string {
	names := map[string]bool{}
	for _, round := range r.Rounds {
		for name := range round.Extra {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Extras are these figures in one line.
func (r Run) Extras() string {
	var all []string
	for _, name := range r.ExtraNames() {
		all = append(all, name+" "+number(Median(r.Extra(name))))
	}
	return strings.Join(all, ", ")
}

func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return ""
	case v == math.Trunc(v) && a < 1e7, a >= 1000:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 0.995:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func signed(v float64) string {
	if v > 0 {
		return "+" + number(v)
	}
	return number(v)
}

func positive(v float64) string {
	if v <= 0 {
		return ""
	}
	return number(v)
}

func allocations(v float64) string {
	if v < 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", v)
}

// A stickyWriter keeps the first error.
type stickyWriter struct {
	w   io.Writer
	err error
}

func (s *stickyWriter) Write(b []byte) (int, error) {
	if s.err == nil {
		_, s.err = s.w.Write(b)
	}
	return len(b), s.err
}

func (s *stickyWriter) printf(format string, args ...any) { fmt.Fprintf(s, format, args...) }
