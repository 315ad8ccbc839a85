package main

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/keyward/keyward/telemetry"
)

const (
	dashboardPath  = "../../deploy/grafana/keyward.json"
	alertsPath     = "../../deploy/prometheus/alerts.yaml"
	operationsPath = "../../docs/operations.md"
)

// expressionsOf are all PromQL in the dashboard.
func expressionsOf(t *testing.T, v any) (all []string) {
	t.Helper()
	switch v := v.(type) {
	case map[string]any:
		for k, one := range v {
			if text, ok := one.(string); ok && k == "expr" {
				all = append(all, text)
			}
			all = append(all, expressionsOf(t, one)...)
		}
	case []any:
		for _, one := range v {
			all = append(all, expressionsOf(t, one)...)
		}
	}
	return all
}

type alertFile struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

func alerts(t *testing.T) (f alertFile) {
	t.Helper()
	b, err := os.ReadFile(alertsPath)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestDashboardAndAlertsNameWhatIsServed: every metric that a panel or a rule asks for is one that a running sidecar serves.
func TestDashboardAndAlertsNameWhatIsServed(t *testing.T) {
	f := newFollowed(t)
	f.webhook("tool-calls", "")
	f.webhook("end-of-call-report", "")
	// A refusal, so that what is shown by its code is there.
	if resp, err := http.Post("http://"+f.hooks+"/webhooks/nobody", "", nil); err == nil {
		_ = resp.Body.Close()
	}
	var text string
	eventually(t, "what was done is counted", func() bool {
		_, text = asAdmin(t, f.admin, "", http.MethodGet, "/metrics", "")
		return strings.Contains(text, `keyward_webhooks_total{outcome="answered",provider="vapi"} 1`) && strings.Contains(text, "keyward_deliveries_stored{") &&
			strings.Contains(text, `keyward_added_latency_seconds_bucket{provider="resend"`) && strings.Contains(text, "keyward_refusals_total{")
	})
	served := map[string]bool{}
	for _, line := range regexp.MustCompile(`(?m)^[a-z_]+`).FindAllString(text, -1) {
		served[line] = true
	}
	served["up"] = true // Prometheus's own
	b, err := os.ReadFile(dashboardPath)
	if err != nil {
		t.Fatal(err)
	}
	var dashboard any
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	all := expressionsOf(t, dashboard)
	if len(all) < 20 {
		t.Fatalf("the dashboard has %d expressions", len(all))
	}
	for _, g := range alerts(t).Groups {
		for _, r := range g.Rules {
			all = append(all, r.Expr)
		}
	}
	asked := map[string]bool{}
	for _, expr := range all {
		for _, name := range regexp.MustCompile(`\b(keyward|go|process)_[a-z_]+\b`).FindAllString(expr, -1) {
			asked[name] = true
			if !served[name] {
				t.Errorf("%s is asked for, and not served: %s", name, expr)
			}
		}
	}
	for _, m := range telemetry.Metrics() { // what nobody looks at need not be there
		name := m.Prometheus()
		if m.Kind == telemetry.Histogram {
			name += "_bucket"
		}
		if !asked[name] && !slices.Contains([]*telemetry.Metric{telemetry.Uptime, telemetry.WebhooksVerified, telemetry.CacheEntries, telemetry.Draining}, m) {
			t.Errorf("%s is on no panel and in no rule", name)
		}
	}
}

// Every alert says how grave it is, what is the matter, and where it is written what to do; and there it is.
func TestAlertsSayWhatToDo(t *testing.T) {
	docs, err := os.ReadFile(operationsPath)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range alerts(t).Groups {
		for _, r := range g.Rules {
			n++
			if r.Alert == "" || r.Expr == "" || r.Annotations["summary"] == "" || !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
				t.Errorf("%+v lacks a field", r)
			}
			if want := "docs/operations.md#" + strings.ToLower(r.Alert); r.Annotations["runbook"] != want {
				t.Errorf("%s: the runbook is %q, not %q", r.Alert, r.Annotations["runbook"], want)
			}
			if !strings.Contains(string(docs), "\n### "+r.Alert+"\n") {
				t.Errorf("docs/operations.md does not say what to do about %s", r.Alert)
			}
		}
	}
	if n < 10 {
		t.Errorf("%d alerts", n)
	}
}

const metricsBegin, metricsEnd = "<!-- metrics: written by go generate ./cmd/keyward -->\n", "<!-- end of metrics -->\n"

// TestMetricsReference: the table in docs/operations.md is what the program has.
func TestMetricsReference(t *testing.T) {
	var b strings.Builder
	b.WriteString("\n| name | type | labels | unit | meaning |\n|---|---|---|---|---|\n")
	for _, m := range telemetry.Metrics() {
		labels := ""
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "` `") + "`"
		}
		b.WriteString("| `" + m.Prometheus() + "` | " + string(m.Kind) + " | " + labels + " | " + strings.NewReplacer("{", "", "}", "").Replace(m.Unit) + " | " + m.Help + " |\n")
	}
	b.WriteString("\n")
	docs, err := os.ReadFile(operationsPath)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(docs), metricsBegin)
	got, after, ok2 := strings.Cut(rest, metricsEnd)
	if !ok || !ok2 {
		t.Fatal("docs/operations.md has no place for the table of metrics")
	}
	if *updateReference {
		if err := os.WriteFile(operationsPath, []byte(before+metricsBegin+b.String()+metricsEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if got != b.String() {
		t.Error("the table of metrics differs from the program's: run go generate ./cmd/keyward")
	}
}
