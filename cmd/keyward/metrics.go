package main

import (
	"context"
	"strconv"
	"time"

	"github.com/keyward/keyward/proxy"
	"github.com/keyward/keyward/telemetry"
)

// fillMetrics reads the counters that the parts keep anyway. Every label is a word of the program's, a provider, a code, an outcome, or a
// name under callers: in the file.
func (s *sidecarProcess) fillMetrics(c *telemetry.Collection) {
	if !s.complete.Load() {
		return // it is still starting
	}
	s.fillRequests(c)
	s.fillStore(c)
	s.fillWebhooks(c)
	var lost uint64
	if s.lines != nil {
		lost = s.lines.lost.Load()
	}
	c.Number(telemetry.LogDropped, float64(lost))
	c.Number(telemetry.Draining, truth(s.checkDraining(context.Background()) != nil))
}

func (s *sidecarProcess) fillRequests(c *telemetry.Collection) {
	n, st := s.proxy.Numbers(), s.proxy.Stats()
	for k, requests := range n.Unrouted {
		c.Number(telemetry.Requests, float64(requests), "none", class(k))
	}
	for _, p := range n.Providers {
		for k := range p.Classes {
			one := &p.Classes[k]
			c.Number(telemetry.Requests, float64(one.Requests), p.Provider, class(k))
			fillDurations(c, telemetry.RequestDuration, &one.Answers, one.Examples, p.Provider, class(k))
			fillDurations(c, telemetry.AddedLatency, &one.Own, nil, p.Provider, class(k))
			fillDurations(c, telemetry.UpstreamLatency, &one.Upstream, nil, p.Provider, class(k))
		}
		c.Number(telemetry.RequestsInFlight, float64(p.InFlight), p.Provider)
		c.Number(telemetry.UpstreamConnections, float64(p.Idle), p.Provider, "idle")
		c.Number(telemetry.UpstreamConnections, float64(max(p.Open-p.Idle, 0)), p.Provider, "busy")
		c.Number(telemetry.UpstreamDials, float64(p.Dialled), p.Provider)
		c.Number(telemetry.UpstreamReuses, float64(p.Reused), p.Provider)
	}
	for code, refused := range n.Refusals {
		c.Number(telemetry.Refusals, float64(refused), code)
	}
	for reason, refused := range n.RefusedHeads {
		c.Number(telemetry.RefusedHeads, float64(refused), reason)
	}
	c.Number(telemetry.Panics, float64(st.Panics.Load()), "proxy")
	for _, r := range s.proxy.Rules().All() {
		for k := range r.Answered() {
			c.Number(telemetry.CallerRequests, float64(r.Answered()[k].Load()), r.Name(), class(k))
		}
	}
	c.Number(telemetry.CallerConnections, float64(n.Connections))
	for reason, held := range n.HeldUp {
		c.Number(telemetry.ConnectionsHeldUp, float64(held), reason)
	}
	for t, tunnels := range n.Tunnels {
		c.Number(telemetry.Tunnels, float64(tunnels), t.Kind, t.Result)
	}
	c.Number(telemetry.Redactions, float64(st.Echoes.Load()), "echo")
	c.Number(telemetry.Redactions, float64(n.MaskedAnswers), "field")
	c.Number(telemetry.TokenExchanges, float64(st.Exchanges.Load()))
	c.Number(telemetry.TokensMinted, float64(st.Minted.Load()))
}

func class(k int) string { return strconv.Itoa(k+1) + "xx" }

// fillDurations shows a histogram in which something is.
func fillDurations(c *telemetry.Collection, m *telemetry.Metric, d *proxy.Durations, examples []proxy.Example, labels ...string) {
	counts, total := d.Within(m.Bounds)
	all := telemetry.Distribution{Counts: counts, Total: total}
	empty := true
	for _, n := range counts {
		empty = empty && n == 0
	}
	if empty {
		return
	}
	for _, e := range examples {
		all.Examples = append(all.Examples, telemetry.Example(e))
	}
	c.Durations(m, all, labels...)
}

func (s *sidecarProcess) fillStore(c *telemetry.Collection) {
	ca, st := s.cache.Stats(), s.db.Stats()
	c.Number(telemetry.CacheLookups, float64(ca.Hits), "hit")
	c.Number(telemetry.CacheLookups, float64(ca.Misses), "miss")
	c.Number(telemetry.CacheLookups, float64(ca.NegativeHits), "negative")
	c.Number(telemetry.CacheStale, float64(ca.Stale))
	c.Number(telemetry.CacheEvictions, float64(ca.Evictions))
	c.Number(telemetry.CacheEntries, float64(ca.Entries))
	c.Number(telemetry.StoreOperations, float64(st.Reads.Load()), "read", "ok")
	c.Number(telemetry.StoreOperations, float64(st.Writes.Load()), "write", "ok")
	c.Number(telemetry.StoreOperations, float64(st.ReadsUnavailable.Load()), "read", "unavailable")
	c.Number(telemetry.StoreOperations, float64(st.WritesUnavailable.Load()), "write", "unavailable")
	c.Number(telemetry.StoreBreaker, truth(ca.StoreDown))
	c.Number(telemetry.FeedLive, truth(s.db.FeedLive()))
	c.Number(telemetry.FeedAge, s.db.FeedProof().Seconds())
}

func (s *sidecarProcess) fillWebhooks(c *telemetry.Collection) {
	if s.webhooks == nil {
		return
	}
	n, q := s.webhooks.Numbers(), s.queue.Stats()
	for key, count := range n.Outcomes {
		c.Number(telemetry.Webhooks, float64(count), key[0], key[1])
	}
	for key, count := range n.Verified {
		c.Number(telemetry.WebhooksVerified, float64(count), key[0])
	}
	for key, count := range n.Refusals {
		c.Number(telemetry.WebhookRefusals, float64(count), key[0], key[1])
	}
	c.Number(telemetry.Panics, float64(s.webhooks.Stats().Panics.Load()), "webhook")
	c.Number(telemetry.Deliveries, float64(q.Delivered.Load()), "delivered")
	c.Number(telemetry.Deliveries, float64(q.Failed.Load()), "failed")
	c.Number(telemetry.Deliveries, float64(q.Dead.Load()), "dead")
	c.Number(telemetry.DeliveriesUnderWay, float64(q.UnderWay.Load()))
	b := s.backlog.Load()
	if b == nil {
		return
	}
	c.Number(telemetry.DeliveriesStored, float64(b.Pending), "pending")
	c.Number(telemetry.DeliveriesStored, float64(b.Dead), "dead")
	age := 0.0
	if !b.Oldest.IsZero() {
		age = max(time.Since(b.Oldest).Seconds(), 0)
	}
	c.Number(telemetry.DeliveriesAge, age)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
