package store

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestClaimIsOneOwnersAtATime(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		ctx := t.Context()
		a, b := e.open(t), e.open(t)
		first, err := a.ClaimAssistant(ctx, "acme", Inbound, "one", time.Minute)
		ok(t, err)
		if _, err := b.ClaimAssistant(ctx, "acme", Inbound, "two", time.Minute); !errors.Is(err, ErrConflict) {
			t.Errorf("a second owner: %v", err)
		}
		if again, err := a.ClaimAssistant(ctx, "acme", Inbound, "one", time.Minute); err != nil || again.Nonce != first.Nonce {
			t.Errorf("the same owner again: %+v %v", again, err)
		}
		if other, err := b.ClaimAssistant(ctx, "acme", Outbound, "two", time.Minute); err != nil || other.Nonce == first.Nonce {
			t.Errorf("the other role: %+v %v", other, err)
		}
		ok(t, a.ReleaseClaim(ctx, first))
		next, err := b.ClaimAssistant(ctx, "acme", Inbound, "two", time.Minute)
		if err != nil || next.Nonce != first.Nonce || !next.Unsettled.IsZero() {
			t.Errorf("after it was given back: %+v %v", next, err)
		}
	})
}

func TestClaimRemembersWhatWasBegun(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		ctx := t.Context()
		d := e.open(t)
		dead, err := d.ClaimAssistant(ctx, "acme", Inbound, "dead", time.Minute)
		ok(t, err)
		ok(t, d.UnsettleClaim(ctx, dead, 50*time.Millisecond))
		time.Sleep(60 * time.Millisecond)
		heir, err := d.ClaimAssistant(ctx, "acme", Inbound, "heir", time.Minute)
		if err != nil || heir.Nonce != dead.Nonce || time.Since(heir.Unsettled) > 10*time.Second {
			t.Fatalf("%+v %v", heir, err)
		}
		// Whoever lost the claim does nothing more with it.
		asst := &Assistant{ID: "asst_dead", Org: "acme", Role: Inbound}
		for what, err := range map[string]error{
			"settle":   d.SettleAssistant(ctx, by, dead, asst, nil, true),
			"unsettle": d.UnsettleClaim(ctx, dead, time.Minute),
			"forget":   d.ForgetClaim(ctx, by, dead, nil),
		} {
			if !errors.Is(err, ErrConflict) {
				t.Errorf("%s with a lost claim: %v", what, err)
			}
		}
		if _, err := d.RenewClaim(ctx, dead, time.Minute); !errors.Is(err, ErrConflict) {
			t.Errorf("renew a lost claim: %v", err)
		}
		ok(t, d.ReleaseClaim(ctx, dead))
		if _, err := d.ClaimAssistant(ctx, "acme", Inbound, "third", time.Minute); !errors.Is(err, ErrConflict) {
			t.Errorf("releasing a lost claim freed the heir's: %v", err)
		}
		if _, err := d.Assistant(ctx, "asst_dead"); !errors.Is(err, ErrNotFound) {
			t.Errorf("a lost claim registered an assistant: %v", err)
		}
	})
}

func TestSettleRegistersAndRemovesAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		ctx := t.Context()
		d := e.open(t)
		ok(t, d.PutAssistant(ctx, by, &Assistant{ID: "asst_old", Org: "acme", Role: Inbound}, 0))
		ok(t, d.PutAssistant(ctx, by, &Assistant{ID: "asst_globex", Org: "globex", Role: Inbound}, 0))
		c, err := d.ClaimAssistant(ctx, "acme", Inbound, "one", time.Minute)
		ok(t, err)
		ok(t, d.UnsettleClaim(ctx, c, time.Minute))
		a := &Assistant{ID: "asst_new", Org: "acme", Role: Inbound, Name: "Front desk"}
		ok(t, d.SettleAssistant(ctx, by, c, a, []string{"asst_old", "asst_globex", "asst_never"}, true))
		rows, err := d.AssistantsOf(ctx, "acme", Inbound)
		if err != nil || len(rows) != 1 || rows[0].ID != "asst_new" || a.Version != 1 {
			t.Errorf("%+v %v", rows, err)
		}
		if _, err := d.Assistant(ctx, "asst_globex"); err != nil {
			t.Errorf("another org's assistant was removed: %v", err)
		}
		ok(t, d.SettleAssistant(ctx, by, c, &Assistant{ID: "asst_new", Org: "acme", Role: Inbound, Name: "Front desk"}, nil, true))
		if got, _ := d.Assistant(ctx, "asst_new"); got.Version != 1 {
			t.Errorf("nothing changed, and the version is %d", got.Version)
		}
		if err := d.SettleAssistant(ctx, by, c, &Assistant{ID: "asst_globex", Org: "acme", Role: Inbound}, nil, true); !errors.Is(err, ErrClaimed) {
			t.Errorf("an assistant of another org: %v", err)
		}
		ok(t, d.ForgetClaim(ctx, by, c, []string{"asst_new"}))
		if rows, _ := d.AssistantsOf(ctx, "acme", Inbound); len(rows) != 0 {
			t.Errorf("%+v", rows)
		}
		fresh, err := d.ClaimAssistant(ctx, "acme", Inbound, "one", time.Minute)
		if err != nil || fresh.Nonce == c.Nonce || !fresh.Unsettled.IsZero() {
			t.Errorf("after it was forgotten: %+v %v", fresh, err)
		}
	})
}

func TestClaimsExcludeEachOtherUnderLoad(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		dbs := []*DB{e.open(t), e.open(t)}
		var inside, taken atomic.Int64
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				d, owner := dbs[i%2], fmt.Sprint("owner", i)
				for range 20 {
					c, err := d.ClaimAssistant(t.Context(), "acme", Inbound, owner, time.Minute)
					if errors.Is(err, ErrConflict) {
						time.Sleep(time.Millisecond)
						continue
					}
					if err != nil {
						t.Error(err)
						return
					}
					if inside.Add(1) != 1 {
						t.Error("two have the claim")
					}
					taken.Add(1)
					inside.Add(-1)
					if err := d.ReleaseClaim(t.Context(), c); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if taken.Load() == 0 {
			t.Error("nobody ever had it")
		}
	})
}

func TestPreviousStaysBesideACredentialUntilItIsWrittenWithout(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		ctx := t.Context()
		d := e.open(t)
		c := sealed(acmeTwilio, 1)
		ok(t, d.PutCredential(ctx, by, c))
		until := time.Now().Add(time.Hour).UTC().Truncate(time.Microsecond)
		next := sealed(acmeTwilio, 2)
		next.Previous = &Previous{Sealed: c.Sealed, KeyID: c.KeyID, SealedVersion: 1, Until: until}
		ok(t, d.PutCredential(ctx, by, next))
		ok(t, d.SetVerified(ctx, by, acmeTwilio, 2, Verification{time.Now(), ValidRestricted, "some"}))
		got, _, err := d.Credential(ctx, acmeTwilio)
		ok(t, err)
		if got.Previous == nil || string(got.Previous.Sealed) != string(c.Sealed) || got.Previous.SealedVersion != 1 || !got.Previous.Until.Equal(until) ||
			got.Verification != ValidRestricted || got.Version != 3 || got.SealedVersion != 2 {
			t.Errorf("%+v %+v", got, got.Previous)
		}
		old := got.Former(until.Add(-time.Second))
		if old == nil || old.SealedVersion != 1 || string(old.Sealed) != string(c.Sealed) || old.Previous != nil || got.SealedVersion != 2 {
			t.Errorf("the former: %+v", old)
		}
		if got.Former(until) != nil {
			t.Error("its time is over, and it counts")
		}
		for at, want := range map[time.Time]int{until.Add(-time.Second): 0, until: 1} {
			if refs, err := d.Retiring(ctx, at); err != nil || len(refs) != want {
				t.Errorf("retiring at %v: %v %v", at, refs, err)
			}
		}
		ok(t, d.PutCredential(ctx, by, sealed(acmeTwilio, 4)))
		if got, _, _ := d.Credential(ctx, acmeTwilio); got.Previous != nil || got.Verification != "" {
			t.Errorf("%+v", got)
		}
	})
}
