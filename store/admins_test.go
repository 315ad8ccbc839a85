package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestAdminTokens(t *testing.T) { onBoth(t, testAdminTokens) }

func testAdminTokens(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	add := func(name, role, org string) *AdminToken {
		t.Helper()
		a := &AdminToken{Name: name, Hash: sha256.Sum256([]byte(name)), Role: role, Org: org}
		ok(t, d.PutAdminToken(ctx, by, a))
		return a
	}
	ops, acme := add("ops", RoleOperator, ""), add("acme-backend", RoleOrg, "acme")
	got, err := d.AdminToken(ctx, acme.Hash)
	ok(t, err)
	same(t, got, acme)
	_, err = d.AdminToken(ctx, [32]byte{})
	is(t, err, ErrNotFound)
	got, err = d.AdminTokenByID(ctx, acme.ID)
	ok(t, err)
	same(t, got, acme)
	for _, none := range []string{"", "acme-backend", "\x00", "\xff"} {
		is(t, second(d.AdminTokenByID(ctx, none)), ErrNotFound)
	}
	is(t, d.PutAdminToken(ctx, by, &AdminToken{Name: "ops", Hash: sha256.Sum256([]byte("other")), Role: RoleOperator}), ErrConflict)
	for _, bad := range []*AdminToken{{Name: "x", Role: RoleOrg}, {Name: "x", Role: RoleOperator, Org: "acme"}, {Name: "x", Role: "root"}} {
		if err := d.PutAdminToken(ctx, by, bad); err == nil {
			t.Errorf("%+v is stored", bad)
		}
	}

	used := stamp(time.Now())
	ok(t, d.AdminTokenUsed(ctx, ops.ID, used))
	got, err = d.AdminToken(ctx, ops.Hash)
	ok(t, err)
	same(t, got.LastUsedAt, used)

	// Another sidecar sees a revocation at once: nobody keeps a copy.
	other := e.open(t)
	_, err = other.AdminToken(ctx, acme.Hash)
	ok(t, err)
	gone, err := d.RevokeAdminToken(ctx, by, "acme-backend")
	ok(t, err)
	same(t, gone.ID, acme.ID)
	_, err = other.AdminToken(ctx, acme.Hash)
	is(t, err, ErrNotFound)
	for _, none := range []string{"acme-backend", acme.ID, "\x00", "\xff"} {
		is(t, second(d.RevokeAdminToken(ctx, by, none)), ErrNotFound)
	}
	ok(t, second(d.RevokeAdminToken(ctx, by, ops.ID)))
	ok(t, d.AdminTokenUsed(ctx, ops.ID, used)) // too late, and no error
	rows, next, err := d.AdminTokens(ctx, "", 0)
	if err != nil || len(rows) != 0 || next != "" {
		t.Errorf("revoked ones are listed: %v %q %v", rows, next, err)
	}
	// The name is free again.
	ok(t, d.PutAdminToken(ctx, by, &AdminToken{Name: "ops", Hash: sha256.Sum256([]byte("new")), Role: RoleOperator}))

	events, err := d.Events(ctx, EventFilter{Org: "acme"})
	ok(t, err)
	if len(events) != 2 || events[0].Action != "admin-token.add" || events[1].Action != "admin-token.revoke" || events[1].Target != "acme-backend" {
		t.Errorf("%+v", events)
	}
}

func TestAdminTokensPageByPage(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d := e.open(t)
		for i := range 5 {
			ok(t, d.PutAdminToken(t.Context(), by, &AdminToken{Name: fmt.Sprint("t", i), Hash: [32]byte{byte(i)}, Role: RoleOperator}))
		}
		seen, cursor := map[string]bool{}, ""
		for {
			rows, next, err := d.AdminTokens(t.Context(), cursor, 2)
			ok(t, err)
			for _, r := range rows {
				seen[r.Name] = true
			}
			if cursor = next; next == "" {
				break
			}
		}
		same(t, len(seen), 5)
	})
}

func TestAgents(t *testing.T) { onBoth(t, testAgents) }

func testAgents(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	agent := func(name string) *Agent {
		return &Agent{Org: "acme", Role: Inbound, Name: name, Config: []byte(`{"voice":{"provider":"11labs"},"n":1.50,"t":"a\u0000b"}`)}
	}
	_, err := d.Agent(ctx, "acme", Inbound)
	is(t, err, ErrNotFound)
	is(t, d.PutAgent(ctx, by, agent("x"), 1), ErrConflict)
	first := agent("Front desk")
	ok(t, d.PutAgent(ctx, by, first, 0))
	got, err := d.Agent(ctx, "acme", Inbound)
	ok(t, err)
	same(t, got, first)
	same(t, string(got.Config), string(agent("").Config)) // to the byte
	is(t, d.PutAgent(ctx, by, agent("again"), 0), ErrConflict)
	second := agent("Night desk")
	ok(t, d.PutAgent(ctx, by, second, 1))
	if second.Version != 2 || !second.CreatedAt.Equal(first.CreatedAt) {
		t.Errorf("%+v", second)
	}
	is(t, d.PutAgent(ctx, by, agent("stale"), 1), ErrConflict)
	ok(t, d.PutAgent(ctx, by, agent("whatever is there"), -1))
	ok(t, d.PutAgent(ctx, by, &Agent{Org: "acme", Role: Outbound, Config: []byte("{}")}, -1))
	rows, err := d.Agents(ctx, "acme")
	ok(t, err)
	if len(rows) != 2 || rows[0].Role != Inbound || rows[1].Role != Outbound || rows[0].Version != 3 {
		t.Errorf("%+v", rows)
	}
	orgs, _, err := d.Orgs(ctx, "", 0)
	ok(t, err)
	same(t, orgs, []string{"acme"})
	if d.PutAgent(ctx, by, &Agent{Org: "acme", Role: "sideways", Config: []byte("{}")}, 0) == nil || d.PutAgent(ctx, by, &Agent{Org: "-", Role: Inbound}, 0) == nil {
		t.Error("a malformed agent is stored")
	}

	is(t, d.DeleteAgent(ctx, by, "acme", Inbound, 2), ErrConflict)
	ok(t, d.DeleteAgent(ctx, by, "acme", Inbound, 3))
	is(t, d.DeleteAgent(ctx, by, "acme", Inbound, 0), ErrNotFound)
	is(t, d.PutAgent(ctx, by, agent("back from the dead"), 3), ErrConflict)
	last := agent("new")
	ok(t, d.PutAgent(ctx, by, last, 0))
	same(t, last.Version, int64(5)) // the deletion had one too
}

// Of two who write an agent from the same version, one wins.
func TestAgentsAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, ctx := e.open(t), context.Background()
		ok(t, d.PutAgent(ctx, by, &Agent{Org: "acme", Role: Inbound, Config: []byte("{}")}, 0))
		won := 0
		for _, err := range atOnce(8, func(int) error {
			return d.PutAgent(ctx, by, &Agent{Org: "acme", Role: Inbound, Config: []byte("{}")}, 1)
		}) {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, ErrConflict):
				t.Error(err)
			}
		}
		same(t, won, 1)
	})
}

func TestCounts(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, ctx := e.open(t), t.Context()
		put(t, d, acmeTwilio)
		put(t, d, Ref{"globex", "twilio"})
		put(t, d, Ref{"globex", "resend"})
		_, err := d.SetActive(ctx, by, acmeTwilio, false, 0)
		ok(t, err)
		_, err = d.AcceptDelivery(ctx, &Delivery{Org: "acme", Provider: "vapi", Target: "http://127.0.0.1:1"})
		ok(t, err)
		got, err := d.Counts(ctx)
		ok(t, err)
		same(t, d.Engine(), e.name)
		b, err := d.Backlog(ctx)
		ok(t, err)
		if age := time.Since(b.Oldest); b.Pending != 1 || b.Dead != 0 || age < 0 || age > time.Minute {
			t.Errorf("%+v", b)
		}
		if n := d.Stats().Reads.Load(); n == 0 || d.Stats().ReadsUnavailable.Load() != 0 {
			t.Errorf("%d reads", n)
		}
		same(t, got, Counts{Orgs: 2, Active: map[string]int64{"twilio": 1, "resend": 1}, Disabled: map[string]int64{"twilio": 1}, Pending: 1})
	})
}
