package scenario

import (
	"context"
	"errors"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/keyward/keyward/bench/report"
)

// A meter reads what a round costs, of the contender's processes and of the provider's connections, while no request is under way.
type meter struct {
	e *Env
	c contender

	cpu     time.Duration
	conns   int64
	objects float64 // allocated
	rss     int64
	errs    []error

	cpuBefore   time.Duration
	connsBefore int64
	before      float64
}

// begin reads the objects first, and forgets what that took.
func (m *meter) begin(ctx context.Context) {
	m.before = -1
	if m.c.mallocs != nil {
		first := m.c.mallocs(ctx)
		m.before = m.c.mallocs(ctx)
		m.before += m.before - first // what the reading at the end will add
	}
	forgetPeak(m.c.pids)
	st, err := m.e.provider.Stats()
	m.note(err)
	m.connsBefore = st.Conns
	m.cpuBefore, err = cpuOf(m.c.pids)
	m.note(err)
}

// end reads the objects last.
func (m *meter) end(ctx context.Context) {
	cpu, err := cpuOf(m.c.pids)
	m.note(err)
	m.cpu = cpu - m.cpuBefore
	st, err := m.e.provider.Stats()
	m.note(err)
	m.conns = st.Conns - m.connsBefore
	m.rss, err = MemoryOf(m.c.pids, "VmHWM")
	m.note(err)
	m.objects = -1
	if m.c.mallocs != nil {
		m.objects = m.c.mallocs(ctx) - m.before
	}
}

func (m *meter) note(err error) {
	if err != nil {
		m.errs = append(m.errs, err)
	}
}

// into fills in what was read; the round's requests are known.
func (m *meter) into(r *report.Round) error {
	n := float64(max(r.Requests, 1))
	r.CPUMicros = float64(m.cpu) / 1e3 / n
	r.PeakRSS = m.rss
	r.UpstreamConns = m.conns
	r.AllocsPerRequest = -1
	if m.c.mallocs != nil {
		r.AllocsPerRequest = max(m.objects/n, 0)
	}
	return errors.Join(m.errs...)
}

// charted are the percentiles that a chart of latency by percentile is drawn from.
var charted = []float64{0, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 96, 97, 98, 98.5, 99, 99.25, 99.5, 99.75, 99.9, 99.95, 99.99, 99.999, 100}

// roundOf is a round with the latencies of a histogram in nanoseconds.
func roundOf(h *hdrhistogram.Histogram) report.Round {
	us := func(percentile float64) float64 { return float64(h.ValueAtPercentile(percentile)) / 1e3 }
	r := report.Round{
		Requests: h.TotalCount(), AllocsPerRequest: -1,
		Latency: report.Quantiles{P50: us(50), P90: us(90), P99: us(99), P999: us(99.9), Max: float64(h.Max()) / 1e3},
	}
	for _, p := range charted {
		r.Percentiles = append(r.Percentiles, [2]float64{p, us(p)})
	}
	return r
}

// extra sets a figure that only this scenario has.
func extra(r *report.Round, name string, v float64) {
	if r.Extra == nil {
		r.Extra = map[string]float64{}
	}
	r.Extra[name] = v
}
