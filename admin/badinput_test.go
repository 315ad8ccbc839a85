package admin

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/standin"
)

// samples are well-formed credentials, by provider.
func samples(t testing.TB) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for _, s := range standin.Sample("acme") {
		fields := map[string]any{}
		if err := json.Unmarshal(s.JSON(), &fields); err != nil {
			t.Fatal(err)
		}
		all[s.Provider] = fields
	}
	if len(all) != len(provider.All) {
		t.Fatalf("samples of %d providers", len(all))
	}
	return all
}

// Every field of every provider, spoilt in every way, is refused by its name, and what it held is nowhere.
func TestEveryFieldOfEveryProviderSpoilt(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	const mark = "SPOILT"
	spoilt := map[string]any{
		"a number": 12345, "true": true, "an object of nothing known": map[string]any{mark: mark}, "too long": mark + strings.Repeat("x", 9000),
		"a line break": mark + "\nX-Injected: 1", "a carriage return": mark + "\r", "a NUL": mark + "\x00", "a list in a list": []any{[]any{mark}},
		"a list of numbers": []any{1}, "an escape": mark + "\x1b[2J", "half a surrogate": json.RawMessage(`"` + mark + `\ud800\n"`),
	}
	n := 0
	for name, fields := range samples(t) {
		p := provider.Named(name)
		path := "/api/orgs/acme/integrations/" + name
		s.must(201, "PUT", path, body(t, fields))
		for _, f := range p.Fields {
			for what, v := range spoilt {
				all := map[string]any{}
				for k, good := range fields {
					all[k] = good
				}
				all[f.Name] = v
				for _, method := range []string{"PUT", "PATCH"} {
					sent := body(t, all)
					if method == "PATCH" {
						sent = body(t, map[string]any{f.Name: v})
					}
					refused := s.refuse(400, "bad_request", method, path, sent)
					if !strings.Contains(fmt.Sprint(refused.Errors), f.Name) {
						t.Errorf("%s of %s is %s: not named: %+v", f.Name, name, what, refused)
					}
					n++
				}
			}
		}
		if a := s.must(200, "GET", path, ""); a.header.Get("ETag") != `"1"` {
			t.Errorf("%s: a refused change made version %s", name, a.header.Get("ETag"))
		}
	}
	if log, audit := s.log.String(), s.must(200, "GET", "/api/audit?format=jsonl", "").body; strings.Contains(log+audit, mark) {
		t.Error("what was refused is repeated")
	}
	if n < 500 {
		t.Errorf("only %d cases", n)
	}
}

func body(t testing.TB, fields map[string]any) string {
	t.Helper()
	b, err := json.Marshal(map[string]any{"credentials": fields})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Whatever JSON can be bad for is bad for every route that reads a body.
func TestEveryBodySpoilt(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	deep := strings.Repeat(`[`, 10_000) + strings.Repeat(`]`, 10_000)
	for _, r := range routes() {
		if r.method == "GET" || r.method == "DELETE" || strings.HasPrefix(r.path, ownIntegrations) {
			continue
		}
		path := strings.NewReplacer("{org}", "acme", "{provider}", "twilio", "{assistant}", "asst_1", "{role}", "inbound", "{delivery}", "wd_none").Replace(r.path)
		for what, body := range map[string]string{
			"no JSON": "x", "a half": `{"name":`, "two": `{}{}`, "a list": `[]`, "a text": `"x"`, "null": `null`, "white space": " ",
			"a name twice": `{"name":"a","name":"b"}`, "an unknown name": `{"nonsense":1}`, "deep": `{"config":` + deep + `}`, "no UTF-8": "{\"name\":\"\xff\"}",
			"a comment": `{} // x`, "a trailing comma": `{"name":"x",}`, "a byte order mark": "\ufeff{}", "NaN": `{"name":NaN}`,
		} {
			if a := s.ask(r.method, path, body); a.status != 400 {
				t.Errorf("%s %s with %s: %d %s", r.method, path, what, a.status, a.body)
			}
		}
		s.refuse(413, "body_too_large", r.method, path, `{"name":"`+strings.Repeat("x", maxBody)+`"}`)
		if a := s.ask(r.method, path, `{"NAME":"x"}`); a.status != 400 {
			t.Errorf("%s %s takes a name in capitals: %d", r.method, path, a.status)
		}
	}
}

// A parameter that a route does not know is refused by every route, or a misspelt filter would list everything.
func TestEveryUnknownParameterIsRefused(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	s.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken))
	s.must(201, "PUT", acmeInbound, `{"config":{}}`)
	s.must(201, "PUT", "/api/assistants/asst_1", `{"org":"acme"}`)
	d := s.accept("acme", 1)
	for _, r := range routes() {
		// Google may add parameters to the callback's.
		if r.path == "/healthz" || r.path == callbackPath || strings.HasPrefix(r.path, ownIntegrations) {
			continue
		}
		path := strings.NewReplacer("{org}", "acme", "{provider}", "twilio", "{assistant}", "asst_1", "{role}", "inbound", "{delivery}", d.ID, "{caller}", "w", "{token}", "t").Replace(r.path)
		for _, query := range []string{"?limt=5", "?%zz", "?limit=1&limit=2&x=1", "?;"} {
			if a := s.ask(r.method, path+query, ""); a.status != 400 {
				t.Errorf("%s %s%s: %d", r.method, path, query, a.status)
			}
		}
	}
}

// Cursors that nobody gave are refused or find nothing; on PostgreSQL too, which takes not every text.
func TestMadeUpCursors(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		for _, path := range []string{
			"/api/orgs", "/api/orgs/acme/integrations", "/api/orgs/acme/assistants", "/api/orgs/acme/agents", "/api/assistants", "/api/callers", "/api/admin-tokens",
			"/api/webhooks/deliveries", "/api/audit",
		} {
			for _, cursor := range []string{"%00", "%FF", "'", "-1", "9223372036854775808", "%F0%9F%92%A9", strings.Repeat("z", 5000)} {
				if a := s.ask("GET", path+"?cursor="+cursor, ""); a.status != 200 && a.status != 400 {
					t.Errorf("%s?cursor=%.20s: %d %s", path, cursor, a.status, a.body)
				}
			}
		}
		for _, path := range []string{"/api/callers/", "/api/admin-tokens/", "/api/webhooks/deliveries/", "/api/assistants/", "/api/orgs/acme/integrations/", "/api/orgs/acme/agents/"} {
			for _, id := range []string{"%00", "%FF", "%2F", "'", "%F0%9F%92%A9", strings.Repeat("z", 5000)} {
				if a := s.ask("DELETE", path+id, ""); a.status != 400 && a.status != 404 && a.status != 405 {
					t.Errorf("DELETE %s%.20s: %d %s", path, id, a.status, a.body)
				}
			}
		}
		for _, filter := range []string{"org", "actor", "action", "target", "result"} {
			s.must(200, "GET", "/api/audit?"+filter+"=%00%FF", "")
		}
	})
}

// Two admins change the same thing at once: with the version that both have read, one of them is told; without, both are done, one after
// the other.
func TestTwoAdminsAtOnce(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		s, other := newServer(t, url), (*server)(nil)
		other = newServer(t, url)
		other.keeper.Keys = s.keeper.Keys
		for path, sent := range map[string]string{
			"/api/orgs/acme/agents/inbound": `{"config":{}}`, "/api/assistants/asst_1": `{"org":"acme"}`,
		} {
			s.must(201, "PUT", path, sent)
			var mu sync.Mutex
			got := map[int]int{}
			var wg sync.WaitGroup
			for _, admin := range []*server{s, other} {
				wg.Go(func() {
					a := admin.ask("PUT", path, sent, `If-Match: "1"`)
					mu.Lock()
					defer mu.Unlock()
					got[a.status]++
				})
			}
			wg.Wait()
			if got[200] != 1 || got[412] != 1 {
				t.Errorf("%s: %v", path, got)
			}
			for _, admin := range []*server{s, other} {
				wg.Go(func() {
					if a := admin.ask("PUT", path, sent); a.status != 200 {
						t.Errorf("%s: %d %s", path, a.status, a.body)
					}
				})
			}
			wg.Wait()
			if a := s.must(200, "GET", path, ""); a.header.Get("ETag") != `"4"` {
				t.Errorf("%s: ETag %s", path, a.header.Get("ETag"))
			}
		}
	})
}

// Names that users set come back as they were given, as JSON that no page takes for markup.
func TestNamesAreNoMarkup(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	const evil = `<script>alert(1)</script>"'&`
	quoted, _ := json.Marshal(evil)
	s.must(201, "PUT", "/api/assistants/asst_1", `{"org":"acme","name":`+string(quoted)+`,"role":`+string(quoted)+`}`)
	s.must(201, "PUT", acmeInbound, `{"config":{"firstMessage":`+string(quoted)+`},"name":`+string(quoted)+`}`)
	s.must(201, "POST", "/api/admin-tokens", `{"role":"operator","name":`+string(quoted)+`}`)
	s.must(201, "POST", "/api/callers", `{"orgs":["acme"],"name":`+string(quoted)+`}`)
	for _, path := range []string{"/api/assistants/asst_1", acmeInbound, "/api/admin-tokens", "/api/callers", "/api/audit"} {
		a := s.must(200, "GET", path, "")
		if strings.Contains(a.body, "<script") || a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %v %s", path, a.header, a.body)
		}
	}
	if got := s.must(200, "GET", "/api/assistants/asst_1", "").object(t); got["name"] != evil {
		t.Errorf("%v", got["name"])
	}
}
