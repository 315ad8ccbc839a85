package store

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestStoreRaces(t *testing.T) {
	for name, test := range map[string]func(*testing.T, engine){
		"OneWriterWins":     testOneWriterWins,
		"OneOrgClaims":      testOneOrgClaims,
		"SwappedAccounts":   testSwappedAccounts,
		"NothingComesBack":  testNothingComesBack,
		"FollowersMissNone": testFollowersMissNone,
		"OneNameOneToken":   testOneNameOneToken,
	} {
		t.Run(name, func(t *testing.T) { onBoth(t, test) })
	}
}

// atOnce runs n functions at the same moment and returns their errors.
func atOnce(n int, f func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	all.Wait()
	return errs
}

// Two stores: two sidecars.
func (e engine) pair(t *testing.T) []*DB { return []*DB{e.open(t), e.open(t)} }

func testOneWriterWins(t *testing.T, e engine) {
	dbs, ctx := e.pair(t), t.Context()
	for version := int64(1); version <= 12; version += 2 {
		errs := atOnce(8, func(i int) error {
			c := sealed(acmeTwilio, version)
			c.KeyID = fmt.Sprint(i)
			return dbs[i%2].PutCredential(ctx, by, c)
		})
		winner := slices.Index(errs, nil)
		for i, err := range errs {
			if i != winner && !errors.Is(err, ErrConflict) {
				t.Fatalf("writer %d: %v, writer %d won", i, err, winner)
			}
		}
		c, _, err := dbs[0].Credential(ctx, acmeTwilio)
		ok(t, err)
		same(t, c.KeyID, fmt.Sprint(winner))
		same(t, c.Version, version)

		// A disabling and a new secret for the same version: one of them is told.
		errs = atOnce(2, func(i int) error {
			if i == 0 {
				return dbs[0].PutCredential(ctx, by, sealed(acmeTwilio, version+1))
			}
			_, err := dbs[1].SetActive(ctx, by, acmeTwilio, false, version)
			return err
		})
		if (errs[0] == nil) == (errs[1] == nil) || !errors.Is(errors.Join(errs...), ErrConflict) {
			t.Fatalf("%v", errs)
		}
	}
}

func testOneOrgClaims(t *testing.T, e engine) {
	dbs, ctx := e.pair(t), t.Context()
	errs := atOnce(8, func(i int) error {
		ref := Ref{fmt.Sprintf("org-%d", i), "twilio"}
		return dbs[i%2].PutCredential(ctx, by, sealed(ref, 1, Account{"account_sid", "AC1"}))
	})
	winner := slices.Index(errs, nil)
	for i, err := range errs {
		if i != winner && !errors.Is(err, ErrClaimed) {
			t.Fatalf("org %d: %v, org %d won", i, err, winner)
		}
	}
	owner, err := dbs[0].AccountOwner(ctx, "twilio", "account_sid", "AC1")
	ok(t, err)
	same(t, owner, fmt.Sprintf("org-%d", winner))
}

// Two orgs that give up what the other one wants: whoever comes second succeeds, or is told; neither waits for the other for ever.
func testSwappedAccounts(t *testing.T, e engine) {
	dbs, ctx := e.pair(t), t.Context()
	refs := []Ref{{"acme", "elevenlabs"}, {"globex", "elevenlabs"}}
	for range 5 {
		for i, ref := range refs {
			if _, exists, _ := dbs[0].LatestVersion(ctx, ref); exists {
				ok(t, dbs[0].DeleteCredential(ctx, by, ref, 0))
			}
			put(t, dbs[0], ref, Account{"agent_ids", fmt.Sprint(i)})
		}
		began := time.Now()
		errs := atOnce(2, func(i int) error {
			latest, _, err := dbs[i].LatestVersion(ctx, refs[i])
			if err != nil {
				return err
			}
			return dbs[i].PutCredential(ctx, by, sealed(refs[i], latest+1, Account{"agent_ids", fmt.Sprint(1 - i)}))
		})
		for _, err := range errs {
			if err != nil && !errors.Is(err, ErrClaimed) {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took > patience/2 {
			t.Fatalf("took %v", took)
		}
	}
}

// Who read a credential before its deletion cannot write it afterwards.
func testNothingComesBack(t *testing.T, e engine) {
	dbs, ctx := e.pair(t), t.Context()
	for range 10 {
		c := put(t, dbs[0], acmeTwilio)
		errs := atOnce(3, func(i int) error {
			switch i {
			case 0:
				return dbs[0].DeleteCredential(ctx, by, acmeTwilio, 0)
			case 1:
				return dbs[1].PutCredential(ctx, by, sealed(acmeTwilio, c.Version+1))
			}
			return dbs[1].SetVerified(ctx, by, acmeTwilio, c.Version, Verification{time.Now(), Valid, ""})
		})
		ok(t, errs[0])
		if _, exists, err := dbs[0].LatestVersion(ctx, acmeTwilio); err != nil || exists {
			t.Fatalf("it is back: %v, %v", errs, err)
		}
	}
}

// Rows become visible in the order of their ids.
func testFollowersMissNone(t *testing.T, e engine) {
	const writers, each = 6, 15
	dbs, ctx := e.pair(t), t.Context()
	done := make(chan []error)
	go func() {
		done <- atOnce(writers, func(i int) error {
			for range each {
				if err := dbs[i%2].AddEvent(ctx, Event{Action: "x"}); err != nil {
					return err
				}
			}
			return nil
		})
	}()
	seen, last := 0, int64(0)
	follow := func() {
		events, err := dbs[0].Events(ctx, EventFilter{AfterID: last})
		ok(t, err)
		for _, e := range events {
			last = e.ID
		}
		seen += len(events)
	}
	for {
		select {
		case errs := <-done:
			ok(t, errors.Join(errs...))
			for n := -1; n != seen; {
				n = seen
				follow()
			}
			same(t, seen, writers*each)
			return
		default:
			follow()
		}
	}
}

func testOneNameOneToken(t *testing.T, e engine) {
	dbs, ctx := e.pair(t), t.Context()
	errs := atOnce(6, func(i int) error { return dbs[i%2].PutToken(ctx, by, &Token{Name: "worker", Hash: [32]byte{byte(i)}}) })
	winner := slices.Index(errs, nil)
	for i, err := range errs {
		if i != winner && !errors.Is(err, ErrConflict) {
			t.Fatalf("%v", errs)
		}
	}
	errs = atOnce(6, func(i int) error { _, err := dbs[i%2].RevokeToken(ctx, by, "worker"); return err })
	winner = slices.Index(errs, nil)
	for i, err := range errs {
		if i != winner && !errors.Is(err, ErrNotFound) {
			t.Fatalf("%v", errs)
		}
	}
}
