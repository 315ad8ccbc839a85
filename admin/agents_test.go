package admin

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/keyward/keyward/store"
)

const acmeInbound = "/api/orgs/acme/agents/inbound"

func TestAgents(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		s.refuse(404, "not_found", "GET", acmeInbound, "")
		s.refuse(404, "not_found", "DELETE", acmeInbound, "")
		s.refuse(404, "not_found", "PATCH", acmeInbound, `{"name":"x"}`)
		a := s.must(201, "PUT", acmeInbound, `{"name":"Front desk","config": {"voice":{"provider":"11labs", "speed":1.0},"firstMessage":"Hi \u0000 <b>&"} }`)
		if a.header.Get("ETag") != `"1"` {
			t.Errorf("ETag %s", a.header.Get("ETag"))
		}
		shown := s.must(200, "GET", acmeInbound, "").object(t)
		if fmt.Sprintln(shown["org"], shown["role"], shown["name"], shown["version"]) != "acme inbound Front desk 1\n" {
			t.Errorf("%v", shown)
		}
		row, err := s.db.Agent(t.Context(), "acme", store.Inbound)
		if err != nil || string(row.Config) != `{"voice":{"provider":"11labs","speed":1.0},"firstMessage":"Hi \u0000 <b>&"}` {
			t.Errorf("%s %v", row.Config, err)
		}
		s.must(200, "PUT", acmeInbound, `{"config":{"model":{}}}`)
		if got := s.must(200, "GET", acmeInbound, "").object(t); got["name"] != "" || fmt.Sprint(got["config"]) != "map[model:map[]]" {
			t.Errorf("a part outlived its replacement: %v", got)
		}
		s.must(201, "PUT", "/api/orgs/acme/agents/outbound", `{"config":{}}`)
		s.walk("/api/orgs/acme/agents", "role", []string{"inbound", "outbound"})
		s.walk("/api/orgs/globex/agents", "role", nil)

		s.refuse(412, "version_conflict", "PUT", acmeInbound, `{"config":{}}`, `If-Match: "1"`)
		s.refuse(412, "version_conflict", "PUT", acmeInbound, `{"config":{}}`, "If-None-Match: *")
		s.refuse(412, "version_conflict", "PATCH", acmeInbound, `{"name":"x"}`, `If-Match: "1"`)
		s.refuse(412, "version_conflict", "DELETE", acmeInbound, "", `If-Match: "1"`)
		s.must(200, "PATCH", acmeInbound, `{"name":"x"}`, `If-Match: "2"`)
		s.must(204, "DELETE", acmeInbound, "", `If-Match: "3"`)
		if a := s.must(201, "PUT", acmeInbound, `{"config":{}}`); a.header.Get("ETag") != `"5"` {
			t.Errorf("a version was given twice: %s", a.header.Get("ETag"))
		}
	})
}

func TestMalformedAgentsAreRefused(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	names := func(field, body string) {
		t.Helper()
		p := s.refuse(400, "bad_request", "PUT", acmeInbound, body)
		if len(p.Errors) == 0 || p.Errors[0].Field != field {
			t.Errorf("%.200s: %+v", body, p)
		}
	}
	names("config", `{}`)
	names("config", `{"name":"x","config":null}`)
	for _, bad := range []string{`[]`, `"x"`, `1`, `true`} {
		names("config", `{"config":`+bad+`}`)
		s.must(201, "PUT", "/api/orgs/acme/agents/outbound", `{"config":{}}`)
		s.refuse(400, "bad_request", "PATCH", "/api/orgs/acme/agents/outbound", `{"config":`+bad+`}`)
		s.must(204, "DELETE", "/api/orgs/acme/agents/outbound", "")
	}
	names("config", `{"config":{"prompt":"`+strings.Repeat("x", maxConfig)+`"}}`)
	names("name", `{"config":{},"name":"a\u0007b"}`)
	names("name", `{"config":{},"name":7}`)
	names("voice", `{"config":{},"voice":{}}`)
	names("a", `{"config":{"x":{"a":1,"a":2}}}`)
	s.refuse(400, "bad_request", "PUT", acmeInbound, `{"config":{"a":"`+"\xff"+`"}}`)
	s.refuse(400, "bad_request", "PUT", acmeInbound, `{"config":`+strings.Repeat(`{"a":`, 40)+`1`+strings.Repeat(`}`, 40)+`}`)
	s.refuse(404, "not_found", "PUT", "/api/orgs/acme/agents/sideways", `{"config":{}}`)
	s.refuse(404, "not_found", "GET", acmeInbound, "")
}

// A configuration is shown, so it must hold no secret; and the refusal does not repeat it.
func TestAgentsHoldNoSecrets(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	for at, config := range map[string]string{
		"config.server.secret":                `{"server":{"url":"https://x.example","secret":"s3cret-value"}}`,
		"config.serverUrlSecret":              `{"serverUrlSecret":"s3cret-value"}`,
		"config.tools[1].server.secret":       `{"tools":[{},{"server":{"secret":"s3cret-value"}}]}`,
		"config.transport.twilioAuthToken":    `{"transport":{"twilioAuthToken":"s3cret-value"}}`,
		"config.headers.Authorization":        `{"headers":{"Authorization":"Bearer s3cret-value"}}`,
		"config.credentials[0].api_key":       `{"credentials":[{"api_key":"s3cret-value"}]}`,
		"config.server.headers.x-vapi-secret": `{"server":{"headers":{"x-vapi-secret":"s3cret-value"}}}`,
		"config.body.password":                `{"body":{"password":"s3cret-value"}}`,
	} {
		p := s.refuse(400, "bad_request", "PUT", acmeInbound, `{"config":`+config+`}`)
		if len(p.Errors) != 1 || p.Errors[0].Field != at {
			t.Errorf("%s: %+v", at, p.Errors)
		}
	}
	s.must(201, "PUT", acmeInbound, `{"config":{"model":{"maxTokens":250,"tools":[{"function":{"parameters":{"properties":{"password":{"type":"string"},"token":{}}}}}]},"server":{"secret":""}}}`)
	s.refuse(400, "bad_request", "PATCH", acmeInbound, `{"config":{"server":{"secret":"s3cret-value"}}}`)
	if text := s.log.String() + s.must(200, "GET", "/api/audit", "").body + s.must(200, "GET", acmeInbound, "").body; strings.Contains(text, "s3cret") {
		t.Error("a refused secret is somewhere")
	}
	many := s.refuse(400, "bad_request", "PUT", acmeInbound, `{"config":{"l":[`+strings.Repeat(`{"secret":"x"},`, 5000)+`{}]}}`)
	if len(many.Errors) > maxNamed {
		t.Errorf("%d are named", len(many.Errors))
	}
}

// The cases of RFC 7396, appendix A, that begin with an object, and what they leave out: order and numbers stay as they were.
func TestMergePatch(t *testing.T) {
	is := func(target, patch, want string) {
		t.Helper()
		if got := string(mergePatch([]byte(target), []byte(patch))); got != want || !json.Valid([]byte(got)) {
			t.Errorf("%s with %s is %s, want %s", target, patch, got, want)
		}
	}
	is(`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`)
	is(`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`)
	is(`{"a":"b"}`, `{"a":null}`, `{}`)
	is(`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`)
	is(`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`)
	is(`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`)
	is(`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`)
	is(`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`)
	is(`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`)
	is(`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`)
	is(`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`)
	is(`{"z":1.50,"y":1e400,"x":"ä"}`, `{"y":{}}`, `{"z":1.50,"y":{},"x":"ä"}`)
}

func TestConcurrentPatchesOfAnAgentLoseNothing(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		s.must(201, "PUT", acmeInbound, `{"config":{}}`)
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				if a := s.ask("PATCH", acmeInbound, fmt.Sprintf(`{"config":{"n%d":%d}}`, i, i)); a.status != 200 {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
		wg.Wait()
		if got := s.must(200, "GET", acmeInbound, "").object(t)["config"].(map[string]any); len(got) != 6 {
			t.Errorf("%v", got)
		}
	})
}
