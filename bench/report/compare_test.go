package report

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// verdicts of a comparison, those that are none left out.
func verdicts(before, after *Result) []string {
	var all []string
	for _, c := range Compare(before, after) {
		if c.Verdict != Same {
			all = append(all, c.Figure+" "+c.Load+" "+string(c.Verdict))
		}
	}
	return all
}

// with is the sample with other rounds of the sidecar's closed loop.
func with(rounds []Round) *Result {
	r := sample()
	extra := r.Runs[4].Rounds[0].Extra
	for i := range rounds {
		rounds[i].AllocsPerRequest, rounds[i].Extra = 3, extra
	}
	r.Runs[4].Rounds = rounds
	return r
}

func TestRegressionIsFound(t *testing.T) {
	got := verdicts(sample(), with(calm(180, 17.5)))
	if want := []string{"p50 c=16 WORSE", "cpu c=16 WORSE"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
	var out strings.Builder
	worse, err := WriteChanges(&out, sample(), with(calm(180, 17.5)), Compare(sample(), with(calm(180, 17.5))))
	if err != nil || worse != 2 || !strings.Contains(out.String(), "2 figures are worse beyond the noise") || !strings.Contains(out.String(), "+20.0 % (+20.0 to +20.0)  WORSE") {
		t.Errorf("%d, %v\n%s", worse, err, out.String())
	}
}

func TestRegressionOfTheTailAloneIsFound(t *testing.T) {
	tail := calm(150, 16)
	for i := range tail {
		tail[i].Latency.P99 *= 1.5
	}
	if got, want := verdicts(sample(), with(tail)), []string{"p99 c=16 WORSE"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

func TestProgressIsNoRegression(t *testing.T) {
	got := verdicts(with(calm(180, 18)), sample())
	if want := []string{"p50 c=16 better", "cpu c=16 better"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
}

// TestNoiseIsNoRegression: a hundred pairs of results out of the same distribution, which is as wide as a shared machine's.
func TestNoiseIsNoRegression(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	noisy := func() *Result {
		f := make([]float64, 5)
		for i := range f {
			f[i] = 0.8 + 0.4*rng.Float64()
		}
		return with(rounds(150, 16, f...))
	}
	worse := 0
	for range 100 {
		for _, v := range verdicts(noisy(), noisy()) {
			if strings.Contains(v, "WORSE") {
				worse++
			}
		}
	}
	if worse > 3 {
		t.Errorf("%d regressions in 100 comparisons of a thing with itself", worse)
	}
	twice := noisy()
	for i := range twice.Runs[4].Rounds {
		twice.Runs[4].Rounds[i].CPUMicros *= 2
	}
	if got, want := verdicts(noisy(), twice), []string{"cpu c=16 WORSE"}; !slices.Equal(got, want) {
		t.Errorf("twice the CPU, as noisy: %q, not %q", got, want)
	}
	if got := verdicts(sample(), sample()); got != nil {
		t.Errorf("a result against itself: %q", got)
	}
}

func TestSlowerMachineIsNoRegressionOfLatency(t *testing.T) {
	slow := with(calm(150*1.6, 16))
	slow.Runs[0].Rounds = calm(100*1.6, 0)
	if got := verdicts(sample(), slow); got != nil {
		t.Errorf("%q", got)
	}
}

func TestOneStoppedRoundIsNoRegression(t *testing.T) {
	if got := verdicts(sample(), with(rounds(150, 16, 1, 1.01, 40, 1, 0.99))); got != nil {
		t.Errorf("%q", got)
	}
}

// TestWhatWasNoneIsCompared: from none to some has no ratio.
func TestWhatWasNoneIsCompared(t *testing.T) {
	set := func(allocs float64, errors, conns int64, hitRate float64) *Result {
		r := with(calm(150, 16))
		for i := range r.Runs[4].Rounds {
			x := &r.Runs[4].Rounds[i]
			x.AllocsPerRequest, x.Errors, x.UpstreamConns, x.Extra = allocs, errors, conns, map[string]float64{"hit_rate": hitRate}
		}
		return r
	}
	got := verdicts(set(0, 0, 0, 0.8), set(2, 5, 100, 0.7))
	if want := []string{"allocs c=16 WORSE", "errors c=16 WORSE", "upstream connections c=16 WORSE", "hit_rate c=16 WORSE"}; !slices.Equal(got, want) {
		t.Errorf("%q, not %q", got, want)
	}
	if got := verdicts(set(0, 0, 0, 0.8), set(0.1, 0, 1, 0.79)); got != nil {
		t.Errorf("next to nothing: %q", got)
	}
	if got := verdicts(set(-1, 0, 0, 0.8), set(2, 0, 0, 0.8)); got != nil {
		t.Errorf("what could not be read: %q", got)
	}
}

func TestOtherLoadsAreNotCompared(t *testing.T) {
	other := sample()
	for i := range other.Runs {
		other.Runs[i].Concurrency++
		other.Runs[i].Rate *= 2
	}
	changes := Compare(sample(), other)
	var out strings.Builder
	if _, err := WriteChanges(&out, sample(), other, changes); err != nil || len(changes) > 0 || !strings.Contains(out.String(), "no run in common") {
		t.Errorf("%v, %v\n%s", changes, err, out.String())
	}
}

func TestReadSaysWhatIsWrong(t *testing.T) {
	if _, err := Read(filepath.Join(t.TempDir(), "absent.json")); err == nil || !strings.Contains(err.Error(), "absent.json") {
		t.Error(err)
	}
}
