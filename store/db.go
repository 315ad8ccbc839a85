package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// How long the store may take. Nothing waits for ever: after this, a call is ErrUnavailable. Only tests change them, for machines that are busy
// with other things.
var (
	readTimeout  = time.Second     // of what serves a request
	listTimeout  = 5 * time.Second // of listings
	writeTimeout = 5 * time.Second // of a transaction, with waiting for another one
)

// maxAttempts bounds how often a call is tried again on another connection, after the server closed the one that the pool still held.
// Each attempt uses one such connection up.
const maxAttempts = maxConns + 2

// Options of Open.
type Options struct {
	Log zerolog.Logger // the change feed's ups and downs; the zero Logger is silent

	// Look is for who only reads: an SQLite store is taken as it is, no file of it is made, mended or folded, and what is not there is an
	// os.ErrNotExist. On PostgreSQL it changes nothing; opening has no effects there.
	Look bool
}

// A DB is an open store. Its methods may be called at the same time.
type DB struct {
	engine string
	log    zerolog.Logger
	r, w   *sql.DB // for reads and writes; the same on PostgreSQL
	lite   *lite   // what only SQLite has; nil on PostgreSQL
	pg     *pg     // what only PostgreSQL has; nil on SQLite
	joint  joint   // writes that share a transaction
	stats  Stats

	// The statements that serve requests, prepared at their first use on SQLite.
	credential, assistant, token hot

	started  time.Time                  // what feeds' beats are counted from, on the monotonic clock
	closing  context.Context            // ended by Close
	close    context.CancelFunc         //
	feeds    sync.WaitGroup             // the Watch calls under way
	watching sync.RWMutex               // held for reading while watchers are called, so that none is called after its Watch has returned
	watchers atomic.Pointer[[]*watcher] // never changed once installed
}

var _ Reader = (*DB)(nil)

// Open opens the store at url: "sqlite:PATH", whose file and folder are made when they do not exist, or "postgres://…", which is
// connected to at the first use, so that a store that is down keeps nobody from starting. Migrating is up to the caller.
func Open(ctx context.Context, url string, o Options) (*DB, error) {
	d := &DB{
		log: o.Log, started: time.Now(),
		credential: hot{query: selectCredential}, assistant: hot{query: selectAssistant}, token: hot{query: selectToken},
	}
	d.watchers.Store(&[]*watcher{})
	d.closing, d.close = context.WithCancel(context.Background())
	var err error
	switch scheme, rest, _ := strings.Cut(url, ":"); scheme {
	case "sqlite":
		if o.Look {
			err = d.lookAtSQLite(ctx, rest)
		} else {
			err = d.openSQLite(ctx, rest)
		}
	case "postgres", "postgresql":
		err = d.openPostgres(url)
	default:
		err = errors.New("it must be sqlite:PATH or postgres://…") // never quoted: it may hold a password
	}
	if err != nil {
		d.close()
		return nil, fmt.Errorf("opening store: %w", err)
	}
	return d, nil
}

// Close ends the watchers, waits for them and closes the store.
func (d *DB) Close() error {
	d.watching.Lock() // a Watch has either begun, and is waited for, or will see that it comes too late
	d.close()
	d.watching.Unlock()
	d.feeds.Wait()
	d.credential.close()
	d.assistant.close()
	d.token.close()
	if d.pg != nil {
		d.pg.gate.close()
	}
	if d.lite != nil {
		d.lite.seen.close()
		d.lite.leave()
	}
	err := d.r.Close()
	if d.w != d.r {
		err = errors.Join(err, d.w.Close()) // last, and its last connection: SQLite then folds the log into the file and removes it
	}
	return err
}

// Engine is "sqlite" or "postgres".
func (d *DB) Engine() string { return d.engine }

// Ping asks the store for a sign of life.
func (d *DB) Ping(ctx context.Context) error {
	query := "SELECT 1"
	if d.lite != nil {
		query = "SELECT count(*) FROM sqlite_schema" // reads the file
	}
	return d.read(forNone(ctx), readTimeout, func(ctx context.Context) error {
		var n int64
		return d.r.QueryRowContext(ctx, query).Scan(&n)
	})
}

// A hot is a query that serves requests. On SQLite, preparing takes longer than running, so it is prepared once for each connection.
// On PostgreSQL a prepared statement belongs to a session, and behind a transaction pooler there is none.
type hot struct {
	query string
	stmt  atomic.Pointer[sql.Stmt]
}

func (h *hot) row(ctx context.Context, d *DB, args ...any) *sql.Row {
	if d.lite == nil {
		return d.r.QueryRowContext(ctx, h.query, args...)
	}
	s := h.stmt.Load()
	if s == nil {
		made, err := d.r.PrepareContext(ctx, h.query)
		if err != nil {
			return d.r.QueryRowContext(ctx, h.query, args...) // which says what is wrong
		}
		if s = made; !h.stmt.CompareAndSwap(nil, made) {
			_ = made.Close()
			s = h.stmt.Load()
		}
	}
	return s.QueryRowContext(ctx, args...)
}

func (h *hot) close() {
	if s := h.stmt.Load(); s != nil {
		_ = s.Close()
	}
}

// Stats count what the store was asked since it was opened.
type Stats struct {
	Reads, Writes                       atomic.Int64 // that it answered, with an error perhaps; several queries that belong together are one
	ReadsUnavailable, WritesUnavailable atomic.Int64 // that it could not be reached for
}

// Stats are the store's counters.
func (d *DB) Stats() *Stats { return &d.stats }

// counted counts a call by how it ended.
func counted(answered, unavailable *atomic.Int64, err error) error {
	if errors.Is(err, ErrUnavailable) {
		unavailable.Add(1)
	} else {
		answered.Add(1)
	}
	return err
}

// read runs queries that may run again. They see the rows of the org that ctx is for, or everybody's.
func (d *DB) read(ctx context.Context, limit time.Duration, ask func(context.Context) error) error {
	if d.lite != nil && d.lite.moved.Load() { // as who follows its changes found out
		return counted(&d.stats.Reads, &d.stats.ReadsUnavailable, fmt.Errorf("%w: %s: %w", ErrUnavailable, d.lite.path, errMoved))
	}
	bounded, cancel := context.WithTimeout(forEvery(ctx), limit)
	defer cancel()
	for attempt := 1; ; attempt++ {
		err := ask(bounded)
		if err == nil || attempt == maxAttempts || bounded.Err() != nil || !connectionLost(err) && !outdated(err) {
			return counted(&d.stats.Reads, &d.stats.ReadsUnavailable, failure(ctx, bounded, err))
		}
	}
}

// list reads rows, each by scan.
func (d *DB) list(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := d.r.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// A tx is one write: a transaction, and what it changed.
type tx struct {
	ctx     context.Context // of the call that the transaction belongs to
	tx      *sql.Tx
	now     time.Time
	relaxed bool // see writeRelaxed
	changes []Change

	postgres bool // not SQLite: for the few writes that differ
}

// exec runs a statement and returns how many rows it touched.
func (t *tx) exec(query string, args ...any) (int64, error) {
	r, err := t.tx.ExecContext(t.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (t *tx) row(query string, args ...any) *sql.Row {
	return t.tx.QueryRowContext(t.ctx, query, args...)
}

// exists says whether a query has a row.
func (t *tx) exists(query string, args ...any) (bool, error) {
	var one int64
	switch err := t.row(query, args...).Scan(&one); {
	case errors.Is(err, sql.ErrNoRows):
		return false, nil
	case err != nil:
		return false, err
	}
	return true, nil
}

// changed says what to announce after the commit.
func (t *tx) changed(k Kind, id string) { t.changes = append(t.changes, Change{k, id}) }

// write runs one transaction, then tells this process's watchers, then returns. It may run change again, after a deadlock or when the
// connection turned out to be closed before anything was done; so change sets what its caller sees only by what it wrote last.
func (d *DB) write(ctx context.Context, change func(*tx) error) error {
	return d.writeAs(ctx, false, change)
}

// writeRelaxed is write for what need not outlive a loss of power to the host or a crash of PostgreSQL, only the end of this process: it
// does not wait for the disk. What is lost then are the last moments, in the order of their writing.
func (d *DB) writeRelaxed(ctx context.Context, change func(*tx) error) error {
	return d.writeAs(ctx, true, change)
}

func (d *DB) writeAs(ctx context.Context, relaxed bool, change func(*tx) error) error {
	bounded, cancel := context.WithTimeout(forEvery(ctx), writeTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		begun, err := d.writeOnce(bounded, relaxed, change)
		again := deadlocked(err) || outdated(err) || !begun && connectionLost(err)
		if err == nil || attempt == maxAttempts || bounded.Err() != nil || !again {
			return counted(&d.stats.Writes, &d.stats.WritesUnavailable, failure(ctx, bounded, err))
		}
	}
}

// writeOnce says, besides, whether the transaction was begun: if not, nothing was done.
func (d *DB) writeOnce(ctx context.Context, relaxed bool, change func(*tx) error) (begun bool, err error) {
	conn, err := d.w.Conn(ctx)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	if d.lite != nil {
		if err := d.lite.inPlace(); err != nil {
			return false, err
		}
		if err := d.lite.relax(ctx, conn, relaxed); err != nil {
			return false, err
		}
	}
	sqltx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return false, err
	}
	t := &tx{ctx: ctx, tx: sqltx, now: stamp(time.Now()), relaxed: relaxed, postgres: d.pg != nil}
	if err := change(t); err != nil {
		_ = sqltx.Rollback()
		return true, err
	}
	err = sqltx.Commit()
	// After an error too: who lost the connection at the commit does not know whether it happened, and one announcement too many is harmless.
	d.announce(t.changes...)
	if d.lite != nil {
		_ = d.lite.look(ctx, conn, d.announce)
	}
	return true, err
}

// storable says whether PostgreSQL takes s as a text. What is not has never been stored: asked for it, the store need not be.
func storable(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// stamp is a time as both engines keep it: UTC, in microseconds, without a monotonic clock.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// nullable is a time for a column that may be empty.
func nullable(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return stamp(t)
}

// A when scans a time: PostgreSQL's driver hands over a time.Time, SQLite's a text; NULL is the zero time.
type when struct{ t *time.Time }

func (w when) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*w.t = time.Time{}
	case time.Time:
		*w.t = v.UTC()
	case string:
		t, err := time.Parse(time.RFC3339Nano, v)
		if err != nil {
			return err
		}
		*w.t = t.UTC()
	default:
		return fmt.Errorf("a time of type %T", v)
	}
	return nil
}

// page is how many rows a listing returns: limit, or 100 when none is given, at most 1000. One more is asked for, to see if there is more.
func page(limit int) int {
	if limit <= 0 {
		return 100
	}
	return min(limit, 1000)
}

// cut drops the row too many and returns the cursor to go on from: the key of the last row that stays; empty: there is no more.
func cut[T any](rows []T, limit int, key func(T) string) ([]T, string) {
	if len(rows) <= limit {
		return rows, ""
	}
	rows = rows[:limit]
	return rows, key(rows[limit-1])
}
