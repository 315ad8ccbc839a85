package caller

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func rule(t *testing.T, rate string) *Rule {
	t.Helper()
	r, err := NewRule("r", []string{"*"}, []string{"*"}, nil, rate, false, known)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// granted is how many of n requests at the same moment pass.
func granted(r *Rule, now time.Time, n int) (passed int) {
	for range n {
		if ok, _ := r.Take(now); ok {
			passed++
		}
	}
	return passed
}

func TestRate(t *testing.T) {
	start := time.Now()
	for _, c := range []struct {
		rate  string
		burst int           // at first
		after time.Duration // then
		more  int
	}{
		{"50/s", 50, 20 * time.Millisecond, 1},
		{"50/s", 50, 19 * time.Millisecond, 0},
		{"50/s", 50, time.Second, 50},
		{"50/s", 50, time.Hour, 50},
		{"50/s burst 200", 200, time.Second, 50},
		{"50/s burst 1", 1, time.Second, 1},
		{"60/m", 60, time.Second, 1},
		{"6/h", 6, 10 * time.Minute, 1},
		{" 6/h  burst  2 ", 2, time.Hour, 2},
		{"1/h", 1, 59 * time.Minute, 0},
		{"1000000/h", 1000000, 36 * time.Millisecond, 10},
	} {
		r := rule(t, c.rate)
		if got := granted(r, start, c.burst+10); got != c.burst {
			t.Errorf("%q: burst of %d, want %d", c.rate, got, c.burst)
		}
		if got := granted(r, start.Add(c.after), c.more+10); got != c.more {
			t.Errorf("%q: %d more after %s, want %d", c.rate, got, c.after, c.more)
		}
	}
}

func TestNoRateIsNoLimit(t *testing.T) {
	if got := granted(rule(t, ""), time.Now(), 10000); got != 10000 {
		t.Errorf("%d of 10000 passed", got)
	}
}

func TestRetryAfterIsWhenTheNextPasses(t *testing.T) {
	r, now := rule(t, "3/s"), time.Now()
	granted(r, now, 3)
	ok, wait := r.Take(now)
	if ok || wait <= 0 || wait > 334*time.Millisecond {
		t.Fatalf("got %v, %s", ok, wait)
	}
	if ok, _ := r.Take(now.Add(wait - time.Nanosecond)); ok {
		t.Error("passed before")
	}
	if ok, _ := r.Take(now.Add(wait)); !ok {
		t.Error("refused then")
	}
}

func TestRefusedRequestsDoNotPostponeTheNext(t *testing.T) {
	r, now := rule(t, "1/s"), time.Now()
	granted(r, now, 1000)
	if ok, _ := r.Take(now.Add(time.Second)); !ok {
		t.Error("a caller that asked too often is locked out")
	}
}

func TestTakeFromManyGoroutines(t *testing.T) {
	r, now := rule(t, "1000/h"), time.Now()
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() { passed.Add(int64(granted(r, now, 1000))) })
	}
	wg.Wait()
	if passed.Load() != 1000 {
		t.Errorf("%d passed, want 1000", passed.Load())
	}
}

func TestParseRateRefuses(t *testing.T) {
	for _, s := range []string{"50", "50/d", "/s", "0/s", "-1/s", "+1/s", "1.5/s", "50/s burst", "50/s burst 0", "50/s bursts 5", "50/s burst 5 6", "1000001/s", "50 /s", "50/s/m"} {
		if _, err := parseRate(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}
