package store

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/rs/zerolog"

	"github.com/keyward/keyward/internal/pgtest"
)

func postgres(t testing.TB, url string) *DB {
	t.Helper()
	d := engine{"postgres", url}.open(t)
	if _, err := d.MigrateUp(context.Background()); err != nil {
		t.Fatal(err)
	}
	return d
}

func read(d *DB) error { _, _, err := d.Credential(context.Background(), acmeTwilio); return err }

func TestPostgresRestarts(t *testing.T) {
	hasty(t)
	server := pgtest.Start(t)
	d := postgres(t, server.New(t))
	put(t, d, acmeTwilio)
	// Fill the pool: each of its connections will turn out to be dead.
	ok(t, errors.Join(atOnce(maxConns, func(int) error {
		_, err := d.r.ExecContext(t.Context(), "SELECT pg_sleep(0.2)")
		return err
	})...))
	w := follow(t, d)

	server.Stop(t)
	is(t, quick(t, time.Second, func() error { return read(d) }), ErrUnavailable)
	is(t, quick(t, time.Second, func() error { return d.PutCredential(t.Context(), by, sealed(acmeTwilio, 2)) }), ErrUnavailable)
	is(t, quick(t, time.Second, func() error { return d.Ping(t.Context()) }), ErrUnavailable)
	is(t, quick(t, time.Second, func() error { return d.CheckSchema(t.Context()) }), ErrUnavailable)
	is(t, quick(t, time.Second, func() error { _, err := d.MigrateUp(t.Context()); return err }), ErrUnavailable)
	eventually(t, "the feed is down", func() bool { return !d.FeedLive() })
	w.take()
	server.Start(t)
	eventually(t, "reads go on", func() bool { return read(d) == nil })
	eventually(t, "the feed is live", d.FeedLive)
	if told := w.take(); !slices.Contains(told, Change{}) {
		t.Errorf("after a gap: told %v", told)
	}
	put(t, d, acmeTwilio)
	put(t, engine{"postgres", d.pg.config.ConnString()}.open(t), Ref{"globex", "vapi"})
	w.hears(t, d, "changes are heard", has(Change{KindCredential, "globex"}))

	// Without a feed, too: who comes first after a long silence is served, if connecting takes no longer than a read may.
	quiet := postgres(t, d.pg.config.ConnString())
	var err error
	for range 5 {
		server.Stop(t)
		is(t, read(quiet), ErrUnavailable)
		is(t, read(quiet), ErrUnavailable)
		server.Start(t)
		time.Sleep(6 * dialPause)
		if err = read(quiet); err == nil {
			return
		}
		eventually(t, "reads go on", func() bool { return read(quiet) == nil })
	}
	t.Errorf("who came first was refused each time: %v", err)
}

// Connections that broke since their last use cost neither a read nor a write, though each is found out only by using it.
func TestPostgresBrokenConnections(t *testing.T) {
	c := newCable(t, pgtest.New(t))
	d := postgres(t, c.url)
	for range 3 {
		for what, call := range map[string]func() error{
			"read":  func() error { _, err := d.Events(t.Context(), EventFilter{}); return err },
			"write": func() error { return d.AddEvent(t.Context(), Event{Action: "x"}) },
		} {
			for range 2 { // a connection that was used a moment ago is not asked for a sign of life
				ok(t, errors.Join(atOnce(maxConns, func(int) error {
					_, err := d.r.ExecContext(t.Context(), "SELECT pg_sleep(0.05)")
					return err
				})...))
			}
			c.breakAll()
			if err := call(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	events, err := d.Events(t.Context(), EventFilter{})
	ok(t, err)
	same(t, len(events), 3) // none twice
}

// Two writers that wait for each other: PostgreSQL ends one of them, which then runs again.
func TestPostgresDeadlock(t *testing.T) {
	d := postgres(t, pgtest.New(t)+"&options=-cdeadlock_timeout%3D100ms") // the server looks for them a second later unless told otherwise
	refs := []Ref{acmeTwilio, {"globex", "twilio"}}
	var both sync.WaitGroup
	both.Add(2)
	for _, ref := range refs {
		put(t, d, ref)
	}
	errs := atOnce(2, func(i int) error {
		first := true
		return d.write(context.Background(), func(x *tx) error {
			if _, err := x.nextVersion(KindCredential, refs[i].key(), 0, hasCredential, refs[i].Org, refs[i].Provider); err != nil {
				return err
			}
			if first {
				first = false
				both.Done()
				both.Wait()
			}
			_, err := x.nextVersion(KindCredential, refs[1-i].key(), 0, hasCredential, refs[1-i].Org, refs[1-i].Provider)
			return err
		})
	})
	ok(t, errors.Join(errs...))
	for _, ref := range refs {
		v, _, err := d.LatestVersion(t.Context(), ref)
		ok(t, err)
		same(t, v, int64(3))
	}
}

// A network that swallows packets: calls end, the feed does not claim to be live, and all goes on when it heals.
func TestPostgresHangs(t *testing.T) {
	hasty(t)
	url := pgtest.New(t)
	c := newCable(t, url)
	d := postgres(t, c.url)
	put(t, d, acmeTwilio)
	w := follow(t, d)
	ok(t, read(d))

	c.set(true)
	cut := time.Now()
	errs := atOnce(2*maxConns, func(int) error {
		return quick(t, 1500*time.Millisecond, func() error { return read(d) })
	})
	for _, err := range errs {
		is(t, err, ErrUnavailable)
	}
	if d.FeedLive() {
		t.Errorf("%v after the cut, the feed is said to be live", time.Since(cut))
	}
	is(t, quick(t, 6*time.Second, func() error { return d.AddEvent(t.Context(), Event{}) }), ErrUnavailable)
	// Now it is known: nobody waits any more, not even whoever happens to come when it is time to try again.
	for began, last := time.Now(), time.Now(); time.Since(began) < 1500*time.Millisecond; time.Sleep(20 * time.Millisecond) {
		limit := 200 * time.Millisecond
		if time.Since(last) > 4*dialPause {
			limit = 2 * readTimeout // whoever comes after a long silence does wait; the machine made it one
		}
		is(t, quick(t, limit, func() error { return read(d) }), ErrUnavailable)
		last = time.Now()
	}
	w.take()
	put(t, postgres(t, url), Ref{"globex", "vapi"}) // meanwhile, by another sidecar

	c.set(false)
	eventually(t, "reads go on", func() bool { return read(d) == nil })
	eventually(t, "the feed is live", d.FeedLive)
	told := w.take()
	if !slices.Contains(told, Change{}) && !slices.Contains(told, Change{KindCredential, "globex"}) {
		t.Errorf("told %v", told)
	}
}

// The feed is live only for so long after its last proof; the connection is not given up for a short stall.
func TestPostgresFeedIsNeverTrustedLong(t *testing.T) {
	url := pgtest.New(t)
	c := newCable(t, url)
	d, other := postgres(t, c.url), postgres(t, url)
	w := follow(t, d)
	for range 5 {
		w.take()
		cut := time.Now()
		c.set(true)
		// What is written now is unknown to d, and within a second it knows that.
		put(t, other, acmeTwilio)
		written := time.Now()
		for asked := written; asked.Before(written.Add(1200 * time.Millisecond)); asked = time.Now() {
			if d.FeedLive() && asked.Sub(written) > time.Second {
				t.Fatalf("%v after a write that it has not heard of, the feed is live", asked.Sub(written))
			}
			time.Sleep(2 * time.Millisecond)
		}
		c.set(false)
		eventually(t, "the feed is live", d.FeedLive)
		told := w.take()
		if slices.Equal(told, []Change{{KindCredential, "acme"}}) {
			return
		}
		if stall := time.Since(cut); stall < beatTimeout-beatEvery {
			t.Fatalf("live, and told %v after a stall of %v", told, stall)
		}
		t.Log("the machine made it no short stall")
	}
}

// Everything works where a transaction pooler stands between, but for the feed, which knows that it does not.
func TestPostgresPooler(t *testing.T) {
	for name, test := range map[string]func(*testing.T, engine){
		"Credential": testCredential, "Compare": testCompare, "Accounts": testAccounts, "Assistant": testAssistant, "Token": testToken,
		"Listings": testListings, "Audit": testAudit, "OneWriterWins": testOneWriterWins, "FollowersMissNone": testFollowersMissNone,
	} {
		t.Run(name, func(t *testing.T) {
			url := newPooler(t, pgtest.New(t), 3)
			postgres(t, url)
			test(t, engine{"postgres", url})
		})
	}
	t.Run("Deaf", func(t *testing.T) {
		direct := pgtest.New(t)
		var log syncBuffer
		d, err := Open(t.Context(), newPooler(t, direct, 3), Options{Log: zerolog.New(&log)})
		ok(t, err)
		defer func() { ok(t, d.Close()) }()
		if _, err := d.MigrateUp(t.Context()); err != nil {
			t.Fatal(err)
		}
		go func() { _ = d.Watch(t.Context(), func(Change) {}) }()
		eventually(t, "it is said why", func() bool { return strings.Contains(log.String(), "transaction pooler") })
		if d.FeedLive() {
			t.Error("a feed that hears nothing is live")
		}
		// A sidecar that is connected directly hears what is written through the pooler.
		hearing := postgres(t, direct)
		w := follow(t, hearing)
		put(t, d, acmeTwilio)
		w.hears(t, hearing, "it is heard", has(Change{KindCredential, "acme"}))
	})
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}
func (s *syncBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

// Whoever changes a row, by whatever means, is heard; that something was used is no change.
func TestPostgresTriggers(t *testing.T) {
	d := postgres(t, pgtest.New(t))
	put(t, d, acmeTwilio)
	ok(t, d.PutAssistant(t.Context(), by, &Assistant{ID: "asst_1", Org: "acme"}, 0))
	ok(t, d.PutToken(t.Context(), by, &Token{Name: "w", Hash: [32]byte{1}}))
	w := follow(t, d)
	for _, c := range []struct {
		statement string
		want      []Change
	}{
		{"UPDATE org_credentials SET is_active = false", []Change{{KindCredential, "acme"}}},
		{"UPDATE assistant_org_mapping SET org_id = 'globex'", []Change{{KindAssistant, "asst_1"}}},
		{"UPDATE assistant_org_mapping SET last_used_at = now()", nil},
		{"UPDATE caller_tokens SET last_used_at = now()", nil},
		{"UPDATE caller_tokens SET revoked_at = now()", []Change{{KindToken, "01" + strings.Repeat("00", 31)}}},
		{"DELETE FROM org_credentials", []Change{{KindCredential, "acme"}}},
		{"TRUNCATE assistant_org_mapping", []Change{{}}},
		{"INSERT INTO row_versions VALUES ('x', 'y', 1)", nil},
	} {
		w.take()
		if _, err := d.w.ExecContext(t.Context(), c.statement); err != nil {
			t.Fatal(err)
		}
		// What was written afterwards is heard afterwards: then everything before has been.
		if _, err := d.w.ExecContext(t.Context(), "SELECT pg_notify('keyward', 'token:mark')"); err != nil {
			t.Fatal(err)
		}
		var told []Change
		eventually(t, c.statement, func() bool {
			told = append(told, w.take()...)
			return slices.Contains(told, Change{KindToken, "mark"})
		})
		same(t, told[:len(told)-1], append([]Change{}, c.want...))
	}
	if _, err := d.w.ExecContext(t.Context(), "TRUNCATE audit_log"); err == nil || !strings.Contains(err.Error(), "append-only") {
		t.Errorf("TRUNCATE audit_log: %v", err)
	}
}

// An up-to-date store needs no right to migrate, and serving needs no more than reading and writing rows.
func TestPostgresRoles(t *testing.T) {
	url := pgtest.New(t)
	owner := postgres(t, url)
	role := fmt.Sprintf("app_%d", time.Now().UnixNano())
	for _, statement := range []string{
		"CREATE ROLE " + role + " LOGIN",
		"REVOKE CREATE ON SCHEMA public FROM PUBLIC",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON org_credentials, provider_accounts, assistant_org_mapping, caller_tokens, admin_tokens, agents, row_versions TO " + role,
		"GRANT SELECT, INSERT ON audit_log TO " + role,
		"GRANT USAGE ON SEQUENCE audit_log_id_seq TO " + role,
		"GRANT SELECT ON keyward_schema_version TO " + role,
	} {
		if _, err := owner.w.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	t.Cleanup(func() {
		_, _ = owner.w.ExecContext(context.Background(), "DROP OWNED BY "+role)
		_, _ = owner.w.ExecContext(context.Background(), "DROP ROLE "+role)
	})
	e := engine{"postgres", strings.Replace(url, "user=keyward", "user="+role, 1)}
	d := e.open(t)
	n, err := d.MigrateUp(t.Context())
	if n != 0 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	testCredential(t, e)
	ok(t, d.AddEvent(t.Context(), Event{Action: "x"}))
	ok(t, d.PutAssistant(t.Context(), by, &Assistant{ID: "asst_1", Org: "acme"}, 0))
	ok(t, d.PutToken(t.Context(), by, &Token{Name: "w"}))
	ok(t, d.PutAdminToken(t.Context(), by, &AdminToken{Name: "w", Role: RoleOperator}))
	ok(t, d.PutAgent(t.Context(), by, &Agent{Org: "acme", Role: Inbound, Config: []byte("{}")}, 0))
	w := follow(t, d)
	put(t, owner, acmeTwilio)
	w.hears(t, d, "it is heard", has(Change{KindCredential, "acme"}))

	// It is told at once what it may not do.
	ok(t, owner.MigrateDown(t.Context()))
	err = quick(t, 3*time.Second, func() error { return second(e.open(t).MigrateUp(t.Context())) })
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("%v", err)
	}
}

// Listings come in the order of bytes, and go on where they stopped, whatever order the database's locale has.
func TestPostgresLocale(t *testing.T) {
	url := pgtest.New(t)
	name := fmt.Sprintf("icu_%d", time.Now().UnixNano())
	home := engine{"postgres", url}.open(t)
	if _, err := home.w.ExecContext(t.Context(), "CREATE DATABASE "+name+" TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"); err != nil {
		t.Skipf("NOT TESTED WITH A LOCALE: this PostgreSQL has no ICU: %v", err)
	}
	t.Cleanup(func() { _, _ = home.w.ExecContext(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)") })
	e := engine{"postgres", strings.Replace(url, home.pg.config.Database, name, 1)}
	d := postgres(t, e.url)
	var locale bool
	ok(t, d.r.QueryRowContext(t.Context(), "SELECT 'a' < 'B'").Scan(&locale))
	if !locale {
		t.Fatal("the database compares bytes by itself: this tests nothing")
	}
	testListings(t, e)
}

// No error of opening or connecting says what the URL holds.
func TestPostgresURLs(t *testing.T) {
	for _, url := range []string{
		"postgres://app:hunter2@127.0.0.1:1/db",
		"postgres://app:hunter2@127.0.0.1:99999/db",
		"postgres://app:hunter2@:::/db",
		"postgres://app:hunter2%zz@127.0.0.1/db",
		"postgres://app:hunter2@127.0.0.1:1/db?sslmode=nonsense",
		"postgres://127.0.0.1:1/db?user=app&password=hunter2",
	} {
		d, err := Open(t.Context(), url, Options{})
		if err == nil {
			err = d.Ping(t.Context())
			_ = d.Close()
			is(t, err, ErrUnavailable)
		}
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
	d, err := Open(t.Context(), "postgres:///x?host=/nowhere&pool_max_conns=3&pool_min_conns=1", Options{})
	ok(t, err)
	same(t, d.w.Stats().MaxOpenConnections, 3)
	same(t, d.pg.config.RuntimeParams, map[string]string{"application_name": "keyward"})
	ok(t, d.Close())
}

// While statements hang, more calls wait than the pool has connections, and are handed those that others' time limits have just ended. Whatever
// becomes of them, each is served or told that the store is unavailable: never anything else.
func TestPostgresHangsForMany(t *testing.T) {
	d := postgres(t, pgtest.New(t))
	put(t, d, acmeTwilio)
	locker, err := pgx.ConnectConfig(t.Context(), d.pg.config)
	ok(t, err)
	defer func() { _ = locker.Close(context.Background()) }()
	_, err = locker.Exec(t.Context(), "BEGIN; LOCK TABLE org_credentials, row_versions, audit_log IN ACCESS EXCLUSIVE MODE")
	ok(t, err)
	asked, stop := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer stop()
	var others atomic.Value
	_ = atOnce(8*maxConns, func(i int) error {
		for asked.Err() == nil {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(20+i*7%200)*time.Millisecond)
			err := d.AddEvent(ctx, Event{Action: "x"})
			if i%4 == 0 {
				_, _, err = d.Credential(ctx, acmeTwilio)
			}
			cancel()
			if err != nil && !errors.Is(err, ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
				others.Store(err.Error())
			}
		}
		return nil
	})
	if said := others.Load(); said != nil {
		t.Errorf("while it hangs: %v", said)
	}
	_, err = locker.Exec(t.Context(), "ROLLBACK")
	ok(t, err)
	eventually(t, "reads go on", func() bool { return read(d) == nil })
	ok(t, d.AddEvent(t.Context(), Event{Action: "x"}))
}

func TestDeadConnectionIsTheStores(t *testing.T) {
	ctx := t.Context()
	for _, err := range []error{driver.ErrBadConn, fmt.Errorf("beginning: %w", driver.ErrBadConn), sql.ErrConnDone} {
		is(t, failure(ctx, ctx, err), ErrUnavailable)
		if !connectionLost(err) {
			t.Errorf("%v: not tried with another connection", err)
		}
	}
}
