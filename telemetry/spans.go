package telemetry

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/keyward/keyward/trace"
)

const (
	maxWaiting = 4096             // spans, before further ones are dropped
	maxBatch   = 512              // spans in one message
	gather     = time.Second      // how long a span waits for others to go with it
	sendLimit  = 10 * time.Second // for one message, further attempts included
)

// spans sends what was recorded. Spans are records of something that is over: the library's own are made of them here, away from the
// requests, with the ids that were sent to others already.
type spans struct {
	waiting chan trace.Span
	once    sync.Once
	stop    chan struct{}
	done    chan struct{}
	cut     context.Context
	cutOff  context.CancelFunc

	export func(context.Context, []sdktrace.ReadOnlySpan) error
	failed func(error)
	maker  *sdktrace.TracerProvider
	tracer oteltrace.Tracer
	batch  []sdktrace.ReadOnlySpan // owned by run

	sent, lost, dropped atomic.Uint64
}

func newSpans(of *resource.Resource, export func(context.Context, []sdktrace.ReadOnlySpan) error, failed func(error)) *spans {
	s := &spans{waiting: make(chan trace.Span, maxWaiting), stop: make(chan struct{}), done: make(chan struct{}), export: export, failed: failed}
	s.cut, s.cutOff = context.WithCancel(context.Background())
	s.maker = sdktrace.NewTracerProvider(
		sdktrace.WithResource(of), sdktrace.WithSampler(sdktrace.AlwaysSample()), // it was decided before the span began
		sdktrace.WithIDGenerator(given{}), sdktrace.WithSpanProcessor((*gatherer)(s)),
	)
	s.tracer = s.maker.Tracer(scope)
	go s.run()
	return s
}

// record takes a span, or drops it. It never waits.
func (s *spans) record(one trace.Span) {
	select {
	case s.waiting <- one:
	default:
		s.dropped.Add(1)
	}
}

func (s *spans) run() {
	defer close(s.done)
	tick := time.NewTicker(gather)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.send(s.cut)
		case <-s.stop:
			s.send(s.cut)
			return
		}
	}
}

// shutdown sends what waits, and gives up when ctx ends. What is recorded afterwards is dropped, uncounted: nobody asks any more.
func (s *spans) shutdown(ctx context.Context) {
	defer context.AfterFunc(ctx, s.cutOff)()
	s.once.Do(func() { close(s.stop) })
	<-s.done
	s.cutOff()
	_ = s.maker.Shutdown(ctx)
}

// send sends all that waits by now.
func (s *spans) send(ctx context.Context) {
	for n := len(s.waiting); n > 0 && ctx.Err() == nil; {
		s.batch = s.batch[:0]
		for ; n > 0 && len(s.batch) < maxBatch; n-- {
			s.replay(<-s.waiting)
		}
		bounded, cancel := context.WithTimeout(ctx, sendLimit)
		err := s.export(bounded, s.batch)
		cancel()
		if err != nil {
			s.lost.Add(uint64(len(s.batch)))
			s.failed(err)
			continue
		}
		s.sent.Add(uint64(len(s.batch)))
	}
	clear(s.batch)
}

// replay makes the library's span of a record; it ends up in the batch.
func (s *spans) replay(one trace.Span) {
	ctx := context.WithValue(context.Background(), givenKey{}, one.Own)
	if one.Parent != (trace.SpanID{}) {
		parent := oteltrace.SpanContextConfig{
			TraceID: oteltrace.TraceID(one.Own.Trace), SpanID: oteltrace.SpanID(one.Parent), TraceFlags: oteltrace.FlagsSampled, Remote: one.Remote,
		}
		if state, err := oteltrace.ParseTraceState(one.State); err == nil {
			parent.TraceState = state
		}
		ctx = oteltrace.ContextWithSpanContext(ctx, oteltrace.NewSpanContext(parent))
	}
	kind := oteltrace.SpanKindServer
	if one.Kind == trace.Client {
		kind = oteltrace.SpanKindClient
	}
	set := make([]attribute.KeyValue, len(one.Attributes))
	for i, a := range one.Attributes {
		set[i] = attribute.String(a.Name, a.Text)
		if a.Text == "" {
			set[i] = attribute.Int64(a.Name, a.Number)
		}
	}
	_, span := s.tracer.Start(ctx, one.Name, oteltrace.WithTimestamp(one.Start), oteltrace.WithSpanKind(kind), oteltrace.WithAttributes(set...))
	if one.Failed {
		span.SetStatus(codes.Error, "")
	}
	span.End(oteltrace.WithTimestamp(one.End))
}

// given hands the library the ids that the record has.
type (
	given    struct{}
	givenKey struct{}
)

func (given) NewIDs(ctx context.Context) (oteltrace.TraceID, oteltrace.SpanID) {
	c, _ := ctx.Value(givenKey{}).(trace.Context)
	return oteltrace.TraceID(c.Trace), oteltrace.SpanID(c.Span)
}

func (given) NewSpanID(ctx context.Context, _ oteltrace.TraceID) oteltrace.SpanID {
	c, _ := ctx.Value(givenKey{}).(trace.Context)
	return oteltrace.SpanID(c.Span)
}

// A gatherer puts the library's spans into the batch, in the goroutine of run.
type gatherer spans

// OnStart implements sdktrace.SpanProcessor.
func (*gatherer) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd implements sdktrace.SpanProcessor.
func (g *gatherer) OnEnd(s sdktrace.ReadOnlySpan) { g.batch = append(g.batch, s) }

// Shutdown implements sdktrace.SpanProcessor.
func (*gatherer) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (*gatherer) ForceFlush(context.Context) error { return nil }
