package admin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyward/keyward/caller"
)

func TestCallersTokenIsShownOnce(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		a := s.must(201, "POST", "/api/callers", `{"name":"worker","orgs":["acme"],"providers":["twilio"],"allow":["POST /2010-04-01/Accounts/*/Messages.json"],"rate":"50/s"}`)
		o := a.object(t)
		token := o["token"].(string)
		if !caller.IsToken([]byte(token)) || a.header.Get("Location") != "/api/callers/"+o["id"].(string) {
			t.Errorf("%s, Location %s", a.body, a.header.Get("Location"))
		}
		row, err := s.db.Token(t.Context(), caller.HashToken([]byte(token)))
		if err != nil || row.Name != "worker" || fmt.Sprintln(row.Orgs, row.Providers, row.Allow, row.Rate) != "[acme] [twilio] [POST /2010-04-01/Accounts/*/Messages.json] 50/s\n" {
			t.Errorf("%+v %v", row, err)
		}
		listed := s.must(200, "GET", "/api/callers", "")
		if !strings.Contains(listed.body, `"name":"worker"`) || strings.Contains(listed.body, `"token"`) {
			t.Errorf("%s", listed.body)
		}
		for where, text := range map[string]string{"list": listed.body, "log": s.log.String(), "audit": s.must(200, "GET", "/api/audit", "").body} {
			if strings.Contains(text, token[3:12]) {
				t.Errorf("the %s holds the token", where)
			}
		}
		s.refuse(409, "conflict", "POST", "/api/callers", `{"name":"worker","orgs":["*"]}`)
		s.must(204, "DELETE", "/api/callers/"+o["id"].(string), "")
		s.refuse(404, "not_found", "DELETE", "/api/callers/worker", "")
		if _, err := s.db.Token(t.Context(), caller.HashToken([]byte(token))); err == nil {
			t.Error("revoked, and still there")
		}
		s.must(201, "POST", "/api/callers", `{"name":"worker","orgs":["*"]}`)
		s.must(204, "DELETE", "/api/callers/worker", "")
	})
}

func TestMalformedCallersAreRefusedByName(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	names := func(field, body string) {
		t.Helper()
		p := s.refuse(400, "bad_request", "POST", "/api/callers", body)
		if len(p.Errors) == 0 || !strings.HasPrefix(p.Errors[0].Field, field) {
			t.Errorf("%s: %+v", body, p)
		}
	}
	names("name", `{"orgs":["*"]}`)
	names("orgs", `{"name":"w"}`)
	names("orgs", `{"name":"w","orgs":[]}`)
	names("orgs", `{"name":"w","orgs":["-x"]}`)
	names("orgs", `{"name":"w","orgs":"acme"}`)
	names("providers", `{"name":"w","orgs":["*"],"providers":["nosuch"]}`)
	names("allow", `{"name":"w","orgs":["*"],"allow":["nonsense"]}`)
	names("rate", `{"name":"w","orgs":["*"],"rate":"fast"}`)
	names("org", `{"name":"w","orgs":["*"],"org":"acme"}`)
	s.walk("/api/callers", "name", nil)
}

func TestAssistants(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		a := s.must(201, "PUT", "/api/assistants/asst_1", `{"org":"acme","role":"inbound","name":"Front desk"}`)
		if a.header.Get("ETag") != `"1"` {
			t.Errorf("ETag %s", a.header.Get("ETag"))
		}
		o := s.must(200, "GET", "/api/assistants/asst_1", "").object(t)
		if fmt.Sprintln(o["id"], o["org"], o["role"], o["name"]) != "asst_1 acme inbound Front desk\n" {
			t.Errorf("%v", o)
		}
		s.must(201, "PUT", "/api/assistants/asst_2", `{"org":"globex"}`)
		s.must(201, "PUT", "/api/assistants/asst_3", `{"org":"acme"}`)
		s.walk("/api/orgs/acme/assistants", "id", []string{"asst_1", "asst_3"})
		s.walk("/api/assistants", "id", []string{"asst_1", "asst_2", "asst_3"})
		s.must(200, "PUT", "/api/assistants/asst_1", `{"org":"globex"}`)
		s.walk("/api/orgs/globex/assistants", "id", []string{"asst_1", "asst_2"})
		s.refuse(412, "version_conflict", "PUT", "/api/assistants/asst_1", `{"org":"acme"}`, `If-Match: "1"`)
		s.refuse(412, "version_conflict", "PUT", "/api/assistants/asst_1", `{"org":"acme"}`, "If-None-Match: *")
		s.refuse(412, "version_conflict", "DELETE", "/api/assistants/asst_1", "", `If-Match: "1"`)
		s.must(204, "DELETE", "/api/assistants/asst_1", "")
		s.refuse(404, "unknown_assistant", "GET", "/api/assistants/asst_1", "")
		s.refuse(404, "unknown_assistant", "DELETE", "/api/assistants/asst_1", "")
	})
}

func TestMalformedAssistantsAreRefused(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	s.refuse(400, "bad_request", "PUT", "/api/assistants/asst_1", `{}`)
	s.refuse(400, "bad_request", "PUT", "/api/assistants/asst_1", `{"org":"-"}`)
	s.refuse(400, "bad_request", "PUT", "/api/assistants/asst_1", `{"org":"acme","name":"a\u0007b"}`)
	s.refuse(400, "bad_request", "PUT", "/api/assistants/asst_1", `{"org":"acme","role":"`+strings.Repeat("x", 65)+`"}`)
	s.refuse(400, "bad_request", "PUT", "/api/assistants/asst_1", `{"org":"acme","org_id":"acme"}`)
	s.refuse(400, "bad_request", "PUT", "/api/assistants/a%20b", `{"org":"acme"}`)
	s.refuse(400, "bad_request", "GET", "/api/assistants/"+strings.Repeat("a", 129), "")
}

func TestAuditIsOldestFirstFilteredAndFollowable(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	for i := range 5 {
		s.must(201, "PUT", fmt.Sprintf("/api/assistants/asst_%d", i), fmt.Sprintf(`{"org":"org%d"}`, i%2))
	}
	s.walk("/api/audit", "target", []string{"asst_0", "asst_1", "asst_2", "asst_3", "asst_4"})
	targets := func(query string) (string, map[string]any) {
		t.Helper()
		page := s.must(200, "GET", "/api/audit?"+query, "").object(t)
		var got []string
		for _, item := range page["items"].([]any) {
			got = append(got, item.(map[string]any)["target"].(string))
		}
		return strings.Join(got, " "), page
	}
	if got, _ := targets("org=org1"); got != "asst_1 asst_3" {
		t.Errorf("org: %s", got)
	}
	if got, _ := targets("action=assistant.delete"); got != "" {
		t.Errorf("action: %s", got)
	}
	got, page := targets("tail=2")
	if got != "asst_3 asst_4" {
		t.Errorf("tail: %s", got)
	}
	next := fmt.Sprint("cursor=", int64(page["last_id"].(float64)))
	if got, page = targets(next); got != "" || page["next_cursor"] != "" || fmt.Sprint("cursor=", int64(page["last_id"].(float64))) != next {
		t.Errorf("nothing new: %s %v", got, page)
	}
	s.must(204, "DELETE", "/api/assistants/asst_0", "")
	if got, _ = targets(next); got != "asst_0" {
		t.Errorf("followed: %s", got)
	}
	if got, page = targets("tail=0"); got != "" || page["last_id"].(float64) < 6 {
		t.Errorf("tail=0: %s %v", got, page)
	}
	for _, bad := range []string{"cursor=x", "cursor=-1", "tail=-1", "tail=1001", "tail=1&limit=1", "tail=2&cursor=1", "since=1", "org=a&org=b"} {
		s.refuse(400, "bad_request", "GET", "/api/audit?"+bad, "")
	}
}

func TestProvidersSayWhatACredentialNeeds(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	for _, item := range s.must(200, "GET", "/api/providers", "").object(t)["items"].([]any) {
		p := item.(map[string]any)
		secrets := 0
		for _, f := range p["fields"].([]any) {
			f := f.(map[string]any)
			if f["secret"].(bool) {
				secrets++
			}
			if f["type"] == "" || f["title"] == "" {
				t.Errorf("%s: %v", p["name"], f)
			}
		}
		if secrets == 0 || len(p["hosts"].([]any)) == 0 {
			t.Errorf("%s: no secret field, or no host", p["name"])
		}
	}
}

func TestProvidersSayWhichTokensAreMinted(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	got := map[string]string{}
	for _, item := range s.must(200, "GET", "/api/providers", "").object(t)["items"].([]any) {
		p := item.(map[string]any)
		for _, m := range p["mints"].([]any) {
			m := m.(map[string]any)
			got[p["name"].(string)] = fmt.Sprint(m["name"], m["needs"], m["grants"], m["help"] != "")
		}
	}
	if len(got) != 2 || !strings.HasPrefix(got["twilio"], "twilio-access-token[account_sid api_key_sid api_key_secret] [voice video chat") || !strings.HasPrefix(got["vapi"], "vapi-jwt") {
		t.Errorf("%q", got)
	}
}

func TestStats(t *testing.T) {
	half, ms := 0.5, 12.5
	s := newServer(t, sqliteURL(t), func(o *Options) {
		o.Stats = func() map[string]any { return map[string]any{"proxy": map[string]int64{"requests": 7}} }
		o.Traffic = func() Traffic {
			return Traffic{Window: 10, Requests: 3, CacheHitRate: &half, Providers: []ProviderTraffic{{Provider: "vapi", Requests: 3, P50: &ms}}}
		}
	})
	s.must(201, "PUT", acmeTwilio, `{"credentials":`+twilioFields(twilioSID, twilioToken)+`,"is_active":false}`)
	s.accept("acme", 1)
	o := s.must(200, "GET", "/api/stats", "").object(t)
	if o["orgs"] != 1.0 || o["version"] != "test" || fmt.Sprint(o["credentials"], o["proxy"], o["webhooks"]) !=
		"map[by_provider:map[twilio:1] disabled:1] map[requests:7] map[dead:0 pending:1]" {
		t.Errorf("%v", o)
	}
	traffic := o["traffic"].(map[string]any)
	first := traffic["providers"].([]any)[0].(map[string]any)
	if traffic["requests_per_second"] != 3.0 || traffic["cache_hit_rate"] != 0.5 || first["p50_ms"] != 12.5 || first["p99_ms"] != nil {
		t.Errorf("%v", traffic)
	}
}
