package webhook

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/store"
)

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
	dir := memdir.New(t)
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
	q := runQueue(t, db, func(o *QueueOptions) { o.Attempts, o.Timeout = 1, time.Second })
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
				t.Cleanup(func() { _ = c.Close() }) // not before, when nobody has it any more
				go serve(c)
			}
		}()
		return "http://" + l.Addr().String() + "/secret-path"
	}
	for target, want := range map[string]string{
		"http://127.0.0.1:1/secret-path":      "the app could not be reached: connection refused",
		"unix:/nowhere/app.sock:/secret-path": "the app could not be reached: no such file or directory",
		raw(func(net.Conn) {}):                "the app did not answer within 1s",
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
	if took := time.Since(began); took > 20*time.Second {
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
