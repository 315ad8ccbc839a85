package store

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/keyward/keyward/internal/pgtest"
)

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
	{"sqlite", newFile, newFile},
	{"postgres", func(t testing.TB) string { app, _, _ := tenants(t); return app }, pgtest.New},
}

func newFile(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "keyward.db") }

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
