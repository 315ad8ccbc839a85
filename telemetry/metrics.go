package telemetry

import (
	"strings"
	"time"
)

// A Kind says how a metric behaves.
type Kind string

// The kinds of metrics.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram"
)

// A Metric is what can be counted or measured, under one name. What its labels may say is bounded by the program: providers, codes and
// words that stand in it, and never what a request or a row says. So there is no label for an org, an assistant or a token. The one that
// a file bounds is the caller: the names under callers: are the operator's own, and few.
type Metric struct {
	Name   string // OpenTelemetry's; see Prometheus
	Kind   Kind
	Unit   string // UCUM: "s", "{request}"; empty: it has none
	Labels []string
	Help   string
	Bounds []time.Duration // of a histogram
}

// Prometheus is the metric's name in the text format, and in PromQL.
func (m *Metric) Prometheus() string {
	name := strings.ReplaceAll(m.Name, ".", "_")
	if m.Unit == "s" {
		name += "_seconds"
	}
	if m.Kind == Counter {
		name += "_total"
	}
	return name
}

// doubling are bounds, each twice the one before. From 25 µs on, in whole doubles, the sidecar's own histograms have them exactly.
func doubling(from, to time.Duration) []time.Duration {
	var all []time.Duration
	for b := from; b <= to; b *= 2 {
		all = append(all, b)
	}
	return all
}

var (
	short = doubling(25*time.Microsecond, 102400*time.Microsecond)
	long  = doubling(800*time.Microsecond, 104857600*time.Microsecond)
)

// Everything that is counted and measured. docs/operations.md shows it as a table, which go generate writes.
var (
	Requests = &Metric{
		Name: "keyward.requests", Kind: Counter, Unit: "{request}", Labels: []string{"provider", "status_class"},
		Help: "Callers' requests that were answered, by the provider and the class of the status; provider none: refused before it was known.",
	}
	RequestsInFlight = &Metric{
		Name: "keyward.requests.in_flight", Kind: Gauge, Unit: "{request}", Labels: []string{"provider"},
		Help: "Callers' requests that wait for a provider, or are answered by it, at this moment.",
	}
	RequestDuration = &Metric{
		Name: "keyward.request.duration", Kind: Histogram, Unit: "s", Labels: []string{"provider", "status_class"}, Bounds: long,
		Help: "From a request's arrival to the head of the provider's answer. With exemplars: the trace of one of the requests.",
	}
	AddedLatency = &Metric{
		Name: "keyward.added_latency", Kind: Histogram, Unit: "s", Labels: []string{"provider", "status_class"}, Bounds: short,
		Help: "Of that, what Keyward itself took.",
	}
	UpstreamLatency = &Metric{
		Name: "keyward.upstream.latency", Kind: Histogram, Unit: "s", Labels: []string{"provider", "status_class"}, Bounds: long,
		Help: "Of that, what the provider took.",
	}
	Refusals = &Metric{
		Name: "keyward.refusals", Kind: Counter, Unit: "{request}", Labels: []string{"code"},
		Help: "Requests that Keyward itself answered, by the code of the answer (docs/outbound.md).",
	}
	RefusedHeads = &Metric{
		Name: "keyward.refused_heads", Kind: Counter, Unit: "{request}", Labels: []string{"reason"},
		Help: "Of those, the ones whose head was malformed, by what was wrong with it.",
	}
	Panics = &Metric{
		Name: "keyward.panics", Kind: Counter, Unit: "{panic}", Labels: []string{"part"},
		Help: "Mistakes in the program that cost one request, or one webhook, each. The log has the stack.",
	}
	CallerRequests = &Metric{
		Name: "keyward.caller.requests", Kind: Counter, Unit: "{request}", Labels: []string{"caller", "status_class"},
		Help: "Of the requests that were answered, those of the callers that callers: names, refused ones included; self: where there are none. Who comes by a token alone is not named.",
	}
	CallerConnections = &Metric{
		Name: "keyward.caller.connections", Kind: Gauge, Unit: "{connection}",
		Help: "Callers' open connections.",
	}
	ConnectionsHeldUp = &Metric{
		Name: "keyward.caller.connections.held_up", Kind: Counter, Unit: "{connection}", Labels: []string{"reason"},
		Help: "Callers' connections that were not served at once: their uid has as many as one may have, and they were answered 429 (uid_share); or all are taken, and they waited until another one ended (no_room).",
	}
	Tunnels = &Metric{
		Name: "keyward.tunnels", Kind: Counter, Unit: "{tunnel}", Labels: []string{"kind", "result"},
		Help: "CONNECT requests: to a provider's host (intercepted), to one that is let through (passthrough), or to neither (none, malformed ones among them); opened, refused, or failed (TLS with the app, or the connection to the host, did not come about).",
	}
	Redactions = &Metric{
		Name: "keyward.redactions", Kind: Counter, Unit: "{answer}", Labels: []string{"kind"},
		Help: "Answers in which something was overwritten: the injected secret, which the provider repeated (echo), or fields that hold one (field).",
	}
	TokenExchanges = &Metric{
		Name: "keyward.token_exchanges", Kind: Counter, Unit: "{exchange}",
		Help: "Questions of Keyward's own to providers: tokens traded for a credential, and credentials that were checked.",
	}
	TokensMinted = &Metric{
		Name: "keyward.tokens_minted", Kind: Counter, Unit: "{token}",
		Help: "Tokens for SDKs in browsers and phones that were signed and handed out.",
	}
	UpstreamConnections = &Metric{
		Name: "keyward.upstream.connections", Kind: Gauge, Unit: "{connection}", Labels: []string{"provider", "state"},
		Help: "Connections to a provider: idle, or busy.",
	}
	UpstreamDials = &Metric{
		Name: "keyward.upstream.dials", Kind: Counter, Unit: "{connection}", Labels: []string{"provider"},
		Help: "Requests that a connection was made for.",
	}
	UpstreamReuses = &Metric{
		Name: "keyward.upstream.reuses", Kind: Counter, Unit: "{request}", Labels: []string{"provider"},
		Help: "Requests that went out on a connection that was there.",
	}

	CacheLookups = &Metric{
		Name: "keyward.cache.lookups", Kind: Counter, Unit: "{lookup}", Labels: []string{"result"},
		Help: "Rows that the cache was asked for: it had them (hit), knew that there are none (negative), or had to ask the store (miss).",
	}
	CacheStale = &Metric{
		Name: "keyward.cache.stale", Kind: Counter, Unit: "{lookup}",
		Help: "Of the misses, those that were served from before, since the store could not be reached.",
	}
	CacheEvictions = &Metric{
		Name: "keyward.cache.evictions", Kind: Counter, Unit: "{row}",
		Help: "Rows that made room for others.",
	}
	CacheEntries = &Metric{
		Name: "keyward.cache.entries", Kind: Gauge, Unit: "{row}",
		Help: "Rows that the cache holds.",
	}

	StoreOperations = &Metric{
		Name: "keyward.store.operations", Kind: Counter, Unit: "{operation}", Labels: []string{"operation", "result"},
		Help: "Queries (read) and transactions (write), and whether the store could be reached (ok) or not (unavailable).",
	}
	StoreBreaker = &Metric{
		Name: "keyward.store.breaker_open", Kind: Gauge,
		Help: "1 while the store did not answer the last time, so that requests are not kept waiting for it; else 0.",
	}
	FeedLive = &Metric{
		Name: "keyward.store.feed_live", Kind: Gauge,
		Help: "1 while changes made elsewhere are heard of as they happen; 0: cached rows are confirmed with the store every second.",
	}
	FeedAge = &Metric{
		Name: "keyward.store.feed_age", Kind: Gauge, Unit: "s",
		Help: "How long ago it was last proven that every change has been heard of. It grows while the change feed is down.",
	}

	Webhooks = &Metric{
		Name: "keyward.webhooks", Kind: Counter, Unit: "{webhook}", Labels: []string{"provider", "outcome"},
		Help: "Webhooks that were received: answered by the app, accepted to be delivered, duplicate, unverified, refused, or failed (5xx).",
	}
	WebhooksVerified = &Metric{
		Name: "keyward.webhooks.verified", Kind: Counter, Unit: "{webhook}", Labels: []string{"provider"},
		Help: "Of those, the ones whose signature proved to be the org's, whatever became of them then.",
	}
	WebhookRefusals = &Metric{
		Name: "keyward.webhooks.refusals", Kind: Counter, Unit: "{webhook}", Labels: []string{"code", "reason"},
		Help: "Webhooks that Keyward itself answered, by the code of the answer, and the reason that the log has for one that is not verified.",
	}
	Deliveries = &Metric{
		Name: "keyward.deliveries", Kind: Counter, Unit: "{attempt}", Labels: []string{"outcome"},
		Help: "Attempts to deliver accepted webhooks to the app: delivered, failed (and is tried again), or dead (the last one failed).",
	}
	DeliveriesUnderWay = &Metric{
		Name: "keyward.deliveries.under_way", Kind: Gauge, Unit: "{attempt}",
		Help: "Attempts at this moment.",
	}
	DeliveriesStored = &Metric{
		Name: "keyward.deliveries.stored", Kind: Gauge, Unit: "{webhook}", Labels: []string{"state"},
		Help: "Accepted webhooks in the store, of all sidecars on it: pending, or dead. Counted every few seconds, while the store can be reached.",
	}
	DeliveriesAge = &Metric{
		Name: "keyward.deliveries.oldest_pending", Kind: Gauge, Unit: "s",
		Help: "How long the oldest of the pending ones has waited; 0: none does.",
	}

	LogDropped = &Metric{
		Name: "keyward.log.dropped_lines", Kind: Counter, Unit: "{line}",
		Help: "Lines of the access log that were dropped, since whoever reads the log is too slow.",
	}
	Spans = &Metric{
		Name: "keyward.trace.spans", Kind: Counter, Unit: "{span}", Labels: []string{"outcome"},
		Help: "Spans: sent to the collector, failed (it did not take them), or dropped (too many waited).",
	}
	BuildInfo = &Metric{
		Name: "keyward.build_info", Kind: Gauge, Labels: []string{"version", "go_version", "store"},
		Help: "1, with the program's version, Go's, and the store's engine.",
	}
	Uptime = &Metric{
		Name: "keyward.uptime", Kind: Gauge, Unit: "s",
		Help: "Since the start.",
	}
	Draining = &Metric{
		Name: "keyward.draining", Kind: Gauge,
		Help: "1 while the sidecar is stopping; else 0.",
	}
)

// Metrics are all of them, in the order in which they are shown.
func Metrics() []*Metric {
	return []*Metric{
		Requests, RequestsInFlight, RequestDuration, AddedLatency, UpstreamLatency, Refusals, RefusedHeads, Panics, CallerRequests, CallerConnections, ConnectionsHeldUp, Tunnels, Redactions, TokenExchanges, TokensMinted,
		UpstreamConnections, UpstreamDials, UpstreamReuses,
		CacheLookups, CacheStale, CacheEvictions, CacheEntries,
		StoreOperations, StoreBreaker, FeedLive, FeedAge,
		Webhooks, WebhooksVerified, WebhookRefusals, Deliveries, DeliveriesUnderWay, DeliveriesStored, DeliveriesAge,
		LogDropped, Spans, BuildInfo, Uptime, Draining,
	}
}
