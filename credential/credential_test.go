package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/internal/storetest"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

var (
	by         = store.Actor{Name: "test", From: "process"}
	acmeGoogle = store.Ref{Org: "acme", Provider: "google_calendar"}
	acmeTwilio = store.Ref{Org: "acme", Provider: "twilio"}
)

func googleValues(refresh string) provider.Values {
	return provider.Values{
		"client_id": {Text: "1234-x.apps.googleusercontent.com"}, "client_secret": {Text: "GOCSPX-0123456789abcdefghijklmnopqr"}, "refresh_token": {Text: refresh},
	}
}

func twilioValues(token string) provider.Values {
	return provider.Values{"account_sid": {Text: "AC0123456789abcdef0123456789abcdef"}, "auth_token": {Text: token}}
}

// newKeeper is a Keeper over a fresh store.
func newKeeper(t testing.TB, url string) *Keeper {
	t.Helper()
	db, err := store.Open(t.Context(), url, store.Options{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &Keeper{DB: db, Keys: seal.Generate()}
}

var sqliteURL = storetest.SQLite

func engines(t *testing.T, test func(t *testing.T, k *Keeper)) {
	t.Run("sqlite", func(t *testing.T) { test(t, newKeeper(t, sqliteURL(t))) })
	t.Run("postgres", func(t *testing.T) { test(t, newKeeper(t, storetest.Postgres(t))) })
}

// sealed is a row that no store has seen.
func sealed(keys *seal.Keyring, ref store.Ref, version int64, values provider.Values) *store.Credential {
	c := &store.Credential{Ref: ref, Version: version, SealedVersion: version, Active: true}
	c.Sealed = keys.Seal(nil, values.Encode(nil), c.AppendContext(nil))
	return c
}

func TestOpenGivesTheFields(t *testing.T) {
	keys := seal.Generate()
	row := sealed(keys, acmeTwilio, 1, twilioValues("9f8e7d6c5b4a39281706f5e4d3c2b1a0"))
	for _, scratch := range [][]byte{nil, make([]byte, 3), make([]byte, 0, 8192)} {
		s, grown, err := Open(keys, row, scratch)
		if err != nil || string(s.Field("auth_token")) != "9f8e7d6c5b4a39281706f5e4d3c2b1a0" {
			t.Fatalf("with scratch of %d: %v", cap(scratch), err)
		}
		s.Wipe()
		if all := grown[:cap(grown)]; bytes.Contains(all, []byte("9f8e7")) {
			t.Error("the memory that comes back still holds the secret after Wipe")
		}
	}
}

// A row that was moved, in any way, does not open.
func TestOpenOnlyForWhatItWasSealedFor(t *testing.T) {
	keys := seal.Generate()
	refuse := func(what string, change func(c *store.Credential)) {
		t.Helper()
		row := sealed(keys, acmeTwilio, 3, twilioValues("9f8e7d6c5b4a39281706f5e4d3c2b1a0"))
		change(row)
		if _, _, err := Open(keys, row, nil); !errors.Is(err, ErrUnreadable) || !errors.Is(err, seal.ErrOpen) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refuse("another org", func(c *store.Credential) { c.Org = "globex" })
	refuse("another provider", func(c *store.Credential) { c.Provider = "resend" })
	refuse("another version", func(c *store.Credential) { c.SealedVersion = 2 })
	refuse("a letter moved from org to provider", func(c *store.Credential) { c.Org, c.Provider = "acm", "etwilio" })
	refuse("a changed byte", func(c *store.Credential) { c.Sealed[len(c.Sealed)-1] ^= 1 })
	refuse("another keyring's", func(c *store.Credential) {
		*c = *sealed(seal.Generate(), acmeTwilio, 3, twilioValues("9f8e7d6c5b4a39281706f5e4d3c2b1a0"))
	})
	refuse("nothing", func(c *store.Credential) { c.Sealed = nil })
}

// Whoever may write to the store exchanges what is sealed, with the columns that go with it or without: of any two rows, of all orgs,
// providers, versions and keys, none opens in the other's place.
func TestNoTwoRowsCanBeSwapped(t *testing.T) {
	keys := seal.Generate()
	var rows []*store.Credential
	for turn := range 3 {
		for _, org := range []string{"acme", "acme.", "globex", "a"} {
			for _, name := range []string{"twilio", "vapi", "resend", "elevenlabs", "google_calendar"} {
				for version := range int64(3) {
					c := sealed(keys, store.Ref{Org: org, Provider: name}, version+1, twilioValues(fmt.Sprint(org, name, version, turn)))
					c.KeyID = keys.PrimaryID()
					rows = append(rows, c)
				}
			}
		}
		added := keys.Add()
		if err := keys.Promote(added.ID); err != nil {
			t.Fatal(err)
		}
	}
	tried := 0
	for i, a := range rows {
		for j, b := range rows {
			if a.Ref == b.Ref && a.SealedVersion == b.SealedVersion {
				continue // the same row, sealed by an older key: it says the same
			}
			swapped, whole := *a, *b
			swapped.Sealed, swapped.KeyID = b.Sealed, b.KeyID
			whole.Ref = a.Ref
			for _, row := range []*store.Credential{&swapped, &whole} {
				if row == &whole && a.Ref == b.Ref {
					continue // an older version brought back whole is the store's to refuse
				}
				tried++
				if _, _, err := Open(keys, row, nil); !errors.Is(err, ErrUnreadable) {
					t.Fatalf("row %d in the place of row %d: %v", j, i, err)
				}
			}
		}
	}
	if tried < 50_000 {
		t.Errorf("%d swaps tried", tried)
	}
}

func TestOpenAllocatesNothing(t *testing.T) {
	keys := seal.Generate()
	row := sealed(keys, acmeTwilio, 1, twilioValues("9f8e7d6c5b4a39281706f5e4d3c2b1a0"))
	scratch := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		s, b, err := Open(keys, row, scratch)
		if err != nil {
			t.Fatal(err)
		}
		s.Wipe()
		scratch = b[:0]
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkOpen(b *testing.B) {
	keys := seal.Generate()
	row := sealed(keys, acmeTwilio, 1, twilioValues("9f8e7d6c5b4a39281706f5e4d3c2b1a0"))
	scratch := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		s, grown, err := Open(keys, row, scratch)
		if err != nil {
			b.Fatal(err)
		}
		s.Wipe()
		scratch = grown[:0]
	}
}

func TestPutAndValues(t *testing.T) {
	engines(t, func(t *testing.T, k *Keeper) {
		first, err := k.Put(t.Context(), by, acmeTwilio, twilioValues(strings.Repeat("1a", 16)), PutOptions{})
		if err != nil || first.Version != 1 || !first.Active || first.KeyID != k.Keys.PrimaryID() {
			t.Fatalf("%+v %v", first, err)
		}
		if bytes.Contains(first.Sealed, []byte("1a1a1a")) {
			t.Error("sealed holds the plain token")
		}
		if _, err := k.Put(t.Context(), by, acmeTwilio, twilioValues(strings.Repeat("2b", 16)), PutOptions{}); err != nil {
			t.Fatal(err)
		}
		row, values, err := k.Values(t.Context(), acmeTwilio)
		if err != nil || row.Version != 2 || values["auth_token"].Text != strings.Repeat("2b", 16) {
			t.Errorf("version %d: %v", row.Version, err)
		}
		owner, err := k.DB.AccountOwner(t.Context(), "twilio", "account_sid", "AC0123456789abcdef0123456789abcdef")
		if err != nil || owner != "acme" {
			t.Errorf("the account belongs to %q: %v", owner, err)
		}
	})
}

func TestPutRefuses(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	refuse := func(want error, ref store.Ref, v provider.Values, o PutOptions) {
		t.Helper()
		if _, err := k.Put(t.Context(), by, ref, v, o); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	good := twilioValues(strings.Repeat("1a", 16))
	one, none := int64(1), int64(0)
	refuse(ErrUnknownProvider, store.Ref{Org: "acme", Provider: "nosuch"}, good, PutOptions{})
	refuse(store.ErrConflict, acmeTwilio, good, PutOptions{IfVersion: &one})
	var invalid *InvalidError
	if _, err := k.Put(t.Context(), by, acmeTwilio, provider.Values{}, PutOptions{}); !errors.As(err, &invalid) || len(invalid.Fields) == 0 {
		t.Errorf("an empty credential: %v", err)
	}
	if _, err := k.Put(t.Context(), by, acmeTwilio, good, PutOptions{IfVersion: &none}); err != nil {
		t.Error(err)
	}
	refuse(store.ErrConflict, acmeTwilio, good, PutOptions{IfVersion: &none})
	refuse(store.ErrClaimed, store.Ref{Org: "globex", Provider: "twilio"}, good, PutOptions{})
}

func TestConcurrentPutsGetAVersionEach(t *testing.T) {
	engines(t, func(t *testing.T, k *Keeper) {
		const writers = 10
		versions := make([]int64, writers)
		var wg sync.WaitGroup
		for i := range writers {
			wg.Go(func() {
				c, err := k.Put(t.Context(), by, acmeTwilio, twilioValues(fmt.Sprintf("%032x", i)), PutOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				versions[i] = c.Version
			})
		}
		wg.Wait()
		row, values, err := k.Values(t.Context(), acmeTwilio)
		if err != nil {
			t.Fatal(err)
		}
		if row.Version != writers {
			t.Errorf("%d writes made version %d", writers, row.Version)
		}
		for i, v := range versions {
			if v == row.Version && values["auth_token"].Text != fmt.Sprintf("%032x", i) {
				t.Errorf("writer %d was told it wrote version %d, which holds another's token", i, v)
			}
		}
	})
}

func TestConcurrentPatchesLoseNothing(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	if _, err := k.Put(t.Context(), by, acmeTwilio, twilioValues(strings.Repeat("1a", 16)), PutOptions{}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, change := range []string{`{"from_number":"+15550001"}`, `{"whatsapp_number":"+15550002"}`, `{"messaging_service_sid":"MG0123456789abcdef0123456789abcdef"}`, `{"region":"ie1","edge":"dublin"}`} {
		wg.Go(func() {
			if _, err := k.Patch(t.Context(), by, acmeTwilio, Patch{Fields: []byte(change)}); err != nil {
				t.Errorf("%s: %v", change, err)
			}
		})
	}
	wg.Wait()
	_, v, err := k.Values(t.Context(), acmeTwilio)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(v["from_number"].Text, v["whatsapp_number"].Text, v["messaging_service_sid"].Text, v["region"].Text, v["edge"].Text),
		"+15550001+15550002MG0123456789abcdef0123456789abcdefie1dublin"; strings.ReplaceAll(got, " ", "") != want {
		t.Errorf("%s", got)
	}
}

// A patched list and object come through as they were: what is not named is read back from what it was sealed as.
func TestPatchKeepsListsAndObjects(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	ref := store.Ref{Org: "acme", Provider: "vapi"}
	p := provider.Named("vapi")
	v, problems := p.Parse([]byte(`{"api_key":"0b9f1c1e-6f55-4b7e-9a54-f1d3f3b0a111","webhook_secret":["first-secret-<&>","second-secret"],"webhook_auth":{"type":"hmac","prefix":"<&>"}}`))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if _, err := k.Put(t.Context(), by, ref, v, PutOptions{}); err != nil {
		t.Fatal(err)
	}
	_, before, _ := k.Values(t.Context(), ref)
	if _, err := k.Patch(t.Context(), by, ref, Patch{Fields: []byte(`{"public_key":"1b9f1c1e-6f55-4b7e-9a54-f1d3f3b0a222"}`)}); err != nil {
		t.Fatal(err)
	}
	_, after, err := k.Values(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	delete(after, "public_key")
	if string(after.Encode(nil)) != string(before.Encode(nil)) {
		t.Error("a patch of one field changed another")
	}
}

func TestReplaceFieldIsForTheContentItWasMadeFrom(t *testing.T) {
	engines(t, func(t *testing.T, k *Keeper) {
		ctx := t.Context()
		first, err := k.Put(ctx, by, acmeGoogle, googleValues("1//first-refresh-token"), PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		// Disabling changes the row's version, and not what is sealed in it.
		if _, err := k.DB.SetActive(ctx, by, acmeGoogle, false, 0); err != nil {
			t.Fatal(err)
		}
		next, err := k.ReplaceField(ctx, by, acmeGoogle, "refresh_token", []byte("1//rotated-refresh-token"), first.SealedVersion)
		if err != nil || next.Active {
			t.Fatalf("%+v %v", next, err)
		}
		if got := k.refresh(t); got != "1//rotated-refresh-token" {
			t.Errorf("%s", got)
		}
		if _, err := k.Put(ctx, by, acmeGoogle, googleValues("1//other-consent-token"), PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := k.ReplaceField(ctx, by, acmeGoogle, "refresh_token", []byte("1//too-late-token"), next.SealedVersion); !errors.Is(err, store.ErrConflict) {
			t.Errorf("a token of the old consent: %v", err)
		}
		if got := k.refresh(t); got != "1//other-consent-token" {
			t.Errorf("%s", got)
		}
	})
}

func (k *Keeper) refresh(t *testing.T) string {
	t.Helper()
	_, v, err := k.Values(context.Background(), acmeGoogle)
	if err != nil {
		t.Fatal(err)
	}
	return v["refresh_token"].Text
}

func TestInvalidErrorSaysAll(t *testing.T) {
	err := &InvalidError{[]provider.FieldError{{Field: "a", Problem: "is missing"}, {Field: "b", Problem: "must be a number"}}}
	if got, want := err.Error(), "invalid credential: a is missing; b must be a number"; got != want {
		t.Errorf("%q", got)
	}
}
