package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/internal/pgtest"
)

// patience is how long a test waits for what must come. A machine that is busy with other things may stand still for seconds.
const patience = 30 * time.Second

var inService = []time.Duration{readTimeout, listTimeout, writeTimeout, keyWait}

// TestMain gives the store more time than it has in service: that a busy machine took more than a second for a query says nothing about what
// is tested. Tests of the limits themselves are hasty.
func TestMain(m *testing.M) {
	setLimits([]time.Duration{patience, patience, patience, patience})
	os.Exit(m.Run())
}

func setLimits(l []time.Duration) {
	readTimeout, listTimeout, writeTimeout, keyWait = l[0], l[1], l[2], l[3]
}

// hasty gives the store the limits that it has in service. It comes before a test opens any.
func hasty(t testing.TB) {
	before := []time.Duration{readTimeout, listTimeout, writeTimeout, keyWait}
	setLimits(inService)
	t.Cleanup(func() { setLimits(before) })
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// quick runs f, which must not take longer than the limit, but for as long as the machine had no time for a goroutine that only sleeps.
func quick(t testing.TB, limit time.Duration, f func() error) error {
	t.Helper()
	began := time.Now()
	over, stood := make(chan struct{}), make(chan time.Duration)
	go func() {
		const nap = 10 * time.Millisecond
		var stalled time.Duration
		for last := time.Now(); ; {
			select {
			case <-over:
				stood <- stalled + max(0, time.Since(last)-nap)
				return
			case <-time.After(nap):
				stalled += time.Since(last) - nap
				last = time.Now()
			}
		}
	}()
	err := f()
	took := time.Since(began)
	close(over)
	if stalled := <-stood; took-stalled > limit {
		t.Errorf("took %v, more than %v, though the machine stood still for %v only: %v", took, limit, stalled, err)
	}
	return err
}

// An engine is a store of its own for one test.
type engine struct {
	name string
	url  string
}

// engines are what the whole suite runs over: url is a store that the role that serves can use, on PostgreSQL one that is behind row-level
// security; blank is one that was never migrated, and can be.
var engines = []struct {
	name       string
	url, blank func(testing.TB) string
}{
	{"sqlite", func(t testing.TB) string { return inFolder(migratedFolder(t)) }, newFile},
	{"postgres", func(t testing.TB) string { app, _, _ := tenants(t); return app }, pgtest.New},
}

func newFile(t testing.TB) string { return inFolder(memdir.New(t)) }

func inFolder(dir string) string { return "sqlite:" + filepath.Join(dir, "keyward.db") }

// What most tests begin with is migrated once for each engine; this package cannot take it from internal/storetest, which imports it.
var migratedFolder = memdir.Filled(func(t testing.TB, dir string) { migrate(t, inFolder(dir)) })

func migrate(t testing.TB, url string) {
	t.Helper()
	d, err := Open(context.Background(), url, Options{})
	ok(t, err)
	_, err = d.MigrateUp(context.Background())
	ok(t, errors.Join(err, d.Close()))
}

// owns is the store as the owner of its tables has it.
func (e engine) owns(t testing.TB) *DB {
	if e.name == "postgres" {
		e.url = as(t, e.url, "keyward_owner")
	}
	return e.open(t)
}

// onBoth runs a test on an empty, migrated store of each engine.
func onBoth(t *testing.T, test func(*testing.T, engine)) {
	t.Helper()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			one := engine{e.name, e.url(t)}
			if _, err := one.open(t).MigrateUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			test(t, one)
		})
	}
}

// open opens the store once more, as another sidecar does.
func (e engine) open(t testing.TB) *DB {
	t.Helper()
	d, err := Open(context.Background(), e.url, Options{Log: zerolog.New(zerolog.NewTestWriter(t))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return d
}

var by = Actor{Name: "uid 1000 (app)", From: "admin socket"}

var acmeTwilio = Ref{"acme", "twilio"}

func sealed(ref Ref, version int64, accounts ...Account) *Credential {
	return &Credential{
		Ref: ref, Version: version, SealedVersion: version, KeyID: "k1", Active: true, Accounts: accounts,
		Sealed: fmt.Appendf(nil, "\x00\xffsealed %s v%d", ref, version),
	}
}

// put writes the next version of a credential and returns it as it was written.
func put(t testing.TB, d *DB, ref Ref, accounts ...Account) *Credential {
	t.Helper()
	latest, _, err := d.LatestVersion(t.Context(), ref)
	ok(t, err)
	c := sealed(ref, latest+1, accounts...)
	ok(t, d.PutCredential(t.Context(), by, c))
	return c
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

func same(t testing.TB, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("-want +got\n%s", diff)
	}
}
