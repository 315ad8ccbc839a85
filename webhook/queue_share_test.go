package webhook

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/pgtest"
	"github.com/keyward/keyward/store"
)

// Two sidecars on one store deliver each once as long as both are well.
func TestQueuesShare(t *testing.T) {
	url := stores["postgres"](t)
	dbs := []*store.DB{openStore(t, url), openStore(t, url)}
	queues := []*Queue{}
	for _, db := range dbs {
		queues = append(queues, runQueue(t, db, func(o *QueueOptions) { o.Lease, o.Workers, o.Poll = 10*time.Second, 4, 20*time.Millisecond }))
	}
	a := newTaker(t, func(taken, int) int { time.Sleep(time.Millisecond); return 200 })
	const n = 150
	for i := range n {
		take(t, queues[i/10%2], a.url, fmt.Sprint(i%5), fmt.Sprint(i))
	}
	eventually(t, "all delivered", func() bool { return queues[0].Stats().Delivered.Load()+queues[1].Stats().Delivered.Load() >= n })
	time.Sleep(50 * time.Millisecond)
	got := a.all()
	if len(got) != n {
		t.Errorf("%d requests for %d deliveries", len(got), n)
	}
	for g := range 5 {
		at := -1
		for _, one := range got {
			var i int
			if _, _ = fmt.Sscan(one.body, &i); i%5 == g {
				if i < at {
					t.Errorf("group %d: %d after %d", g, i, at)
				}
				at = i
			}
		}
	}
	for i, q := range queues {
		if q.Stats().Delivered.Load() == 0 {
			t.Errorf("queue %d had nothing to do", i)
		}
	}
}

// What a sidecar had under way when it died is another's after the lease.
func TestQueueTakesOver(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	a := newTaker(t, nil)
	d := &store.Delivery{Org: "acme", Provider: "vapi", Target: a.url, Method: "POST"}
	if _, err := db.AcceptDelivery(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	leasedAt := time.Now()
	if leased, err := db.LeaseDeliveries(t.Context(), "a dead sidecar", a.url, 1, 400*time.Millisecond); err != nil || len(leased) != 1 {
		t.Fatal(leased, err)
	}
	runQueue(t, db, func(o *QueueOptions) { o.Poll = 20 * time.Millisecond })
	isDone(t, db, d, store.Delivered)
	if waited := time.Since(leasedAt); waited < 380*time.Millisecond || state(t, db, d.ID).Attempts != 2 {
		t.Errorf("taken over after %v", waited)
	}
}

// A lease shorter than the attempt is kept by its heartbeat.
func TestQueueKeepsItsLeases(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	a := newTaker(t, func(taken, int) int { time.Sleep(5 * time.Second / 2); return 200 })
	change := func(o *QueueOptions) { o.Lease, o.Poll = 2*time.Second, 20*time.Millisecond } // a busy machine may stall for three of its four quarters
	q := runQueue(t, db, change)
	runQueue(t, db, change)
	isDone(t, db, take(t, q, a.url, "", "x"), store.Delivered)
	if n := len(a.all()); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

func TestQueueStops(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	hold := make(chan struct{})
	a := newTaker(t, func(got taken, nth int) int {
		if got.body == "held" && nth == 1 {
			<-hold
		}
		return 200
	})
	q := runQueue(t, db)
	held := take(t, q, a.url, "call", "held")
	take(t, q, a.url, "call", "next")
	eventually(t, "it is under way", func() bool { return len(a.all()) == 1 })
	stopped := make(chan error, 1)
	go func() { stopped <- q.Shutdown(context.Background()) }()
	eventually(t, "it stops", q.stopping)
	time.Sleep(50 * time.Millisecond)
	close(hold)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if state(t, db, held.ID).State != store.Delivered || len(a.all()) != 1 {
		t.Errorf("what was under way did not finish, or more was begun: %+v", a.all())
	}

	// Cut off, it is given back: the next start has it at once, and all its attempts.
	cut := make(chan struct{})
	release := sync.OnceFunc(func() { close(cut) })
	defer release()
	stuck := newTaker(t, func(_ taken, nth int) int {
		if nth == 1 {
			<-cut
		}
		return 200
	})
	q = runQueue(t, db, func(o *QueueOptions) { o.Lease = time.Hour })
	d := take(t, q, stuck.url, "", "x")
	eventually(t, "it is under way", func() bool { return len(stuck.all()) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := q.Shutdown(ctx); err == nil {
		t.Error("nothing was cut off")
	}
	release()
	runQueue(t, db)
	isDone(t, db, d, store.Delivered)
	if got := state(t, db, d.ID); got.Attempts != 1 {
		t.Errorf("%+v", got)
	}
}

// With the store gone nothing is taken; when it is back, what waited goes out by itself.
func TestQueueOutlivesTheStore(t *testing.T) {
	s := pgtest.Start(t)
	db := openStore(t, s.New(t))
	var away atomic.Bool
	a := newTaker(t, func(taken, int) int {
		if away.Load() {
			return 503
		}
		return 200
	})
	q := runQueue(t, db, func(o *QueueOptions) { o.Attempts, o.Poll, o.Lease = 1000, 50*time.Millisecond, 10*time.Second })
	away.Store(true)
	d := take(t, q, a.url, "", "x")
	eventually(t, "it failed", func() bool { return len(a.all()) > 0 })
	s.Stop(t)
	if _, err := q.Accept(t.Context(), &store.Delivery{Org: "acme", Target: a.url}); err == nil {
		t.Error("accepted without a store")
	}
	away.Store(false)
	s.Start(t)
	eventually(t, "delivered", func() bool {
		got, err := db.Delivery(t.Context(), d.ID)
		return err == nil && got.State == store.Delivered
	})
}
