package soak

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/bench/scenario"
	"github.com/keyward/keyward/internal/pgtest"
)

// A fault is something that goes wrong for a while, and what it may cost.
type fault struct {
	name  string
	about string
	only  string // how the names of the sidecars begin that it befalls; empty: all
	// allows is everything that it explains; nothing: no call may fail for it.
	allows []allowed
	do     func(ctx context.Context, f *field, d time.Duration) error
}

type allowed struct {
	kinds, outcomes []string
}

// What needs the store to answer: an org that is not in the cache, a credential that was replaced, a write, a webhook that is to be stored or marked as seen.
var (
	needsStore  = []string{"miss", "rotated", "webhook", "durable", "admin"}
	outOfStore  = []string{"503 store_unavailable"}
	toProvider  = []string{"hit", "miss", "assistant", "rotated", "stream", "upload", "websocket", "admin"}
	whileNoNews = []allowed{
		{needsStore, outOfStore},
		// A key that was replaced just before: who could not hear of it goes on with what he has, and the provider refuses it.
		{[]string{"rotated"}, []string{"401 from the provider"}},
	}
)

// faults come in this order, again and again. Those that leave most behind come first.
var faults = []fault{
	{"the provider stalls", "every answer of the provider is held back; nobody may fail, all wait", "", nil, func(ctx context.Context, f *field, d time.Duration) error {
		d = min(d, 4*time.Second)
		if err := f.provider.Stall(d); err != nil {
			return err
		}
		return sleep(ctx, d)
	}},
	{"connections flood in", "1,000 connections over TCP to each sidecar, with half a head each; callers on the unix socket may not notice", "", nil, flood},
	{
		"the provider resets", "every third connection is reset in place of an answer, or in the middle of a stream", "",
		[]allowed{{toProvider, []string{"502 upstream_unreachable", "502 upstream_protocol", broken}}},
		func(ctx context.Context, f *field, d time.Duration) error {
			if err := f.provider.Reset(d); err != nil {
				return err
			}
			return sleep(ctx, d)
		},
	},
	{"PostgreSQL is away", "the server is stopped, and started again", onPostgres, whileNoNews, func(ctx context.Context, f *field, d time.Duration) error {
		if err := f.db.Halt(); err != nil {
			return err
		}
		err := sleep(ctx, d)
		if up := f.db.Resume(); up != nil {
			return up
		}
		return err
	}},
	{"configurations are read anew", "a SIGHUP to each sidecar five times a second, with a changed file", "", nil, func(ctx context.Context, f *field, d time.Duration) error {
		for i := range max(1, int(d/(200*time.Millisecond))) {
			for _, n := range f.nodes {
				if err := n.configure(4000 + i%2); err != nil {
					return err
				}
				if err := syscall.Kill(n.PIDs()[0], syscall.SIGHUP); err != nil {
					return err
				}
			}
			if err := sleep(ctx, 200*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	}},
	{"the change feed is cut", "the connections that listen for changes are ended, twice a second", onPostgres, nil, func(ctx context.Context, f *field, d time.Duration) error {
		return f.ending(ctx, d, 500*time.Millisecond, `query LIKE 'LISTEN%' OR query LIKE 'UNLISTEN%'`)
	}},
	{
		"the app is down", "it takes no connection; what waits for its answer fails, what is stored does not", "",
		[]allowed{{[]string{"webhook"}, []string{"502 target_unreachable"}}},
		func(ctx context.Context, f *field, d time.Duration) error {
			if err := f.app.down(); err != nil {
				return err
			}
			err := sleep(ctx, d)
			if up := f.app.up(); up != nil {
				return up
			}
			return err
		},
	},
	{"PostgreSQL hangs", "a lock on all tables: connections are there, answers are not", onPostgres, whileNoNews, func(_ context.Context, f *field, d time.Duration) error {
		return f.hang(d)
	}},
	{"callers vanish", "hundreds of callers that go in the middle of their request, or before its answer", "", nil, vanish},
	{"the provider is slow", "each answer is 400 ms late", "", nil, func(ctx context.Context, f *field, d time.Duration) error {
		if err := f.provider.Slow(d); err != nil {
			return err
		}
		return sleep(ctx, d)
	}},
	{"connections to PostgreSQL are lost", "all of them, every second, as when another server takes over", onPostgres, whileNoNews, func(ctx context.Context, f *field, d time.Duration) error {
		return f.ending(ctx, d, time.Second, `true`)
	}},
	{"SQLite is held", "another process holds the right to write", onSQLite, []allowed{{[]string{"webhook", "durable", "admin"}, outOfStore}}, holdSQLite},
}

func (f *fault) possible(in *field) bool { return f.only != onPostgres || in.db != nil }

// hang locks all tables for so long. Who writes meanwhile may have them in another order: whichever the server gives up, asks again.
func (f *field) hang(d time.Duration) error {
	const most = 20
	for try := 1; ; try++ {
		err := f.db.Run(database, fmt.Sprintf(`BEGIN; LOCK TABLE org_credentials, row_versions, webhook_deliveries, webhook_seen, assistant_org_mapping, caller_tokens, audit_log
			IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(%f); COMMIT`, d.Seconds()))
		if !pgtest.IsDeadlock(err) || try == most {
			return err
		}
	}
}

// ending has the server end connections of the sidecars, again and again.
func (f *field) ending(ctx context.Context, d, every time.Duration, which string) error {
	for until := time.Now().Add(d); time.Now().Before(until); {
		if err := f.db.Run("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+database+"' AND ("+which+")"); err != nil {
			return err
		}
		if err := sleep(ctx, every); err != nil {
			return err
		}
	}
	return nil
}

// many runs n of them for each sidecar at once, until the time is over.
func (f *field) many(ctx context.Context, d time.Duration, n int, do func(ctx context.Context, n *node)) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var all sync.WaitGroup
	for _, node := range f.nodes {
		for range n {
			all.Go(func() {
				for ctx.Err() == nil {
					do(ctx, node)
					_ = sleep(ctx, 50*time.Millisecond)
				}
			})
		}
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil && err != context.DeadlineExceeded { //nolint:errorlint // the very value
		return err
	}
	return nil
}

func flood(ctx context.Context, f *field, d time.Duration) error {
	return f.many(ctx, d, 1000, func(ctx context.Context, n *node) {
		c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", n.tcp)
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
		_, _ = io.WriteString(c, "POST /resend/emails HTTP/1.1\r\nHost: localhost\r\n")
		_, _ = c.Read(make([]byte, 1)) // until it is thrown out
	})
}

func vanish(ctx context.Context, f *field, d time.Duration) error {
	return f.many(ctx, d, 15, func(ctx context.Context, n *node) {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(n.Dir, "caller.sock"))
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		org := scenario.OrgName(rand.IntN(hotOrgs))
		whole := "POST /emails HTTP/1.1\r\nHost: api.resend.com\r\nKeyward-Org: " + org + "\r\nX-Bench-Org: " + org + "\r\nContent-Length: 40\r\n\r\n" +
			`{"to":"a@acme.example","text":"xxxxxxx"}`
		switch rand.IntN(3) {
		case 0:
			_, _ = io.WriteString(c, whole[:rand.IntN(len(whole))])
		case 1:
			_, _ = io.WriteString(c, whole)
		default: // a stream, of which it reads the beginning
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.WriteString(c, "POST /v1/text-to-speech/voice/stream HTTP/1.1\r\nHost: api.elevenlabs.io\r\nKeyward-Org: "+org+"\r\nX-Bench-Org: "+org+"\r\nContent-Length: 2\r\n\r\n{}")
			_, _ = bufio.NewReader(c).Peek(100)
		}
	})
}

// SQLite's right to write is a lock on one byte of its shared memory (WAL_WRITE_LOCK, https://www.sqlite.org/walformat.html, section 2.3).
const sqliteWriteLock = 120

func holdSQLite(ctx context.Context, f *field, d time.Duration) error {
	n := f.nodes[len(f.nodes)-1]
	file, err := os.OpenFile(filepath.Join(n.Dir, "data", "keyward.db-shm"), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // and with it the lock
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: sqliteWriteLock, Len: 1}
	for until := time.Now().Add(10 * time.Second); ; {
		err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock)
		if err == nil {
			break
		}
		if time.Now().After(until) {
			return fmt.Errorf("locking: %w", err)
		}
		if err := sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return sleep(ctx, d)
}
