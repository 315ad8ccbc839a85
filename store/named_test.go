package store

import (
	"context"
	"testing"
)

// onOne opens a store on PostgreSQL that has one connection, and has asked it a few things.
func onOne(t *testing.T, url string) *DB {
	t.Helper()
	d := engine{"postgres", url}.open(t)
	d.w.SetMaxOpenConns(1)
	askAFew(t, d)
	return d
}

// askAFew reads and writes in all ways that there are.
func askAFew(t *testing.T, d *DB) {
	t.Helper()
	_, _, err := d.Credential(t.Context(), Ref{"nobody", "twilio"})
	is(t, err, ErrNotFound)
	_, _, err = d.Credentials(t.Context(), "nobody", "", 10)
	ok(t, err)
	claimFinds(t, d, "claimed", Fresh)
	ok(t, d.RenewClaims(t.Context(), []string{"claimed"}))
	ok(t, d.Unclaim(t.Context(), "claimed", stamp(d.started)))
	ref := Ref{"acme", "twilio"}
	ok(t, d.PutCredential(t.Context(), by, sealed(ref, latestOf(t, d, ref)+1)))
}

func latestOf(t *testing.T, d *DB, ref Ref) int64 {
	t.Helper()
	version, _, err := d.LatestVersion(t.Context(), ref)
	ok(t, err)
	return version
}

// namedOn is how many statements have names on the one connection of a store.
func namedOn(t *testing.T, d *DB) (n int) {
	t.Helper()
	ok(t, d.w.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_prepared_statements").Scan(&n))
	return n
}

// The server reads and plans a statement once, where it keeps names: behind a pooler they would be lost, or be others'.
func TestStatementsHaveNamesWhereTheyStay(t *testing.T) {
	app, _, _ := tenants(t)
	if n := namedOn(t, onOne(t, app)); n < 5 {
		t.Errorf("%d statements have names", n)
	}
	if n := namedOn(t, onOne(t, app+"&statement_cache_capacity=0")); n != 0 {
		t.Errorf("%d statements have names where the URL forbids them", n)
	}
	if n := namedOn(t, onOne(t, bouncer(t, app, 1))); n != 0 {
		t.Errorf("%d statements have names behind a pooler", n)
	}
}

// What the server knows no more, or otherwise, is told again, and nobody hears of it.
func TestOutdatedStatementsAreToldAgain(t *testing.T) {
	app, owner, _ := tenants(t)
	d := onOne(t, app)
	if _, err := d.w.ExecContext(t.Context(), "DEALLOCATE ALL"); err != nil {
		t.Fatal(err)
	}
	askAFew(t, d)

	o := engine{"postgres", owner}.open(t)
	o.w.SetMaxOpenConns(1)
	run := func(statement string) {
		t.Helper()
		_, err := o.w.ExecContext(t.Context(), statement)
		ok(t, err)
	}
	run("CREATE TABLE changing (n integer)")
	run("INSERT INTO changing VALUES (1)")
	for _, kind := range []string{"integer", "bigint", "text", "numeric"} {
		run("ALTER TABLE changing ALTER n TYPE " + kind + " USING n::" + kind)
		var got string
		ok(t, o.read(t.Context(), readTimeout, func(ctx context.Context) error {
			return o.r.QueryRowContext(ctx, "SELECT n FROM changing WHERE n::text <> $1", "").Scan(&got)
		}))
		same(t, got, "1")
		ok(t, o.write(t.Context(), func(tx *tx) error { return tx.row("SELECT n FROM changing WHERE n::text = $1", "1").Scan(&got) }))
		same(t, got, "1")
	}
}
