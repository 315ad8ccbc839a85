package store

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/memdir"
)

func sqlite(t testing.TB, path string) *DB {
	t.Helper()
	d := engine{"sqlite", "sqlite:" + path}.open(t)
	if _, err := d.MigrateUp(context.Background()); err != nil {
		t.Fatal(err)
	}
	return d
}

func mode(t testing.TB, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	ok(t, err)
	return info.Mode().Perm()
}

func TestSQLiteFilesAreOnesOwn(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(memdir.New(t), "new", "keyward.db")
	d := sqlite(t, path)
	put(t, d, acmeTwilio)
	for _, f := range []string{path, path + "-wal", path + "-shm", path + ".lock"} {
		if m := mode(t, f); m != 0o600 {
			t.Errorf("%s has mode %o", filepath.Base(f), m)
		}
	}
	if m := mode(t, filepath.Dir(path)); m != 0o700 {
		t.Errorf("the folder has mode %o", m)
	}
	ok(t, d.Close())
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the log outlives the store: %v", err)
	}

	ok(t, os.Chmod(path, 0o644)) // as a careless restore leaves it
	put(t, sqlite(t, path), acmeTwilio)
	if mode(t, path) != 0o600 || mode(t, path+"-wal") != 0o600 {
		t.Error("a file that others may read stays so")
	}
}

func TestSQLiteSettings(t *testing.T) {
	d := sqlite(t, filepath.Join(memdir.New(t), "a b?c#d%e;f.db"))
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "secure_delete": "1", "foreign_keys": "1", "busy_timeout": "4000", "query_only": "0",
	} {
		var got string
		ok(t, d.w.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got))
		if got != want {
			t.Errorf("%s is %s, want %s", pragma, got, want)
		}
	}
	if _, err := d.r.ExecContext(t.Context(), "DELETE FROM org_credentials"); err == nil {
		t.Error("a connection for reads writes")
	}
	if _, err := os.Stat(d.lite.path); err != nil || !strings.HasSuffix(d.lite.path, "a b?c#d%e;f.db") {
		t.Errorf("%q: %v", d.lite.path, err)
	}
}

func TestSQLiteBadPaths(t *testing.T) {
	dir := memdir.New(t)
	text := filepath.Join(dir, "notes.txt")
	ok(t, os.WriteFile(text, bytes.Repeat([]byte("not a database\n"), 100), 0o600))
	for path, want := range map[string]string{
		"":                                "after sqlite: comes a path",
		dir:                               "is a directory",
		text:                              "notes.txt is not an SQLite database",
		filepath.Join(text, "keyward.db"): "not a directory",
	} {
		d, err := Open(t.Context(), "sqlite:"+path, Options{})
		if err == nil {
			_ = d.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if got, err := os.ReadFile(text); err != nil || !bytes.HasPrefix(got, []byte("not a database")) {
		t.Error("a file that is not ours was changed")
	}
	_, err := Open(t.Context(), "mysql://root:hunter2@db/x", Options{})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

// A link leads to the store.
func TestSQLiteLink(t *testing.T) {
	dir := memdir.New(t)
	put(t, sqlite(t, filepath.Join(dir, "real.db")), acmeTwilio)
	ok(t, os.Symlink("real.db", filepath.Join(dir, "link.db")))
	if _, _, err := sqlite(t, filepath.Join(dir, "link.db")).Credential(t.Context(), acmeTwilio); err != nil {
		t.Fatal(err)
	}
}

// What was deleted or replaced is in none of the store's files a moment later, while it is in use, and after it is closed.
func TestSQLiteForgets(t *testing.T) {
	path := filepath.Join(memdir.New(t), "keyward.db")
	d := sqlite(t, path)
	secret := func(org string) []byte { return bytes.Repeat([]byte("<sealed of "+org+">"), 300) } // over several pages
	write := func(org string, version int64, what []byte) {
		t.Helper()
		c := sealed(Ref{org, "twilio"}, version)
		c.Sealed = what
		ok(t, d.PutCredential(t.Context(), by, c))
	}
	found := func(org string) bool {
		t.Helper()
		files, err := filepath.Glob(path + "*")
		ok(t, err)
		for _, f := range files {
			b, err := os.ReadFile(f)
			ok(t, err)
			if bytes.Contains(b, []byte("<sealed of "+org+">")) {
				return true
			}
		}
		return false
	}
	for _, org := range []string{"stays", "deleted", "replaced"} {
		write(org, 1, secret(org))
	}
	if !found("stays") || !found("deleted") || !found("replaced") {
		t.Fatal("the test looks in the wrong place")
	}
	ok(t, d.DeleteCredential(t.Context(), by, Ref{"deleted", "twilio"}, 0))
	write("replaced", 2, []byte("short"))
	eventually(t, "forgotten", func() bool { return !found("deleted") && !found("replaced") })
	if !found("stays") {
		t.Fatal("forgot too much")
	}
	ok(t, d.DeleteCredential(t.Context(), by, Ref{"stays", "twilio"}, 0))
	ok(t, d.Close())
	if found("stays") {
		t.Fatal("closing leaves it")
	}
}

// Readers do not wait for a writer, a writer waits for another one, and a wait has an end.
func TestSQLiteWaits(t *testing.T) {
	hasty(t)
	path := filepath.Join(memdir.New(t), "keyward.db")
	d, other := sqlite(t, path), sqlite(t, path)
	put(t, d, acmeTwilio)
	follow(t, d)

	hold, err := other.w.BeginTx(t.Context(), nil)
	ok(t, err)
	if _, err := hold.ExecContext(t.Context(), "DELETE FROM org_credentials"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a read beside a write", func() bool { return read(d) == nil }) // which does not end before
	for tries := 1; ; tries++ {
		began := time.Now()
		written := make(chan error, 1)
		go func() {
			_, err := d.SetActive(context.Background(), by, acmeTwilio, false, 0)
			written <- err
		}()
		// While the write waits, the feed cannot look; it must not claim to be live.
		eventually(t, "the feed is not live", func() bool { return !d.FeedLive() })
		waited := time.Since(began)
		ok(t, hold.Rollback())
		if err = <-written; err == nil {
			break
		}
		if waited < busyTimeout/2 || tries == 5 {
			t.Fatalf("a write beside another, which ended %v later: %v", waited, err)
		}
		hold, err = other.w.BeginTx(t.Context(), nil) // the machine did not let them run in time
		ok(t, err)
	}
	eventually(t, "the feed is live again", d.FeedLive)

	hold, err = other.w.BeginTx(t.Context(), nil)
	ok(t, err)
	is(t, quick(t, 6*time.Second, func() error { return second(d.SetActive(t.Context(), by, acmeTwilio, true, 0)) }), ErrUnavailable)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	is(t, quick(t, time.Second, func() error { return second(d.SetActive(ctx, by, acmeTwilio, true, 0)) }), ErrUnavailable)
	ok(t, hold.Rollback())
	_, err = d.SetActive(t.Context(), by, acmeTwilio, true, 0)
	ok(t, err)
}

// A caller who goes away is told so; the store is not to blame.
func TestCancelled(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d := e.open(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _, err := d.Credential(ctx, acmeTwilio)
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrUnavailable) {
			t.Errorf("%v", err)
		}
		put(t, d, acmeTwilio)
	})
}

// Reads go on in parallel while somebody writes all the time.
func TestReadsBesideWrites(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d := e.open(t)
		put(t, d, acmeTwilio)
		var stop atomic.Bool
		var reads atomic.Int64
		errs := atOnce(9, func(i int) error {
			if i == 0 {
				defer stop.Store(true)
				for n, began := 0, time.Now(); n < 60 || reads.Load() < 60 && time.Since(began) < patience; n++ {
					if _, err := d.SetActive(context.Background(), by, acmeTwilio, true, 0); err != nil {
						return err
					}
				}
				return nil
			}
			for last := int64(0); !stop.Load(); reads.Add(1) {
				c, _, err := d.Credential(context.Background(), acmeTwilio)
				if err != nil {
					return err
				}
				if c.Version < last {
					return errors.New("a read went back in time")
				}
				last = c.Version
			}
			return nil
		})
		ok(t, errors.Join(errs...))
		if reads.Load() < 60 {
			t.Errorf("%d reads", reads.Load())
		}
	})
}
