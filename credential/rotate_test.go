package credential

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

func stage(t *testing.T, k *Keeper, token string, overlap time.Duration) *store.Credential {
	t.Helper()
	row, err := k.Stage(t.Context(), by, acmeTwilio, twilioValues(token), overlap, PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// tokens are what the org's row holds: the credential in use, and the one beside it.
func (k *Keeper) tokens(t *testing.T) (now, former string) {
	t.Helper()
	row, values, err := k.Values(t.Context(), acmeTwilio)
	if err != nil {
		t.Fatal(err)
	}
	if old := row.Former(time.Now()); old != nil {
		had, err := k.Read(old)
		if err != nil {
			t.Fatal(err)
		}
		former = had["auth_token"].Text
	}
	return values["auth_token"].Text, former
}

var first, second, third = strings.Repeat("1a", 16), strings.Repeat("2b", 16), strings.Repeat("3c", 16)

func TestStagedCredentialHasTheFormerBesideIt(t *testing.T) {
	engines(t, func(t *testing.T, k *Keeper) {
		has := func(what, now, former string) {
			t.Helper()
			if n, f := k.tokens(t); n != now || f != former {
				t.Errorf("%s: %.4s with %.4s beside it, want %.4s with %.4s", what, n, f, now, former)
			}
		}
		putTwilio(t, k)
		stage(t, k, second, time.Hour)
		has("staged", second, first)
		if _, err := k.Stage(t.Context(), by, acmeTwilio, twilioValues(third), time.Hour, PutOptions{}); !errors.Is(err, ErrStaged) {
			t.Errorf("a third one: %v", err)
		}
		if _, err := k.Patch(t.Context(), by, acmeTwilio, Patch{Fields: []byte(`{"from_number":"+15550001"}`)}); err != nil {
			t.Fatal(err)
		}
		has("a patch keeps it", second, first)
		if _, err := k.DB.SetActive(t.Context(), by, acmeTwilio, false, 0); err != nil {
			t.Fatal(err)
		}
		has("disabling keeps it", second, first)
		if row, err := k.Unstage(t.Context(), by, acmeTwilio, nil); err != nil || row.Active {
			t.Fatalf("%+v %v", row, err)
		}
		has("taken back", first, "")
		stage(t, k, second, time.Hour)
		if _, err := k.Promote(t.Context(), by, acmeTwilio, nil); err != nil {
			t.Fatal(err)
		}
		has("promoted", second, "")
		stage(t, k, third, time.Hour)
		if _, err := k.Put(t.Context(), by, acmeTwilio, twilioValues(first), PutOptions{}); err != nil {
			t.Fatal(err)
		}
		has("replaced whole", first, "")
	})
}

func TestFormerCredentialRetiresByItself(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	putTwilio(t, k)
	stage(t, k, second, time.Hour)
	if err := k.Retire(t.Context(), by); err != nil {
		t.Fatal(err)
	}
	if _, former := k.tokens(t); former != first {
		t.Error("it was retired before its time")
	}
	if _, err := k.Unstage(t.Context(), by, acmeTwilio, nil); err != nil {
		t.Fatal(err)
	}
	row := stage(t, k, second, time.Millisecond)
	time.Sleep(5 * time.Millisecond)
	if row.Former(time.Now()) != nil {
		t.Error("its time is over, and requests would still use it")
	}
	if _, err := k.Unstage(t.Context(), by, acmeTwilio, nil); !errors.Is(err, ErrNotStaged) {
		t.Errorf("taking back what has retired: %v", err)
	}
	run(t, newVerifier(t, k, &oracle{answer: says(200, twilioKnows)}, func(o *VerifierOptions) { o.Every = 20 * time.Second })) // rounds of a second
	eventually(t, "the row holds it no more", func() bool {
		c, _, err := k.DB.Credential(t.Context(), acmeTwilio)
		return err == nil && c.Previous == nil
	})
}

// Both credentials' accounts are the org's meanwhile: webhooks of either are.
func TestAccountsOfBothAreClaimed(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	putTwilio(t, k)
	const other = "ACfedcba9876543210fedcba9876543210"
	owns := func(what string, want ...bool) {
		t.Helper()
		for i, sid := range []string{"AC0123456789abcdef0123456789abcdef", other} {
			owner, err := k.DB.AccountOwner(t.Context(), "twilio", "account_sid", sid)
			if (owner == "acme") != want[i] || err != nil && !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: %s is of %q, %v", what, sid, owner, err)
			}
		}
	}
	values := twilioValues(second)
	values["account_sid"] = provider.Value{Text: other}
	if _, err := k.Stage(t.Context(), by, acmeTwilio, values, time.Hour, PutOptions{}); err != nil {
		t.Fatal(err)
	}
	owns("staged", true, true)
	if _, err := k.Patch(t.Context(), by, acmeTwilio, Patch{Fields: []byte(`{"from_number":"+15550001"}`)}); err != nil {
		t.Fatal(err)
	}
	owns("patched", true, true)
	if _, err := k.Promote(t.Context(), by, acmeTwilio, nil); err != nil {
		t.Fatal(err)
	}
	owns("promoted", false, true)
}

func TestStageRefuses(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	refuse := func(what string, want error, ref store.Ref, v provider.Values, o PutOptions) {
		t.Helper()
		if _, err := k.Stage(t.Context(), by, ref, v, time.Hour, o); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	refuse("nothing to take the place of", store.ErrNotFound, acmeTwilio, twilioValues(second), PutOptions{})
	refuse("a consent", ErrNotForKeys, acmeGoogle, googleValues("1//x"), PutOptions{})
	putTwilio(t, k)
	stale := int64(7)
	refuse("a stale version", store.ErrConflict, acmeTwilio, twilioValues(second), PutOptions{IfVersion: &stale})
	o := &oracle{answer: says(401, twilioNever)}
	var refused *RefusedError
	if _, err := k.Stage(t.Context(), by, acmeTwilio, twilioValues(second), time.Hour, PutOptions{Check: newVerifier(t, k, o).Check}); !errors.As(err, &refused) {
		t.Errorf("an invalid one: %v", err)
	}
	if now, former := k.tokens(t); now != first || former != "" {
		t.Error("something was written")
	}
	if _, err := k.Promote(t.Context(), by, acmeTwilio, nil); !errors.Is(err, ErrNotStaged) {
		t.Errorf("promoting nothing: %v", err)
	}
	if _, err := k.Unstage(t.Context(), by, acmeTwilio, nil); !errors.Is(err, ErrNotStaged) {
		t.Errorf("taking nothing back: %v", err)
	}
}
