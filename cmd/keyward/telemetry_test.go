package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	collectmetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collecttraces "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/internal/memdir"
)

// A collector stands in for OpenTelemetry's: it takes traces and metrics over OTLP/HTTP and keeps them, as messages and as bytes.
type collector struct {
	*httptest.Server
	t *testing.T

	mu          sync.Mutex
	spans       []*tracepb.Span
	metrics     map[string]bool
	metricBytes bytes.Buffer
	all         bytes.Buffer
	services    map[string]bool
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{t: t, metrics: map[string]bool{}, services: map[string]bool{}}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sidecar ended within it
	}
	if r.Header.Get("Content-Type") != "application/x-protobuf" {
		c.t.Errorf("%s: %s", r.URL.Path, r.Header.Get("Content-Type"))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all.Write(body)
	switch r.URL.Path {
	case "/v1/traces":
		var m collecttraces.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &m); err != nil {
			c.t.Errorf("traces: %v", err)
		}
		for _, r := range m.GetResourceSpans() {
			for _, a := range r.GetResource().GetAttributes() {
				if a.GetKey() == "service.name" {
					c.services[a.GetValue().GetStringValue()] = true
				}
			}
			for _, s := range r.GetScopeSpans() {
				c.spans = append(c.spans, s.GetSpans()...)
			}
		}
	case "/v1/metrics":
		c.metricBytes.Write(body)
		var m collectmetrics.ExportMetricsServiceRequest
		if err := proto.Unmarshal(body, &m); err != nil {
			c.t.Errorf("metrics: %v", err)
		}
		for _, r := range m.GetResourceMetrics() {
			for _, s := range r.GetScopeMetrics() {
				for _, one := range s.GetMetrics() {
					c.metrics[one.GetName()] = true
				}
			}
		}
	default:
		c.t.Errorf("the collector was asked for %s", r.URL.Path)
	}
}

// named waits for a span of that name in a trace ("": any).
func (c *collector) named(name, in string) *tracepb.Span {
	c.t.Helper()
	var found *tracepb.Span
	eventually(c.t, "a span "+name, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, s := range c.spans {
			if s.GetName() == name && (in == "" || in == hex.EncodeToString(s.GetTraceId())) {
				found = s
			}
		}
		return found != nil
	})
	return found
}

func (c *collector) has(metric string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.metrics[metric]
}

// bytesOf is what came, of metrics alone or all.
func (c *collector) bytesOf(metricsAlone bool) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if metricsAlone {
		return c.metricBytes.String()
	}
	return c.all.String()
}

func spanAttribute(s *tracepb.Span, name string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == name {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// A followed is a sidecar that traces everything, between a provider and an app that answers a webhook by asking a provider itself.
type followed struct {
	*served
	*collector
	hooks, admin string
	app          chan http.Header // what the app was told
	provider     chan http.Header // what the provider was
}

func newFollowed(t *testing.T, args ...string) *followed {
	t.Helper()
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
	f := &followed{collector: newCollector(t), hooks: freeport.New(t), admin: freeport.New(t), app: make(chan http.Header, 1000), provider: make(chan http.Header, 1000)}
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.provider <- r.Header.Clone()
		_, _ = io.WriteString(w, `{"data":[]}`)
	}))
	t.Cleanup(upstream.Close)
	var client *http.Client
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.app <- r.Header.Clone()
		out, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://api.resend.com/domains?limit=hidden-in-the-query", nil)
		out.Header.Set("Keyward-Org", r.Header.Get("Keyward-Org"))
		out.Header.Set("traceparent", r.Header.Get("traceparent"))
		resp, err := client.Do(out)
		if err != nil {
			t.Errorf("the app's call: %v", err)
			return
		}
		_ = resp.Body.Close()
		_, _ = io.WriteString(w, `{"results":[]}`)
	}))
	t.Cleanup(app.Close)
	f.served = serve(t, memdir.New(t), append([]string{
		"--otlp-endpoint", f.URL, "--trace-ratio", "1", "--webhook-listen", f.hooks, "--webhook-target", app.URL + "/hooks", "--admin-listen", f.admin,
		"--upstream", "api.resend.com=" + upstream.URL,
	}, args...)...)
	client = f.client("caller.sock")
	f.must(`{"api_key":"re_secret_0123456789abcdef"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	f.must(`{"api_key":"vapi-secret-0123456789","webhook_secret":"vapi-hook-secret-0123456789"}`, "credentials", "set", "--org", "acme", "--provider", "vapi")
	return f
}

// webhook sends one of Vapi's.
func (f *followed) webhook(kind, traceparent string) {
	f.served.t.Helper()
	body := fmt.Sprintf(`{"message":{"type":%q,"call":{"id":"call-%s"},"timestamp":%d}}`, kind, kind, time.Now().UnixNano())
	req, err := http.NewRequest(http.MethodPost, "http://"+f.hooks+"/webhooks/vapi/acme", strings.NewReader(body))
	if err != nil {
		f.served.t.Fatal(err)
	}
	req.Header.Set("X-Vapi-Secret", "vapi-hook-secret-0123456789")
	if traceparent != "" {
		req.Header.Set("traceparent", traceparent)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.served.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		f.served.t.Fatalf("the webhook was answered %d\n%s", resp.StatusCode, f.log)
	}
}

// TestOneWebhookIsOneTrace: the webhook, our request to the app, the app's own through the sidecar, and that to the provider belong to one
// trace, each below the one before; whether the app is asked at once or from the store.
func TestOneWebhookIsOneTrace(t *testing.T) {
	f := newFollowed(t)
	for kind, toApp := range map[string]string{"tool-calls": "app vapi", "end-of-call-report": "deliver vapi"} {
		senders := fmt.Sprintf("4bf92f3577b34da6a3ce%012x", len(kind)) // another trace for each
		for _, sender := range []string{"", "00-" + senders + "-00f067aa0ba902b7-01"} {
			f.webhook(kind, sender)
			var told, provider http.Header
			select {
			case told = <-f.app:
			case <-time.After(time.Minute):
				t.Fatalf("%s did not reach the app\n%s", kind, f.log)
			}
			provider = <-f.provider
			in := strings.Split(told.Get("traceparent")+"---", "-")[1]
			if sender != "" && in != senders || len(in) != 32 {
				t.Fatalf("%s: the app was told %q", kind, told.Get("traceparent"))
			}
			hook, app, out, up := f.named("webhook vapi", in), f.named(toApp, in), f.named("resend", in), f.named("resend upstream", in)
			for _, pair := range [][2]*tracepb.Span{{hook, app}, {app, out}, {out, up}} {
				if !bytes.Equal(pair[0].GetSpanId(), pair[1].GetParentSpanId()) {
					t.Errorf("%s: %q is not below %q", kind, pair[1].GetName(), pair[0].GetName())
				}
			}
			if want := "00-" + in + "-" + hex.EncodeToString(up.GetSpanId()) + "-01"; provider.Get("traceparent") != want {
				t.Errorf("the provider was told %q, not %q", provider.Get("traceparent"), want)
			}
			if (len(hook.GetParentSpanId()) > 0) != (sender != "") {
				t.Errorf("%s: the sender's span is %x", kind, hook.GetParentSpanId())
			}
			for _, s := range []*tracepb.Span{hook, out} {
				if spanAttribute(s, "keyward.org") != "acme" {
					t.Errorf("%s is of org %q", s.GetName(), spanAttribute(s, "keyward.org"))
				}
			}
			if sender == "" {
				f.says(`"trace_id":"` + in + `"`)
			}
			f.mu.Lock()
			f.spans = nil
			f.mu.Unlock()
		}
	}
	f.mu.Lock()
	if !f.services["keyward"] {
		t.Errorf("the services are %v", f.services)
	}
	f.mu.Unlock()
	f.sentNoSecret()
}

// sentNoSecret looks for secrets in what the collector was sent, and in what Prometheus is.
func (f *followed) sentNoSecret() {
	f.served.t.Helper()
	_, text := asAdmin(f.served.t, f.admin, "", "GET", "/metrics", "")
	for what, b := range map[string]string{"the collector was sent": f.bytesOf(false), "the metrics hold": text, "the log holds": f.log.String()} {
		if leak := sent.LeakOrToken(b); leak != "" {
			f.served.t.Errorf("%s %s", what, leak)
		}
		if strings.Contains(b, "hidden-in-the-query") {
			f.served.t.Errorf("%s a query", what)
		}
	}
}

// A traceparent that nobody has vouched for has nothing traced, and reaches nobody.
func TestUnverifiedWebhooksDecideNothing(t *testing.T) {
	f := newFollowed(t, "--trace-ratio", "0")
	req, _ := http.NewRequest(http.MethodPost, "http://"+f.hooks+"/webhooks/vapi/acme", strings.NewReader(`{"message":{"type":"tool-calls"}}`))
	req.Header.Set("X-Vapi-Secret", "wrong")
	req.Header.Set("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Fatalf("answered %d", resp.StatusCode)
	}
	f.webhook("tool-calls", "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.named("webhook vapi", "5bf92f3577b34da6a3ce929d0e0e4736")
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.spans {
		if hex.EncodeToString(s.GetTraceId()) == "4bf92f3577b34da6a3ce929d0e0e4736" {
			t.Errorf("an unverified one has a span %s", s.GetName())
		}
	}
}

// TestMetricsNameNoTenant sends requests and webhooks of fifty orgs, whose names also stand where others are expected: none is in any metric.
func TestMetricsNameNoTenant(t *testing.T) {
	f := newFollowed(t, "--trace-ratio", "0.5")
	client := f.client("caller.sock")
	ask := func(method, url string, header ...string) {
		req, err := http.NewRequest(method, url, strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	for i := range 50 {
		org := fmt.Sprintf("tenant-of-ours-%02d", i)
		if i < 10 {
			f.must(`{"api_key":"re_secret_0123456789abcdef"}`, "credentials", "set", "--org", org, "--provider", "resend")
			f.must("", "assistants", "set", "asst-"+org, "--org", org)
		}
		ask("GET", "http://api.resend.com/domains", "Keyward-Org", org)
		ask("GET", "http://api.resend.com/domains", "Keyward-Assistant", "asst-"+org)
		ask("GET", "http://localhost/"+org+"/domains", "Keyward-Org", org)
		ask(strings.ToUpper(org), "http://localhost/resend/domains", "Keyward-Org", org)
		ask("GET", "http://localhost/resend/"+org, "Keyward-Org", org, "Keyward-Upstream", org+".example")
		ask("GET", "http://localhost/resend/domains", "Keyward-Org", org+"!", "X_Org_"+org, org)
		for _, path := range []string{"/webhooks/" + org, "/webhooks/vapi/" + org, "/webhooks/" + org + "/" + org} {
			resp, err := http.Post("http://"+f.hooks+path, "application/json", strings.NewReader(`{"message":{"type":"`+org+`"}}`))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
		}
	}
	eventually(t, "metrics reach the collector", func() bool { return f.has("keyward.webhooks") && f.has("go.goroutine.count") })
	code, text := asAdmin(t, f.admin, "", "GET", "/metrics", "")
	if code != http.StatusOK || !strings.Contains(text, `keyward_requests_total{provider="resend",status_class="2xx"} 30`) {
		t.Errorf("%d: %s", code, text)
	}
	for what, b := range map[string]string{"/metrics": text, "what the collector got": f.bytesOf(true)} {
		if i := strings.Index(strings.ToLower(b), "tenant-of-ours"); i >= 0 {
			t.Errorf("%s names a tenant: %q", what, b[max(0, i-80):i+40])
		}
	}
	for _, m := range []string{"keyward.requests", "keyward.added_latency", "keyward.store.feed_age", "keyward.refusals"} {
		if !f.has(m) {
			t.Errorf("the collector did not get %s", m)
		}
	}
	f.sentNoSecret()
}

// A collector that is not there, that takes and never answers, or that talks nonsense delays neither a call nor the end.
func TestCollectorThatFailsHoldsNobodyUp(t *testing.T) {
	free := make(chan struct{})
	stuck := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-free }))
	t.Cleanup(stuck.Close)
	t.Cleanup(func() { close(free) })
	garbage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-protobuf")
		_, _ = w.Write(bytes.Repeat([]byte{0xff}, 1<<20))
	}))
	t.Cleanup(garbage.Close)
	t.Setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
	for name, url := range map[string]string{"absent": "http://" + freeport.New(t), "stuck": stuck.URL, "garbage": garbage.URL} {
		const most = 8 * time.Second
		took := endsWithCollector(t, name, url)
		for again := 0; took > most && again < 2; again++ { // the machine may have been busy
			took = endsWithCollector(t, name, url)
		}
		if took > most {
			t.Errorf("%s: ended after %v", name, took)
		}
	}
}

// endsWithCollector has a sidecar that is traced to a collector serve some calls, none of which may wait for it, and says how long it took
// to end.
func endsWithCollector(t *testing.T, name, url string) time.Duration {
	t.Helper()
	started := time.Now()
	s := serve(t, memdir.New(t), "--otlp-endpoint", url, "--trace-ratio", "1", "--upstream", "api.resend.com="+echo(t))
	s.must(`{"api_key":"re_secret_0123456789abcdef"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	client := s.client("caller.sock")
	var slow []time.Duration // some are, where the machine stands still
	for range 300 {
		began := time.Now()
		if got, err := s.call(client, "acme"); err != nil || !strings.HasPrefix(got, "Bearer") {
			t.Fatalf("%s: %q, %v", name, got, err)
		}
		if took := time.Since(began); took > 2*time.Second {
			slow = append(slow, took)
		}
		if len(slow) > 5 {
			t.Fatalf("%s: calls took %v", name, slow)
		}
	}
	began := time.Now()
	stop(t, s)
	took := time.Since(began)
	if n := strings.Count(s.log.String(), "telemetry could not be sent"); n > 2+int(time.Since(started)/time.Minute) {
		t.Errorf("%s: %d complaints in the log", name, n)
	}
	return took
}

func TestMetricsNeedNoTokenAndStayFromBrowsers(t *testing.T) {
	admin := freeport.New(t)
	serve(t, memdir.New(t), "--admin-listen", admin)
	if code, text := asAdmin(t, admin, "", "GET", "/metrics", ""); code != http.StatusOK || !strings.Contains(text, "\nkeyward_build_info{") {
		t.Errorf("%d %s", code, text)
	}
	req, _ := http.NewRequest("GET", "http://"+admin+"/metrics", nil)
	req.Header.Set("Origin", "https://evil.example")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a web page is answered %d", resp.StatusCode)
	}
}
