package main

import (
	"context"
	"sync"
	"time"

	"github.com/keyward/keyward/admin"
	"github.com/keyward/keyward/cache"
	"github.com/keyward/keyward/proxy"
)

// What went through the sidecar is looked at every second, and told of the last ten.
const (
	sampleEvery = time.Second
	samples     = 10 + 1
)

// A sample is the counters at one moment.
type sample struct {
	at                        time.Time
	requests, refused, failed int64
	cache                     cache.Stats
	providers                 []proxy.Measure
}

// A traffic keeps the latest samples. Sampling copies counters that the requests themselves add to: nothing waits for it.
type traffic struct {
	take func(*sample) // reads the counters, into the sample's memory

	mu   sync.Mutex
	ring [samples]sample
	next int // the oldest sample, where the next one goes
}

// run takes samples until ctx ends.
func (t *traffic) run(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		t.sample()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (t *traffic) sample() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.take(&t.ring[t.next])
	t.next = (t.next + 1) % samples
}

// now is what happened since the oldest sample.
func (t *traffic) now() admin.Traffic {
	var last sample
	t.take(&last)
	t.mu.Lock()
	defer t.mu.Unlock()
	first := &t.ring[t.next]
	for i := 0; first.at.IsZero() && i < samples; i++ { // not full yet
		first = &t.ring[(t.next+i)%samples]
	}
	window := last.at.Sub(first.at).Seconds()
	out := admin.Traffic{Providers: make([]admin.ProviderTraffic, len(last.providers))}
	if first.at.IsZero() || window <= 0 {
		first = &last
	} else {
		out.Window = window
	}
	rate := func(n float64) float64 {
		if out.Window == 0 {
			return 0
		}
		return n / out.Window
	}
	out.Requests = rate(float64(last.requests - first.requests))
	out.Refused = rate(float64(last.refused - first.refused))
	out.Failed = rate(float64(last.failed - first.failed))
	hits, misses := last.cache.Hits-first.cache.Hits, last.cache.Misses-first.cache.Misses
	if hits+misses > 0 {
		share := float64(hits) / float64(hits+misses)
		out.CacheHitRate = &share
	}
	for i := range last.providers {
		m := last.providers[i].Since(&first.providers[i])
		out.Providers[i] = admin.ProviderTraffic{
			Provider: m.Provider, Requests: rate(float64(m.Requests)), Errors: rate(float64(m.Errors)),
			P50: millis(&m.Answers, 0.5), P99: millis(&m.Answers, 0.99), OwnP50: millis(&m.Own, 0.5), OwnP99: millis(&m.Own, 0.99),
		}
	}
	return out
}

func millis(d *proxy.Durations, q float64) *float64 {
	v, ok := d.Quantile(q)
	if !ok {
		return nil
	}
	ms := float64(v.Microseconds()) / 1000
	return &ms
}

// sampleOf reads the running sidecar's counters.
func (s *sidecarProcess) sampleOf(into *sample) {
	st := s.proxy.Stats()
	into.at = time.Now()
	into.requests, into.refused, into.failed = st.Requests.Load(), st.Refused.Load(), st.Failed.Load()
	into.cache = s.cache.Stats()
	into.providers = s.proxy.Measures(into.providers)
}
