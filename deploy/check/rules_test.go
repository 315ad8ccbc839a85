package check

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
)

func rules(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile("../prometheus/alerts.yaml", false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	for _, err := range errs {
		t.Fatal(err)
	}
	all := map[string]rulefmt.Rule{}
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			all[r.Alert] = r
		}
	}
	return all
}

// A scene is what the metrics say for twenty minutes, in promtool's notation, one value a minute.
type scene struct{ alert, series string }

// Each alert fires in one scene, and stays quiet in another that looks like it.
var (
	fires = []scene{
		{"KeywardDown", `up{job="keyward",instance="a"} 0x20`},
		{"KeywardRestarts", `process_start_time_seconds{job="keyward",instance="a"} 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20`},
		{"KeywardPanics", `keyward_panics_total{part="proxy"} 0x15 1x5`},
		{"KeywardProviderFails", `keyward_requests_total{provider="twilio",status_class="5xx"} 0+10x20
			keyward_requests_total{provider="twilio",status_class="2xx"} 0+90x20`},
		{"KeywardSlow", `keyward_added_latency_seconds_bucket{le="0.0256"} 0+10x20
			keyward_added_latency_seconds_bucket{le="0.0512"} 0+100x20
			keyward_added_latency_seconds_bucket{le="+Inf"} 0+100x20`},
		{"KeywardCredentialsRejected", `keyward_refusals_total{code="credential_rejected"} 0x15 3x5`},
		{"KeywardCallersRefused", `keyward_refusals_total{code="org_forbidden"} 0+60x20`},
		{"KeywardStoreDown", `keyward_store_breaker_open{instance="a"} 1x20`},
		{"KeywardFeedStale", `keyward_store_feed_age_seconds{instance="a"} 0+60x20`},
		{"KeywardWebhooksUnverified", `keyward_webhooks_total{provider="vapi",outcome="unverified"} 0+30x20
			keyward_webhooks_total{provider="vapi",outcome="accepted"} 0+60x20`},
		{"KeywardDeliveriesLate", `keyward_deliveries_oldest_pending_seconds 0+60x20`},
		{"KeywardDeliveriesDead", `keyward_deliveries_total{outcome="dead"} 0x15 1x5`},
		{"KeywardTelemetryLost", `keyward_log_dropped_lines_total{instance="a"} 0x15 7x5
			keyward_trace_spans_total{instance="a",outcome="sent"} 0+10x20
			keyward_trace_spans_total{instance="a",outcome="dropped"} 0x20`},
	}
	quiet = []scene{
		{"KeywardDown", `up{job="keyward",instance="a"} 1x20`},
		{"KeywardRestarts", `process_start_time_seconds{job="keyward",instance="a"} 0x10 1x10`},
		{"KeywardPanics", `keyward_panics_total{part="proxy"} 3x20`},
		{"KeywardProviderFails", `keyward_requests_total{provider="twilio",status_class="5xx"} 0+1x20
			keyward_requests_total{provider="twilio",status_class="2xx"} 0+99x20`},
		{"KeywardProviderFails", `keyward_requests_total{provider="twilio",status_class="5xx"} 0x15 1x5
			keyward_requests_total{provider="twilio",status_class="2xx"} 0x20`}, // one of one
		{"KeywardSlow", `keyward_added_latency_seconds_bucket{le="0.0256"} 0+100x20
			keyward_added_latency_seconds_bucket{le="+Inf"} 0+100x20`},
		{"KeywardCredentialsRejected", `keyward_refusals_total{code="credential_missing"} 0+5x20`},
		{"KeywardCallersRefused", `keyward_refusals_total{code="org_forbidden"} 0+1x20`},
		{"KeywardStoreDown", `keyward_store_breaker_open{instance="a"} 0x20`},
		{"KeywardFeedStale", `keyward_store_feed_age_seconds{instance="a"} 0.3x20`},
		{"KeywardWebhooksUnverified", `keyward_webhooks_total{provider="vapi",outcome="unverified"} 0+1x20
			keyward_webhooks_total{provider="vapi",outcome="accepted"} 0+60x20`},
		{"KeywardDeliveriesLate", `keyward_deliveries_oldest_pending_seconds 5x20`},
		{"KeywardDeliveriesDead", `keyward_deliveries_total{outcome="dead"} 4x20
			keyward_deliveries_total{outcome="delivered"} 0+10x20`},
		{"KeywardTelemetryLost", `keyward_log_dropped_lines_total{instance="a"} 7x20
			keyward_trace_spans_total{instance="a",outcome="sent"} 0+10x20
			keyward_trace_spans_total{instance="a",outcome="dropped"} 2x20`},
	}
)

// found is how many series an expression has at the end of a scene.
func found(t *testing.T, expr, series string) int {
	t.Helper()
	load := "load 1m\n"
	for line := range strings.Lines(series) {
		load += "  " + strings.TrimSpace(line) + "\n"
	}
	storage := promqltest.LoadedStorage(t, load)
	t.Cleanup(func() { _ = storage.Close() })
	engine := promqltest.NewTestEngine(t, false, 5*time.Minute, 1e6)
	q, err := engine.NewInstantQuery(context.Background(), storage, nil, expr, time.Unix(0, 0).Add(20*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	result := q.Exec(context.Background())
	if result.Err != nil {
		t.Fatalf("%s: %v", expr, result.Err)
	}
	vector, ok := result.Value.(promql.Vector)
	if !ok {
		t.Fatalf("%s is no vector", expr)
	}
	return len(vector)
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	all := rules(t)
	missing := rules(t)
	for _, s := range fires {
		delete(missing, s.alert)
		if found(t, all[s.alert].Expr, s.series) == 0 {
			t.Errorf("%s does not fire:\n%s", s.alert, s.series)
		}
	}
	for name := range missing {
		t.Errorf("%s has no scene in which it fires", name)
	}
}

func TestAlertsAreQuietOtherwise(t *testing.T) {
	all := rules(t)
	missing := rules(t)
	for _, s := range quiet {
		delete(missing, s.alert)
		if n := found(t, all[s.alert].Expr, s.series); n > 0 {
			t.Errorf("%s fires:\n%s", s.alert, s.series)
		}
	}
	for name := range missing {
		t.Errorf("%s has no scene in which it is quiet", name)
	}
}

func TestDashboardIsPromQL(t *testing.T) {
	b, err := os.ReadFile("../grafana/keyward.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		UID    string
		Panels []struct {
			Title, Type string
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, p := range dashboard.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, one := range p.Targets {
			n++
			expr := strings.NewReplacer("$__rate_interval", "5m", "$instance", "a").Replace(one.Expr)
			if _, err := parser.NewParser(parser.Options{}).ParseExpr(expr); err != nil {
				t.Errorf("%s: %v", p.Title, err)
			}
		}
	}
	if dashboard.UID != "keyward" || n < 20 {
		t.Errorf("%q has %d expressions", dashboard.UID, n)
	}
}
