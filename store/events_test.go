package store

import (
	"strings"
	"testing"
	"time"
)

func testAudit(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	put(t, d, acmeTwilio)
	_, err := d.SetActive(ctx, by, acmeTwilio, false, 0)
	ok(t, err)
	_, err = d.SetActive(ctx, by, acmeTwilio, true, 0)
	ok(t, err)
	ok(t, d.SetVerified(ctx, by, acmeTwilio, 3, Verification{time.Now(), Invalid, "401"}))
	ok(t, d.DeleteCredential(ctx, by, acmeTwilio, 0))
	ok(t, d.PutAssistant(ctx, by, &Assistant{ID: "asst_1", Org: "acme"}, 0))
	ok(t, d.DeleteAssistant(ctx, by, "asst_1", 0))
	token := &Token{Name: "worker", Orgs: []string{"acme"}}
	ok(t, d.PutToken(ctx, by, token))
	_, err = d.RevokeToken(ctx, by, "worker")
	ok(t, err)
	ok(t, d.AddEvent(ctx, Event{Actor: Actor{"uid 7", "caller socket"}, Action: "credential.list", Org: "globex", Result: "org_forbidden"}))
	is(t, d.PutCredential(ctx, by, sealed(acmeTwilio, 1)), ErrConflict) // leaves no trace

	events, err := d.Events(ctx, EventFilter{})
	ok(t, err)
	var lines []string
	for i, e := range events {
		if time.Since(e.At) > time.Minute || i > 0 && e.ID <= events[i-1].ID {
			t.Errorf("%+v", e)
		}
		lines = append(lines, strings.Join([]string{e.Actor.Name, e.Actor.From, e.Action, e.Org, e.Target, e.Result, e.Detail}, "|"))
	}
	who := by.Name + "|" + by.From + "|"
	same(t, lines, []string{
		who + "credential.put|acme|twilio|ok|version 1, key k1, active",
		who + "credential.disable|acme|twilio|ok|version 2",
		who + "credential.enable|acme|twilio|ok|version 3",
		who + "credential.verify|acme|twilio|ok|version 4: invalid, 401",
		who + "credential.delete|acme|twilio|ok|version 5",
		who + "assistant.put|acme|asst_1|ok|version 1",
		who + "assistant.delete|acme|asst_1|ok|version 2",
		who + "caller.add|acme|worker|ok|" + token.ID,
		who + "caller.revoke|acme|worker|ok|" + token.ID,
		"uid 7|caller socket|credential.list|globex||org_forbidden|",
	})

	some := func(f EventFilter, want ...int) {
		t.Helper()
		got, err := d.Events(ctx, f)
		ok(t, err)
		var wanted []Event
		for _, i := range want {
			wanted = append(wanted, events[i])
		}
		same(t, got, wanted)
	}
	some(EventFilter{Limit: 2}, 0, 1)
	some(EventFilter{Limit: 2, Newest: true}, 8, 9)
	some(EventFilter{AfterID: events[7].ID}, 8, 9)
	some(EventFilter{AfterID: events[9].ID})
	some(EventFilter{Org: "globex"}, 9)
	some(EventFilter{Actor: "uid 7"}, 9)
	some(EventFilter{Action: "credential.put"}, 0)
	some(EventFilter{Org: "acme", Target: "asst_1", Newest: true, Limit: 1}, 6)

	for _, statement := range []string{"UPDATE audit_log SET actor = 'nobody'", "DELETE FROM audit_log"} {
		if _, err := e.owns(t).w.ExecContext(forEvery(ctx), statement); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", statement, err)
		}
	}
	some(EventFilter{Limit: 1}, 0)
}

// What cannot be recorded does not happen.
func testAuditOrNothing(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	put(t, d, acmeTwilio, Account{"account_sid", "AC1"})
	ok(t, d.PutAssistant(ctx, by, &Assistant{ID: "asst_1", Org: "acme"}, 0))
	token := &Token{Name: "worker", Hash: [32]byte{1}}
	ok(t, d.PutToken(ctx, by, token))
	_, err := e.owns(t).w.ExecContext(ctx, "ALTER TABLE audit_log RENAME COLUMN detail TO gone")
	ok(t, err)

	_, noActive := d.SetActive(ctx, by, acmeTwilio, false, 0)
	_, noRevoke := d.RevokeToken(ctx, by, "worker")
	for what, err := range map[string]error{
		"put":              d.PutCredential(ctx, by, sealed(acmeTwilio, 2, Account{"account_sid", "AC2"})),
		"put new":          d.PutCredential(ctx, by, sealed(Ref{"globex", "twilio"}, 1, Account{"account_sid", "AC3"})),
		"disable":          noActive,
		"verify":           d.SetVerified(ctx, by, acmeTwilio, 1, Verification{time.Now(), Invalid, "no"}),
		"delete":           d.DeleteCredential(ctx, by, acmeTwilio, 0),
		"assistant":        d.PutAssistant(ctx, by, &Assistant{ID: "asst_1", Org: "globex"}, -1),
		"delete assistant": d.DeleteAssistant(ctx, by, "asst_1", 0),
		"token":            d.PutToken(ctx, by, &Token{Name: "other"}),
		"revoke":           noRevoke,
		"event":            d.AddEvent(ctx, Event{Action: "credential.show"}),
	} {
		if err == nil {
			t.Errorf("%s: done without a record", what)
		}
	}
	c, _, err := d.Credential(ctx, acmeTwilio)
	ok(t, err)
	a, err := d.Assistant(ctx, "asst_1")
	ok(t, err)
	if c.Version != 1 || !c.Active || !c.LastVerifiedAt.IsZero() || a.Version != 1 || a.Org != "acme" {
		t.Errorf("%+v, %+v", c, a)
	}
	_, err = d.Token(ctx, token.Hash)
	ok(t, err)
	for id, org := range map[string]string{"AC1": "acme", "AC2": "", "AC3": ""} {
		if got, _ := d.AccountOwner(ctx, "twilio", "account_sid", id); got != org {
			t.Errorf("%s belongs to %q", id, got)
		}
	}
	if orgs, _, err := d.Orgs(ctx, "", 0); err != nil || len(orgs) != 1 {
		t.Errorf("%v, %v", orgs, err)
	}
	if v, _, err := d.LatestVersion(ctx, acmeTwilio); err != nil || v != 1 {
		t.Errorf("%d, %v", v, err)
	}
}

func TestAuditBetweenTimes(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d := e.open(t)
		at := func(s string) time.Time {
			t.Helper()
			v, err := time.Parse(time.RFC3339Nano, s)
			ok(t, err)
			return v
		}
		for _, s := range []string{"2026-03-01T10:00:00Z", "2026-03-01T10:00:00.5Z", "2026-03-01T10:00:01Z", "2026-03-01T10:00:01.000001Z", "2026-03-01T10:00:02Z"} {
			ok(t, d.AddEvent(t.Context(), Event{At: at(s), Action: "x", Target: s[17:], Result: "ok"}))
		}
		some := func(f EventFilter, want string) {
			t.Helper()
			events, err := d.Events(t.Context(), f)
			ok(t, err)
			got := ""
			for _, e := range events {
				got += e.Target + " "
			}
			same(t, strings.TrimSpace(got), want)
		}
		some(EventFilter{Since: at("2026-03-01T10:00:00.5Z")}, "00.5Z 01Z 01.000001Z 02Z")
		some(EventFilter{Since: at("2026-03-01T11:00:01+01:00")}, "01Z 01.000001Z 02Z")
		some(EventFilter{Until: at("2026-03-01T10:00:01Z")}, "00Z 00.5Z")
		some(EventFilter{Since: at("2026-03-01T10:00:00.001Z"), Until: at("2026-03-01T10:00:02Z"), Result: "ok"}, "00.5Z 01Z 01.000001Z")
		some(EventFilter{Since: at("2026-03-01T10:00:00Z"), Newest: true, Limit: 2}, "01.000001Z 02Z")
		some(EventFilter{Result: "not_found"}, "")
		some(EventFilter{Actor: "\x00", Target: "\xff"}, "")
	})
}
