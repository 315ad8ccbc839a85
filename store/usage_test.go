package store

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/keyward/keyward/internal/pgtest"
)

// A clock is one that a test moves.
type clock struct{ at atomic.Pointer[time.Time] }

func newClock() *clock {
	c := &clock{}
	now := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	c.at.Store(&now)
	return c
}

func (c *clock) now() time.Time { return *c.at.Load() }

func (c *clock) pass(d time.Duration) {
	next := c.now().Add(d)
	c.at.Store(&next)
}

func newUsage(d *DB, c *clock) *Usage {
	u := NewUsage(d)
	u.now = c.now
	return u
}

func assistants(t testing.TB, d *DB, ids ...string) {
	t.Helper()
	for _, id := range ids {
		ok(t, d.PutAssistant(t.Context(), by, &Assistant{ID: id, Org: "acme"}, -1))
	}
}

// used is what the store says of an assistant.
func used(t testing.TB, d *DB, id string) (at time.Time, n int64) {
	t.Helper()
	a, err := d.Assistant(t.Context(), id)
	ok(t, err)
	return a.LastUsedAt, a.UseCount
}

func TestUseIsWritten(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d := e.open(t)
		assistants(t, d, "asst_1", "asst_2")
		token := &Token{Name: "worker", Orgs: []string{"acme"}, Hash: [32]byte{1}}
		ok(t, d.PutToken(t.Context(), by, token))
		before, err := d.Assistant(t.Context(), "asst_1")
		ok(t, err)

		c := newClock()
		u := newUsage(d, c)
		for range 3 {
			u.Assistant("asst_1", c.now())
		}
		u.Token(token.ID, c.now().Add(time.Second))
		u.Assistant("deleted", c.now())
		ok(t, u.write(t.Context(), false))

		after, err := d.Assistant(t.Context(), "asst_1")
		ok(t, err)
		want := *before
		want.LastUsedAt, want.UseCount = c.now().Truncate(time.Second), 3
		same(t, *after, want)
		row, err := d.Token(t.Context(), token.Hash)
		ok(t, err)
		if row.UseCount != 1 || !row.LastUsedAt.Equal(c.now().Add(time.Second).Truncate(time.Second)) {
			t.Errorf("the token: %d times, last at %s", row.UseCount, row.LastUsedAt)
		}
		if at, n := used(t, d, "asst_2"); n != 0 || !at.IsZero() {
			t.Errorf("one that was not used: %d times, last at %s", n, at)
		}
		listed, _, err := d.Assistants(t.Context(), "", "", 10)
		ok(t, err)
		if listed[0].UseCount != 3 {
			t.Errorf("listed with %d uses", listed[0].UseCount)
		}
	})
}

// Moving an assistant to another org keeps what is known of its use; a new one under a deleted one's id was never used.
func TestUseOutlivesAChangeAndNotTheRow(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, c := e.open(t), newClock()
		assistants(t, d, "asst_1")
		u := newUsage(d, c)
		u.Assistant("asst_1", c.now())
		ok(t, u.write(t.Context(), false))
		moved := &Assistant{ID: "asst_1", Org: "globex"}
		ok(t, d.PutAssistant(t.Context(), by, moved, -1))
		if at, n := used(t, d, "asst_1"); n != 1 || at.IsZero() || moved.UseCount != 1 {
			t.Errorf("after the change: %d times, last at %s, returned as %d", n, at, moved.UseCount)
		}
		ok(t, d.DeleteAssistant(t.Context(), by, "asst_1", -1))
		assistants(t, d, "asst_1")
		if at, n := used(t, d, "asst_1"); n != 0 || !at.IsZero() {
			t.Errorf("the new one: %d times, last at %s", n, at)
		}
	})
}

func TestUseIsNotAnnounced(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, c := e.open(t), newClock()
		assistants(t, d, "asst_1")
		var heard atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		var wait sync.WaitGroup
		wait.Go(func() { _ = d.Watch(ctx, func(Change) { heard.Add(1) }) })
		defer wait.Wait()
		defer cancel()
		for !d.FeedLive() {
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(300 * time.Millisecond)
		before := heard.Load()
		u := newUsage(d, c)
		u.Assistant("asst_1", c.now())
		ok(t, u.write(t.Context(), true))
		time.Sleep(300 * time.Millisecond)
		if n := heard.Load() - before; n != 0 {
			t.Errorf("%d changes were announced", n)
		}
	})
}

func TestRowIsWrittenOnceAMinute(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, c := e.open(t), newClock()
		assistants(t, d, "asst_1", "asst_2")
		u := newUsage(d, c)
		for second := range 180 { // 3 requests a second for 3 minutes, and somebody who tries to write all the time
			for range 3 {
				u.Assistant("asst_1", c.now())
			}
			before := count(t, d, "asst_1")
			ok(t, u.write(t.Context(), false))
			if wrote := count(t, d, "asst_1") != before; wrote != (second%60 == 0) {
				t.Fatalf("second %d: wrote %v", second, wrote)
			}
			c.pass(time.Second)
		}
		u.Assistant("asst_2", c.now())
		ok(t, u.write(t.Context(), true)) // a drain waits for no minute
		if n := count(t, d, "asst_1"); n != 540 {
			t.Errorf("%d uses of 540", n)
		}
		if n := count(t, d, "asst_2"); n != 1 {
			t.Errorf("%d uses of 1", n)
		}
	})
}

func count(t testing.TB, d *DB, id string) int64 {
	t.Helper()
	_, n := used(t, d, id)
	return n
}

func TestTimeOfUseMovesForwardOnly(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, c := e.open(t), newClock()
		assistants(t, d, "asst_1")
		ahead, behind := newUsage(d, c), newUsage(e.open(t), c)
		ahead.Assistant("asst_1", c.now())
		behind.Assistant("asst_1", c.now().Add(-time.Hour))
		ok(t, ahead.write(t.Context(), false))
		ok(t, behind.write(t.Context(), false))
		if at, n := used(t, d, "asst_1"); n != 2 || !at.Equal(c.now().Truncate(time.Second)) {
			t.Errorf("%d times, last at %s", n, at)
		}
	})
}

// Sidecars that write the same rows at the same moment, each in its own order of use, neither deadlock nor lose a number.
func TestSidecarsShareTheRows(t *testing.T) {
	const sidecars, rows, rounds = 4, 700, 4
	onBoth(t, func(t *testing.T, e engine) {
		d, c := e.open(t), newClock()
		ids := make([]string, rows)
		for i := range ids {
			ids[i] = fmt.Sprintf("asst_%d", i)
		}
		ok(t, d.write(t.Context(), func(x *tx) error {
			for _, id := range ids {
				if _, err := x.exec(insertAssistant, id, "acme", "", "", 1, x.now, x.now); err != nil {
					return err
				}
			}
			return nil
		}))
		var wait sync.WaitGroup
		for range sidecars {
			u := newUsage(e.open(t), c)
			wait.Go(func() {
				for range rounds {
					for _, i := range rand.Perm(rows) {
						u.Assistant(ids[i], c.now())
					}
					if err := u.write(t.Context(), true); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wait.Wait()
		for _, id := range ids {
			if n := count(t, d, id); n != sidecars*rounds {
				t.Fatalf("%s was used %d times of %d", id, n, sidecars*rounds)
			}
		}
	})
}

// Whatever the order of a batch, rows are locked in that of their ids: two sidecars never wait for each other both ways.
func TestBatchesDoNotDeadlock(t *testing.T) {
	e := engine{"postgres", pgtest.New(t)}
	d := e.open(t)
	_, err := d.MigrateUp(t.Context())
	ok(t, err)
	batch := make([]pending, 200)
	ids := make([]string, len(batch))
	for i := range batch {
		ids[i] = fmt.Sprintf("asst_%03d", i)
		batch[i] = pending{id: ids[i], last: 1, n: 1}
	}
	assistants(t, d, ids...)
	var wait sync.WaitGroup
	for i := range 4 {
		mine, other := slices.Clone(batch), e.open(t)
		if i%2 == 1 {
			slices.Reverse(mine)
		}
		wait.Go(func() {
			for range 25 {
				if err := other.writeUses(context.Background(), &NewUsage(other).assistants, mine); err != nil {
					t.Error(err) // a deadlock takes the server a second to find, and is over time by then
					return
				}
			}
		})
	}
	wait.Wait()
	if n := count(t, d, ids[0]); n != 100 {
		t.Errorf("%d uses of 100", n)
	}
}

func TestUseIsKeptWhileTheStoreIsDown(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, c := e.open(t), newClock()
		assistants(t, d, "asst_1")
		down, err := Open(t.Context(), e.url, Options{})
		ok(t, err)
		ok(t, down.Close())
		u := newUsage(down, c)
		for range 5 {
			u.Assistant("asst_1", c.now())
			if u.write(t.Context(), false) == nil {
				t.Fatal("a closed store took it")
			}
			c.pass(5 * time.Second)
		}
		same(t, u.Stats(), UsageStats{Held: 1})
		u.db = d
		ok(t, u.write(t.Context(), false))
		if n := count(t, d, "asst_1"); n != 5 {
			t.Errorf("%d uses of 5", n)
		}
	})
}

func TestFlushWritesTheRest(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d := e.open(t)
		assistants(t, d, "asst_1")
		u := NewUsage(d)
		var wait sync.WaitGroup
		wait.Go(u.Run)
		u.Assistant("asst_1", time.Now())
		u.Stop()
		wait.Wait()
		ok(t, u.Flush(t.Context()))
		if at, n := used(t, d, "asst_1"); n != 1 || time.Since(at) > time.Minute {
			t.Errorf("%d uses, last at %s", n, at)
		}
	})
}

// More ids than are kept push out those that were not used for longest, and what is lost is counted.
func TestUsesAreBounded(t *testing.T) {
	tl := &tally{limit: 100}
	for i := range 150 {
		tl.add(fmt.Sprint("asst_", i), int64(1+i))
		tl.add("busy", int64(1+i))
	}
	if h, d := tl.held.Load(), tl.dropped.Load(); h != 100 || d != 51 {
		t.Errorf("%d held, %d dropped", h, d)
	}
	left := map[string]int64{}
	for _, p := range tl.due(time.Now(), true) {
		left[p.id] = p.n
	}
	if left["busy"] != 150 || left["asst_149"] != 1 || left["asst_0"] != 0 {
		t.Errorf("busy %d, the newest %d, the oldest %d", left["busy"], left["asst_149"], left["asst_0"])
	}
}

func TestUnusedIdsLeave(t *testing.T) {
	c := newClock()
	tl := &tally{limit: 100}
	tl.add("asst_1", 1)
	settle := func() {
		for _, p := range tl.due(c.now(), false) {
			p.of.written = c.now()
			p.of.n.Add(-p.n)
		}
	}
	settle()
	c.pass(time.Second)
	settle()
	if tl.held.Load() != 1 {
		t.Error("left before its minute was over: it could be written twice in one")
	}
	c.pass(time.Minute)
	settle()
	if tl.held.Load() != 0 || tl.order.Len() != 0 {
		t.Error("it is still there")
	}
}

// Whatever enters, leaves and is written at the same time: every use is written, waits or was dropped, and none twice.
func TestNoUseIsLost(t *testing.T) {
	const adders, each = 4, 20000
	tl := &tally{limit: 8}
	var written int64
	settle := func() {
		for _, p := range tl.due(time.Now(), true) {
			written += p.n
			if p.of.n.Add(-p.n) < 0 {
				tl.dropped.Add(-p.n)
			}
		}
	}
	var wait sync.WaitGroup
	for range adders {
		wait.Go(func() {
			for i := range each {
				tl.add(fmt.Sprint("asst_", rand.IntN(12)), int64(i))
			}
		})
	}
	over := make(chan struct{})
	go func() { wait.Wait(); close(over) }()
	for done := false; !done; {
		select {
		case <-over:
			done = true
		default:
		}
		settle()
	}
	if got := written + tl.dropped.Load(); got != adders*each {
		t.Errorf("%d written and %d dropped of %d", written, tl.dropped.Load(), adders*each)
	}
	if tl.held.Load() > 12 {
		t.Errorf("%d held", tl.held.Load())
	}
}

func TestUseAllocatesNothing(t *testing.T) {
	u := NewUsage(nil)
	now := time.Now()
	id := strings.Clone("8c0a6f0e-7d55-4be1-9d8e-000000000001")
	u.Assistant(id, now)
	u.Token(id, now)
	if n := testing.AllocsPerRun(1000, func() {
		u.Assistant(id, now)
		u.Token(id, now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The id may lie in memory that is used again for the next request.
func TestUseKeepsACopyOfTheID(t *testing.T) {
	b := []byte("asst_1")
	tl := &tally{limit: 8}
	tl.add(unsafe.String(&b[0], len(b)), 1)
	copy(b, "XXXX_X")
	if due := tl.due(time.Now(), true); len(due) != 1 || due[0].id != "asst_1" {
		t.Errorf("%v", due)
	}
}

func BenchmarkUse(b *testing.B) {
	for name, ids := range map[string]int{"one": 1, "many": 100_000} {
		b.Run(name, func(b *testing.B) {
			u := NewUsage(nil)
			all := make([]string, ids)
			for i := range all {
				all[i] = fmt.Sprintf("8c0a6f0e-7d55-4be1-9d8e-%012d", i)
				u.Assistant(all[i], time.Now())
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				now := time.Now()
				for i := rand.IntN(ids); pb.Next(); i++ {
					u.Assistant(all[i%ids], now)
				}
			})
		})
	}
}

// BenchmarkWriteUses is what a full batch costs the store.
func BenchmarkWriteUses(b *testing.B) {
	for _, e := range engines {
		b.Run(e.name, func(b *testing.B) {
			d := engine{e.name, e.url(b)}.open(b)
			if _, err := d.MigrateUp(b.Context()); err != nil {
				b.Fatal(err)
			}
			u := NewUsage(d)
			ids := make([]string, useBatch)
			for i := range ids {
				ids[i] = fmt.Sprintf("asst_%d", i)
			}
			assistants(b, d, ids...)
			for b.Loop() {
				for _, id := range ids {
					u.Assistant(id, time.Now())
				}
				ok(b, u.write(b.Context(), true))
			}
		})
	}
}
