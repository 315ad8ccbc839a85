package proxy

import (
	"time"

	"github.com/keyward/keyward/trace"
)

// A tracing is what is noted of a call that is traced: of one in a hundred, or as many as the callers wish. All others leave their
// traceparent as it came, and nothing here is touched.
type tracing struct {
	own      trace.Context
	parent   trace.SpanID // of the caller; zero: it began here
	state    string       // the caller's tracestate
	attempts [maxAttempts]attempt
	tried    int
}

// An attempt is one request to the provider: a stale connection, a token or a former credential may make it more than one.
type attempt struct {
	span       trace.SpanID
	start, end time.Time
	status     int
	code       string
	reused     bool
}

const maxAttempts = 4

// follow decides whether the call is traced.
func (c *call) follow() {
	h := &c.head
	var parent trace.Context
	if h.parent != nil && !h.parents {
		parent, _ = trace.Parse(h.parent)
	}
	if c.own, c.traced = c.p.tracer.Decide(parent); c.traced && parent.Valid() {
		c.parent, c.state = parent.Span, trace.State(h.state)
	}
}

// retraces says whether a header of the caller's says what ours says instead. Its tracestate belongs to its traceparent, and goes with it
// where that could not be read.
func (c *call) retraces(name []byte) bool {
	return equalFold(name, "traceparent") || c.parent == (trace.SpanID{}) && equalFold(name, "tracestate")
}

func (c *call) beginAttempt() {
	c.tried = min(c.tried+1, maxAttempts)
	c.attempts[c.tried-1] = attempt{span: trace.NewSpanID(), start: time.Now()}
}

// attempt is the one under way, as the provider is told of it.
func (c *call) attempt() trace.Context {
	return trace.Context{Trace: c.own.Trace, Span: c.attempts[max(c.tried, 1)-1].span, Sampled: true}
}

func (c *call) endAttempt(bad *refusal) {
	a := &c.attempts[c.tried-1]
	a.end = time.Now()
	a.reused = c.up != nil && c.up.reused
	if bad != nil {
		a.code = bad.code
	} else {
		a.status = c.ctx.Response.StatusCode()
	}
}

// recordSpans hands over what the call was: itself, and its requests to the provider. Neither query nor header nor body takes part, and of
// the path what the log has.
func (c *call) recordSpans() {
	method, prov := "", "none"
	if c.scanned {
		method = string(c.head.method[:min(len(c.head.method), maxLoggedMethod)])
	}
	if c.route.provider != nil {
		prov = c.route.provider.Name
	}
	s := trace.Span{
		Name: prov, Kind: trace.Server, Own: c.own, Parent: c.parent, Remote: true, State: c.state, Start: c.start, End: time.Now(), Failed: c.status >= 500,
		Attributes: make([]trace.Attribute, 0, 16),
	}
	s.Set("http.request.method", method)
	s.SetNumber("http.response.status_code", int64(c.status))
	s.Set("url.path", string(c.route.path[:min(len(c.route.path), maxLoggedPath)]))
	s.Set("error.type", c.code)
	s.Set("keyward.reason", c.reason)
	s.Set("keyward.provider", prov)
	s.Set("keyward.org", string(c.org))
	s.Set("keyward.assistant", c.assistant)
	s.Set("keyward.request_id", string(c.id[:]))
	if c.rule != nil {
		s.Set("keyward.caller", c.rule.Name())
	}
	if c.row != nil {
		s.Set("keyward.cache", map[bool]string{true: "hit", false: "miss"}[c.hit])
	}
	s.SetNumber("http.request.body.size", c.sent)
	s.SetNumber("http.response.body.size", c.received)
	c.p.tracer.Record(s)
	for i := range c.attempts[:c.tried] {
		a := &c.attempts[i]
		if a.end.IsZero() { // it panicked
			a.end = s.End
		}
		up := trace.Span{
			Name: prov + " upstream", Kind: trace.Client, Own: trace.Context{Trace: c.own.Trace, Span: a.span, Sampled: true}, Parent: c.own.Span, State: c.state,
			Start: a.start, End: a.end, Failed: a.code != "" || a.status >= 400, Attributes: make([]trace.Attribute, 0, 8),
		}
		up.Set("http.request.method", method)
		if c.to != nil {
			up.Set("server.address", c.to.host)
		}
		if a.status != 0 {
			up.SetNumber("http.response.status_code", int64(a.status))
		}
		up.Set("error.type", a.code)
		up.SetNumber("http.request.resend_count", int64(i))
		up.Set("keyward.connection", map[bool]string{true: "reused", false: "new"}[a.reused])
		c.p.tracer.Record(up)
	}
}
