package report

import (
	"math"
	"testing"
)

func TestPairedCancelsWhatMetBoth(t *testing.T) {
	// The machine was three times as slow from the fourth round on.
	r := Paired([]float64{20, 20.2, 19.8, 60, 61, 59, 60}, []float64{10, 10.1, 10, 30, 30.2, 30, 30})
	if math.Abs(r.Value-2) > 0.02 || r.High-r.Low > 0.1 || !r.Holds(2) {
		t.Errorf("%v, not 2", r)
	}
}

func TestOneStoppedRoundMovesNoMedian(t *testing.T) {
	a := []float64{20, 20.2, 19.8, 20, 20.1, 19.9, 900, 20, 20}
	b := []float64{10, 10.1, 9.9, 10, 10, 10, 10, 10, 10}
	if r := Paired(a, b); math.Abs(r.Value-2) > 0.02 || r.High > 2.1 {
		t.Errorf("%v, not 2", r)
	}
	if r := Apart(a, b); math.Abs(r.Value-2) > 0.02 || r.High > 2.2 {
		t.Errorf("apart: %v, not 2", r)
	}
}

func TestFewRoundsLeaveTheirWholeRangeOpen(t *testing.T) {
	if r := Paired([]float64{1, 2, 3}, []float64{1, 1, 1}); r != (Ratio{2, 1, 3}) {
		t.Errorf("%v", r)
	}
	if r := Paired([]float64{4}, []float64{2}); r != (Ratio{2, 2, 2}) {
		t.Errorf("%v", r)
	}
}

func TestRangesHoldAsOftenAsTheySay(t *testing.T) {
	// Ranks of the sign test: of 6 to 8 rounds the whole range, of 9 to 11 the second, of 12 to 14 the third.
	for n, k := range map[int]int{6: 1, 8: 1, 9: 2, 11: 2, 12: 3, 14: 3, 15: 4} {
		a, b := make([]float64, n), make([]float64, n)
		for i := range a {
			a[i], b[i] = float64(i+1), 1
		}
		if r := Paired(a, b); r.Low != float64(k) || r.High != float64(n+1-k) {
			t.Errorf("%d rounds: %v, not from the %d. to the %d.", n, r, k, n+1-k)
		}
	}
}

func TestMissingFiguresHaveNoRatio(t *testing.T) {
	for _, r := range []Ratio{Paired(nil, nil), Paired([]float64{0}, []float64{1}), Apart([]float64{1}, nil), Apart([]float64{-1}, []float64{1})} {
		if !math.IsNaN(r.Value) || r.String() != "–" {
			t.Errorf("%v", r)
		}
	}
}
