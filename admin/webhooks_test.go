package admin

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/store"
)

const hooks = "http://127.0.0.1:3000/hooks"

func (s *server) accept(org string, n int) *store.Delivery {
	s.t.Helper()
	d := &store.Delivery{
		Org: org, Provider: "vapi", Type: "status-update", Target: hooks, Method: "POST", Path: "/webhooks/vapi", RawQuery: "secret-query",
		Header: []byte("X-A: secret-header\r\n"), Body: []byte(strings.Repeat("secret-body", n)),
	}
	if _, err := s.db.AcceptDelivery(context.Background(), d); err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *server) fail(d *store.Delivery) {
	s.t.Helper()
	leased, err := s.db.LeaseDeliveries(context.Background(), "test", d.Target, 100, time.Minute)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range leased {
		o := store.Outcome{}
		if l.ID == d.ID {
			o = store.Outcome{State: store.Dead, Problem: "the app answered 500"}
		}
		if err := s.db.FinishDelivery(context.Background(), "test", l, o); err != nil {
			s.t.Fatal(err)
		}
	}
}

func TestDeliveries(t *testing.T) {
	var woken atomic.Int64
	s := newServer(t, sqliteURL(t), func(o *Options) {
		o.Webhooks.Target = func(provider, org string) string { return "unix:/run/" + org + ".sock:/" + provider }
		o.Webhooks.Wake = func() { woken.Add(1) }
	})
	first, second, third := s.accept("acme", 1), s.accept("globex", 2), s.accept("acme", 3)
	s.fail(first)
	s.walk("/api/webhooks/deliveries", "id", []string{third.ID, second.ID, first.ID})
	for query, want := range map[string][]*store.Delivery{
		"org=acme": {third, first}, "state=dead": {first}, "state=pending&org=globex": {second}, "state=delivered": {},
	} {
		items := s.must(200, "GET", "/api/webhooks/deliveries?"+query, "").object(t)["items"].([]any)
		for i, item := range items {
			if i < len(want) && item.(map[string]any)["id"] != want[i].ID {
				t.Errorf("%s lists %v", query, items)
			}
		}
		if len(items) != len(want) {
			t.Errorf("%s lists %d", query, len(items))
		}
	}
	for _, bad := range []string{"state=lost", "org=-", "cursor=x", "limit=0", "status=dead"} {
		s.refuse(400, "bad_request", "GET", "/api/webhooks/deliveries?"+bad, "")
	}

	a := s.must(200, "GET", "/api/webhooks/deliveries/"+first.ID, "")
	d := a.object(t)
	if d["state"] != "dead" || d["attempts"] != 1.0 || d["last_error"] != "the app answered 500" || d["next_attempt_at"] != nil || d["body_size"] != 11.0 || d["created_at"] == nil {
		t.Errorf("%s", a.body)
	}
	s.refuse(404, "not_found", "GET", "/api/webhooks/deliveries/wd_none", "")

	d = s.must(200, "POST", "/api/webhooks/deliveries/"+first.ID+"/redeliver", "").object(t)
	if d["state"] != "pending" || d["attempts"] != 0.0 || d["next_attempt_at"] == nil || d["target"] != "unix:/run/acme.sock:/vapi" || woken.Load() != 1 {
		t.Errorf("%v, woken %d times", d, woken.Load())
	}
	s.must(200, "POST", "/api/webhooks/deliveries/"+second.ID+"/redeliver", "{}")
	s.refuse(404, "not_found", "POST", "/api/webhooks/deliveries/wd_none/redeliver", "")
	s.refuse(400, "bad_request", "POST", "/api/webhooks/deliveries/"+first.ID+"/redeliver", `{"force":true}`)
	if audit := s.must(200, "GET", "/api/audit?action=webhook.redeliver&result=ok", ""); strings.Count(audit.body, `"webhook.redeliver"`) != 2 || !strings.Contains(audit.body, first.ID) {
		t.Errorf("%s", audit.body)
	}
	for _, text := range []string{s.log.String(), a.body, s.must(200, "GET", "/api/webhooks/deliveries", "").body, s.must(200, "GET", "/api/audit", "").body} {
		if strings.Contains(text, "secret-") {
			t.Errorf("what may be secret is shown: %s", text)
		}
	}
}

func TestWebhookTest(t *testing.T) {
	const path = "/api/orgs/acme/integrations/vapi/webhook-test"
	off := newServer(t, sqliteURL(t))
	off.refuse(409, "webhooks_off", "POST", path, "")

	var fails error
	s := newServer(t, sqliteURL(t), func(o *Options) {
		o.Webhooks.Test = func(_ context.Context, org, provider, typ string) (*WebhookAnswer, error) {
			return &WebhookAnswer{typ + " of " + org + "/" + provider, 401, http.Header{"Keyward-Error": {"webhook_unverified"}}, []byte("no")}, fails
		}
	})
	got := s.must(200, "POST", path, `{"type":"tool-calls"}`).object(t)
	if got["type"] != "tool-calls of acme/vapi" || got["status"] != 401.0 || got["error"] != "webhook_unverified" || got["body"] != "no" {
		t.Errorf("%v", got)
	}
	s.must(200, "POST", path, "")
	s.withToken(ofAcme).must(200, "POST", "/api/integrations/vapi/webhook-test", "")
	s.refuse(400, "bad_request", "POST", path, `{"type":"a b"}`)
	s.refuse(404, "unknown_provider", "POST", "/api/orgs/acme/integrations/nosuch/webhook-test", "")
	fails = store.ErrNotFound
	s.refuse(404, "not_found", "POST", path, "")
	fails = &Problem{Status: 424, Code: "credential_incomplete", Detail: "no secret"}
	s.refuse(424, "credential_incomplete", "POST", path, "")
	fails = errors.New("internal")
	s.refuse(500, "internal_error", "POST", path, "")
	if audit := s.must(200, "GET", "/api/audit?action=webhook.test&result=ok", "").body; strings.Count(audit, `"webhook.test"`) != 3 {
		t.Errorf("%s", audit)
	}
}
