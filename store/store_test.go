package store

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestStore(t *testing.T) {
	for name, test := range map[string]func(*testing.T, engine){
		"Credential":          testCredential,
		"VersionsNeverRepeat": testVersionsNeverRepeat,
		"Compare":             testCompare,
		"Accounts":            testAccounts,
		"Assistant":           testAssistant,
		"Token":               testToken,
		"Listings":            testListings,
		"Audit":               testAudit,
		"AuditOrNothing":      testAuditOrNothing,
		"OddText":             testOddText,
	} {
		t.Run(name, func(t *testing.T) { onBoth(t, test) })
	}
}

func testCredential(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	_, _, err := d.Credential(ctx, acmeTwilio)
	is(t, err, ErrNotFound)

	began := stamp(time.Now())
	c := sealed(acmeTwilio, 1)
	c.LastVerifiedAt, c.VerificationError = began.Add(-time.Hour).In(time.FixedZone("east", 5*3600)), "401"
	ok(t, d.PutCredential(ctx, by, c))
	got, cached, err := d.Credential(ctx, acmeTwilio)
	ok(t, err)
	if cached || got.CreatedAt.Before(began) || got.CreatedAt.After(time.Now()) || got.CreatedAt.Location() != time.UTC {
		t.Fatalf("cached %v, created at %v", cached, got.CreatedAt)
	}
	same(t, got, &Credential{
		Ref: acmeTwilio, Sealed: c.Sealed, KeyID: "k1", Version: 1, SealedVersion: 1, Active: true,
		LastVerifiedAt: began.Add(-time.Hour), VerificationError: "401", CreatedAt: c.CreatedAt, UpdatedAt: c.CreatedAt,
	})

	second := put(t, d, acmeTwilio)
	same(t, second.CreatedAt, got.CreatedAt)
	if !second.UpdatedAt.After(got.UpdatedAt) {
		t.Fatalf("updated at %v, after %v", second.UpdatedAt, got.UpdatedAt)
	}

	v, err := d.SetActive(ctx, by, acmeTwilio, false, 2)
	ok(t, err)
	ok(t, d.SetVerified(ctx, by, acmeTwilio, 3, Verification{began, Invalid, "the provider said no"}))
	got, _, err = d.Credential(ctx, acmeTwilio)
	ok(t, err)
	if v != 3 || got.Version != 4 || got.SealedVersion != 2 || got.Active || !got.LastVerifiedAt.Equal(began) || got.VerificationError != "the provider said no" {
		t.Fatalf("%d, %+v", v, got)
	}
	if !bytes.Equal(got.Sealed, second.Sealed) {
		t.Fatal("what was sealed changed")
	}

	ok(t, d.DeleteCredential(ctx, by, acmeTwilio, 4))
	_, _, err = d.Credential(ctx, acmeTwilio)
	is(t, err, ErrNotFound)
	if err := d.PutCredential(ctx, by, sealed(Ref{"-acme", "twilio"}, 1)); err == nil {
		t.Fatal("a malformed org id was stored")
	}
}

func testVersionsNeverRepeat(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	latest := func(version int64, exists bool) {
		t.Helper()
		v, there, err := d.LatestVersion(ctx, acmeTwilio)
		ok(t, err)
		if v != version || there != exists {
			t.Fatalf("version %d, exists %v; want %d, %v", v, there, version, exists)
		}
	}
	latest(0, false)
	put(t, d, acmeTwilio)
	latest(1, true)
	ok(t, d.DeleteCredential(ctx, by, acmeTwilio, 0))
	latest(2, false)
	is(t, d.PutCredential(ctx, by, sealed(acmeTwilio, 1)), ErrConflict) // as if it had never been there
	is(t, d.PutCredential(ctx, by, sealed(acmeTwilio, 2)), ErrConflict) // as a change of what was deleted: would bring it back
	ok(t, d.PutCredential(ctx, by, sealed(acmeTwilio, 3)))
	latest(3, true)

	a := &Assistant{ID: "asst_1", Org: "acme"}
	ok(t, d.PutAssistant(ctx, by, a, 0))
	ok(t, d.DeleteAssistant(ctx, by, "asst_1", 1))
	ok(t, d.PutAssistant(ctx, by, a, 0))
	if a.Version != 3 {
		t.Fatalf("version %d after a deletion at 1", a.Version)
	}
}

func testCompare(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	missing := Ref{"acme", "vapi"}
	for what, err := range map[string]error{
		"put 2 before 1": d.PutCredential(ctx, by, sealed(missing, 2)),
		"put 0":          d.PutCredential(ctx, by, sealed(missing, 0)),
		"assistant at 3": d.PutAssistant(ctx, by, &Assistant{ID: "none", Org: "acme"}, 3),
	} {
		if !errors.Is(err, ErrConflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, noActive := d.SetActive(ctx, by, missing, true, 0)
	for what, err := range map[string]error{
		"enable":           noActive,
		"verify":           d.SetVerified(ctx, by, missing, 1, Verification{time.Now(), Valid, ""}),
		"delete":           d.DeleteCredential(ctx, by, missing, 0),
		"delete assistant": d.DeleteAssistant(ctx, by, "none", -1),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}

	put(t, d, acmeTwilio)
	put(t, d, acmeTwilio)
	ok(t, d.PutAssistant(ctx, by, &Assistant{ID: "asst_1", Org: "acme"}, 0))
	_, staleActive := d.SetActive(ctx, by, acmeTwilio, false, 1)
	for what, err := range map[string]error{
		"put again":        d.PutCredential(ctx, by, sealed(acmeTwilio, 2)),
		"put first":        d.PutCredential(ctx, by, sealed(acmeTwilio, 1)),
		"put later":        d.PutCredential(ctx, by, sealed(acmeTwilio, 4)),
		"disable":          staleActive,
		"verify":           d.SetVerified(ctx, by, acmeTwilio, 1, Verification{time.Now(), Valid, ""}),
		"delete":           d.DeleteCredential(ctx, by, acmeTwilio, 1),
		"new assistant":    d.PutAssistant(ctx, by, &Assistant{ID: "asst_1", Org: "globex"}, 0),
		"stale assistant":  d.PutAssistant(ctx, by, &Assistant{ID: "asst_1", Org: "globex"}, 2),
		"delete assistant": d.DeleteAssistant(ctx, by, "asst_1", 2),
	} {
		if !errors.Is(err, ErrConflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
	c, _, err := d.Credential(ctx, acmeTwilio)
	ok(t, err)
	a, err := d.Assistant(ctx, "asst_1")
	ok(t, err)
	if c.Version != 2 || !c.Active || a.Version != 1 || a.Org != "acme" {
		t.Fatalf("a refused write changed something: %+v, %+v", c, a)
	}
	v, err := d.SetActive(ctx, by, acmeTwilio, false, 0)
	ok(t, err)
	if v != 3 {
		t.Fatalf("version %d", v)
	}
}

func testAccounts(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	owned := func(id, org string) {
		t.Helper()
		got, err := d.AccountOwner(ctx, "elevenlabs", "agent_ids", id)
		if org == "" {
			is(t, err, ErrNotFound)
			return
		}
		ok(t, err)
		same(t, got, org)
	}
	agents := func(ids ...string) []Account {
		var all []Account
		for _, id := range ids {
			all = append(all, Account{"agent_ids", id})
		}
		return all
	}
	acme, globex := Ref{"acme", "elevenlabs"}, Ref{"globex", "elevenlabs"}
	put(t, d, acme, agents("b", "a", "a")...)
	owned("a", "acme")
	put(t, d, acme, agents("b", "c")...)
	owned("a", "")
	owned("c", "acme")

	err := d.PutCredential(ctx, by, sealed(globex, 1, agents("d", "c")...))
	is(t, err, ErrClaimed)
	var claimed *ClaimedError
	if !errors.As(err, &claimed) || *claimed != (ClaimedError{"elevenlabs", "agent_ids", "c"}) || strings.Contains(err.Error(), "acme") {
		t.Fatalf("%v", err)
	}
	owned("d", "")
	_, _, err = d.Credential(ctx, globex)
	is(t, err, ErrNotFound)

	if _, err := d.SetActive(ctx, by, acme, false, 0); err != nil {
		t.Fatal(err)
	}
	owned("c", "acme") // disabled is not given up
	ok(t, d.DeleteCredential(ctx, by, acme, 0))
	owned("c", "")
	put(t, d, globex, agents("d", "c")...)
	owned("c", "globex")
	put(t, d, Ref{"acme", "vapi"}, agents("c")...) // of another provider
	owned("c", "globex")
}

func testAssistant(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	_, err := d.Assistant(ctx, "asst_1")
	is(t, err, ErrNotFound)
	a := &Assistant{ID: "asst_1", Org: "acme", Role: "inbound", Name: "Front desk – Zürich"}
	ok(t, d.PutAssistant(ctx, by, a, 0))
	got, err := d.Assistant(ctx, "asst_1")
	ok(t, err)
	same(t, got, a)
	if a.Version != 1 || a.CreatedAt.IsZero() || !a.LastUsedAt.IsZero() {
		t.Fatalf("%+v", a)
	}
	moved := &Assistant{ID: "asst_1", Org: "globex"}
	ok(t, d.PutAssistant(ctx, by, moved, 1))
	ok(t, d.PutAssistant(ctx, by, moved, -1))
	got, err = d.Assistant(ctx, "asst_1")
	ok(t, err)
	same(t, got, moved)
	if got.Version != 3 || got.Org != "globex" || !got.CreatedAt.Equal(a.CreatedAt) || !got.UpdatedAt.After(a.UpdatedAt) {
		t.Fatalf("%+v", got)
	}
	ok(t, d.PutAssistant(ctx, by, &Assistant{ID: "asst_2", Org: "acme"}, -1))
	ok(t, d.DeleteAssistant(ctx, by, "asst_1", 3))
	_, err = d.Assistant(ctx, "asst_1")
	is(t, err, ErrNotFound)
}

func testToken(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	token := &Token{
		Name: "worker", Hash: [32]byte{0, 1, 255}, Orgs: []string{"acme", "globex"}, Providers: []string{"*"}, Rate: "50/s burst 200",
		Allow: []string{`POST /2010-04-01/Accounts/*/Messages.json`, `GET /"quoted",[list]`}, SecretRoutes: true,
	}
	_, err := d.Token(ctx, token.Hash)
	is(t, err, ErrNotFound)
	ok(t, d.PutToken(ctx, by, token))
	got, err := d.Token(ctx, token.Hash)
	ok(t, err)
	same(t, got, token)
	if !regexp.MustCompile(`^ct_[a-z2-7]{16}$`).MatchString(got.ID) || got.CreatedAt.IsZero() {
		t.Fatalf("%+v", got)
	}
	is(t, d.PutToken(ctx, by, &Token{Name: "worker", Hash: [32]byte{2}}), ErrConflict)
	is(t, d.PutToken(ctx, by, &Token{Name: "other", Hash: token.Hash}), ErrConflict)

	_, err = d.RevokeToken(ctx, by, "nobody")
	is(t, err, ErrNotFound)
	revoked, err := d.RevokeToken(ctx, by, "worker")
	ok(t, err)
	same(t, revoked, token)
	_, err = d.Token(ctx, token.Hash)
	is(t, err, ErrNotFound)
	_, err = d.RevokeToken(ctx, by, token.ID)
	is(t, err, ErrNotFound)
	is(t, d.PutToken(ctx, by, &Token{Name: "other", Hash: token.Hash}), ErrConflict) // revoked for good

	again := &Token{Name: "worker", Hash: [32]byte{3}}
	ok(t, d.PutToken(ctx, by, again))
	// A name that looks like another's id does not hide it.
	ok(t, d.PutToken(ctx, by, &Token{Name: again.ID, Hash: [32]byte{4}}))
	revoked, err = d.RevokeToken(ctx, by, again.ID)
	ok(t, err)
	same(t, revoked.Hash, [32]byte{3})
	if len(revoked.Orgs)+len(revoked.Providers)+len(revoked.Allow) != 0 {
		t.Fatalf("%+v", revoked)
	}
}

// pages reads a listing to its end, two rows at a time.
func pages[T any](t *testing.T, list func(after string, limit int) ([]T, string, error), key func(T) string) []string {
	t.Helper()
	var all []string
	for after := ""; ; {
		rows, next, err := list(after, 2)
		ok(t, err)
		if len(rows) > 2 || next != "" && len(rows) != 2 {
			t.Fatalf("a page of %d, next %q", len(rows), next)
		}
		for _, r := range rows {
			all = append(all, key(r))
		}
		if next == "" {
			return all
		}
		after = next
	}
}

func testListings(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	for i, org := range []string{"b", "B", "a-1", "a.1", "a1", "a_1"} {
		put(t, d, Ref{org, "twilio"})
		ok(t, d.PutAssistant(ctx, by, &Assistant{ID: fmt.Sprintf("asst_%d", i), Org: org}, 0))
		ok(t, d.PutToken(ctx, by, &Token{ID: fmt.Sprintf("ct_%d", i), Name: org, Hash: [32]byte{byte(i)}}))
	}
	for _, p := range []string{"vapi", "resend", "elevenlabs"} {
		put(t, d, Ref{"b", p})
	}
	ok(t, d.PutAssistant(ctx, by, &Assistant{ID: "asst_9", Org: "only-assistants"}, 0))
	ok(t, d.PutAssistant(ctx, by, &Assistant{ID: "asst_8", Org: "b"}, 0))
	_, err := d.RevokeToken(ctx, by, "ct_3")
	ok(t, err)

	// By their bytes, whatever the locale.
	same(t, pages(t, func(after string, n int) ([]string, string, error) { return d.Orgs(ctx, after, n) }, strings.Clone),
		[]string{"B", "a-1", "a.1", "a1", "a_1", "b", "only-assistants"})
	same(t, pages(t, func(after string, n int) ([]*Credential, string, error) { return d.Credentials(ctx, "b", after, n) },
		func(c *Credential) string { return c.Provider }), []string{"elevenlabs", "resend", "twilio", "vapi"})
	id := func(a *Assistant) string { return a.ID }
	same(t, pages(t, func(after string, n int) ([]*Assistant, string, error) { return d.Assistants(ctx, "b", after, n) }, id),
		[]string{"asst_0", "asst_8"})
	same(t, len(pages(t, func(after string, n int) ([]*Assistant, string, error) { return d.Assistants(ctx, "", after, n) }, id)), 8)
	same(t, pages(t, func(after string, n int) ([]*Token, string, error) { return d.Tokens(ctx, after, n) }, func(t *Token) string { return t.ID }),
		[]string{"ct_0", "ct_1", "ct_2", "ct_4", "ct_5"})

	var all []string
	ok(t, d.EachCredential(ctx, func(c *Credential) error { all = append(all, c.Org+"/"+c.Provider); return nil }))
	if len(all) != 9 || !slices.IsSorted(all) {
		t.Fatalf("%v", all)
	}
	stop := errors.New("stop")
	is(t, d.EachCredential(ctx, func(*Credential) error { return stop }), stop)

	rows, next, err := d.Credentials(ctx, "nobody", "", 0)
	if err != nil || len(rows) != 0 || next != "" {
		t.Fatalf("%v, %q, %v", rows, next, err)
	}
}

// Ids come from requests: bytes that PostgreSQL takes for no text are an id that does not exist, not a broken store.
func testOddText(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	for _, odd := range []string{"a\x00b", "\xff\xfe", "'; DROP TABLE org_credentials; --", strings.Repeat("x", 100_000)} {
		_, _, err := d.Credential(ctx, Ref{odd, "twilio"})
		is(t, err, ErrNotFound)
		_, _, err = d.Credential(ctx, Ref{"acme", odd})
		is(t, err, ErrNotFound)
		_, err = d.Assistant(ctx, odd)
		is(t, err, ErrNotFound)
		_, err = d.AccountOwner(ctx, "twilio", "account_sid", odd)
		is(t, err, ErrNotFound)
		_, err = d.RevokeToken(ctx, by, odd)
		is(t, err, ErrNotFound)
		ok(t, d.AddEvent(ctx, Event{Actor: Actor{odd, odd}, Action: "x", Target: odd, Detail: odd}))
	}
	if events, err := d.Events(ctx, EventFilter{}); err != nil || len(events) != 4 || events[0].Target != "a\uFFFDb" {
		t.Fatalf("%v, %v", len(events), err)
	}
}

func TestIsOrg(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, good := range []string{"a", "9", "acme", "A.b_c-d", "550e8400-e29b-41d4-a716-446655440000", long} {
		if !IsOrg(good) || !IsOrg([]byte(good)) {
			t.Errorf("%q is refused", good)
		}
	}
	for _, bad := range []string{"", long + "a", ".a", "_a", "-a", "a/b", "a b", "a\x00", "ä", "a:b", "*"} {
		if IsOrg(bad) || IsOrg([]byte(bad)) {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// SQLite numbers parameters as they first appear, PostgreSQL by their name: a query serves both only when that is the same.
func TestParametersAppearInOrder(t *testing.T) {
	for _, q := range []string{
		selectCredential, listCredentials, eachCredential, listOrgs, updateCredential, insertCredential, setActive, setVerified, deleteCredential,
		hasCredential, selectOwner, ownAccounts, claimAccount, deleteAccount, versionAfter, versionFirst, versionNext, versionAny,
		selectAssistant, listAssistants, listOfOrg, updateAssistant, insertAssistant, deleteAssistant, hasAssistant,
		selectToken, listTokens, namedToken, insertToken, revokeToken, insertEvent,
		selectAdmin, listAdmins, namedAdmin, insertAdmin, revokeAdmin, touchAdmin, selectAgent, listAgents, updateAgent, insertAgent, deleteAgent, hasAgent,
	} {
		seen := map[string]bool{}
		for _, p := range regexp.MustCompile(`\$\d+`).FindAllString(q, -1) {
			if !seen[p] && p != fmt.Sprintf("$%d", len(seen)+1) {
				t.Errorf("%s out of order in %s", p, q)
			}
			seen[p] = true
		}
	}
}
