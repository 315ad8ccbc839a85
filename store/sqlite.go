package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"
)

const (
	readers     = 5 // connections for reads: each costs memory, and a read takes microseconds
	busyTimeout = 4 * time.Second

	pollEvery = 100 * time.Millisecond // how often a watcher looks for commits of other processes
)

// A lite is what only SQLite has.
type lite struct {
	path   string
	file   os.FileInfo   // what was there when it was opened; nil: nobody writes
	moved  atomic.Bool   // it is not there any more, as inPlace last saw
	owner  *owner        // if root runs on another user's store
	opened atomic.Int64  // how many connections for writes there have been; there is one at a time
	dirty  chan struct{} // holds one when the log may hold what was removed from the file
	long   chan struct{} // holds one when the log has become long

	presence presence // of the sidecar that this process is, if it is one

	// What look saw last, how relax left the connection, and what keys were prepared on it. Whoever holds the connection for writes owns them.
	looked        bool
	conn, version int64
	relaxed       int64 // the connection that does not wait for the disk; 0: none
	keys          keyWriter

	claims   claims
	seen     keyReader
	confirms joint // what is confirmed at the same time
	keyLog   keyLog
}

// openSQLite opens the file with one connection for writes and several for reads: in WAL mode neither waits for the other. SQLite's
// defaults are not for secrets: it makes files that others may read, gives up at once when another process writes, and leaves deleted
// content in the file.
func (d *DB) openSQLite(ctx context.Context, path string) error {
	if path == "" {
		return errors.New("after sqlite: comes a path, as sqlite:/var/lib/keyward/keyward.db")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // SQLite itself follows no link
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	d.engine, d.lite = "sqlite", &lite{path: path, dirty: make(chan struct{}, 1), long: make(chan struct{}, 1)}
	if err := d.lite.makePrivate(path); err != nil {
		return err
	}
	if d.lite.file, err = os.Stat(path); err != nil {
		return err
	}
	if d.lite.owner, err = ownerOf(path); err != nil {
		return err
	}

	name := "file:" + (&url.URL{Path: path}).EscapedPath() +
		"?_txlock=immediate" + // a transaction that read before it writes cannot get the lock any more
		"&modeof=" + url.PathEscape(path) // the log has the file's mode
	d.w, err = driver.Open(name, d.lite.forWrites, d.lite.keys.end)
	if err != nil {
		return err
	}
	d.w.SetMaxOpenConns(1)
	d.w.SetMaxIdleConns(1)
	d.r, err = driver.Open(name, forReads)
	if err != nil {
		return err
	}
	d.r.SetMaxOpenConns(readers)
	d.r.SetMaxIdleConns(readers)

	if err := d.lite.firstUse(ctx, d.w); err != nil {
		_ = d.r.Close()
		_ = d.w.Close()
		if errors.Is(err, sqlite3.NOTADB) {
			return fmt.Errorf("%s is not an SQLite database", path)
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	d.feeds.Go(func() { d.lite.cleanUp(d.closing, d.w) })
	d.feeds.Go(func() { d.lite.fold(d.closing, d.r) })
	return nil
}

// lookAtSQLite opens the file for reading alone. Without a log beside it nobody has it open, or nobody has written, and SQLite is told that
// the file does not change, for else it would make a log to read by; with one it reads that too.
func (d *DB) lookAtSQLite(ctx context.Context, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if _, err := os.Stat(path); err != nil {
		return err
	}
	mode := "?mode=ro"
	if st, err := os.Stat(path + "-wal"); err != nil || st.Size() == 0 {
		mode += "&immutable=1"
	}
	d.engine, d.lite = "sqlite", &lite{path: path}
	d.r, err = driver.Open("file:"+(&url.URL{Path: path}).EscapedPath()+mode, forReads)
	if err != nil {
		return err
	}
	d.w = d.r
	d.r.SetMaxOpenConns(1)
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	var tables int64
	if err := d.r.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
		_ = d.r.Close()
		if errors.Is(err, sqlite3.NOTADB) {
			return fmt.Errorf("%s is not an SQLite database", path)
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// forWrites sets up a new connection for writes.
func (l *lite) forWrites(c *sqlite3.Conn) error {
	l.opened.Add(1)
	if err := c.BusyTimeout(busyTimeout); err != nil {
		return err
	}
	c.WALHook(l.grown) // instead of SQLite's own, which folds the log within the commit that made it long
	return c.Exec(`PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA secure_delete = on; PRAGMA foreign_keys = on; PRAGMA trusted_schema = off`)
}

func forReads(c *sqlite3.Conn) error {
	if err := c.BusyTimeout(busyTimeout); err != nil {
		return err
	}
	return c.Exec(`PRAGMA query_only = on; PRAGMA trusted_schema = off`)
}

// firstUse connects, which makes the log and its index beside the file. Two processes that do so at the same moment may refuse each
// other, without waiting, while the file is switched to WAL mode.
func (l *lite) firstUse(ctx context.Context, w *sql.DB) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var mode string
	for {
		err := w.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode)
		if err == nil {
			break
		}
		if !errors.Is(err, sqlite3.BUSY) || ctx.Err() != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
	if mode != "wal" {
		return fmt.Errorf("its file system does not support SQLite's WAL mode (the journal mode is %q): the store must be on a local disk", mode)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := l.makePrivate(l.path + suffix); err != nil {
			return err
		}
	}
	return nil
}

// makePrivate makes the file be there, and be nobody else's to read.
func (l *lite) makePrivate(path string) error {
	f, err := l.open(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return f.Chmod(0o600)
	}
	return nil
}

// errMoved: what is written to a file that has lost its name is gone when the last who has it open ends, and what another process writes to the
// one that is there now is not seen here.
var errMoved = errors.New("the file was moved, removed or replaced while it was open; put it back, or end whatever has it open and begin with the one that is there")

// inPlace is an errMoved when the path leads to another file than the one that is open, or to none.
func (l *lite) inPlace() error {
	if l.file == nil {
		return nil
	}
	there, err := os.Stat(l.path)
	moved := errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(there, l.file)
	l.moved.Store(moved)
	if moved {
		return fmt.Errorf("%s: %w", l.path, errMoved)
	}
	return nil
}

// relax makes transactions wait for the disk at their end, or not: without it they are in the kernel's hands, and outlive this process. In
// either case none is left half done, and none outlives one before it.
func (l *lite) relax(ctx context.Context, conn *sql.Conn, relaxed bool) error {
	now := l.opened.Load() // a new connection waits
	if (l.relaxed == now) == relaxed {
		return nil
	}
	mode := "PRAGMA synchronous = full"
	if relaxed {
		mode = "PRAGMA synchronous = normal"
	}
	if _, err := conn.ExecContext(ctx, mode); err != nil {
		return err
	}
	if l.relaxed = 0; relaxed {
		l.relaxed = now
	}
	return nil
}

// look announces Change{} when another process, or another Keyward in this one, has committed since the last look. data_version counts
// exactly the commits of others on the connection that it is asked on, which is why this must be the one for writes.
func (l *lite) look(ctx context.Context, conn *sql.Conn, announce func(...Change)) error {
	var version int64
	if err := conn.QueryRowContext(ctx, "PRAGMA data_version").Scan(&version); err != nil {
		return err
	}
	now := l.opened.Load() // a new connection counts anew
	if l.looked && (version != l.version || now != l.conn) {
		announce(Change{})
	}
	l.looked, l.conn, l.version = true, now, version
	return nil
}

// poll feeds one watcher until ctx ends.
func (d *DB) poll(ctx context.Context, w *watcher) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	gap, lost := true, false // lost: and it is in the log
	for {
		asked := d.now()
		err := d.pollOnce(ctx)
		switch {
		case err == nil:
			if gap {
				d.announceTo(w, Change{})
			}
			if lost {
				d.log.Info().Msg("the store's change feed is live again")
			}
			gap, lost = false, false
			w.prove(asked)
		case ctx.Err() == nil:
			if !lost {
				d.log.Warn().Err(err).Msg("the store's change feed is down; cached values are checked with the store before use")
			}
			gap, lost = true, true
			w.beat.Store(dead)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (d *DB) pollOnce(ctx context.Context) error {
	if err := d.lite.inPlace(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	conn, err := d.w.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return d.lite.look(ctx, conn, d.announce)
}

// A fileLock keeps other processes from migrating the same file; it goes with the process, however it ends.
type fileLock struct {
	l *lite
	f *os.File
}

func (l *fileLock) Lock(ctx context.Context, _ *sql.DB) error {
	f, err := l.l.open(l.l.path+".lock", os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			l.f = f
			return nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return fmt.Errorf("locking %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (l *fileLock) Unlock(context.Context, *sql.DB) error { return l.f.Close() }
