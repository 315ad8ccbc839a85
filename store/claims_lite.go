package store

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/driver"
)

// claims are those of this process, on SQLite.
type claims struct {
	mu    sync.Mutex
	until map[string]time.Time // :: key → when it is free again
	swept time.Time
}

// sweepEvery is how often claims that nobody gave up are dropped: whose sidecar stood still for longer than they hold, for one.
const sweepEvery = time.Minute

// take claims a key, unless it is claimed.
func (c *claims) take(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if until, ok := c.until[key]; ok && now.Before(until) {
		return false
	}
	if c.until == nil {
		c.until = map[string]time.Time{}
	}
	c.until[key] = now.Add(ClaimLease)
	return true
}

// keep has a key be claimed while it is being forgotten.
func (c *claims) keep(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.until == nil {
		c.until = map[string]time.Time{}
	}
	c.until[key] = time.Now().Add(time.Minute)
}

// count is how many there are, with those that ran out a moment ago: their messages may be answered still.
func (c *claims) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.swept) >= sweepEvery {
		maps.DeleteFunc(c.until, func(_ string, until time.Time) bool { return now.Sub(until) >= sweepEvery })
		c.swept = now
	}
	return len(c.until)
}

func (c *claims) holds(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	until, ok := c.until[key]
	return ok && time.Now().Before(until)
}

func (c *claims) renew(keys []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		if _, ok := c.until[key]; ok {
			c.until[key] = time.Now().Add(ClaimLease)
		}
	}
}

func (c *claims) drop(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.until, key)
}

func (d *DB) claimLite(ctx context.Context, key string) (Claim, error) {
	if !d.lite.claims.take(key) {
		return UnderWay, nil
	}
	found, err := d.lite.keyLog.find(key), error(nil)
	if found == askSQLite {
		found, err = d.ask(ctx, key)
	}
	if err == nil && found == unheard {
		if err = d.lite.keyLog.room(d.lite.claims.count()); err == nil {
			return Fresh, nil
		}
	}
	d.lite.claims.drop(key)
	switch {
	case err != nil:
		return 0, err
	case found == leaving:
		return UnderWay, nil
	}
	return Seen, nil
}

// A keyReader reads keys by SQLite's own interface, as a keyWriter writes them: a look is on the way of every message that is answered, and
// takes 15 µs, with database/sql 70. It has a connection of its own, from its first use on.
type keyReader struct {
	mu   sync.Mutex
	conn *sql.Conn
	stmt *sqlite3.Stmt
}

// until is when a key that is kept runs out; zero: it is not kept.
func (k *keyReader) until(ctx context.Context, r *sql.DB, key string) (until time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if k.conn == nil {
		if k.conn, err = r.Conn(bounded); err != nil {
			return until, failure(ctx, bounded, err)
		}
	}
	err = k.conn.Raw(func(c any) (err error) {
		raw := c.(driver.Conn).Raw()
		if k.stmt == nil {
			if k.stmt, _, err = raw.Prepare(seenUntil); err != nil {
				return err
			}
		}
		defer raw.SetInterrupt(raw.SetInterrupt(bounded))
		if err := k.stmt.BindBlob(1, []byte(key)); err != nil {
			return err
		}
		if k.stmt.Step() {
			until = time.UnixMicro(k.stmt.ColumnInt64(0))
		}
		return k.stmt.Reset() // says what went wrong at the step
	})
	if err != nil {
		k.drop()
	}
	return until, failure(ctx, bounded, err)
}

func (k *keyReader) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop()
}

func (k *keyReader) drop() {
	if k.conn == nil {
		return
	}
	if k.stmt != nil {
		_ = k.conn.Raw(func(any) error { return k.stmt.Close() })
	}
	_ = k.conn.Close()
	k.conn, k.stmt = nil, nil
}

func (d *DB) confirmLite(ctx context.Context, key string, until time.Time) (duplicate bool, err error) {
	done, duplicate, err := d.lite.keyLog.keep(key, until)
	if !done {
		var found known
		if found, err = d.lite.keyLog.askOthers(key); found == kept {
			done, duplicate = true, true
		}
	}
	if !done && err == nil {
		err = d.lite.confirms.join(ctx, &part{keep: func(k *keyWriter) (err error) {
			if duplicate = d.lite.keyLog.told(key) == kept; !duplicate { // of one that the log keeps since keep was asked
				duplicate, err = k.keep(key, until)
			}
			return err
		}}, d.writeKeys)
		if noRoom(err) {
			duplicate, err = d.keepAside(ctx, key, until, err)
		}
	}
	if err == nil {
		d.lite.claims.drop(key)
	}
	return duplicate, err
}

// keepAside keeps a key that there was no room for, wherever there is some.
func (d *DB) keepAside(ctx context.Context, key string, until time.Time, cause error) (duplicate bool, err error) {
	if len(key) != keySize {
		return false, cause
	}
	before, err := d.lite.seen.until(context.WithoutCancel(ctx), d.r, key)
	switch {
	case err != nil:
		return false, errors.Join(cause, err)
	case before.After(time.Now()):
		return true, nil
	}
	duplicate, err = d.lite.keyLog.keepAside(key, until)
	if err != nil {
		return false, errors.Join(cause, err)
	}
	return duplicate, nil
}

var keyWait = time.Second // that confirmations wait for another write at most: answers wait for them

// writeKeys writes what was confirmed at the same time in one transaction: it costs a hundred messages that are answered at once a tenth
// of what each by itself does.
func (d *DB) writeKeys(parts []*part) {
	ctx, cancel := context.WithTimeout(context.Background(), keyWait) // not that of one of them, which must not end the others' transaction
	defer cancel()
	err := d.direct(ctx, func(k *keyWriter) error {
		if len(parts) == 1 {
			return parts[0].keep(k)
		}
		return k.whole(ctx, func() error {
			for _, p := range parts {
				if err := p.keep(k); err != nil {
					return err
				}
			}
			return nil
		})
	})
	for _, p := range parts {
		p.err = err
	}
}

func (d *DB) unclaimLite(ctx context.Context, key string, until time.Time) error {
	defer d.lite.claims.drop(key)
	if until.IsZero() {
		return nil // never confirmed: nothing was written
	}
	d.lite.claims.keep(key) // a copy that comes meanwhile waits for it
	done, err := d.lite.keyLog.forget(ctx, key, until)
	if !done && err == nil {
		err = d.direct(ctx, func(k *keyWriter) error { return k.forget(key, until) })
	}
	if err == nil || len(key) != keySize {
		return err
	}
	if e := d.lite.keyLog.forgetAside(key, until, noRoom(err)); e != nil {
		return errors.Join(err, e)
	}
	return nil
}

// A keyWriter writes keys by SQLite's own interface: a confirmation is on the way of every message that is answered, and database/sql's
// transactions take ten times as long (200 µs against 20). It belongs to the connection for writes.
type keyWriter struct {
	conn           int64 // that it was prepared on, as lite.opened counts them
	insert, remove *sqlite3.Stmt
}

// direct runs a keyWriter's statement, or a transaction of several, that does not wait for the disk.
func (d *DB) direct(ctx context.Context, do func(*keyWriter) error) error {
	bounded, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	conn, err := d.w.Conn(bounded)
	if err != nil {
		return failure(ctx, bounded, err)
	}
	defer func() { _ = conn.Close() }()
	if err := d.lite.relax(bounded, conn, true); err != nil {
		return failure(ctx, bounded, err)
	}
	err = conn.Raw(func(c any) error {
		k := &d.lite.keys
		if err := k.prepare(c.(driver.Conn).Raw(), d.lite.opened.Load()); err != nil {
			return err
		}
		return do(k)
	})
	return failure(ctx, bounded, err)
}

func (k *keyWriter) prepare(c *sqlite3.Conn, conn int64) (err error) {
	if k.conn == conn {
		return nil
	}
	if k.insert, _, err = c.Prepare(claimSeen); err != nil {
		return err
	}
	if k.remove, _, err = c.Prepare(forgetSeen); err != nil {
		_ = k.insert.Close()
		return err
	}
	k.conn = conn
	return nil
}

// end is called before the connection is closed, which must not have statements then.
func (k *keyWriter) end(*sqlite3.Conn) error {
	if k.conn == 0 {
		return nil
	}
	k.conn = 0
	return errors.Join(k.insert.Close(), k.remove.Close())
}

// whole runs a transaction. ctx bounds how long it waits for another one.
func (k *keyWriter) whole(ctx context.Context, do func() error) error {
	c := k.insert.Conn()
	before := c.SetInterrupt(ctx)
	err := c.Exec("BEGIN IMMEDIATE")
	c.SetInterrupt(before)
	if err != nil {
		return err
	}
	err = do()
	if err == nil {
		err = c.Exec("COMMIT")
	}
	if err != nil && !c.GetAutocommit() {
		return errors.Join(err, c.Exec("ROLLBACK"))
	}
	return err
}

func (k *keyWriter) keep(key string, until time.Time) (duplicate bool, err error) {
	err = errors.Join(k.insert.BindBlob(1, []byte(key)), k.insert.BindInt64(2, micros(until)), k.insert.BindInt64(3, micros(time.Now())))
	if err == nil {
		err = k.insert.Exec()
	}
	return err == nil && k.insert.Conn().Changes() == 0, err
}

func (k *keyWriter) forget(key string, until time.Time) error {
	err := errors.Join(k.remove.BindBlob(1, []byte(key)), k.remove.BindInt64(2, micros(until)))
	if err == nil {
		err = k.remove.Exec()
	}
	return err
}
