package report

import (
	"encoding/xml"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"
)

// rounds of a made-up run: each is base times a factor, so that medians and ratios are known.
func rounds(p50, cpu float64, factors ...float64) []Round {
	var all []Round
	for _, f := range factors {
		q := Quantiles{P50: p50 * f, P90: 1.5 * p50 * f, P99: 3 * p50 * f, P999: 6 * p50 * f, Max: 10 * p50 * f}
		all = append(all, Round{
			Requests: 100_000, Seconds: 2, Latency: q, CPUMicros: cpu * f, PeakRSS: 30 << 20, AllocsPerRequest: -1,
			Percentiles: [][2]float64{{0, q.P50 / 2}, {50, q.P50}, {90, q.P90}, {99, q.P99}, {99.9, q.P999}, {100, q.Max}},
		})
	}
	return all
}

// calm are rounds that differ by one percent.
func calm(p50, cpu float64) []Round { return rounds(p50, cpu, 1, 1.01, 0.99, 1, 1.005) }

func sample() *Result {
	r := &Result{
		Machine: Machine{CPU: "A CPU", Cores: 2, Memory: 8 << 30, Kernel: "Linux 6", Go: "go1.26"}, Commit: "0123456789ab", Date: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC),
		Left: []string{"haproxy: not installed"},
		Runs: []Run{
			{Scenario: "hit", Peer: "direct", Concurrency: 16, Rounds: calm(100, 0)},
			{Scenario: "hit", Peer: "nginx", Concurrency: 16, Rounds: calm(150, 17)},
			{Scenario: "hit", Peer: "relay", Concurrency: 16, Rounds: calm(140, 15)},
			{Scenario: "hit", Peer: "reverseproxy", Concurrency: 16, Rounds: calm(500, 60)},
			{Scenario: "hit", Peer: "keyward", Concurrency: 16, Rounds: calm(150, 16)},
			{Scenario: "hit", Peer: "direct", Concurrency: 64, Rate: 9000, Rounds: calm(110, 0)},
			{Scenario: "hit", Peer: "keyward", Concurrency: 64, Rate: 9000, Rounds: calm(160, 18)},
		},
	}
	for i := range r.Runs[4].Rounds {
		r.Runs[4].Rounds[i].AllocsPerRequest = 3
		r.Runs[4].Rounds[i].Extra = map[string]float64{"hit_rate": 0.75}
	}
	return r
}

func page(t *testing.T, r *Result) string {
	t.Helper()
	var b strings.Builder
	if err := r.WritePage(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestPageNeedsNothingElse: it opens from a file, without a network, and asks nobody.
func TestPageNeedsNothingElse(t *testing.T) {
	p := page(t, sample())
	for _, s := range []string{"http:", "https:", "//", "url(", "@import", "src=", "<script", "<link", "<iframe", "<object"} {
		if strings.Contains(p, s) {
			t.Errorf("it has %q in it", s)
		}
	}
	for _, m := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(p, -1) {
		if !strings.HasPrefix(m[1], "#") {
			t.Errorf("a link to %q", m[1])
		}
	}
	for _, s := range []string{"default-src 'none'", "prefers-color-scheme: dark", "color-scheme: light dark"} {
		if !strings.Contains(p, s) {
			t.Errorf("it has no %q", s)
		}
	}
}

func TestPageShowsEveryRunAndMark(t *testing.T) {
	p := page(t, sample())
	for _, s := range []string{
		`id="hit"`, "c=16", "9000/s, open loop", "0123456789ab", "A CPU, 2 cores", "haproxy: not installed", "hit_rate 0.750", "keyward: 99 % within 450 µs",
		"nginx: 17 µs, rounds from 16.8 to 17.2", "CPU per request to nginx", "0.94 ×", "reached", "not measured",
	} {
		if !strings.Contains(p, s) {
			t.Errorf("it has no %q", s)
		}
	}
	if n := strings.Count(p, "<polyline"); n != 7 {
		t.Errorf("%d curves, not 7", n)
	}
	if n := strings.Count(p, "<rect"); n != 5 {
		t.Errorf("%d bars, not 5: direct has no process", n)
	}
}

func TestPageEscapesNames(t *testing.T) {
	r := sample()
	r.Runs[1].Peer = `<b>"x"&`
	r.Left = append(r.Left, "<i>left</i>")
	if p := page(t, r); strings.Contains(p, "<b>") || strings.Contains(p, "<i>") {
		t.Error("a name is markup")
	}
}

func TestChartsAreWellFormedAndInsideTheirFrame(t *testing.T) {
	r := sample()
	for _, g := range r.Groups() {
		for _, svg := range []string{string(latencyChart("a", g.Runs)), string(cpuChart("a", g.Runs))} {
			d := xml.NewDecoder(strings.NewReader(svg))
			for {
				token, err := d.Token()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatalf("%v in %s", err, svg)
				}
				inside(t, token)
			}
		}
	}
}

func inside(t *testing.T, token xml.Token) {
	t.Helper()
	e, ok := token.(xml.StartElement)
	if !ok {
		return
	}
	for _, a := range e.Attr {
		if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") || (a.Name.Local != "y" && strings.HasPrefix(a.Value, "-")) {
			t.Errorf("%s %s=%q", e.Name.Local, a.Name.Local, a.Value)
		}
	}
}

func TestPercentilesOfTooFewAnswersAreNotDrawn(t *testing.T) {
	run := Run{Peer: "keyward", Rounds: calm(100, 10)}
	for i := range run.Rounds {
		run.Rounds[i].Requests = 500 // beyond the 99th are 5, beyond the 99.9th none
	}
	points := curves([]Run{run})[0].points
	if last := points[len(points)-1][0]; math.Abs(last-2) > 1e-9 {
		t.Errorf("the last is at %v, not the 99th", last)
	}
}

func TestPageOfNothingIsAPage(t *testing.T) {
	if p := page(t, &Result{}); !strings.Contains(p, "</html>") || !strings.Contains(p, "not measured") {
		t.Error(p)
	}
	if p := page(t, &Result{Runs: []Run{{Scenario: "hit", Peer: "keyward", Rounds: []Round{{}}}}}); strings.Contains(p, "NaN") || strings.Contains(p, "Inf") {
		t.Error("a figure that is none is shown")
	}
}
