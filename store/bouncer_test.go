package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// long says whether the tests run in their long forms.
func long() bool { return os.Getenv("KEYWARD_TORTURE") == "1" }

// bouncer puts a real PgBouncer in transaction mode in front of a database, with so many sessions, and returns the URL through it.
func bouncer(t testing.TB, address string, sessions int) string {
	t.Helper()
	if os.Getenv("KEYWARD_TEST_NO_PGBOUNCER") == "1" {
		t.Skip("NOT TESTED THROUGH PGBOUNCER: KEYWARD_TEST_NO_PGBOUNCER=1 is set")
	}
	program, err := exec.LookPath("pgbouncer")
	ok(t, err)
	u, err := url.Parse(address)
	ok(t, err)
	dir, err := os.MkdirTemp("/tmp", "kwbouncer") // a socket's path is short
	ok(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	config := fmt.Sprintf(`[databases]
* = host=%s
[pgbouncer]
unix_socket_dir = %s
listen_port = 5432
auth_type = trust
auth_file = %s/users
pool_mode = transaction
default_pool_size = %d
max_client_conn = 500
`, u.Query().Get("host"), dir, dir, sessions)
	ok(t, os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o644))
	ok(t, os.WriteFile(filepath.Join(dir, "users"), []byte("\"keyward_app\" \"\"\n\"keyward_owner\" \"\"\n\"keyward\" \"\"\n"), 0o644))
	cmd := exec.Command(program, filepath.Join(dir, "config"))
	cmd.SysProcAttr = endsWithUs()
	if os.Geteuid() == 0 { // which it refuses to run as; the server's socket is its user's
		who, err := user.Lookup("postgres")
		ok(t, err)
		uid, _ := strconv.Atoi(who.Uid)
		gid, _ := strconv.Atoi(who.Gid)
		ok(t, os.Chown(dir, uid, gid))
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	var log syncBuffer
	cmd.Stdout, cmd.Stderr = &log, &log
	ok(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", filepath.Join(dir, ".s.PGSQL.5432")); err == nil { // the file is there before somebody listens
			_ = c.Close()
			break
		}
		if time.Since(began) > patience {
			t.Fatalf("PgBouncer does not listen: %s", log.String())
		}
	}
	q := u.Query()
	q.Set("host", dir)
	u.RawQuery = q.Encode()
	return u.String()
}

// Orgs that take turns on a few sessions of PgBouncer never see each other's rows, whatever they ask in whatever order.
func TestTenantsThroughPgBouncer(t *testing.T) {
	app, _, _ := tenants(t)
	d := engine{"postgres", bouncer(t, app, 3)}.open(t)
	const orgs, workers = 40, 12
	for i := range orgs {
		ref := Ref{fmt.Sprint("org-", i), "twilio"}
		put(t, d, ref)
		ok(t, d.PutAssistant(t.Context(), by, &Assistant{ID: "asst-" + strconv.Itoa(i), Org: ref.Org}, -1))
	}
	d.w.SetMaxOpenConns(workers)
	switches := int64(3000)
	if long() {
		switches = 100_000
	}
	var done, foreign atomic.Int64
	saw := func(org string, rows ...string) {
		for _, row := range rows {
			if row != org {
				foreign.Add(1)
			}
		}
	}
	began := time.Now()
	errs := atOnce(workers, func(int) error {
		for done.Add(1) <= switches {
			i := rand.N(orgs)
			org := fmt.Sprint("org-", i)
			switch rand.N(6) {
			case 0, 1:
				c, _, err := d.Credential(t.Context(), Ref{org, "twilio"})
				if err != nil {
					return err
				}
				saw(org, c.Org)
			case 2:
				a, err := d.Assistant(t.Context(), fmt.Sprint("asst-", i))
				if err != nil {
					return err
				}
				saw(org, a.Org)
			case 3: // has forgotten its WHERE
				rows, err := asTenant(t, d, org, "SELECT org_id FROM org_credentials UNION ALL SELECT org_id FROM audit_log")
				if err != nil {
					return err
				}
				if len(rows) == 0 {
					return errors.New("an org does not see its own rows")
				}
				saw(org, rows...)
			case 4: // has named nobody
				rows, err := asTenant(t, d, "", "SELECT org_id FROM org_credentials UNION ALL SELECT org_id FROM assistant_org_mapping")
				if err != nil {
					return err
				}
				saw("", rows...)
			case 5: // fails in the middle
				if _, err := asTenant(t, d, org, "SELECT (1 / (count(*) - count(*)))::text FROM org_credentials"); err == nil || !strings.Contains(err.Error(), "zero") {
					return fmt.Errorf("dividing by zero: %w", err)
				}
			}
		}
		return nil
	})
	ok(t, errors.Join(errs...))
	t.Logf("%d switches in %v: %d foreign rows", switches, time.Since(began).Round(time.Millisecond), foreign.Load())
	if foreign.Load() != 0 {
		t.Errorf("%d foreign rows", foreign.Load())
	}
}

// Where LISTEN leads through PgBouncer, the feed knows that it hears nothing, and what a sidecar holds is confirmed with the store. It is said
// also of one that could not be reached before.
func TestFeedThroughPgBouncer(t *testing.T) {
	app, _, _ := tenants(t)
	address := bouncer(t, app, 3)
	u, err := url.Parse(address)
	ok(t, err)
	socket := filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432")
	var log syncBuffer
	d, err := Open(t.Context(), address, Options{Log: zerolog.New(&log)})
	ok(t, err)
	defer func() { ok(t, d.Close()) }()
	ok(t, os.Rename(socket, socket+".away"))
	go func() { _ = d.Watch(t.Context(), func(Change) {}) }()
	eventually(t, "it is said that the feed is down", func() bool { return strings.Contains(log.String(), "feed is down") })
	ok(t, os.Rename(socket+".away", socket))
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if d.FeedLive() {
			t.Fatal("a feed that hears nothing is live")
		}
		if strings.Contains(log.String(), "transaction pooler") {
			return
		}
	}
	t.Errorf("nobody was told: %s", log.String())
}
