package trace

import (
	"strings"
	"testing"
)

const sample = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestHeaderIsReadAndWritten(t *testing.T) {
	c, ok := Parse([]byte(sample))
	if !ok || !c.Sampled || c.Trace.String() != "4bf92f3577b34da6a3ce929d0e0e4736" || c.Span.String() != "00f067aa0ba902b7" {
		t.Fatalf("%+v, %v", c, ok)
	}
	if got := string(c.Append(nil)); got != sample || len(got) != HeaderLength {
		t.Errorf("written as %q", got)
	}
}

func TestHeadersThatAreNone(t *testing.T) {
	for _, h := range []string{
		"", "00", sample[:54], sample + "x", sample + "-00",
		"ff" + sample[2:], "0x" + sample[2:], strings.ToUpper(sample),
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
		strings.Replace(sample, "-", "_", 1), "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01", "01" + sample[2:] + "x",
	} {
		if c, ok := Parse([]byte(h)); ok {
			t.Errorf("%q is taken for %+v", h, c)
		}
	}
}

func TestLaterVersionsAreReadAsFarAsTheyAreKnown(t *testing.T) {
	for _, h := range []string{"01" + sample[2:], "01" + sample[2:] + "-more", sample[:53] + "ff"} {
		if c, ok := Parse([]byte(h)); !ok || !c.Sampled {
			t.Errorf("%q: %+v, %v", h, c, ok)
		}
	}
}

func TestCallersWordCounts(t *testing.T) {
	parent, _ := Parse([]byte(sample))
	own, traced := New(0, nil).Decide(parent)
	if !traced || own.Trace != parent.Trace || own.Span == parent.Span || !own.Sampled {
		t.Errorf("of a traced caller's: %+v, %v", own, traced)
	}
	parent.Sampled = false
	if _, traced := New(1, nil).Decide(parent); traced {
		t.Error("a caller's that is not traced is")
	}
}

func TestShareOfTheRestIsTraced(t *testing.T) {
	for share, most := range map[float64][2]int{0: {0, 0}, 0.25: {2200, 2800}, 1: {10000, 10000}, 7: {10000, 10000}, -1: {0, 0}} {
		tracer, n := New(share, nil), 0
		for range 10000 {
			if own, traced := tracer.Decide(Context{}); traced {
				n++
				if !own.Valid() || !own.Sampled {
					t.Fatalf("%+v", own)
				}
			}
		}
		if n < most[0] || n > most[1] {
			t.Errorf("a share of %v: %d of 10000", share, n)
		}
	}
}

func TestNobodyTracesWithoutATracer(t *testing.T) {
	parent, _ := Parse([]byte(sample))
	var none *Tracer
	if _, traced := none.Decide(parent); traced {
		t.Error("traced")
	}
	none.Record(Span{})
}

func TestDecidingAllocatesNothing(t *testing.T) {
	tracer, h, out := New(1, nil), []byte(sample), make([]byte, 0, 64)
	if n := testing.AllocsPerRun(100, func() {
		c, _ := Parse(h)
		own, _ := tracer.Decide(c)
		_, _ = tracer.Decide(Context{})
		out = own.Append(out[:0])
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzHeaderIsWhatWasWritten(f *testing.F) {
	f.Add([]byte(sample))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, ok := Parse(b)
		if !ok {
			return
		}
		if again, ok := Parse(c.Append(nil)); !ok || again != c {
			t.Errorf("%q: %+v, then %+v", b, c, again)
		}
	})
}
