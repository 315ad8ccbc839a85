package admin

import (
	"context"
	"testing"
	"time"

	"github.com/keyward/keyward/store"
)

// An answerable error says itself how it is answered, as the assistant manager's do.
type answerable struct {
	status int
	code   string
	after  time.Duration
}

func (e answerable) Error() string { return e.code }
func (e answerable) Problem() (int, string, string, time.Duration) {
	return e.status, e.code, "because", e.after
}

func TestEnsure(t *testing.T) {
	var fails error
	var asked []string
	made := store.Assistant{ID: "asst_made", Org: "acme", Role: store.Inbound, Name: "Front desk", Version: 3}
	s := newServer(t, sqliteURL(t), func(o *Options) {
		o.Assistants = Assistants{
			Ensure: func(_ context.Context, by store.Actor, org, role string) (store.Assistant, string, error) {
				asked = append(asked, "ensure "+by.Name+" "+org+" "+role)
				return made, "created", fails
			},
			Get: func(context.Context, string, string) (AssistantState, error) {
				return AssistantState{made, true, false}, fails
			},
			Delete: func(_ context.Context, by store.Actor, org, role string, version int64) ([]string, error) {
				if version != 0 && version != made.Version {
					return nil, answerable{412, "version_conflict", 0}
				}
				asked = append(asked, "delete "+by.Name+" "+org+" "+role)
				return []string{made.ID}, fails
			},
		}
	})
	a := s.must(200, "POST", acmeInbound+"/ensure", "").object(t)
	if a["id"] != "asst_made" || a["org"] != "acme" || a["role"] != "inbound" || a["outcome"] != "created" {
		t.Errorf("%v", a)
	}
	s.must(200, "POST", acmeInbound+"/ensure", "{}")
	if g := s.must(200, "GET", acmeInbound+"/assistant", "").object(t); g["exists"] != true || g["as_configured"] != false || g["id"] != "asst_made" {
		t.Errorf("%v", g)
	}
	s.refuse(412, "version_conflict", "DELETE", acmeInbound+"/assistant", "", `If-Match: "2"`)
	s.refuse(400, "bad_request", "DELETE", acmeInbound+"/assistant", "", "If-None-Match: *")
	s.must(204, "DELETE", acmeInbound+"/assistant", "", `If-Match: "3"`)
	if len(asked) != 3 || asked[0][:11] != "ensure uid " || asked[2][:11] != "delete uid " {
		t.Errorf("%q", asked)
	}

	s.refuse(404, "not_found", "POST", "/api/orgs/acme/agents/sideways/ensure", "")
	s.refuse(400, "bad_request", "POST", "/api/orgs/-/agents/inbound/ensure", "")
	s.refuse(400, "bad_request", "POST", acmeInbound+"/ensure", `{"force":true}`)
	s.refuse(400, "bad_request", "POST", acmeInbound+"/ensure?force=1", "")
	s.refuse(405, "method_not_allowed", "PUT", acmeInbound+"/ensure", "{}")
	token := s.must(201, "POST", "/api/admin-tokens", `{"name":"a","role":"org","org":"globex"}`).object(t)["token"].(string)
	for _, at := range []string{"POST", "GET", "DELETE"} {
		path := map[string]string{"POST": "/ensure", "GET": "/assistant", "DELETE": "/assistant"}[at]
		s.refuse(404, "not_found", at, acmeInbound+path, "", "Authorization: Bearer "+token)
	}

	for _, e := range []answerable{
		{424, "credential_missing", 0},
		{422, "assistant_refused", 0},
		{429, "rate_limited", 1500 * time.Millisecond},
		{502, "upstream_unreachable", time.Second},
		{504, "upstream_timeout", time.Second},
		{503, "assistant_busy", time.Second},
		{409, "conflict", 0},
	} {
		fails = e
		a := s.ask("POST", acmeInbound+"/ensure", "")
		s.isProblem(a, e.status, e.code)
		if after := a.header.Get("Retry-After"); (after != "") != (e.after > 0) || e.code == "rate_limited" && after != "2" {
			t.Errorf("%s: Retry-After %q", e.code, after)
		}
		s.refuse(e.status, e.code, "GET", acmeInbound+"/assistant", "")
		s.refuse(e.status, e.code, "DELETE", acmeInbound+"/assistant", "")
	}
	without := newServer(t, sqliteURL(t))
	without.refuse(501, "not_available", "POST", acmeInbound+"/ensure", "")
}
