package admin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/store"
)

// A client is somebody with an admin token, over TCP.
type tokenClient struct {
	*server
	header string
	id     string
}

// withToken makes an admin token and whoever has it.
func (s *server) withToken(body string) tokenClient {
	s.t.Helper()
	o := s.must(201, "POST", "/api/admin-tokens", body).object(s.t)
	return tokenClient{s, "Authorization: Bearer " + o["token"].(string), o["id"].(string)}
}

func (c tokenClient) ask(method, path, body string, headers ...string) answer {
	c.t.Helper()
	return c.askAt("http://"+c.tcp, method, path, body, append(headers, c.header)...)
}

func (c tokenClient) must(status int, method, path, body string, headers ...string) answer {
	c.t.Helper()
	a := c.ask(method, path, body, headers...)
	if a.status != status {
		c.t.Fatalf("%s %s: %d, want %d: %s", method, path, a.status, status, a.body)
	}
	return a
}

func (c tokenClient) refuse(status int, code, method, path, body string, headers ...string) Problem {
	c.t.Helper()
	return c.isProblem(c.ask(method, path, body, headers...), status, code)
}

const (
	operator = `{"name":"ops","role":"operator"}`
	ofAcme   = `{"name":"acme-backend","org":"acme"}`
)

func TestAdminTokenIsShownOnceAndWorksOverTCP(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		ops := s.withToken(operator)
		token := strings.TrimPrefix(ops.header, "Authorization: Bearer ")
		if !caller.IsAdminToken([]byte(token)) {
			t.Errorf("a token of %d characters, of the wrong form", len(token))
		}
		ops.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken))
		ops.must(200, "GET", acmeTwilio, "")
		listed := ops.must(200, "GET", "/api/admin-tokens", "")
		for where, text := range map[string]string{"list": listed.body, "log": s.log.String(), "audit": s.must(200, "GET", "/api/audit", "").body} {
			if strings.Contains(text, token[3:12]) {
				t.Errorf("the %s holds the token", where)
			}
		}
		if item := listed.object(t)["items"].([]any)[0].(map[string]any); item["name"] != "ops" || item["role"] != "operator" || item["last_used_at"] == nil {
			t.Errorf("%v", item)
		}
		events, err := s.db.Events(t.Context(), store.EventFilter{Action: "credential.put"})
		if err != nil || len(events) != 1 || events[0].Actor.Name != "admin token ops" || !strings.HasPrefix(events[0].Actor.From, "127.0.0.1:") {
			t.Errorf("%+v %v", events, err)
		}
		s.refuse(409, "conflict", "POST", "/api/admin-tokens", operator)
		s.refuse(412, "version_conflict", "DELETE", "/api/admin-tokens/ops", "", `If-Match: "2"`)
		s.refuse(400, "bad_request", "DELETE", "/api/admin-tokens/ops", "", "If-None-Match: *")
		s.must(204, "DELETE", "/api/admin-tokens/"+ops.id, "", `If-Match: "1"`)
		ops.refuse(401, "unauthenticated", "GET", "/api/orgs", "") // at once
		s.refuse(404, "not_found", "DELETE", "/api/admin-tokens/ops", "")
	})
}

// Another sidecar on the same store refuses a revoked token at once too.
func TestRevokedAdminTokenIsRefusedEverywhere(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		other := newServer(t, url)
		ops := s.withToken(operator)
		there := tokenClient{other, ops.header, ops.id}
		there.must(200, "GET", "/api/orgs", "")
		s.must(204, "DELETE", "/api/admin-tokens/ops", "")
		there.refuse(401, "unauthenticated", "GET", "/api/orgs", "")
	})
}

func TestMalformedAdminTokensAreRefusedByName(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	names := func(field, body string) {
		t.Helper()
		if p := s.refuse(400, "bad_request", "POST", "/api/admin-tokens", body); len(p.Errors) != 1 || p.Errors[0].Field != field {
			t.Errorf("%s: %+v", body, p)
		}
	}
	names("name", `{"role":"operator"}`)
	names("name", `{"role":"operator","name":"a\nb"}`)
	names("name", `{"role":"operator","name":"`+strings.Repeat("x", 65)+`"}`)
	names("role", `{"name":"x"}`)
	names("role", `{"name":"x","role":"root"}`)
	names("org", `{"name":"x","role":"org"}`)
	names("org", `{"name":"x","role":"org","org":"a/b"}`)
	names("org", `{"name":"x","role":"operator","org":"acme"}`)
	names("orgs", `{"name":"x","role":"operator","orgs":["acme"]}`)
}

// To a token that is bound to an org, another org looks as if it were not there, whether it is or not.
func TestOrgBoundTokenSeesItsOwnOrgAlone(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		const resend = `{"credentials":{"api_key":"re_00000001_abcdefghijklmnopqrstuvwx"}}`
		s.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken))
		s.must(201, "PUT", "/api/orgs/globex/integrations/resend", resend)
		s.must(201, "PUT", "/api/orgs/globex/agents/inbound", `{"config":{}}`)
		s.must(201, "PUT", "/api/assistants/asst_acme", `{"org":"acme"}`)
		s.must(201, "PUT", "/api/assistants/asst_globex", `{"org":"globex"}`)
		ours, theirs := s.accept("acme", 1), s.accept("globex", 1)
		acme := s.withToken(ofAcme)

		var texts []string
		for _, org := range []string{"globex", "initech"} {
			base := "/api/orgs/" + org
			for _, r := range [][3]string{
				{"GET", base + "/integrations"},
				{"GET", base + "/integrations/resend"},
				{"PUT", base + "/integrations/resend", resend},
				{"PATCH", base + "/integrations/resend", `{"is_active":false}`},
				{"DELETE", base + "/integrations/resend"},
				{"GET", base + "/assistants"},
				{"GET", base + "/agents"},
				{"GET", base + "/agents/inbound"},
				{"PUT", base + "/agents/inbound", `{"config":{}}`},
				{"DELETE", base + "/agents/inbound"},
				{"POST", base + "/integrations/resend/webhook-test"},
				{"GET", base + "/integrations/nosuch"},
				{"GET", "/api/audit?org=" + org},
				{"GET", "/api/audit?format=jsonl&org=" + org},
				{"GET", "/api/webhooks/deliveries?org=" + org},
				{"PUT", "/api/assistants/asst_new", `{"org":"` + org + `"}`},
			} {
				a := acme.ask(r[0], r[1], r[2])
				p := acme.isProblem(a, 404, "not_found")
				texts = append(texts, p.Detail)
			}
		}
		for _, text := range texts {
			if text != texts[0] {
				t.Errorf("one is not like the other: %q, %q", text, texts[0])
			}
		}
		for _, id := range []string{"asst_globex", "asst_none"} {
			acme.refuse(404, "unknown_assistant", "GET", "/api/assistants/"+id, "")
			acme.refuse(404, "unknown_assistant", "DELETE", "/api/assistants/"+id, "")
		}
		acme.refuse(404, "unknown_assistant", "PUT", "/api/assistants/asst_globex", `{"org":"acme"}`)
		if a := s.must(200, "GET", "/api/assistants/asst_globex", ""); a.object(t)["org"] != "globex" {
			t.Error("it was taken away all the same")
		}
		for _, id := range []string{theirs.ID, "wd_none"} {
			acme.refuse(404, "not_found", "GET", "/api/webhooks/deliveries/"+id, "")
			acme.refuse(404, "not_found", "POST", "/api/webhooks/deliveries/"+id+"/redeliver", "")
		}
		for _, r := range [][3]string{
			{"GET", "/api/callers"},
			{"POST", "/api/callers", `{"name":"x","orgs":["acme"]}`},
			{"DELETE", "/api/callers/x"},
			{"GET", "/api/stats"},
			{"GET", "/api/admin-tokens"},
			{"POST", "/api/admin-tokens", operator},
			{"DELETE", "/api/admin-tokens/" + acme.id},
		} {
			acme.refuse(403, "role_forbidden", r[0], r[1], r[2])
		}

		// Its own.
		acme.must(200, "GET", acmeTwilio, "")
		if a := acme.must(200, "GET", "/api/orgs", ""); strings.TrimSpace(a.body) != `{"items":[{"org":"acme"}],"next_cursor":""}` {
			t.Errorf("%s", a.body)
		}
		if a := acme.must(200, "GET", "/api/orgs?cursor=acme", ""); strings.Contains(a.body, "acme") {
			t.Errorf("%s", a.body)
		}
		if a := acme.must(200, "GET", "/api/assistants", ""); !strings.Contains(a.body, "asst_acme") || strings.Contains(a.body, "globex") {
			t.Errorf("%s", a.body)
		}
		acme.must(200, "PUT", "/api/assistants/asst_acme", `{"role":"inbound"}`)
		acme.must(201, "PUT", "/api/assistants/asst_new", `{"org":"acme"}`, "If-None-Match: *")
		acme.refuse(412, "version_conflict", "PUT", "/api/assistants/asst_new", `{}`, `If-Match: "7"`)
		acme.must(204, "DELETE", "/api/assistants/asst_new", "")
		acme.must(201, "PUT", "/api/orgs/acme/agents/outbound", `{"config":{}}`)
		for _, path := range []string{"/api/webhooks/deliveries", "/api/webhooks/deliveries?org=acme"} {
			if a := acme.must(200, "GET", path, ""); !strings.Contains(a.body, ours.ID) || strings.Contains(a.body, theirs.ID) {
				t.Errorf("%s", a.body)
			}
		}
		acme.must(200, "POST", "/api/webhooks/deliveries/"+ours.ID+"/redeliver", "")
		for _, path := range []string{"/api/audit", "/api/audit?tail=100", "/api/audit?org=acme"} {
			a := acme.must(200, "GET", path, "")
			for _, item := range a.object(t)["items"].([]any) {
				if org := item.(map[string]any)["org"]; org != "acme" {
					t.Errorf("an event of %v is shown", org)
				}
			}
		}
		if a := acme.must(200, "GET", "/api/audit?format=jsonl", ""); strings.Contains(a.body, `"org":"globex"`) || !strings.Contains(a.body, `"org":"acme"`) {
			t.Errorf("%s", a.body)
		}
		acme.must(200, "GET", "/api/providers", "")
		acme.must(200, "GET", "/api/openapi.json", "")

		// What it reached for is in the audit log, as its own org's.
		reached, err := s.db.Events(t.Context(), store.EventFilter{Org: "acme", Actor: "admin token acme-backend", Action: "credential.show", Result: "not_found"})
		if err != nil || len(reached) == 0 || reached[0].Detail != "reached for org globex" {
			t.Errorf("%+v %v", reached, err)
		}
		other, err := s.db.Events(t.Context(), store.EventFilter{Org: "globex", Actor: "admin token acme-backend"})
		if err != nil || len(other) != 0 {
			t.Errorf("%+v %v", other, err)
		}
	})
}

func TestShortPathsAreForTheTokensOrg(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	acme := s.withToken(ofAcme)
	const own = "/api/integrations/twilio"
	acme.must(201, "PUT", own, twilioBody(twilioSID, twilioToken))
	shown := acme.must(200, "GET", own, "")
	if shown.object(t)["org"] != "acme" || shown.header.Get("ETag") != `"1"` {
		t.Errorf("%s", shown.body)
	}
	acme.must(200, "PATCH", own, `{"is_active":false}`, `If-Match: "1"`)
	if a := acme.must(200, "GET", "/api/integrations", ""); len(a.object(t)["items"].([]any)) != 1 {
		t.Errorf("%s", a.body)
	}
	acme.refuse(404, "not_found", "GET", "/api/integrations/resend", "")
	acme.refuse(409, "webhooks_off", "POST", own+"/webhook-test", "")
	acme.must(204, "DELETE", own, "")
	events, err := s.db.Events(t.Context(), store.EventFilter{Org: "acme", Target: "twilio", Result: "webhooks_off"})
	if err != nil || len(events) != 1 || events[0].Action != "webhook.test" {
		t.Errorf("%+v %v", events, err)
	}
	// An operator is bound to no org, on the socket or with a token.
	s.refuse(400, "org_required", "GET", "/api/integrations", "")
	s.refuse(400, "org_required", "PUT", own, twilioBody(twilioSID, twilioToken))
	s.withToken(operator).refuse(400, "org_required", "DELETE", own, "")
}

func TestTokenOnTheSocketNarrowsItsPeer(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	acme := s.withToken(ofAcme)
	s.must(200, "GET", "/api/orgs/acme/integrations", "", acme.header)
	s.refuse(404, "not_found", "GET", "/api/orgs/globex/integrations", "", acme.header)
	s.refuse(403, "role_forbidden", "GET", "/api/admin-tokens", "", acme.header)
	s.refuse(403, "role_forbidden", "PUT", "/api/local/disabled/acme/twilio", "", acme.header)
	s.refuse(401, "unauthenticated", "GET", "/api/orgs", "", "Authorization: Bearer kwa"+strings.Repeat("0", 43))
}

func TestOnlyOneBearerTokenIsTaken(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	ops := s.withToken(operator)
	token := strings.TrimPrefix(ops.header, "Authorization: Bearer ")
	refuse := func(headers ...string) {
		t.Helper()
		s.isProblem(s.askAt("http://"+s.tcp, "GET", "/api/orgs", "", headers...), 401, "unauthenticated")
	}
	refuse("Authorization: Basic " + token)
	refuse("Authorization: " + token)
	refuse("Authorization: ")
	refuse(ops.header, ops.header)
	refuse("Cookie: token=" + token)
	refuse("Keyward-Token: " + token)
	callers := s.must(201, "POST", "/api/callers", `{"name":"w","orgs":["*"]}`).object(t)["token"].(string)
	refuse("Authorization: Bearer " + callers) // a caller is no admin
	for _, good := range []string{"Authorization: bearer " + token, "Authorization: Bearer  " + token} {
		if a := s.askAt("http://"+s.tcp, "GET", "/api/orgs", "", good); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

// A web page cannot use a token that it came by, and no page can make the browser send one.
func TestTokensDoNotWorkFromOtherPages(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	ops := s.withToken(operator)
	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		ops.refuse(403, "browser_request", method, "/api/callers", "", "Origin: https://evil.example")
		ops.refuse(403, "browser_request", method, "/api/callers", "", "Sec-Fetch-Site: cross-site")
		ops.refuse(403, "host_forbidden", method, "/api/callers", "", "Host: evil.example")
	}
	a := s.askAt("http://"+s.tcp, "OPTIONS", "/api/callers", "", "Origin: https://evil.example", "Access-Control-Request-Method: POST")
	if a.status != 403 || a.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("%d %v", a.status, a.header)
	}
	ops.must(200, "GET", "/api/callers", "", "Origin: http://"+s.tcp)

	open := newServer(t, sqliteURL(t), func(o *Options) { o.AnyHost = true })
	ops = open.withToken(operator)
	ops.must(200, "GET", "/api/callers", "", "Host: keyward.internal")
	ops.refuse(403, "browser_request", "GET", "/api/callers", "", "Host: keyward.internal", "Origin: https://evil.example")
}

func TestGuessingIsLimited(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	known, fresh := s.withToken(operator), s.withToken(ofAcme)
	known.must(200, "GET", "/api/orgs", "")
	guess := func(i int) answer {
		return s.askAt("http://"+s.tcp, "GET", "/api/orgs", "", "Authorization: Bearer kwa"+fmt.Sprintf("%043d", i))
	}
	for i := range guessesPerPeer {
		s.isProblem(guess(i), 401, "unauthenticated")
	}
	for i := range 5 {
		a := guess(1000 + i)
		s.isProblem(a, 429, "rate_limited")
		if a.header.Get("Retry-After") == "" || a.header.Get("Retry-After") == "0" {
			t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
		}
	}
	events, err := s.db.Events(t.Context(), store.EventFilter{Action: "admin-token.guess"})
	if err != nil || len(events) != 1 || !strings.HasPrefix(events[0].Actor.From, "127.0.0.1:") {
		t.Errorf("the audit log should have one line about it: %+v %v", events, err)
	}
	known.must(200, "GET", "/api/orgs", "")                   // who is in stays in
	fresh.refuse(429, "rate_limited", "GET", "/api/orgs", "") // a right guess is no better than a wrong one
	s.must(200, "GET", "/api/orgs", "")                       // the socket is another door
	if a := s.askAt("http://"+s.tcp, "GET", "/readyz", ""); a.status != 200 {
		t.Errorf("probes are not guesses: %d", a.status)
	}
}

func TestWhoAsksIsToldWhoItIs(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	ops := s.must(201, "POST", "/api/admin-tokens", `{"name":"ops","role":"operator"}`).object(t)["token"].(string)
	acme := s.must(201, "POST", "/api/admin-tokens", `{"name":"backend","org":"acme"}`).object(t)["token"].(string)
	for token, want := range map[string]string{
		ops:  `{"name":"admin token ops","role":"operator","org":""}`,
		acme: `{"name":"admin token backend","role":"org","org":"acme"}`,
	} {
		if a := s.askAt("http://"+s.tcp, "GET", "/api/whoami", "", "Authorization: Bearer "+token); a.status != 200 || strings.TrimSpace(a.body) != want {
			t.Errorf("%d %s, want %s", a.status, a.body, want)
		}
	}
}
