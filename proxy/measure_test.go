package proxy

import (
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// Every duration is counted in one bucket, whose middle is near it.
func TestHistogramIsRightToAFewPercent(t *testing.T) {
	last := -1
	for us := uint64(0); us < 1<<maxBits; us += max(us/1000, 1) {
		i := bucketOf(us)
		if i < last || i > last+1 || i >= buckets {
			t.Fatalf("%d µs are counted in bucket %d, after %d of %d", us, i, last, buckets)
		}
		last = i
		if off := math.Abs(middleOf(i) - float64(us)); off > float64(us)/32+0.5 {
			t.Fatalf("%d µs are shown as %f", us, middleOf(i))
		}
	}
	if last != buckets-1 {
		t.Errorf("the last of %d buckets that is used is %d", buckets, last)
	}
	var h histogram
	h.record(-time.Second)
	h.record(1000 * time.Hour)
	if h[0].Load() != 1 || h[buckets-1].Load() != 1 {
		t.Error("what is out of range is not counted at its end")
	}
}

func TestQuantiles(t *testing.T) {
	var d Durations
	if _, ok := d.Quantile(0.5); ok {
		t.Error("there is a median of nothing")
	}
	for us := uint64(1); us <= 1000; us++ {
		d[bucketOf(us*1000)]++
	}
	near := func(q float64, want time.Duration) {
		t.Helper()
		if got, ok := d.Quantile(q); !ok || math.Abs(float64(got-want)) > float64(want)/16 {
			t.Errorf("%.2f: %v, want about %v", q, got, want)
		}
	}
	near(0.5, 500*time.Millisecond)
	near(0.99, 990*time.Millisecond)
	near(0, time.Millisecond)
	near(1, time.Second)
}

func TestRequestsAreMeasuredByProvider(t *testing.T) {
	peer := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/call" {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		time.Sleep(300 * time.Millisecond)
	}))
	t.Cleanup(peer.Close)
	w := newWorld(t, peer.URL)
	get := func(target string) {
		w.raw("unix", "GET "+target+" HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\n\r\n")
	}
	get("/vapi/assistant")
	before := w.p.Measures(nil)
	for range 3 {
		get("/vapi/assistant")
	}
	get("/vapi/call")
	get("/no-such-provider")
	var all uint64
	for i, m := range w.p.Measures(nil) {
		m = m.Since(&before[i])
		all += m.Requests
		if m.Provider != "vapi" {
			continue
		}
		if m.Requests != 4 || m.Errors != 1 {
			t.Errorf("%d requests, %d errors", m.Requests, m.Errors)
		}
		if p50, ok := m.Answers.Quantile(0.6); !ok || p50 < 280*time.Millisecond || p50 > 20*time.Second {
			t.Errorf("answers: %v", p50)
		}
		if own, ok := m.Own.Quantile(0.6); !ok || own > 250*time.Millisecond {
			t.Errorf("of that, our own: %v", own)
		}
	}
	if all != 4 {
		t.Errorf("%d requests in all", all)
	}
}
