package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/pgtest"
)

func TestClaims(t *testing.T) {
	for name, test := range map[string]func(*testing.T, engine){
		"Claimed":   testClaimed,
		"Confirmed": testConfirmed,
		"GivenUp":   testGivenUp,
		"Accepted":  testSeenByAccepting,
		"AtOnce":    testClaimedAtOnce,
		"Lapse":     testClaimsLapse,
	} {
		t.Run(name, func(t *testing.T) { onBoth(t, test) })
	}
}

// claimFinds wants that claiming a key finds something.
func claimFinds(t testing.TB, d *DB, key string, want Claim) {
	t.Helper()
	got, err := d.ClaimSeen(t.Context(), key)
	ok(t, err)
	if got != want {
		t.Fatalf("claiming %q found %d, want %d", key, got, want)
	}
}

// confirms wants that nobody has confirmed it before.
func confirms(t testing.TB, d *DB, key string, until time.Time) {
	t.Helper()
	duplicate, err := d.ConfirmSeen(t.Context(), key, until)
	ok(t, err)
	if duplicate {
		t.Fatalf("%q was confirmed before", key)
	}
}

func testClaimed(t *testing.T, e engine) {
	d := e.open(t)
	other := e.open(t)
	claimFinds(t, other, "warm", Fresh) // connects
	claimFinds(t, d, "\x00\xff", Fresh)
	claimFinds(t, d, "\x00\xff", UnderWay)
	if e.name == "postgres" {
		claimFinds(t, other, "\x00\xff", UnderWay)
	}
	claimFinds(t, d, "other", Fresh)
}

func testConfirmed(t *testing.T, e engine) {
	d, other := e.open(t), e.open(t)
	until := time.Now().Add(time.Minute)
	claimFinds(t, d, "key", Fresh)
	confirms(t, d, "key", until)
	claimFinds(t, d, "key", Seen)
	claimFinds(t, other, "key", Seen)
	claimFinds(t, e.open(t), "key", Seen)
	if duplicate, err := other.ConfirmSeen(t.Context(), "key", until.Add(time.Second)); err != nil || !duplicate {
		t.Errorf("two confirmed it: %v", err)
	}
	confirms(t, d, "over", time.Now().Add(-time.Second))
	claimFinds(t, d, "over", Fresh) // it ran out
}

func testGivenUp(t *testing.T, e engine) {
	d, other, ctx := e.open(t), e.open(t), t.Context()
	until := time.Now().Add(time.Minute)
	claimFinds(t, d, "key", Fresh)
	ok(t, d.Unclaim(ctx, "key", time.Time{}))
	claimFinds(t, d, "key", Fresh)
	confirms(t, d, "key", until)
	ok(t, d.Unclaim(ctx, "key", until))
	claimFinds(t, d, "key", Fresh)
	confirms(t, d, "key", until)
	// Who lost its claim to another gives up nothing of the other's.
	ok(t, other.Unclaim(ctx, "key", time.Time{}))
	ok(t, other.Unclaim(ctx, "key", until.Add(time.Millisecond)))
	claimFinds(t, d, "key", Seen)
}

func testSeenByAccepting(t *testing.T, e engine) {
	d, other, ctx := e.open(t), e.open(t), t.Context()
	until := time.Now().Add(time.Minute)
	v := delivery("", 1)
	v.SeenKey, v.SeenUntil = "key \x00\xff", until
	accept(t, d, v)
	second := delivery("", 2)
	second.SeenKey, second.SeenUntil = v.SeenKey, until
	duplicate, err := other.AcceptDelivery(ctx, second)
	if ok(t, err); !duplicate {
		t.Error("the same was accepted twice")
	}
	claimFinds(t, other, v.SeenKey, Seen)
	if _, bodies := lease(t, d, "one"); len(bodies) != 1 {
		t.Errorf("%q", bodies)
	}
	// While it is not known whether a message will be answered, a copy is neither taken in nor called a duplicate.
	claimFinds(t, d, "asked", Fresh)
	second.SeenKey = "asked"
	_, err = d.AcceptDelivery(ctx, second)
	is(t, err, ErrConflict)
	ok(t, d.Unclaim(ctx, "asked", time.Time{}))
	accept(t, d, second)
}

func testClaimedAtOnce(t *testing.T, e engine) {
	dbs := []*DB{e.open(t), e.open(t)}
	if e.name == "sqlite" {
		dbs[1] = dbs[0] // one sidecar
	}
	for i, d := range dbs {
		claimFinds(t, d, fmt.Sprint("warm ", i), Fresh) // connects: all are to come within a lease
	}
	found := make([]Claim, 40)
	errs := atOnce(len(found), func(i int) (err error) {
		found[i], err = dbs[i%2].ClaimSeen(context.Background(), "at once")
		return err
	})
	ok(t, errors.Join(errs...))
	if n := len(slices.DeleteFunc(found, func(c Claim) bool { return c != Fresh })); n != 1 {
		t.Errorf("%d of those that came at once were the first", n)
	}
	// And so is one of those that confirm.
	confirmed := make([]bool, 20)
	errs = atOnce(len(confirmed), func(i int) error {
		duplicate, err := dbs[i%2].ConfirmSeen(context.Background(), "at once", time.Now().Add(time.Minute))
		confirmed[i] = !duplicate
		return err
	})
	ok(t, errors.Join(errs...))
	if n := len(slices.DeleteFunc(confirmed, func(first bool) bool { return !first })); n != 1 {
		t.Errorf("%d confirmed at once", n)
	}
}

// What a sidecar had claimed when it died is free after the lease, and not before.
func testClaimsLapse(t *testing.T, e engine) {
	d := e.open(t)
	for range 10 {
		if claimsLapse(t, d) {
			break
		}
		t.Log("the machine stood still for longer than a claim holds")
	}
	claimFinds(t, d, "never claimed", Fresh)
	confirms(t, d, "alive", time.Now().Add(time.Minute))
	ok(t, d.RenewClaims(t.Context(), []string{"alive"}))
	claimFinds(t, d, "alive", Seen)
}

// claimsLapse is false when the claim that is renewed was not renewed in time.
func claimsLapse(t *testing.T, d *DB) bool {
	t.Helper()
	claimed := time.Now()
	claimFinds(t, d, "dead", Fresh)
	claimFinds(t, d, "alive", Fresh)
	renewed, inTime := claimed, true
	for time.Since(claimed) < ClaimLease*12/10 {
		time.Sleep(ClaimLease / 10)
		began := time.Now()
		ok(t, d.RenewClaims(t.Context(), []string{"alive", "never claimed"}))
		inTime = inTime && time.Since(renewed) < ClaimLease
		renewed = began
	}
	claimFinds(t, d, "dead", Fresh)
	found, err := d.ClaimSeen(t.Context(), "alive")
	ok(t, err)
	if inTime = inTime && time.Since(renewed) < ClaimLease; inTime && found != UnderWay {
		t.Fatalf("what was renewed is %d, want %d", found, UnderWay)
	}
	if !inTime {
		ok(t, d.Unclaim(t.Context(), "alive", time.Time{}))
		ok(t, d.Unclaim(t.Context(), "dead", time.Time{}))
	}
	return inTime
}

// A claim that ends with the process: on SQLite the next one has it at once.
func TestClaimsEndWithTheSidecar(t *testing.T) {
	e := engine{"sqlite", engines[0].url(t)}
	d := e.open(t)
	if _, err := d.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	claimFinds(t, d, "key", Fresh)
	claimFinds(t, e.open(t), "key", Fresh)
}

// What may be acknowledged is on the disk; what only keeps order and memory is not waited for.
func TestOnlyWhatMustWaitsForTheDisk(t *testing.T) {
	e := engine{"sqlite", engines[0].url(t)}
	d, ctx := e.open(t), t.Context()
	if _, err := d.MigrateUp(ctx); err != nil {
		t.Fatal(err)
	}
	waits := func(what string, want int64) {
		t.Helper()
		var mode int64
		ok(t, d.w.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&mode))
		if mode != want {
			t.Errorf("%s: synchronous is %d, want %d", what, mode, want)
		}
	}
	const no, yes = 1, 2
	v := accept(t, d, delivery("a", 1))
	waits("accepting", yes)
	lease(t, d, "one")
	waits("leasing", no)
	put(t, d, acmeTwilio)
	waits("writing a credential", yes)
	ok(t, d.FinishDelivery(ctx, "one", v, Outcome{State: Delivered}))
	waits("finishing", no)
	confirms(t, d, "key", time.Now().Add(time.Minute))
	waits("confirming", no)
	done := make(chan error, 2)
	d.joint.mu.Lock()
	d.joint.busy = true // both wait for their turn, and share a transaction
	d.joint.mu.Unlock()
	go func() {
		done <- d.together(context.Background(), true, func(x *tx) error { return x.row("SELECT 1").Scan(new(int)) })
	}()
	go func() { _, err := d.AcceptDelivery(context.Background(), delivery("a", 2)); done <- err }()
	for n := 0; n < 2; time.Sleep(time.Millisecond) {
		d.joint.mu.Lock()
		if n = len(d.joint.waiting); n == 2 {
			d.joint.waiting[0].turn <- true
		}
		d.joint.mu.Unlock()
	}
	ok(t, errors.Join(<-done, <-done))
	waits("a transaction that both share", yes)
	if _, err := d.w.ExecContext(ctx, "PRAGMA synchronous = normal"); err != nil {
		t.Fatal(err)
	}
}

// The same on PostgreSQL, where each transaction says so for itself.
func TestOnlyWhatMustWaitsForTheServersDisk(t *testing.T) {
	e := engine{"postgres", pgtest.New(t)}
	d, ctx := e.open(t), t.Context()
	if _, err := d.MigrateUp(ctx); err != nil {
		t.Fatal(err)
	}
	for relaxed, want := range map[bool]string{false: "on", true: "off"} {
		ok(t, d.writeAs(ctx, relaxed, func(x *tx) error {
			for _, group := range []string{"", "g"} {
				var mode string
				_, err := d.hold(x, group)
				ok(t, err)
				ok(t, x.row("SHOW synchronous_commit").Scan(&mode))
				same(t, mode, want)
			}
			return nil
		}))
	}
	var mode string
	ok(t, d.r.QueryRowContext(ctx, "SHOW synchronous_commit").Scan(&mode))
	same(t, mode, "on") // it ended with the transaction
}

// Many claims are renewed while some of them are confirmed together: each statement locks several rows, and neither may hold one that the
// other waits for while it waits for one of the other's.
func TestRenewingAndConfirmingDoNotWaitForEachOther(t *testing.T) {
	e := engine{"postgres", pgtest.New(t)}
	d, ctx := e.open(t), t.Context()
	if _, err := d.MigrateUp(ctx); err != nil {
		t.Fatal(err)
	}
	keys := []string{"z", "m", "a"} // as they lie in the table
	for _, key := range keys {
		claimFinds(t, d, key, Fresh)
	}
	between, err := d.w.BeginTx(ctx, nil)
	ok(t, err)
	defer func() { _ = between.Rollback() }()
	_, err = between.ExecContext(ctx, "SELECT FROM webhook_seen WHERE key = 'm' FOR UPDATE")
	ok(t, err)
	wait := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			var waiting int
			ok(t, between.QueryRowContext(ctx, "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted").Scan(&waiting))
			if waiting == n {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d statements wait, want %d", waiting, n)
			}
		}
	}
	var batch []*keyAsked
	for _, key := range keys {
		batch = append(batch, &keyAsked{ctx: ctx, key: key, until: time.Now().Add(time.Minute), done: make(chan error, 1)})
	}
	var both sync.WaitGroup
	both.Go(func() { d.pg.confirms.write(d, batch) })
	wait(1)
	both.Go(func() {
		if err := d.RenewClaims(ctx, keys); err != nil {
			t.Errorf("renewing: %v", err)
		}
	})
	wait(2)
	ok(t, between.Commit())
	both.Wait()
	for _, a := range batch {
		if err := <-a.done; err != nil || !a.taken {
			t.Errorf("confirming %q: taken %v, %v", a.key, a.taken, err)
		}
		claimFinds(t, d, a.key, Seen)
	}
}

// Sweeping does not wait for a claim of a key that has run out: a batch of claims that waits for the sweep would wait for ever.
func TestSweepPassesByClaims(t *testing.T) {
	d := postgres(t, pgtest.New(t))
	for _, key := range []string{"claimed anew", "gone"} {
		confirms(t, d, key, time.Now().Add(-time.Minute))
	}
	claim, err := d.w.BeginTx(forEvery(t.Context()), nil)
	ok(t, err)
	defer func() { _ = claim.Rollback() }()
	_, err = claim.ExecContext(t.Context(), "UPDATE webhook_seen SET until = until WHERE key = $1", []byte("claimed anew"))
	ok(t, err)
	ok(t, quick(t, writeTimeout/2, func() error {
		n, err := d.Sweep(t.Context(), time.Now().Add(-time.Hour))
		same(t, n, int64(1))
		return err
	}))
}
