package torture

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"
)

// A ledger counts how often each request was begun and done at the provider.
type ledger struct {
	mu          sync.Mutex
	begun, done map[string]int
}

func newLedger() *ledger { return &ledger{begun: map[string]int{}, done: map[string]int{}} }

func (l *ledger) note(m map[string]int, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m[id]++
}

// most is the greatest count, and whose it is.
func (l *ledger) most(m map[string]int, of func(id string) bool) (id string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, c := range m {
		if c > n && of(i) {
			id, n = i, c
		}
	}
	return id, n
}

// TestStaleKeepAlive posts to a provider that closes its connections at random moments while they are idle. Each post must be answered,
// and none may be sent twice. Provider and callers share a lock, so that no connection is closed while a request is on its way: that race
// nobody can win, and it would hide whether the others are won.
func TestStaleKeepAlive(t *testing.T) {
	for _, how := range []string{"closed", "reset", "half closed", "closed behind rubbish"} {
		t.Run(how, func(t *testing.T) {
			n := many(1000, 10_000)
			l := newLedger()
			u := newRawUpstream(t, func(c *upstreamSide, r *rawRequest) {
				l.note(l.done, r.first("X-Id"))
				c.send(plainAnswer("done " + r.first("X-Id")))
			})
			u.began = func(_ *upstreamSide, r *rawRequest) bool {
				l.note(l.begun, r.first("X-Id"))
				return true
			}
			s := startSidecar(t, map[string]string{"api.resend.com": u.address})
			s.put("acme", "resend", map[string]any{"api_key": secretOf("acme", "resend")})

			var underWay sync.RWMutex
			stop, stopped := make(chan struct{}), make(chan struct{})
			closed := 0
			go func() {
				defer close(stopped)
				g := rand.New(rand.NewPCG(*seed, 9))
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(g.IntN(1500)) * time.Microsecond):
					}
					underWay.Lock()
					closed += u.closeIdle(how, g)
					underWay.Unlock()
				}
			}()
			var failed, wrong int
			var group sync.WaitGroup
			var mu sync.Mutex
			const workers = 4
			for w := range workers {
				group.Add(1)
				go func() {
					defer group.Done()
					g := rand.New(rand.NewPCG(*seed, uint64(w)))
					k := &keptConn{s: s, network: "unix"}
					defer k.close()
					for i := range n / workers {
						id := fmt.Sprintf("%d-%d", w, i)
						underWay.RLock()
						got := k.do("POST", head("POST /v HTTP/1.1", "X-Id: "+id, "Content-Length: 5")+"hello")
						underWay.RUnlock()
						if got.status != 200 || got.body != "done "+id || got.err != nil {
							mu.Lock()
							failed++
							if failed <= 5 {
								t.Errorf("POST %s: %v", id, got)
							}
							mu.Unlock()
						}
						time.Sleep(time.Duration(g.IntN(1000)) * time.Microsecond)
					}
				}()
			}
			group.Wait()
			close(stop)
			<-stopped
			if id, most := l.most(l.begun, everyID); most > 1 {
				wrong++
				t.Errorf("%s was sent %d times", id, most)
			}
			if closed < n/20 {
				t.Errorf("only %d connections were closed: nothing was tried", closed)
			}
			s.mustLive()
			row(t, "stale keep-alive ("+how+"): 0 failed, 0 sent twice", "%d POSTs, %d connections %s while idle: %d failed, %d sent twice", n, closed, how, failed, wrong)
		})
	}
}

func everyID(string) bool { return true }

// closeIdle ends each idle connection, or leaves it, by chance, and says how many it ended.
func (u *rawUpstream) closeIdle(how string, g *rand.Rand) (n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.open {
		if !c.idle || g.IntN(2) == 0 {
			continue
		}
		n++
		switch how {
		case "reset":
			_ = c.tcp.SetLinger(0)
			_ = c.Close()
		case "half closed":
			_ = c.tcp.CloseWrite()
		case "closed behind rubbish":
			c.send("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			_ = c.Close()
		default:
			_ = c.Close()
		}
		if how == "half closed" {
			delete(u.open, c) // its reader goes on, and would see what must not be sent any more
		}
	}
	return n
}

// loss is a way in which a provider fails before it has answered.
type loss struct {
	name  string
	began func(c *upstreamSide, x *rand.Rand) bool // with the head read; false: no more is read
	done  func(c *upstreamSide, x *rand.Rand)      // with the whole request read and executed
}

func dropped(c *upstreamSide, x *rand.Rand) bool {
	if x.IntN(2) == 0 {
		c.reset()
	} else {
		c.end()
	}
	return false
}

func says(what string) func(*upstreamSide, *rand.Rand) {
	return func(c *upstreamSide, x *rand.Rand) {
		c.send(what)
		dropped(c, x)
	}
}

var losses = []loss{
	{name: "none", done: func(c *upstreamSide, _ *rand.Rand) { c.send(plainAnswer("done")) }},
	{name: "behind the head", began: dropped},
	{name: "behind the head, later", began: func(c *upstreamSide, x *rand.Rand) bool {
		time.Sleep(time.Duration(x.IntN(5000)) * time.Microsecond)
		return dropped(c, x)
	}},
	{name: "answered early", began: func(c *upstreamSide, _ *rand.Rand) bool {
		c.send("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		c.end()
		return false
	}},
	{name: "behind the body", done: says("")},
	{name: "behind the body, later", done: func(c *upstreamSide, x *rand.Rand) {
		time.Sleep(time.Duration(x.IntN(5000)) * time.Microsecond)
		dropped(c, x)
	}},
	{name: "in the status line", done: says("HTT")},
	{name: "in the head", done: says("HTTP/1.1 200 OK\r\nContent-")},
	{name: "behind an interim answer", done: says("HTTP/1.1 103 Early Hints\r\n\r\n")},
	{name: "in the body", done: says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")},
	{name: "in a chunk", done: says("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe")},
	{name: "malformed", done: says("HTTP/1.1 2OO OK\r\n\r\n")},
	{name: "408", done: says("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")},
	{name: "503 to try again", done: says("HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n")},
	{name: "401", done: func(c *upstreamSide, _ *rand.Rand) { c.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n") }},
	{name: "redirect", done: func(c *upstreamSide, _ *rand.Rand) {
		c.send("HTTP/1.1 307 Temporary Redirect\r\nLocation: /v\r\nContent-Length: 0\r\n\r\n")
	}},
}

// TestAtMostOnce sends requests of all methods, with bodies of all kinds, into a provider that fails in every way. What it executed, it
// executed once; only GET and HEAD may be sent again, and once.
func TestAtMostOnce(t *testing.T) {
	n := many(4000, 100_000)
	l := newLedger()
	at := func(r *rawRequest) (*loss, *rand.Rand) {
		var i, seedOf uint64
		_, _ = fmt.Sscan(r.first("X-Loss"), &i, &seedOf)
		return &losses[i], rand.New(rand.NewPCG(seedOf, 0))
	}
	u := newRawUpstream(t, func(c *upstreamSide, r *rawRequest) {
		l.note(l.done, r.first("X-Id"))
		if f, x := at(r); f.done != nil {
			f.done(c, x)
		}
	})
	u.began = func(c *upstreamSide, r *rawRequest) bool {
		l.note(l.begun, r.first("X-Id"))
		if f, x := at(r); f.began != nil {
			return f.began(c, x)
		}
		return true
	}
	s := startSidecar(t, map[string]string{"api.resend.com": u.address})
	s.put("acme", "resend", map[string]any{"api_key": secretOf("acme", "resend")})
	methods := []string{"POST", "POST", "PUT", "PATCH", "DELETE", "GET", "HEAD", "OPTIONS", "MOVE"}
	long := strings.Repeat("x", 100<<10)
	var group sync.WaitGroup
	const workers = 8
	for w := range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			g := rand.New(rand.NewPCG(*seed, uint64(w)))
			k := &keptConn{s: s, network: "unix"}
			defer k.close()
			for i := range n / workers {
				method := methods[g.IntN(len(methods))]
				lines := []string{fmt.Sprintf("X-Id: %s/%d-%d", method, w, i), fmt.Sprintf("X-Loss: %d %d", g.IntN(len(losses)), g.Uint32())}
				body := []string{"", "hello", "hello", long}[g.IntN(4)]
				switch {
				case method == "GET" || method == "HEAD":
					body = ""
				case body != "" && g.IntN(2) == 0:
					lines = append(lines, "Transfer-Encoding: chunked")
					body = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
				case body != "":
					lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
				}
				k.do(method, head(method+" /v HTTP/1.1", lines...)+body)
			}
		}()
	}
	group.Wait()
	time.Sleep(50 * time.Millisecond)
	safe := func(id string) bool { return strings.HasPrefix(id, "GET/") || strings.HasPrefix(id, "HEAD/") }
	id, once := l.most(l.begun, func(id string) bool { return !safe(id) })
	if once != 1 {
		t.Errorf("%s was sent %d times", id, once)
	}
	id, again := l.most(l.begun, safe)
	if again > 2 {
		t.Errorf("%s was sent %d times", id, again)
	}
	s.mustLive()
	row(t, "requests under every loss: executed at most once, GET and HEAD sent at most twice", "%d requests, %d losses: at most %d, GET and HEAD %d", n/workers*workers, len(losses), once, again)
}
