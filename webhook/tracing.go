package webhook

import (
	"time"

	"github.com/keyward/keyward/store"
	"github.com/keyward/keyward/trace"
)

// A webhook is followed into the app, and on: what the app asks of a provider then, with the traceparent that it was given, belongs to the
// same trace. What waits in the store has its traceparent among its headers, whichever sidecar delivers it.

// A tracing is what is noted of a delivery that is traced.
type tracing struct {
	own    trace.Context
	parent trace.SpanID // of who sent it; zero: it began here
	state  string
	app    trace.SpanID // our request to the app; zero: there is none, but what is stored will be one
	asked  time.Time
}

// follow decides whether a delivery is traced. Like everything else in it, its traceparent counts only once it is verified: the world could
// otherwise have everything traced.
func (c *call) follow() {
	if c.s.o.Tracer == nil {
		return
	}
	var parent trace.Context
	if v, n := c.head.get("traceparent"); c.verified && n == 1 {
		parent, _ = trace.Parse(v)
	}
	if c.own, c.traced = c.s.o.Tracer.Decide(parent); c.traced && parent.Valid() {
		state, _ := c.head.get("tracestate")
		c.parent, c.state = parent.Span, string(state)
	}
}

// retraces says whether ours takes the place of a header of the sender's.
func (c *call) retraces(name []byte) bool {
	return is(name, "traceparent") || c.parent == (trace.SpanID{}) && is(name, "tracestate")
}

// onward is the traceparent that the app gets.
func (c *call) onward() string {
	next := c.own
	if c.app != (trace.SpanID{}) {
		next.Span = c.app
	}
	return string(next.Append(make([]byte, 0, trace.HeaderLength)))
}

// asks notes that the app is asked now.
func (c *call) asks() {
	if c.traced {
		c.app, c.asked = trace.NewSpanID(), time.Now()
	}
}

// answered hands over what our request to the app was.
func (c *call) answered(status int, bad *refusal) {
	if !c.traced {
		return
	}
	s := trace.Span{
		Name: "app " + c.source.provider.Name, Kind: trace.Client, Own: trace.Context{Trace: c.own.Trace, Span: c.app, Sampled: true}, Parent: c.own.Span, State: c.state,
		Start: c.asked, End: time.Now(), Failed: bad != nil || status >= 400,
	}
	if bad != nil {
		s.Set("error.type", bad.code)
	} else {
		s.SetNumber("http.response.status_code", int64(status))
	}
	c.s.o.Tracer.Record(s)
}

// recordSpan hands over what the delivery was.
func (c *call) recordSpan() {
	name := "none"
	if c.source != nil {
		name = c.source.provider.Name
	}
	s := trace.Span{
		Name: "webhook " + name, Kind: trace.Server, Own: c.own, Parent: c.parent, Remote: true, State: c.state, Start: c.start, End: time.Now(), Failed: c.status >= 500,
		Attributes: make([]trace.Attribute, 0, 12),
	}
	s.SetNumber("http.response.status_code", int64(c.status))
	s.Set("error.type", c.code)
	s.Set("keyward.provider", name)
	s.Set("keyward.request_id", c.id)
	s.Set("keyward.outcome", c.outcome())
	s.Set("keyward.reason", c.reason)
	if c.org != "" && store.IsOrg(c.org) {
		s.Set("keyward.org", c.org)
	}
	if c.verified {
		s.Set("keyward.type", c.said.typ)
	}
	s.Set("keyward.assistant", c.assistant)
	s.SetNumber("http.request.body.size", int64(len(c.message.body)))
	c.s.o.Tracer.Record(s)
}

// follow is an attempt to deliver what was stored, if that is traced: the app is to get its traceparent in the place of the stored one.
func (q *Queue) follow(d *store.Delivery) (span trace.Span, traced bool) {
	if q.o.Tracer == nil {
		return span, false
	}
	parent, state := trace.Context{}, ""
	for name, value := range headers(d) {
		switch {
		case is(name, "traceparent"):
			parent, _ = trace.Parse(value)
		case is(name, "tracestate"):
			state = string(value)
		}
	}
	if !parent.Valid() {
		return span, false // it was decided when it was received
	}
	own, traced := q.o.Tracer.Decide(parent)
	if !traced {
		return span, false
	}
	span = trace.Span{Name: "deliver " + d.Provider, Kind: trace.Client, Own: own, Parent: parent.Span, Remote: true, State: state, Start: time.Now()}
	span.Set("keyward.provider", d.Provider)
	span.Set("keyward.org", d.Org)
	span.Set("keyward.assistant", d.Assistant)
	span.Set("keyward.type", d.Type)
	span.Set("keyward.delivery_id", d.ID)
	span.SetNumber("keyward.attempt", int64(d.Attempts))
	return span, true
}

// delivered hands over how the attempt ended.
func (q *Queue) delivered(s trace.Span, err error) {
	s.End, s.Failed = time.Now(), err != nil
	if err != nil {
		s.Set("error.type", "not_delivered")
		s.Set("keyward.problem", err.Error()) // in words of ours: see why
	}
	q.o.Tracer.Record(s)
}
