package telemetry

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/trace"
)

// everything says something about every metric.
func everything(c *Collection) {
	for _, m := range Metrics() {
		switch {
		case m == BuildInfo, m == Uptime, m == Spans: // are Telemetry's own
		case m.Kind == Histogram:
			d := Distribution{Counts: make([]uint64, len(m.Bounds)+1), Total: 3 * time.Millisecond}
			d.Counts[0], d.Counts[len(m.Bounds)] = 2, 1
			parent, _ := trace.Parse([]byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"))
			d.Examples = []Example{{Took: 20 * time.Microsecond, At: time.Now(), Trace: parent}}
			c.Durations(m, d, m.Labels...)
		default:
			c.Number(m, 7, m.Labels...)
		}
	}
}

func started(t *testing.T, change ...func(*Options)) *Telemetry {
	t.Helper()
	o := Options{Version: "v1", Store: "sqlite", Started: time.Now(), Log: zerolog.Nop(), Fill: everything}
	for _, f := range change {
		f(&o)
	}
	shown, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		shown.Shutdown(ctx)
	})
	return shown
}

func scrape(shown http.Handler, accept string) string {
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	rec := httptest.NewRecorder()
	shown.ServeHTTP(rec, r)
	return rec.Body.String()
}

func TestEveryMetricIsServedUnderItsName(t *testing.T) {
	text := scrape(started(t), "text/plain")
	for _, m := range Metrics() {
		kind := map[Kind]string{Counter: "counter", Gauge: "gauge", Histogram: "histogram"}[m.Kind]
		if !strings.Contains(text, "# TYPE "+m.Prometheus()+" "+kind+"\n") || !strings.Contains(text, "# HELP "+m.Prometheus()+" ") {
			t.Errorf("%s is not served as a %s %s", m.Name, kind, m.Prometheus())
		}
	}
	for _, name := range []string{"go_goroutines", "process_cpu_seconds_total"} {
		if !strings.Contains(text, "\n"+name+" ") {
			t.Errorf("%s is not served", name)
		}
	}
	if !strings.Contains(text, `keyward_added_latency_seconds_bucket{provider="provider",status_class="status_class",le="2.5e-05"} 2`) ||
		!strings.Contains(text, `keyward_added_latency_seconds_count{provider="provider",status_class="status_class"} 3`) {
		t.Errorf("the histogram is not what it was filled with:\n%s", regexp.MustCompile(`(?m)^keyward_added.*$`).FindAllString(text, -1))
	}
}

// A label is a word of the program's. Nothing that names a tenant may be one: there can be any number of them, and who may see metrics may
// not see whom they are about. The names under callers: are few, and those of app processes.
func TestNoMetricNamesATenant(t *testing.T) {
	for _, m := range Metrics() {
		for _, l := range m.Labels {
			switch l {
			case "org", "org_id", "assistant", "token", "path", "host", "account", "uid":
				t.Errorf("%s has a label %s", m.Name, l)
			}
		}
		if m.Help == "" || !strings.HasSuffix(m.Help, ".") {
			t.Errorf("%s does not say what it is", m.Name)
		}
	}
}

func TestExemplarsAreInOpenMetrics(t *testing.T) {
	shown := started(t)
	example := regexp.MustCompile(`(?m)^keyward_request_duration_seconds_bucket.* # \{.*trace_id="4bf92f3577b34da6a3ce929d0e0e4736".*\} 2e-05 `)
	if text := scrape(shown, "application/openmetrics-text"); !example.MatchString(text) || !strings.HasSuffix(text, "# EOF\n") {
		t.Errorf("no exemplar in OpenMetrics' format:\n%s", regexp.MustCompile(`(?m)^.* # .*$|^# EOF`).FindAllString(text, 3))
	}
	if strings.Contains(scrape(shown, "text/plain"), "trace_id") {
		t.Error("an exemplar where the format has none")
	}
}

func TestLabelsAreNeverTooFew(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a metric was set without its labels")
		}
	}()
	c := &Collection{}
	c.Number(Requests, 1, "twilio")
}

func TestNothingIsTracedWithoutACollector(t *testing.T) {
	if started(t).Tracer() != nil {
		t.Error("there is a tracer")
	}
}

// The numbers may be asked for from the moment that somebody sends them on, before New has returned: the race detector sees whether that is
// right.
func TestNumbersAreReadFromTheFirstMomentOn(t *testing.T) {
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "1")
	asked := make(chan bool, 1)
	fill := func(c *Collection) {
		everything(c)
		select {
		case asked <- true:
		default:
		}
	}
	collector := httptest.NewServer(http.NotFoundHandler())
	defer collector.Close()
	started(t, func(o *Options) { o.Endpoint, o.Fill = collector.URL, fill })
	<-asked
}

// A stuck collector takes whatever comes and answers nothing.
func TestStuckCollectorHoldsNobodyUp(t *testing.T) {
	free := make(chan struct{})
	stuck := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-free }))
	defer stuck.Close()
	defer close(free)
	shown := started(t, func(o *Options) { o.Endpoint, o.Share = stuck.URL, 1 })
	own, traced := shown.Tracer().Decide(trace.Context{})
	if !traced {
		t.Fatal("nothing is traced")
	}
	began := time.Now()
	for range 3 * maxWaiting {
		shown.Tracer().Record(trace.Span{Name: "x", Own: own, Start: began, End: began})
	}
	if took := time.Since(began); took > 10*time.Second { // it would never end
		t.Errorf("recording took %v", took)
	}
	if text := scrape(shown, ""); !regexp.MustCompile(`keyward_trace_spans_total{outcome="dropped"} [1-9]`).MatchString(text) {
		t.Error("nothing that was dropped is counted")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	began = time.Now()
	shown.Shutdown(ctx)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the end took %v", took)
	}
}

func TestComplaintsAreFewAndRepeatNothing(t *testing.T) {
	var log lockedBuffer
	garbage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte("you sent hunter2\n"))
	}))
	defer garbage.Close()
	shown := started(t, func(o *Options) { o.Endpoint, o.Share, o.Log = garbage.URL, 1, zerolog.New(&log) })
	own, _ := shown.Tracer().Decide(trace.Context{})
	shown.Tracer().Record(trace.Span{Name: "x", Own: own, Start: time.Now(), End: time.Now()})
	for deadline := time.Now().Add(30 * time.Second); shown.spans.lost.Load() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the collector's answer counts for nothing")
		}
	}
	shown.Tracer().Record(trace.Span{Name: "x", Own: own, Start: time.Now(), End: time.Now()})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	shown.Shutdown(ctx)
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "400 Bad Request") || strings.Contains(text, "hunter2") {
		t.Errorf("the log: %s", text)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A path may hold any byte, and what goes to the collector only UTF-8: one request must not cost the spans of all that go with it.
func TestSpansAreTextWhateverCallersSend(t *testing.T) {
	taken := make(chan []byte, 8)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/v1/traces" {
			taken <- b
		}
	}))
	defer collector.Close()
	shown := started(t, func(o *Options) { o.Endpoint, o.Share = collector.URL, 1 })
	own, _ := shown.Tracer().Decide(trace.Context{})
	s := trace.Span{Name: "x", Own: own, Start: time.Now(), End: time.Now()}
	s.Set("url.path", "/caf\xe9/menu")
	shown.Tracer().Record(s)
	select {
	case b := <-taken:
		if !bytes.Contains(b, []byte("/caf\uFFFD/menu")) {
			t.Errorf("the path is not there: %q", b)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("nothing was sent; %d spans failed", shown.spans.lost.Load())
	}
}

func TestPartialSuccessIsNotRepeatedEither(t *testing.T) {
	var log lockedBuffer
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"partialSuccess": {"rejectedSpans": 1, "rejectedDataPoints": 1, "errorMessage": "you sent hunter2"}}`))
	}))
	defer collector.Close()
	shown := started(t, func(o *Options) { o.Endpoint, o.Share, o.Log = collector.URL, 1, zerolog.New(&log) })
	own, _ := shown.Tracer().Decide(trace.Context{})
	shown.Tracer().Record(trace.Span{Name: "x", Own: own, Start: time.Now(), End: time.Now()})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	shown.Shutdown(ctx)
	if text := log.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "rejected") {
		t.Errorf("the log: %s", text)
	}
}
