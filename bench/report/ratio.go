package report

import (
	"fmt"
	"math"
	"slices"
)

// A Ratio is one thing against another: the median of the rounds' ratios, and the range that the true one lies in, at least nineteen times of
// twenty where there are six rounds or more; with fewer it is the whole range of the rounds. Both are of ranks: a round that the machine stopped in the middle
// of moves neither the median nor, alone, the range of many rounds.
type Ratio struct {
	Value, Low, High float64
}

// NoRatio is that of figures that are not there.
var NoRatio = Ratio{math.NaN(), math.NaN(), math.NaN()}

func (r Ratio) String() string {
	if math.IsNaN(r.Value) {
		return "–"
	}
	return fmt.Sprintf("%s (%s–%s)", short(r.Value), short(r.Low), short(r.High))
}

func short(v float64) string {
	if v >= 99.5 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// Holds says whether the true ratio may be v.
func (r Ratio) Holds(v float64) bool { return r.Low <= v && v <= r.High }

// Paired is a to b where both took their rounds in turn: round i of one stands beside round i of the other, so that what the machine did
// meanwhile met both and cancels out.
func Paired(a, b []float64) Ratio {
	var all []float64
	for i := range min(len(a), len(b)) {
		if a[i] <= 0 || b[i] <= 0 {
			return NoRatio
		}
		all = append(all, a[i]/b[i])
	}
	return middle(all)
}

// middle is the median of rounds and its range.
func middle(all []float64) Ratio {
	n := len(all)
	// The median lies outside the k-th smallest and the k-th largest of n as often as a coin shows one side less than k times (sign test).
	k, tail, ways := 0, 0.0, 1.0
	for ; k < n/2; k++ {
		if tail += ways / math.Exp2(float64(n)); 2*tail > 0.05 {
			break
		}
		ways = ways * float64(n-k) / float64(k+1)
	}
	return ranked(slices.Clone(all), k)
}

// Apart is a to b where they come from two runs: each round of one stands beside each of the other (Hodges and Lehmann's estimate, its range by
// Mann and Whitney's test).
func Apart(a, b []float64) Ratio {
	var all []float64
	for _, x := range a {
		for _, y := range b {
			if x <= 0 || y <= 0 {
				return NoRatio
			}
			all = append(all, x/y)
		}
	}
	m, n := float64(len(a)), float64(len(b))
	return ranked(all, int(m*n/2-1.96*math.Sqrt(m*n*(m+n+1)/12)))
}

// ranked is the median, and the range from the k-th smallest to the k-th largest.
func ranked(all []float64, k int) Ratio {
	if len(all) == 0 {
		return NoRatio
	}
	slices.Sort(all)
	k = max(k, 1)
	return Ratio{Median(all), all[k-1], all[len(all)-k]}
}

// Median of a run's rounds.
func Median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// A Figure is what of a round is looked at.
type Figure struct {
	Name string
	Unit string
	Of   func(Round) float64
	More bool // is better
}

// Figures are those that every run has; 0 or less is none.
var Figures = []Figure{
	{"p50", "µs", func(r Round) float64 { return r.Latency.P50 }, false},
	{"p90", "µs", func(r Round) float64 { return r.Latency.P90 }, false},
	{"p99", "µs", func(r Round) float64 { return r.Latency.P99 }, false},
	{"p99.9", "µs", func(r Round) float64 { return r.Latency.P999 }, false},
	{"max", "µs", func(r Round) float64 { return r.Latency.Max }, false},
	{"requests", "/s", func(r Round) float64 { return float64(r.Requests) / max(r.Seconds, 1e-9) }, true},
	{"cpu", "µs", func(r Round) float64 { return r.CPUMicros }, false},
	{"allocs", "", func(r Round) float64 { return r.AllocsPerRequest }, false},
	{"memory", "B", func(r Round) float64 { return float64(r.PeakRSS) }, false},
	{"upstream connections", "", func(r Round) float64 { return float64(r.UpstreamConns) }, false},
}

// Rounds' values of a figure.
func (r Run) Values(f Figure) []float64 {
	v := make([]float64, len(r.Rounds))
	for i, round := range r.Rounds {
		v[i] = f.Of(round)
	}
	return v
}

func figure(name string) Figure {
	return Figures[slices.IndexFunc(Figures, func(f Figure) bool { return f.Name == name })]
}
