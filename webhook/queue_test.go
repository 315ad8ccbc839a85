package webhook

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/internal/pgtest"
	"github.com/keyward/keyward/store"
)

// stores are what the queue is tested on.
var stores = map[string]func(testing.TB) string{
	"sqlite":   func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "keyward.db") },
	"postgres": pgtest.New,
}

func openStore(t testing.TB, url string) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

// runQueue runs a queue that is in a hurry; change may alter its options.
func runQueue(t testing.TB, db *store.DB, change ...func(*QueueOptions)) *Queue {
	t.Helper()
	o := QueueOptions{Store: db, Log: zerolog.New(zerolog.NewTestWriter(t)), Backoff: 10 * time.Millisecond, BackoffMax: 40 * time.Millisecond, Timeout: 5 * time.Second, Lease: time.Second}
	for _, f := range change {
		f(&o)
	}
	q := NewQueue(o)
	go q.Run()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = q.Shutdown(ctx)
	})
	return q
}

// A taker is an app that writes down what it was sent. answer says with what it answers, and how often it was asked for this id.
type taker struct {
	url string
	mu  sync.Mutex
	got []taken
}

type taken struct {
	id, body, uri string
	header        http.Header
}

func newTaker(t testing.TB, answer func(got taken, nth int) int) *taker {
	a := &taker{}
	s := httptest.NewServer(a.handler(answer))
	t.Cleanup(s.Close)
	a.url = s.URL + "/hooks"
	return a
}

func (a *taker) handler(answer func(got taken, nth int) int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the sidecar was killed in the middle of it
		}
		got := taken{r.Header.Get("Keyward-Delivery-Id"), string(body), r.RequestURI, r.Header}
		a.mu.Lock()
		nth := 1
		for _, g := range a.got {
			if g.id == got.id {
				nth++
			}
		}
		a.got = append(a.got, got)
		a.mu.Unlock()
		status := http.StatusNoContent
		if answer != nil {
			status = answer(got, nth)
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}
}

func (a *taker) all() []taken { a.mu.Lock(); defer a.mu.Unlock(); return slices.Clone(a.got) }

func (a *taker) bodies() (bodies []string) {
	for _, g := range a.all() {
		bodies = append(bodies, g.body)
	}
	return bodies
}

func eventually(t testing.TB, what string, true func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !true(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came about: " + what)
		}
	}
}

func take(t testing.TB, q *Queue, target, group, body string) *store.Delivery {
	t.Helper()
	d := &store.Delivery{Org: "acme", Provider: "vapi", Type: "status-update", Group: group, Target: target, Method: "POST", Path: "/webhooks/vapi", Body: []byte(body)}
	if duplicate, err := q.Accept(t.Context(), d); err != nil || duplicate {
		t.Fatal(duplicate, err)
	}
	return d
}

func state(t testing.TB, db *store.DB, id string) *store.Delivery {
	t.Helper()
	d, err := db.Delivery(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func isDone(t testing.TB, db *store.DB, d *store.Delivery, want store.State) {
	t.Helper()
	eventually(t, string(want), func() bool { return state(t, db, d.ID).State == want })
}

func TestQueueDelivers(t *testing.T) {
	for name, url := range stores {
		t.Run(name, func(t *testing.T) {
			db := openStore(t, url(t))
			q := runQueue(t, db, func(o *QueueOptions) { o.Poll = time.Hour }) // it is woken
			a := newTaker(t, nil)
			d := &store.Delivery{
				Org: "acme", Provider: "vapi", Target: a.url + "?from=keyward", Method: "POST", RawQuery: "a=%20&b", Body: []byte("{\"a\":\x00\xff}"),
				Header: []byte("Content-Type: application/json\r\nX-Twice: 1\r\nX-Twice: 2\r\nKeyward-Org: acme\r\nX-Empty: \r\nkeyward-delivery-id: theirs\r\n"),
			}
			if _, err := q.Accept(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			isDone(t, db, d, store.Delivered)
			got := a.all()
			if len(got) != 1 || got[0].id != d.ID || got[0].body != string(d.Body) || got[0].uri != "/hooks?from=keyward&a=%20&b" {
				t.Fatalf("%+v", got)
			}
			h := got[0].header
			if fmt.Sprint(h["X-Twice"], h["Keyward-Org"], h["X-Empty"], h["Keyward-Delivery-Id"], h["Content-Type"], h["User-Agent"]) !=
				fmt.Sprint([]string{"1", "2"}, []string{"acme"}, []string{""}, []string{d.ID}, []string{"application/json"}, []string(nil)) {
				t.Errorf("%v", h)
			}
		})
	}
}

func TestQueueDeliversToAUnixSocket(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	q := runQueue(t, db)
	dir, err := os.MkdirTemp("", "kw") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	a := &taker{}
	srv := &http.Server{Handler: a.handler(nil)}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	d := take(t, q, "unix:"+l.Addr().String()+":/sms", "", "hello")
	isDone(t, db, d, store.Delivered)
	if got := a.all(); got[0].uri != "/sms" || got[0].body != "hello" {
		t.Errorf("%+v", got)
	}
}

// Whatever is no 2xx is tried again, under the same id, before the next of its group; other groups do not wait.
func TestQueueRetriesInOrder(t *testing.T) {
	for name, url := range stores {
		t.Run(name, func(t *testing.T) {
			db := openStore(t, url(t))
			q := runQueue(t, db)
			answers := []int{500, 302, 404, 101, 429}
			a := newTaker(t, func(got taken, nth int) int {
				if got.body == "call 1" && nth <= len(answers) {
					return answers[nth-1]
				}
				return 202
			})
			take(t, q, a.url, "call", "call 1")
			take(t, q, a.url, "call", "call 2")
			last := take(t, q, a.url, "call", "call 3")
			take(t, q, a.url, "other", "other")
			isDone(t, db, last, store.Delivered)
			got := a.bodies()
			ofCall := slices.DeleteFunc(slices.Clone(got), func(b string) bool { return b == "other" })
			want := slices.Concat(slices.Repeat([]string{"call 1"}, len(answers)+1), []string{"call 2", "call 3"})
			if !slices.Equal(ofCall, want) {
				t.Errorf("%q", ofCall)
			}
			if i := slices.Index(got, "other"); i < 0 || i > len(answers) {
				t.Errorf("another group waited: %q", got)
			}
			ids := map[string]bool{}
			for _, g := range a.all() {
				if g.body == "call 1" {
					ids[g.id] = true
				}
				if g.uri != "/hooks" {
					t.Errorf("a redirect was followed to %s", g.uri)
				}
			}
			if len(ids) != 1 {
				t.Errorf("attempts under different ids: %v", ids)
			}
		})
	}
}

func TestQueueGivesUp(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	q := runQueue(t, db, func(o *QueueOptions) { o.Attempts = 3 })
	var mended atomic.Bool
	a := newTaker(t, func(got taken, _ int) int {
		if got.body == "bad" && !mended.Load() {
			return 503
		}
		return 200
	})
	bad := take(t, q, a.url, "call", "bad")
	good := take(t, q, a.url, "call", "good")
	isDone(t, db, good, store.Delivered)
	got := state(t, db, bad.ID)
	if got.State != store.Dead || got.Attempts != 3 || got.LastError != "the app answered 503" || !slices.Equal(a.bodies(), []string{"bad", "bad", "bad", "good"}) {
		t.Fatalf("%+v, %q", got, a.bodies())
	}
	mended.Store(true)
	if err := db.Redeliver(t.Context(), by, bad.ID, ""); err != nil {
		t.Fatal(err)
	}
	isDone(t, db, bad, store.Delivered)
	if all := a.all(); all[len(all)-1].id != bad.ID {
		t.Errorf("%+v", all)
	}
}

func TestQueueSaysWhy(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	q := runQueue(t, db, func(o *QueueOptions) { o.Attempts, o.Timeout = 1, 300*time.Millisecond })
	raw := func(serve func(net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go serve(c)
			}
		}()
		return "http://" + l.Addr().String() + "/secret-path"
	}
	for target, want := range map[string]string{
		"http://127.0.0.1:1/secret-path":      "the app could not be reached: connection refused",
		"unix:/nowhere/app.sock:/secret-path": "the app could not be reached: no such file or directory",
		raw(func(net.Conn) {}):                "the app did not answer within 300ms",
		raw(func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1000))
			_, _ = c.Write([]byte("garbage\r\n\r\n"))
			_ = c.Close()
		}): "the app's answer is not HTTP",
		raw(func(c net.Conn) { _, _ = c.Read(make([]byte, 1000)); _ = c.Close() }): "the app closed the connection without an answer",
		"nowhere": "the target must be a URL",
	} {
		d := take(t, q, target, "", "secret-body")
		isDone(t, db, d, store.Dead)
		if got := state(t, db, d.ID).LastError; !strings.HasPrefix(got, want) || strings.Contains(got, "secret") {
			t.Errorf("%s: %q, want %q", target, got, want)
		}
	}
}

// The status decides, not what comes after it.
func TestQueueTakesTheStatus(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	q := runQueue(t, db, func(o *QueueOptions) { o.Attempts = 1 })
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	began := time.Now()
	isDone(t, db, take(t, q, s.URL, "", "x"), store.Delivered)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("waited %v for the end of an answer", took)
	}
}

func TestSlowTargetKeepsNobodyWaiting(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	q := runQueue(t, db, func(o *QueueOptions) { o.Workers = 2 })
	release := make(chan struct{})
	var most, now atomic.Int64
	slow := newTaker(t, func(taken, int) int {
		most.Store(max(most.Load(), now.Add(1)))
		<-release
		now.Add(-1)
		return 200
	})
	quick := newTaker(t, nil)
	var last *store.Delivery
	for i := range 6 {
		last = take(t, q, slow.url, "", fmt.Sprint(i))
	}
	eventually(t, "the slow one is busy", func() bool { return len(slow.all()) == 2 })
	isDone(t, db, take(t, q, quick.url, "", "x"), store.Delivered)
	close(release)
	isDone(t, db, last, store.Delivered)
	if most.Load() != 2 {
		t.Errorf("%d at once, with 2 workers", most.Load())
	}
}

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
	if leased, err := db.LeaseDeliveries(t.Context(), "a dead sidecar", a.url, 1, 400*time.Millisecond); err != nil || len(leased) != 1 {
		t.Fatal(leased, err)
	}
	leasedAt := time.Now()
	runQueue(t, db, func(o *QueueOptions) { o.Poll = 20 * time.Millisecond })
	isDone(t, db, d, store.Delivered)
	if waited := time.Since(leasedAt); waited < 380*time.Millisecond || state(t, db, d.ID).Attempts != 2 {
		t.Errorf("taken over after %v", waited)
	}
}

// A lease shorter than the attempt is kept by its heartbeat.
func TestQueueKeepsItsLeases(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	a := newTaker(t, func(taken, int) int { time.Sleep(1500 * time.Millisecond); return 200 })
	change := func(o *QueueOptions) { o.Lease, o.Poll = 600*time.Millisecond, 20*time.Millisecond }
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
	time.Sleep(50 * time.Millisecond)
	close(hold)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if state(t, db, held.ID).State != store.Delivered || len(a.all()) != 1 {
		t.Errorf("what was under way did not finish, or more was begun: %+v", a.all())
	}

	// Cut off, it is given back: the next start has it at once, and all its attempts.
	stuck := newTaker(t, func(_ taken, nth int) int {
		if nth == 1 {
			time.Sleep(700 * time.Millisecond)
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

func TestBackoff(t *testing.T) {
	const first, most = time.Second, 5 * time.Minute
	for attempts, want := range map[int]time.Duration{1: first, 2: 2 * first, 3: 4 * first, 4: 8 * first, 10: most * 3 / 4, 64: most * 3 / 4, 100000: most * 3 / 4} {
		seen := map[time.Duration]bool{}
		for range 50 {
			d := backoff(attempts, first, most)
			if d < want || d > want+want/3+1 || d > most {
				t.Fatalf("after %d attempts: %v, not from %v", attempts, d, want)
			}
			seen[d] = true
		}
		if len(seen) < 10 {
			t.Errorf("after %d attempts: no jitter", attempts)
		}
	}
	if d := backoff(3, time.Millisecond, time.Millisecond); d > time.Millisecond {
		t.Errorf("%v", d)
	}
}
