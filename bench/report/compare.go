package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// A Change is one figure of one run against the same of an earlier result.
type Change struct {
	Scenario, Peer, Load, Figure string

	Before, After float64 // medians of the rounds
	Ratio         Ratio   // after to before; for latencies, of what they are to their base
	Verdict       Verdict
}

// A Verdict says whether a change is one.
type Verdict string

// Verdicts.
const (
	Same   Verdict = "~"
	Better Verdict = "better"
	Worse  Verdict = "WORSE"
)

// watched are the figures that are compared, and how much worse one may get even when its rounds agree: two runs differ by more than the rounds of
// one do, since memory lies elsewhere and neighbours are others.
var watched = []struct {
	name      string
	allowance float64 // a share
	absolute  float64 // in the figure's unit
}{
	{"p50", 0.10, 5},
	{"p99", 0.25, 20},
	{"cpu", 0.05, 0.5},
	{"memory", 0.10, 2 << 20},
}

// counted are compared by their difference, since none is a usual value, and by their worst round: how much worse it may get.
var counted = []struct {
	name      string
	allowance float64
	more      bool // is better
	of        func(Run) []float64
}{
	{"allocs", 0.2, false, func(r Run) []float64 {
		v := r.Values(figure("allocs"))
		if len(v) > 0 && slices.Min(v) < 0 { // could not be read
			return nil
		}
		return v
	}},
	{"errors", 0, false, func(r Run) (v []float64) {
		for _, round := range r.Rounds {
			v = append(v, float64(round.Errors))
		}
		return v
	}},
	{"upstream connections", 2, false, func(r Run) []float64 { return r.Values(figure("upstream connections")) }},
	{"hit_rate", 0.02, true, func(r Run) []float64 { return r.Extra("hit_rate") }},
	{"store_queries_for_1000_misses", 1, false, func(r Run) []float64 { return r.Extra("store_queries_for_1000_misses") }},
	{"rss_growth_bytes", 2 << 20, false, func(r Run) []float64 { return r.Extra("rss_growth_bytes") }},
	{"idle_rss_bytes", 2 << 20, false, func(r Run) []float64 { return r.Extra("idle_rss_bytes") }},
}

// Compare finds every run of ours that both results have. Latencies are compared as multiples of their base (direct, the sidecar's own hit) in their own run, where there is
// one: that takes out how fast the machine was on the day. Open loops are compared where they had about the same rate.
func Compare(before, after *Result) []Change {
	var all []Change
	for _, b := range after.Runs {
		if !strings.HasPrefix(b.Peer, "keyward") {
			continue
		}
		for _, a := range before.Runs {
			if a.Scenario != b.Scenario || a.Peer != b.Peer || a.Concurrency != b.Concurrency || (a.Rate > 0) != (b.Rate > 0) || math.Abs(a.Rate-b.Rate) > 0.1*b.Rate {
				continue
			}
			for _, w := range watched {
				if c, ok := compare(before, after, a, b, w.name, w.allowance, w.absolute); ok {
					all = append(all, c)
				}
			}
			for _, w := range counted {
				if c, ok := count(b, w.name, w.of(a), w.of(b), w.allowance, w.more); ok {
					all = append(all, c)
				}
			}
		}
	}
	return all
}

// count calls a change one where all rounds of one side lie beyond all of the other's by more than the allowance. What is always none is left out.
func count(b Run, name string, before, after []float64, allowance float64, more bool) (Change, bool) {
	c := Change{Scenario: b.Scenario, Peer: b.Peer, Load: b.Load(), Figure: name, Before: Median(before), After: Median(after), Ratio: Apart(after, before), Verdict: Same}
	if len(before) == 0 || len(after) == 0 || slices.Max(before) == 0 && slices.Max(after) == 0 {
		return c, false
	}
	worse, better := slices.Min(after) > slices.Max(before)+allowance, slices.Max(after) < slices.Min(before)-allowance
	if more {
		worse, better = slices.Max(after) < slices.Min(before)-allowance, slices.Min(after) > slices.Max(before)+allowance
	}
	switch {
	case worse:
		c.Verdict = Worse
	case better:
		c.Verdict = Better
	}
	return c, true
}

func compare(before, after *Result, a, b Run, name string, allowance, absolute float64) (Change, bool) {
	f := figure(name)
	va, vb := a.Values(f), b.Values(f)
	c := Change{Scenario: b.Scenario, Peer: b.Peer, Load: b.Load(), Figure: name, Before: Median(va), After: Median(vb)}
	if !(c.Before > 0) || !(c.After > 0) { // not measured on one side
		return c, false
	}
	if baseA, baseB := before.Base(a), after.Base(b); f.Unit == "µs" && name != "cpu" && baseA != nil && baseB != nil {
		va, vb = over(va, baseA.Values(f)), over(vb, baseB.Values(f))
	}
	c.Ratio = Apart(vb, va)
	c.Verdict = Same
	switch moved := math.Abs(c.After-c.Before) > absolute; {
	case moved && c.Ratio.Low > 1+allowance:
		c.Verdict = Worse
	case moved && c.Ratio.High < 1-allowance:
		c.Verdict = Better
	}
	return c, true
}

func over(v, base []float64) []float64 {
	q := make([]float64, min(len(v), len(base)))
	for i := range q {
		q[i] = v[i] / base[i]
	}
	return q
}

// WriteChanges prints them and returns how many are regressions.
func WriteChanges(w io.Writer, before, after *Result, changes []Change) (worse int, err error) {
	t := &stickyWriter{w: w}
	t.printf("before: %s %s\nafter:  %s %s\n", before.Commit, before.Date.Format("2006-01-02 15:04 UTC"), after.Commit, after.Date.Format("2006-01-02 15:04 UTC"))
	if before.Machine != after.Machine {
		t.printf("the machines differ: %+v, %+v\n", before.Machine, after.Machine)
	}
	tab := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "scenario\tload\tpeer\tfigure\tbefore\tafter\tchange\t")
	for _, c := range changes {
		if c.Verdict == Worse {
			worse++
		}
		fmt.Fprintf(tab, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Scenario, c.Load, c.Peer, c.Figure, number(c.Before), number(c.After), percent(c.Ratio), c.Verdict)
	}
	if err := tab.Flush(); err != nil {
		return worse, err
	}
	switch {
	case len(changes) == 0:
		t.printf("the two results have no run in common\n")
	case worse == 0:
		t.printf("no regression beyond the noise\n")
	default:
		t.printf("%d figures are worse beyond the noise\n", worse)
	}
	return worse, t.err
}

func percent(r Ratio) string {
	if math.IsNaN(r.Value) {
		return "–"
	}
	return fmt.Sprintf("%+.1f %% (%+.1f to %+.1f)", 100*(r.Value-1), 100*(r.Low-1), 100*(r.High-1))
}

// Read reads a result's JSON.
func Read(file string) (*Result, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading a result: %w", err)
	}
	var r Result
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("reading result %q: %w", file, err)
	}
	if len(r.Runs) == 0 {
		return nil, fmt.Errorf("reading result %q: there are no runs in it", file)
	}
	return &r, nil
}
