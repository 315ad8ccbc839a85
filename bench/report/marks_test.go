package report

import (
	"strings"
	"testing"
)

// verdictOf is the verdict on the first mark whose figure begins so.
func verdictOf(t *testing.T, r *Result, figure string) Mark {
	t.Helper()
	for _, m := range r.Marks() {
		if strings.HasPrefix(m.Figure, figure) {
			return m
		}
	}
	t.Fatalf("no mark %q", figure)
	return Mark{}
}

func TestMarksThatAreReached(t *testing.T) {
	for figure, measured := range map[string]string{
		"CPU per request to nginx's": "0.94 ×", "CPU per request to the byte relay's": "1.07 ×", "p99 to nginx's, c=16": "1 ×", "CPU per request of ReverseProxy": "3.75 ×", "p99 of ReverseProxy": "3.33 ×",
	} {
		if m := verdictOf(t, sample(), figure); m.Verdict != MarkReached || !strings.HasPrefix(m.Measured, measured) {
			t.Errorf("%+v, not %s", m, measured)
		}
	}
}

func TestMarksThatAreMissed(t *testing.T) {
	r := sample()
	r.Runs[4].Rounds = calm(500, 40)
	for _, figure := range []string{"CPU per request to nginx's", "CPU per request to the byte relay's", "p99 to nginx's, c=16", "CPU per request of ReverseProxy", "p99 of ReverseProxy"} {
		if m := verdictOf(t, r, figure); m.Verdict != MarkMissed {
			t.Errorf("%+v", m)
		}
	}
}

func TestMarksWithinTheNoiseSaySo(t *testing.T) {
	r := sample()
	r.Runs[4].Rounds = rounds(150, 16, 0.8, 1, 1.3, 0.9, 1.02)
	if m := verdictOf(t, r, "CPU per request to nginx's"); m.Verdict != MarkRatherReached {
		t.Errorf("%+v", m)
	}
	r.Runs[4].Rounds = rounds(150, 18, 0.8, 1, 1.3, 0.9, 1.02)
	if m := verdictOf(t, r, "CPU per request to nginx's"); m.Verdict != MarkRatherMissed {
		t.Errorf("%+v", m)
	}
}

// TestMarksThatWereNotMeasuredAreNotReached: an empty result reaches nothing.
func TestMarksThatWereNotMeasuredAreNotReached(t *testing.T) {
	for _, m := range (&Result{}).Marks() {
		if m.Verdict != MarkUnmeasured || m.Measured != "" {
			t.Errorf("%+v", m)
		}
	}
}

func TestMarksOfScenarios(t *testing.T) {
	with := func(run Run, extra map[string]float64) Run {
		for i := range run.Rounds {
			run.Rounds[i].Extra = extra
		}
		return run
	}
	good := &Result{Runs: []Run{
		{Scenario: "zipf", Peer: "keyward", Concurrency: 16, Rounds: calm(105, 16)},
		{Scenario: "zipf", Peer: "keyward hit", Concurrency: 16, Rounds: calm(100, 16)},
		{Scenario: "miss", Peer: "keyward sqlite", Concurrency: 16, Rounds: calm(400, 90)},
		{Scenario: "webhook", Peer: "direct", Concurrency: 16, Rounds: calm(100, 0)},
		{Scenario: "webhook", Peer: "keyward", Concurrency: 16, Rounds: calm(300, 90)},
		{Scenario: "stream", Peer: "direct", Concurrency: 16, Rounds: calm(100, 0)},
		{Scenario: "stream", Peer: "keyward", Concurrency: 16, Rounds: calm(200, 90)},
		{Scenario: "upload", Peer: "keyward", Concurrency: 1, Rounds: calm(100, 90)},
		{Scenario: "cold", Peer: "direct", Concurrency: 1, Rounds: calm(120_000, 0)},
		{Scenario: "cold", Peer: "keyward", Concurrency: 1, Rounds: calm(40_500, 90)},
		{Scenario: "start", Peer: "keyward", Concurrency: 1, Rounds: calm(40_000, 0)},
	}}
	extras := func(r *Result, hitRate, loads, held, growth, idle float64) {
		with(r.Runs[0], map[string]float64{"hit_rate": hitRate, "best_hit_rate": 0.8, "orgs": 10_000})
		with(r.Runs[2], map[string]float64{"store_queries_for_1000_misses": loads})
		with(r.Runs[5], map[string]float64{"chunks": 1000, "chunks_held": 2})
		with(r.Runs[6], map[string]float64{"chunks": 1000, "chunks_held": held})
		with(r.Runs[7], map[string]float64{"rss_growth_bytes": growth})
		with(r.Runs[10], map[string]float64{"idle_rss_bytes": idle})
	}
	figures := []string{"zipf: hit rate", "miss: store queries for 1,000 at once, sqlite", "stream: chunks held", "upload", "idle memory"}
	extras(good, 0.79, 1, 2, 4<<20, 20<<20)
	for _, figure := range append(figures, "zipf: p50", "miss: p99 with SQLite, c=16", "webhook: p99 added, c=16", "stream: p99", "cold", "start") {
		if m := verdictOf(t, good, figure); m.Verdict != MarkReached {
			t.Errorf("%+v", m)
		}
	}
	if m := verdictOf(t, good, "zipf: p50"); !strings.Contains(m.Figure, "10000 orgs instead of 100,000") {
		t.Errorf("fewer orgs than the mark has are not told: %+v", m)
	}
	extras(good, 0.7, 2, 9, 9<<20, 26<<20)
	for _, figure := range figures {
		if m := verdictOf(t, good, figure); m.Verdict != MarkMissed {
			t.Errorf("%+v", m)
		}
	}
	for _, i := range []int{0, 2, 4, 6, 9, 10} {
		good.Runs[i].Rounds = calm(100_000, 90)
	}
	for _, figure := range []string{"zipf: p50", "miss: p99 with SQLite, c=16", "webhook: p99 added, c=16", "stream: p99", "cold", "start"} {
		if m := verdictOf(t, good, figure); m.Verdict != MarkMissed {
			t.Errorf("%+v", m)
		}
	}
}

// TestAllocationsOfTheProcessDecideNothing: some are not our own code's; none at all would be.
func TestAllocationsOfTheProcessDecideNothing(t *testing.T) {
	r := sample()
	if m := verdictOf(t, r, "allocations"); m.Verdict == MarkReached || m.Verdict == MarkMissed || !strings.HasPrefix(m.Measured, "3") {
		t.Errorf("%+v", m)
	}
	for i := range r.Runs[4].Rounds {
		r.Runs[4].Rounds[i].AllocsPerRequest = 0.001
	}
	if m := verdictOf(t, r, "allocations"); m.Verdict != MarkReached {
		t.Errorf("%+v", m)
	}
	for i := range r.Runs[4].Rounds {
		r.Runs[4].Rounds[i].AllocsPerRequest = -1
	}
	if m := verdictOf(t, r, "allocations"); m.Verdict != MarkUnmeasured {
		t.Errorf("%+v", m)
	}
}
