package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/store"
)

// fill adds n events of the action.
func (s *server) fill(n int, action string) {
	s.t.Helper()
	for i := range n {
		if err := s.db.AddEvent(context.Background(), store.Event{Action: action, Org: fmt.Sprint("org", i%2), Target: fmt.Sprint(i), Result: "ok"}); err != nil {
			s.t.Fatal(err)
		}
	}
}

// events reads JSON lines.
func (s *server) events(a answer) (events []event) {
	s.t.Helper()
	if a.status != 200 || a.header.Get("Content-Type") != "application/x-ndjson" {
		s.t.Fatalf("%d %s %.200s", a.status, a.header.Get("Content-Type"), a.body)
	}
	for line := range strings.Lines(a.body) {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil || !strings.HasSuffix(line, "}\n") || e.ID == 0 || e.At.IsZero() {
			s.t.Fatalf("%v in %q", err, line)
		}
		events = append(events, e)
	}
	return events
}

func TestAuditIsExportedWholeAsJSONLines(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	n := 2*maxLimit + 10
	s.fill(n, "x")
	for _, how := range [][]string{{"/api/audit?action=x&format=jsonl"}, {"/api/audit?action=x", "Accept: application/x-ndjson"}, {"/api/audit?action=x", "Accept: text/html, application/jsonl;q=0.9"}} {
		got := s.events(s.ask("GET", how[0], "", how[1:]...))
		if len(got) != n || got[0].Target != "0" || got[n-1].Target != fmt.Sprint(n-1) {
			t.Errorf("%s: %d events", how, len(got))
		}
	}
	count := func(query string, want int) {
		t.Helper()
		if got := s.events(s.ask("GET", "/api/audit?format=jsonl&"+query, "")); len(got) != want {
			t.Errorf("%s: %d events, want %d", query, len(got), want)
		}
	}
	count("action=x&org=org1", n/2)
	count("action=x&limit=3", 3)
	count("action=x&limit=1000&cursor=5", 1000)
	count(fmt.Sprint("action=x&cursor=", n-2), 2)
	count("action=none", 0)
	count("action=x&tail=7", 7)
	count("action=audit.export", 9) // this one too; but not the last few, which are a page
	if a := s.must(200, "GET", "/api/audit?format=json&tail=1", "", "Accept: application/x-ndjson"); a.header.Get("Content-Type") != "application/json" {
		t.Errorf("format does not win: %s", a.header.Get("Content-Type"))
	}
	s.refuse(400, "bad_request", "GET", "/api/audit?format=csv", "")
}

// An export that cannot be finished does not look finished.
func TestAuditExportIsCutOffWhenTheStoreGoes(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	s.fill(3*maxLimit, strings.Repeat("x", 2000)) // more than what lies in buffers on the way
	req, err := http.NewRequest("GET", "http://keyward/api/audit?format=jsonl", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	_ = s.db.Close()
	lines := bufio.NewScanner(resp.Body)
	n := 0
	for lines.Scan() {
		n++
	}
	if lines.Err() == nil || n >= 3*maxLimit {
		t.Errorf("%d lines, and a clean end", n)
	}
}

func TestAuditBetweenTimes(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	for i := range 4 {
		at := time.Date(2026, 3, 1, 10, i, 0, 0, time.UTC)
		if err := s.db.AddEvent(t.Context(), store.Event{At: at, Action: "x", Target: fmt.Sprint(i), Result: map[bool]string{true: "ok", false: "conflict"}[i%2 == 0]}); err != nil {
			t.Fatal(err)
		}
	}
	is := func(query, want string) {
		t.Helper()
		got := ""
		for _, item := range s.must(200, "GET", "/api/audit?"+query, "").object(t)["items"].([]any) {
			got += item.(map[string]any)["target"].(string)
		}
		if got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	is("since=2026-03-01T10:01:00Z", "123")
	is("since="+url.QueryEscape("2026-03-01T11:01:00+01:00"), "123")
	is("until=2026-03-01T10:02:00Z", "01")
	is("since=2026-03-01T10:01:00Z&until=2026-03-01T10:02:00.5Z&result=ok", "2")
	is("result=conflict&tail=1", "3")
	for _, bad := range []string{"since=yesterday", "since=", "until=2026-03-01", "since=0001-01-01T00:00:00Z"} {
		s.refuse(400, "bad_request", "GET", "/api/audit?"+bad, "")
	}
}

// A write that is refused leaves an audit row that says who tried what, and why not.
func TestRefusedWritesAreAudited(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	s.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken))
	secret := "wrong-place-" + twilioToken
	s.ask("PUT", acmeTwilio, twilioBody(twilioSID, twilioToken), `If-Match: "9"`)
	s.ask("PUT", "/api/orgs/globex/integrations/twilio", twilioBody(twilioSID, twilioToken))
	s.ask("PUT", acmeTwilio, `{"credentials":{"`+secret+`":1}}`)
	s.ask("DELETE", "/api/orgs/acme/integrations/"+secret, "")
	s.ask("DELETE", "/api/assistants/asst_none", "")
	s.ask("DELETE", "/api/orgs/acme/agents/inbound", "")
	s.ask("DELETE", "/api/callers/"+secret, "")
	s.ask("DELETE", "/api/admin-tokens/at_aaaaaaaaaaaaaaaa", "")
	s.ask("POST", "/api/callers", `{"name":"`+secret+`"}`)
	s.ask("GET", "/api/orgs/acme/integrations/resend", "") // no write
	s.ask("POST", acmeTwilio, "")                          // there is no such write
	var got []string
	events, err := s.db.Events(t.Context(), store.EventFilter{AfterID: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		got = append(got, strings.Join([]string{e.Action, e.Org, e.Target, e.Result}, "|"))
		if !strings.HasPrefix(e.Actor.Name, "uid ") || strings.Contains(fmt.Sprint(e), twilioToken) {
			t.Errorf("%+v", e)
		}
	}
	want := []string{
		"credential.put|acme|twilio|version_conflict", "credential.put|globex|twilio|account_claimed", "credential.put|acme|twilio|bad_request",
		"credential.delete|acme||unknown_provider", "assistant.delete||asst_none|unknown_assistant", "agent.delete|acme|inbound|not_found",
		"caller.revoke|||not_found", "admin-token.revoke||at_aaaaaaaaaaaaaaaa|not_found", "caller.add|||bad_request",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
