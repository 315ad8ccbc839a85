package store

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sealedBy is what has been sealed by which key, in rows.
func sealedBy(t *testing.T, d *DB) map[string]int64 {
	t.Helper()
	counts, err := d.SealCounts(t.Context())
	ok(t, err)
	rows := map[string]int64{}
	for _, c := range counts {
		if c.KeyID != "" {
			rows[c.KeyID] += c.Rows
		}
	}
	return rows
}

// resealAll re-seals everything to the key, in batches, and returns the rows as they were offered.
func resealAll(t *testing.T, d *DB, key string, limit int, each func(*SealedRow) bool) (offered []string, written int) {
	t.Helper()
	var at ResealCursor
	for {
		n, done, err := d.Reseal(t.Context(), by, key, &at, limit, func(r *SealedRow) bool {
			offered = append(offered, r.Name)
			if !each(r) {
				return false
			}
			r.Sealed = append([]byte(key+" "), r.Sealed...)
			return true
		})
		ok(t, err)
		written += n
		if done {
			return offered, written
		}
	}
}

func every(*SealedRow) bool { return true }

func TestReseal(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, ctx := e.open(t), t.Context()
		var refs []Ref
		for i := range 7 {
			refs = append(refs, Ref{fmt.Sprintf("org-%d", i), "twilio"}, Ref{fmt.Sprintf("org-%d", i), "vapi"})
		}
		before := map[Ref]*Credential{}
		for _, ref := range refs {
			put(t, d, ref)
			before[ref] = put(t, d, ref, Account{"account_sid", "of " + ref.key()})
		}
		w := follow(t, e.open(t))
		w.take()

		offered, written := resealAll(t, d, "k2", 4, every)
		if written != len(refs) || len(offered) != len(refs) {
			t.Errorf("%d rows offered and %d written of %d", len(offered), written, len(refs))
		}
		same(t, sealedBy(t, d), map[string]int64{"k2": int64(len(refs))})
		for _, ref := range refs {
			want := *before[ref]
			want.Sealed = append([]byte("k2 "), want.Sealed...)
			want.KeyID, want.Accounts = "k2", nil
			got, _, err := d.Credential(ctx, ref)
			ok(t, err)
			same(t, got, &want) // no version, no time, nothing else has changed
			owner, err := d.AccountOwner(ctx, ref.Provider, "account_sid", "of "+ref.key())
			ok(t, err)
			same(t, owner, ref.Org)
		}
		want := Change{KindCredential, "org-6"}
		if e.name == "sqlite" {
			want = Change{} // another process has written, and that is all that is known
		}
		eventually(t, "other sidecars hear of it", func() bool { return slices.Contains(w.take(), want) })
		events, err := d.Events(ctx, EventFilter{Action: "key.reseal"})
		ok(t, err)
		if len(events) != 4 || events[0].Target != "k2" || !strings.Contains(events[0].Detail, "org_credentials: 4 rows") {
			t.Errorf("%+v", events)
		}
		if offered, written := resealAll(t, d, "k2", 4, every); written != 0 || len(offered) != 0 {
			t.Errorf("a second pass offered %v", offered)
		}
	})
}

// A credential that stays beside another one is counted and re-sealed too: its key must not be retired under it.
func TestResealFormerCredentials(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, ctx := e.open(t), t.Context()
		ref := Ref{"acme", "resend"}
		old := put(t, d, ref)
		next := *old
		next.Version, next.SealedVersion, next.KeyID, next.Sealed = old.Version+1, old.Version+1, "k2", []byte("newer")
		next.Previous = &Previous{Sealed: old.Sealed, KeyID: old.KeyID, SealedVersion: old.SealedVersion, Until: time.Now().Add(time.Hour)}
		ok(t, d.PutCredential(ctx, by, &next))
		same(t, sealedBy(t, d), map[string]int64{old.KeyID: 1, "k2": 1})
		resealAll(t, d, "k2", 10, every)
		same(t, sealedBy(t, d), map[string]int64{"k2": 2})
		got, _, err := d.Credential(ctx, ref)
		ok(t, err)
		if got.Previous.KeyID != "k2" || string(got.Previous.Sealed) != "k2 "+string(old.Sealed) || string(got.Sealed) != "newer" || got.Version != next.Version {
			t.Errorf("%+v", got)
		}
	})
}

// What was written while a batch was being re-sealed stays as its writer left it.
func TestResealMeetsWriters(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, ctx := e.open(t), t.Context()
		replaced, disabled, deleted, alone := Ref{"a", "twilio"}, Ref{"b", "twilio"}, Ref{"c", "twilio"}, Ref{"d", "twilio"}
		for _, ref := range []Ref{replaced, disabled, deleted, alone} {
			put(t, d, ref)
		}
		var newest *Credential
		_, written := resealAll(t, d, "k2", 10, func(r *SealedRow) bool {
			switch r.Name {
			case replaced.key():
				newest = put(t, d, replaced)
			case disabled.key():
				_, err := d.SetActive(ctx, by, disabled, false, 0)
				ok(t, err)
			case deleted.key():
				ok(t, d.DeleteCredential(ctx, by, deleted, 0))
			}
			return true
		})
		same(t, written, 1)
		got, _, err := d.Credential(ctx, replaced)
		ok(t, err)
		if !bytes.Equal(got.Sealed, newest.Sealed) || got.Version != newest.Version {
			t.Errorf("a write was undone: %+v", got)
		}
		_, _, err = d.Credential(ctx, deleted)
		is(t, err, ErrNotFound)

		// They are found by the next pass.
		offered, written := resealAll(t, d, "k2", 10, every)
		if diff := cmp.Diff([]string{replaced.key(), disabled.key()}, offered); diff != "" || written != 2 {
			t.Errorf("%d written\n%s", written, diff)
		}
		got, _, err = d.Credential(ctx, disabled)
		ok(t, err)
		if got.Active || got.KeyID != "k2" {
			t.Errorf("%+v", got)
		}
	})
}

// A row that cannot be re-sealed is left, and keeps nobody from going on.
func TestResealLeavesRows(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d := e.open(t)
		for _, org := range []string{"a", "b", "c"} {
			put(t, d, Ref{org, "twilio"})
		}
		offered, written := resealAll(t, d, "k2", 1, func(r *SealedRow) bool { return r.Name != "b/twilio" })
		same(t, offered, []string{"a/twilio", "b/twilio", "c/twilio"})
		same(t, written, 2)
		same(t, sealedBy(t, d), map[string]int64{"k1": 1, "k2": 2})
	})
}

// The count of what a key has sealed is never below what it has: replaced and deleted rows count too.
func TestSealCounts(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, ctx := e.open(t), t.Context()
		counts, err := d.SealCounts(ctx)
		ok(t, err)
		same(t, counts, []SealCount{{Table: "org_credentials"}})
		put(t, d, Ref{"a", "twilio"})
		for range 3 {
			put(t, d, Ref{"b", "twilio"})
		}
		for range 2 {
			put(t, d, Ref{"c", "twilio"})
		}
		ok(t, d.DeleteCredential(ctx, by, Ref{"c", "twilio"}, 0)) // takes a version too
		resealAll(t, d, "k2", 10, func(r *SealedRow) bool { return r.Name == "a/twilio" })
		counts, err = d.SealCounts(ctx)
		ok(t, err)
		same(t, counts, []SealCount{
			{"org_credentials", "k1", 1, 3}, {"org_credentials", "k2", 1, 1}, {"org_credentials", "", 0, 3},
		})
	})
}
