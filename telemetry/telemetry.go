package telemetry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/keyward/keyward/trace"
)

// Options are what a Telemetry needs.
type Options struct {
	Endpoint string  // of an OTLP/HTTP collector: what comes before /v1/traces and /v1/metrics; empty: nothing is sent
	Share    float64 // of the requests that nobody has decided about, which are traced
	Version  string
	Store    string // its engine
	Started  time.Time
	Log      zerolog.Logger
	// Fill reads the program's numbers, whenever somebody wants them. It may be called at the same time.
	Fill func(*Collection)
}

// A Telemetry answers Prometheus, and sends to a collector if there is one. It is made by New and ended by Shutdown.
type Telemetry struct {
	o       Options
	tracer  *trace.Tracer // nil: nothing is traced
	spans   *spans
	handler http.Handler
	pull    *sdkmetric.MeterProvider
	push    *sdkmetric.MeterProvider // nil: nobody is sent to
	said    atomic.Int64             // when the log last had a complaint, in Unix seconds
	unsaid  atomic.Int64             // complaints since
}

// New makes a Telemetry. It connects to nobody yet, and a collector that is not there is no error.
func New(o Options) (*Telemetry, error) {
	t := &Telemetry{o: o}
	otel.SetLogger(logr.Discard()) // the library's own complaints come through the error handler
	otel.SetErrorHandler(otel.ErrorHandlerFunc(t.complain))
	of, err := resource.New(context.Background(), resource.WithAttributes(
		attribute.String("service.name", "keyward"), attribute.String("service.version", o.Version), attribute.String("service.instance.id", instance()),
	), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("reading OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	own := &producer{since: o.Started, fill: []func(*Collection){t.fill, o.Fill}}
	if err := t.answer(of, own); err != nil {
		return nil, err
	}
	if o.Endpoint == "" {
		return t, nil
	}
	return t, t.send(of, own)
}

// instance tells sidecars apart.
func instance() string {
	host, _ := os.Hostname()
	return fmt.Sprintf("%s-%d-%s", host, os.Getpid(), rand.Text()[:6])
}

// answer makes what Prometheus is answered by.
func (t *Telemetry) answer(of *resource.Resource, own *producer) error {
	all := prometheus.NewRegistry()
	pull, err := promexporter.New(promexporter.WithRegisterer(all), promexporter.WithProducer(own), promexporter.WithoutScopeInfo(), promexporter.WithoutTargetInfo())
	if err != nil {
		return fmt.Errorf("making the Prometheus exporter: %w", err)
	}
	t.pull = sdkmetric.NewMeterProvider(sdkmetric.WithResource(of), sdkmetric.WithReader(pull))
	all.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	t.handler = promhttp.HandlerFor(all, promhttp.HandlerOpts{
		EnableOpenMetrics: true, DisableCompression: true, MaxRequestsInFlight: 8, ErrorHandling: promhttp.ContinueOnError,
	})
	return nil
}

// send begins to send to the collector.
func (t *Telemetry) send(of *resource.Resource, own *producer) error {
	ctx := context.Background()
	base := strings.TrimSuffix(t.o.Endpoint, "/")
	client := &http.Client{
		Timeout: sendLimit,
		// Where it all goes is said by the configuration alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	traces, err := otlptrace.New(ctx, otlptracehttp.NewClient(otlptracehttp.WithEndpointURL(base+"/v1/traces"), otlptracehttp.WithHTTPClient(client)))
	if err != nil {
		return fmt.Errorf("making the exporter of traces: %w", err)
	}
	metrics, err := otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(base+"/v1/metrics"), otlpmetrichttp.WithHTTPClient(client))
	if err != nil {
		return fmt.Errorf("making the exporter of metrics: %w", err)
	}
	t.spans = newSpans(of, traces.ExportSpans, t.complain)
	t.tracer = trace.New(t.o.Share, t.spans.record)
	// Last: from here on somebody reads the numbers, the spans' too.
	pushed := &producer{since: own.since, fill: append(own.fill, fillRuntime)}
	t.push = sdkmetric.NewMeterProvider(sdkmetric.WithResource(of), sdkmetric.WithReader(sdkmetric.NewPeriodicReader(metrics, sdkmetric.WithProducer(pushed))))
	return nil
}

// Tracer decides what is traced. It may be nil, which is one that traces nothing.
func (t *Telemetry) Tracer() *trace.Tracer { return t.tracer }

// ServeHTTP answers Prometheus, in its text format or in OpenMetrics', which has exemplars.
func (t *Telemetry) ServeHTTP(w http.ResponseWriter, r *http.Request) { t.handler.ServeHTTP(w, r) }

// Shutdown sends what has not been sent, and gives up when ctx ends.
func (t *Telemetry) Shutdown(ctx context.Context) {
	if t.push == nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = t.push.Shutdown(ctx) // who does not take it has been complained of
	}()
	t.spans.shutdown(ctx)
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// partialSuccess comes before what a collector says that takes less than it was sent; in brackets after that stands how much.
const partialSuccess = "OTLP partial success: "

// complain logs what the exporters complain of, once a minute. What a collector says in its answer stays out of the log: it may repeat
// what it was sent.
func (t *Telemetry) complain(err error) {
	const every, most = 60, 300
	now, last := time.Now().Unix(), t.said.Load()
	if now-last < every || !t.said.CompareAndSwap(last, now) {
		t.unsaid.Add(1)
		return
	}
	text, _, _ := strings.Cut(err.Error(), "body: ")
	if before, after, partial := strings.Cut(text, partialSuccess); partial {
		text = before + partialSuccess + after[strings.LastIndex(after, "(")+1:]
	}
	text = text[:min(len(text), most)]
	t.o.Log.Warn().Str("problem", strings.TrimRight(text, " ():")).Int64("times", 1+t.unsaid.Swap(0)).Msg("telemetry could not be sent; requests go on, and what was to be sent is dropped")
}

// fill adds what Telemetry itself knows.
func (t *Telemetry) fill(c *Collection) {
	c.Number(BuildInfo, 1, t.o.Version, runtime.Version(), t.o.Store)
	c.Number(Uptime, time.Since(t.o.Started).Seconds())
	var sent, lost, dropped uint64
	if s := t.spans; s != nil {
		sent, lost, dropped = s.sent.Load(), s.lost.Load(), s.dropped.Load()
	}
	c.Number(Spans, float64(sent), "sent")
	c.Number(Spans, float64(lost), "failed")
	c.Number(Spans, float64(dropped), "dropped")
}
