package report

import (
	"fmt"
	"math"
	"slices"
)

// A Ratio is one thing against another, with the range that it lies in, nineteen times of twenty, as far as the rounds differ among themselves.
type Ratio struct {
	Value, Low, High float64
}

// NoRatio is that of figures that are not there.
var NoRatio = Ratio{math.NaN(), math.NaN(), math.NaN()}

func (r Ratio) String() string {
	if math.IsNaN(r.Value) {
		return "–"
	}
	return fmt.Sprintf("%.2f ±%.2f", r.Value, (r.High-r.Low)/2)
}

// Holds says whether the true ratio may be v.
func (r Ratio) Holds(v float64) bool { return r.Low <= v && v <= r.High }

// Paired is a to b where both took their rounds in turn: round i of one stands beside round i of the other, so that what the machine did
// meanwhile met both and cancels out.
func Paired(a, b []float64) Ratio {
	n := min(len(a), len(b))
	logs := make([]float64, 0, n)
	for i := range n {
		if a[i] <= 0 || b[i] <= 0 {
			return NoRatio
		}
		logs = append(logs, math.Log(a[i]/b[i]))
	}
	if n == 0 {
		return NoRatio
	}
	mean, deviation := moments(logs)
	return around(mean, student(n-1)*deviation/math.Sqrt(float64(n)))
}

// Apart is a to b where they come from two runs.
func Apart(a, b []float64) Ratio {
	la, lb := logarithms(a), logarithms(b)
	if la == nil || lb == nil {
		return NoRatio
	}
	ma, da := moments(la)
	mb, db := moments(lb)
	va, vb := da*da/float64(len(la)), db*db/float64(len(lb))
	return around(ma-mb, student(min(len(la), len(lb))-1)*math.Sqrt(va+vb))
}

func around(mean, half float64) Ratio {
	return Ratio{math.Exp(mean), math.Exp(mean - half), math.Exp(mean + half)}
}

func logarithms(v []float64) []float64 {
	logs := make([]float64, 0, len(v))
	for _, x := range v {
		if x <= 0 {
			return nil
		}
		logs = append(logs, math.Log(x))
	}
	if len(logs) == 0 {
		return nil
	}
	return logs
}

func moments(v []float64) (mean, deviation float64) {
	for _, x := range v {
		mean += x
	}
	mean /= float64(len(v))
	if len(v) < 2 {
		return mean, 0
	}
	for _, x := range v {
		deviation += (x - mean) * (x - mean)
	}
	return mean, math.Sqrt(deviation / float64(len(v)-1))
}

// student is the 97.5th percentile of Student's distribution, by degrees of freedom.
func student(df int) float64 {
	table := []float64{0, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131}
	if df < 1 {
		return 0 // one round says nothing about its spread
	}
	return table[min(df, len(table)-1)]
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
