package soak

import (
	"slices"
	"testing"
	"time"
)

func faultNamed(t *testing.T, name string) *fault {
	t.Helper()
	for i := range faults {
		if faults[i].name == name {
			return &faults[i]
		}
	}
	t.Fatalf("no fault %q", name)
	return nil
}

func TestOnlyAFaultExplainsAFailure(t *testing.T) {
	const away, resets, stalls = "PostgreSQL is away", "the provider resets", "the provider stalls"
	start := time.Now()
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	for _, c := range []struct {
		about               string
		fault               string
		kind, node, outcome string
		begin, end          float64 // the fault lasts from 10 to 20
		explained           bool
	}{
		{"a miss while the store is away", away, "miss", "postgres-1", "503 store_unavailable", 12, 12.1, true},
		{"one that began before it", away, "miss", "postgres-2", "503 store_unavailable", 9, 10.1, true},
		{"one within the grace", away, "miss", "postgres-1", "503 store_unavailable", 21.9, 22, true},
		{"one after the grace", away, "miss", "postgres-1", "503 store_unavailable", 22.1, 22.2, false},
		{"one that ended before it", away, "miss", "postgres-1", "503 store_unavailable", 9, 9.9, false},
		{"a warm org while the store is away", away, "hit", "postgres-1", "503 store_unavailable", 12, 12.1, false},
		{"a sidecar with another store", away, "miss", "sqlite", "503 store_unavailable", 12, 12.1, false},
		{"another refusal than the store's", away, "miss", "postgres-1", "502 upstream_unreachable", 12, 12.1, false},
		{"a stream that was cut", resets, "stream", "sqlite", broken, 12, 12.2, true},
		{"a stream that was cut and looked whole", resets, "stream", "sqlite", wrong, 12, 12.2, false},
		{"a webhook while the provider resets", resets, "webhook", "sqlite", broken, 12, 12.2, false},
		{"whatever fails while the provider stalls", stalls, "hit", "sqlite", "504 upstream_timeout", 12, 12.2, false},
	} {
		j := newJudge()
		j.windows = []*window{{fault: faultNamed(t, c.fault), begin: at(10), end: at(20), explained: map[string]int{}}}
		j.took(c.kind, c.node, c.outcome, at(c.begin), at(c.end))
		if got := j.count == 0; got != c.explained || j.kinds[c.kind].sent != 1 {
			t.Errorf("%s: explained: %v, not %v", c.about, got, c.explained)
		}
	}
}

func TestAFaultThatLastsExplains(t *testing.T) {
	j := newJudge()
	j.open(faultNamed(t, "the app is down"))
	now := time.Now()
	j.took("webhook", "sqlite", "502 target_unreachable", now, now)
	j.took("webhook", "sqlite", good, now, now)
	if n := j.kinds["webhook"]; j.count != 0 || n.explained != 1 || n.good != 1 {
		t.Errorf("%d unexpected, %+v", j.count, n)
	}
}

// Every verdict has something that turns it.
func TestWhatIsNotWellIsNotPassed(t *testing.T) {
	p := plan{warm: 10 * time.Second, cool: 30 * time.Second}
	calm := func() *field {
		f := &field{judge: newJudge(), app: &app{}}
		f.firstFault, f.lastFault = f.judge.begun.Add(10*time.Second), f.judge.begun.Add(20*time.Second)
		for _, k := range kinds {
			f.judge.took(k.name, "sqlite", good, f.judge.begun, f.judge.begun)
		}
		return f
	}
	for about, spoil := range map[string]func(f *field){
		"":                         func(*field) {},
		"an unexpected failure":    func(f *field) { f.judge.took("hit", "sqlite", broken, time.Now(), time.Now()) },
		"a webhook that was lost":  func(f *field) { f.app.acked = map[string]time.Time{"one": time.Now()} },
		"an unverified webhook":    func(f *field) { f.app.strangers++ },
		"a kind that was not sent": func(f *field) { delete(f.judge.kinds, "upload") },
		"an answer that nobody asked for": func(f *field) {
			_, _ = f.unasked.Write([]byte("Unsolicited response received on idle HTTP channel"))
		},
		"calls that were held": func(f *field) { f.held.Add(1) },
	} {
		f, r := calm(), &Report{}
		spoil(f)
		f.conclude(r, p)
		if r.Passed != (about == "") {
			t.Errorf("%q: passed: %v (%+v)", about, r.Passed, r)
		}
	}
}

func TestFiguresMustComeBack(t *testing.T) {
	w := &watched{}
	for at, rss := range map[float64]int64{1: 10, 6: 100, 8: 104, 15: 900, 45: 300, 47: 110} {
		w.all = append(w.all, Sample{At: at, Sidecar: "sqlite", RSS: rss, Heap: rss, Descriptors: -1})
	}
	rss, heap, descriptors := &figures[0], &figures[1], &figures[2]
	for _, c := range []struct {
		f        *figure
		from, to float64
		want     int64
	}{{rss, 5, 10, 104}, {rss, 40, 50, 300}, {heap, 40, 50, 110}} {
		if got, ok := w.between("sqlite", c.f, c.from, c.to); !ok || got != c.want {
			t.Errorf("%s from %v to %v: %d, not %d", c.f.name, c.from, c.to, got, c.want)
		}
	}
	if _, ok := w.between("sqlite", descriptors, 0, 50); ok {
		t.Error("what could not be read has a value")
	}
}

func TestAnHourHasAFaultEveryMinute(t *testing.T) {
	if p := planned(time.Hour, len(faults)); p.every != time.Minute || p.faults < 4*len(faults) || p.fault != 8*time.Second {
		t.Errorf("%+v", p)
	}
	for _, d := range []time.Duration{5 * time.Second, 2 * time.Minute, 10 * time.Minute} {
		p := planned(d, len(faults))
		if p.faults < len(faults) || p.warm+p.cool+time.Duration(p.faults)*p.every > d {
			t.Errorf("%v: %+v", d, p)
		}
	}
}

func TestSharesMakeAThousand(t *testing.T) {
	sum, names := 0, []string{}
	for _, k := range kinds {
		sum += k.share
		names = append(names, k.name)
	}
	if sum != 1000 {
		t.Error(sum)
	}
	few := map[string]int{} // :: kind → calls
	for nth := range 500 {
		few[pick(nth).name]++
	}
	for _, k := range kinds {
		if n := few[k.name]; n < k.share/2-1 || n > k.share/2+2 {
			t.Errorf("of 500 calls %d are %s, and %d of 1000 shall be", n, k.name, k.share)
		}
	}
	for _, f := range faults {
		for _, a := range f.allows {
			for _, k := range a.kinds {
				if !slices.Contains(names, k) {
					t.Errorf("%s: no kind %q", f.name, k)
				}
			}
		}
	}
}
