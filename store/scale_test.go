package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/keyward/keyward/internal/pgtest"
)

// TestScale prints the table of docs/scale.md: what the change feeds of many sidecars cost one PostgreSQL, each with the connection that
// listens and one more. Short: 20 sidecars; KEYWARD_TORTURE=1: 10, 50, 100 and 200.
func TestScale(t *testing.T) {
	sizes, changes := []int{20}, 20
	if long() {
		sizes, changes = []int{10, 50, 100, 200}, 200
	}
	server := pgtest.Start(t)
	for _, n := range sizes {
		address := server.New(t)
		home := postgres(t, address)
		rows := make([]*DB, n)
		heard := make([]atomic.Int64, n)
		last := make([]atomic.Int64, n) // when the change of now was heard
		began := time.Now()
		var feeds sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for i := range n {
			d, err := Open(ctx, address+"&pool_max_conns=1", Options{})
			ok(t, err)
			rows[i] = d
			feeds.Go(func() {
				_ = d.Watch(ctx, func(c Change) {
					if c.ID != "" {
						last[i].Store(time.Now().UnixNano())
						heard[i].Add(1)
					}
				})
			})
		}
		live := func() bool { return !slices.ContainsFunc(rows, func(d *DB) bool { return !d.FeedLive() }) }
		eventually(t, "all feeds are live", live)
		up := time.Since(began)

		c, err := pgx.Connect(t.Context(), address)
		ok(t, err)
		ask := func(query string) (v float64) {
			ok(t, c.QueryRow(t.Context(), query).Scan(&v))
			return v
		}
		conns := ask("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		cpu0, t0 := backendCPU(t, c), time.Now()
		time.Sleep(3 * time.Second)
		idle := (backendCPU(t, c) - cpu0).Seconds() / time.Since(t0).Seconds()

		var fan []time.Duration
		wrote := time.Now()
		for i := range changes {
			ref := Ref{fmt.Sprint("org-", i), "twilio"}
			ok(t, home.PutCredential(t.Context(), by, sealed(ref, 1)))
			committed := time.Now().UnixNano()
			for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
				missing := -1
				for k := range heard {
					if heard[k].Load() < int64(i+1) {
						missing = k
					}
				}
				if missing < 0 {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("sidecar %d never heard of change %d", missing, i)
				}
			}
			var worst int64
			for k := range last {
				worst = max(worst, last[k].Load()-committed)
			}
			fan = append(fan, time.Duration(max(worst, 0)))
		}
		perSecond := float64(changes) / time.Since(wrote).Seconds()
		slices.Sort(fan)

		// All feeds are lost at once and come back: each listens anew, and asks for nothing but that.
		_, err = c.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		ok(t, err)
		began = time.Now()
		time.Sleep(50 * time.Millisecond)
		eventually(t, "all feeds are live again", live)
		again := time.Since(began)
		t.Logf("| %d | %.0f | %v | %.1f %% | %v | %v | %.0f/s | %v |", n, conns, up.Round(time.Millisecond), 100*idle, fan[len(fan)/2].Round(10*time.Microsecond),
			fan[len(fan)*99/100].Round(10*time.Microsecond), perSecond, again.Round(time.Millisecond))
		cancel()
		feeds.Wait()
		for _, d := range rows {
			if err := d.Close(); err != nil {
				t.Error(errors.Join(err))
			}
		}
		_ = c.Close(context.Background())
	}
}

// backendCPU is the processor time of the database's backends, from /proc; 0 where there is none.
func backendCPU(t *testing.T, c *pgx.Conn) (sum time.Duration) {
	t.Helper()
	pids, err := c.Query(t.Context(), "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
	ok(t, err)
	defer pids.Close()
	for pids.Next() {
		var pid int
		ok(t, pids.Scan(&pid))
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/schedstat", pid))
		if err != nil {
			continue
		}
		var ns int64
		_, _ = fmt.Sscan(string(b), &ns)
		sum += time.Duration(ns)
	}
	return sum
}
