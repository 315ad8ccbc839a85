package cache_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyward/keyward/cache"
	"github.com/keyward/keyward/internal/pgtest"
	"github.com/keyward/keyward/store"
)

// Two sidecars on one PostgreSQL: one changes a credential, the other is asked for it all the time while its other loads race. What is
// measured is how long after the acknowledgement of a change a call still begins that gets the old value.

// long says whether the tests run in their long forms.
func long() bool { return os.Getenv("KEYWARD_TORTURE") == "1" }

const maxRevoked = time.Second // the contract's bound, whatever is wrong with the feed

var (
	ref = store.Ref{Org: "acme", Provider: "twilio"}
	by  = store.Actor{Name: "test"}
)

func open(t *testing.T, address string) *store.DB {
	t.Helper()
	d, err := store.Open(t.Context(), address, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func put(t *testing.T, d *store.DB, r store.Ref, version int64) {
	t.Helper()
	c := &store.Credential{Ref: r, Version: version, SealedVersion: version, KeyID: "k1", Active: true, Sealed: fmt.Append(nil, version)}
	if err := d.PutCredential(t.Context(), by, c); err != nil {
		t.Fatal(err)
	}
}

// A wire leads to PostgreSQL. What comes back on the connections that listen can be swallowed, or those connections reset.
type wire struct {
	url   string
	holed atomic.Bool
	mu    sync.Mutex
	feeds []net.Conn
}

func newWire(t *testing.T, address string) *wire {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	far := filepath.Join(q.Get("host"), ".s.PGSQL.5432")
	dir, err := os.MkdirTemp("/tmp", "kwwire") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(); _ = os.RemoveAll(dir) })
	w := &wire{}
	go func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			go w.carry(near, far)
		}
	}()
	q.Set("host", dir)
	u.RawQuery = q.Encode()
	w.url = u.String()
	return w
}

func (w *wire) carry(near net.Conn, address string) {
	defer func() { _ = near.Close() }()
	far, err := net.Dial("unix", address)
	if err != nil {
		return
	}
	defer func() { _ = far.Close() }()
	var feed atomic.Bool
	go func() {
		defer func() { _ = far.Close() }()
		buf := make([]byte, 32<<10)
		for {
			n, err := near.Read(buf)
			if bytes.Contains(buf[:n], []byte("LISTEN keyward\x00")) {
				feed.Store(true)
				w.mu.Lock()
				w.feeds = append(w.feeds, near)
				w.mu.Unlock()
			}
			if _, writing := far.Write(buf[:n]); err != nil || writing != nil {
				return
			}
		}
	}()
	buf := make([]byte, 32<<10)
	for {
		n, err := far.Read(buf)
		if !feed.Load() || !w.holed.Load() {
			_, _ = near.Write(buf[:n])
		}
		if err != nil {
			return
		}
	}
}

func (w *wire) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.feeds {
		_ = c.Close()
	}
	w.feeds = nil
}

// An acked is the last change that was acknowledged.
type acked struct {
	version int64
	at      time.Time
}

// A watched is the sidecar that is asked.
type watched struct {
	t      *testing.T
	writer *store.DB
	db     *store.DB
	acked  atomic.Pointer[acked]
	worst  atomic.Int64 // a time.Duration
	old    atomic.Int64
	stale  atomic.Int64 // calls meanwhile the store could not be reached for somebody: those promise nothing
	calls  atomic.Int64
	failed atomic.Int64
}

func watch(t *testing.T, direct, through string) *watched {
	t.Helper()
	w := &watched{t: t, writer: open(t, direct), db: open(t, through)}
	if _, err := w.writer.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	const others = 300
	put(t, w.writer, ref, 1)
	for i := range others {
		put(t, w.writer, store.Ref{Org: fmt.Sprint("org-", i), Provider: "twilio"}, 1)
	}
	w.acked.Store(&acked{1, time.Now()})
	c, err := cache.New(w.db, cache.Options{Size: 100, TTL: time.Hour, MaxStale: time.Hour, FeedLive: w.db.FeedLive})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = w.db.Watch(ctx, c.Apply) })
	for range 3 {
		all.Go(func() {
			for ctx.Err() == nil {
				stale := c.Stats().Stale
				last, began := w.acked.Load(), time.Now()
				row, _, err := c.Credential(ctx, ref)
				w.calls.Add(1)
				if err != nil {
					w.failed.Add(1)
				} else if c.Stats().Stale != stale {
					w.stale.Add(1)
				} else if late := began.Sub(last.at); row.Version < last.version {
					w.old.Add(1)
					for was := w.worst.Load(); int64(late) > was && !w.worst.CompareAndSwap(was, int64(late)); was = w.worst.Load() {
					}
				}
				time.Sleep(rand.N(2 * time.Millisecond))
			}
		})
	}
	all.Go(func() { // loads that race
		for ctx.Err() == nil {
			_, _, _ = c.Credential(ctx, store.Ref{Org: fmt.Sprint("org-", rand.N(others)), Provider: "twilio"})
			time.Sleep(rand.N(2 * time.Millisecond))
		}
	})
	t.Cleanup(func() { cancel(); all.Wait(); c.Close() })
	w.live(true)
	return w
}

func (w *watched) live(want bool) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); w.db.FeedLive() != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("the feed is live: %v", !want)
		}
	}
}

func (w *watched) change() {
	next := w.acked.Load().version + 1
	put(w.t, w.writer, ref, next)
	w.acked.Store(&acked{next, time.Now()})
}

// report fails when an old value was used for longer than the bound.
func (w *watched) report(what string, bound time.Duration) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); w.calls.Load() < 100 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		continue // a machine that is busy with other things
	}
	worst := time.Duration(w.worst.Load())
	w.t.Logf("%s: %d changes, %d calls, %d of them got the old value, the last began %v after the acknowledgement; %d refused, %d while the store was away",
		what, w.acked.Load().version-1, w.calls.Load(), w.old.Load(), worst.Round(10*time.Microsecond), w.failed.Load(), w.stale.Load())
	if worst > bound {
		w.t.Errorf("%s: an old value was used %v after the change, more than %v", what, worst, bound)
	}
	if n := w.calls.Load() - w.stale.Load() - w.failed.Load(); n < 50 {
		w.t.Errorf("%d calls prove nothing", n)
	}
}

func TestRevokedWithTheFeedHealthy(t *testing.T) {
	address := pgtest.New(t)
	w := watch(t, address, address)
	changes, bound := 200, maxRevoked // a machine under the whole suite may stall; the long form has it for itself
	if long() {
		changes, bound = 10_000, 100*time.Millisecond
	}
	for range changes {
		w.change()
		time.Sleep(rand.N(4 * time.Millisecond))
	}
	time.Sleep(bound)
	w.report("healthy", bound)
}

func TestRevokedWithTheFeedReset(t *testing.T) {
	address := pgtest.New(t)
	cable := newWire(t, address)
	w := watch(t, address, cable.url)
	rounds := 5
	if long() {
		rounds = 200
	}
	for range rounds {
		cable.reset()
		time.Sleep(rand.N(20 * time.Millisecond))
		w.change()
		time.Sleep(200 * time.Millisecond)
		w.live(true)
	}
	w.report("reset", maxRevoked)
}

// The connection that listens hears nothing any more, and nobody says so; the others work.
func TestRevokedWithTheFeedBlackHoled(t *testing.T) {
	address := pgtest.New(t)
	cable := newWire(t, address)
	w := watch(t, address, cable.url)
	rounds := 1
	if long() {
		rounds = 20
	}
	for range rounds {
		cable.holed.Store(true)
		for range 15 {
			w.change()
			time.Sleep(100 * time.Millisecond)
		}
		w.live(false)
		w.change()
		time.Sleep(1200 * time.Millisecond)
		cable.holed.Store(false)
		w.live(true)
		w.change()
	}
	w.report("black-holed", maxRevoked)
}

// What PostgreSQL ends itself, as at a fail-over, is a reset too.
func TestRevokedWithTheFeedTerminated(t *testing.T) {
	address := pgtest.New(t)
	w := watch(t, address, address)
	c, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	for range 3 {
		if _, err := c.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"); err != nil {
			t.Fatal(err)
		}
		w.change()
		time.Sleep(300 * time.Millisecond)
		w.live(true)
	}
	w.report("terminated", maxRevoked)
}
