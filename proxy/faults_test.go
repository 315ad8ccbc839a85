package proxy

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/store"
)

// TestEveryFault puts connections that misbehave on both sides of both hops, each seed with other ones, and sends requests of all kinds
// over them. Whatever happens: a request that is not safe to repeat reaches the provider once at most, whole or not at all, with the org's
// own credential and no other; no caller gets another's bytes, or takes a cut answer for a whole one; nothing stays open; and afterwards
// everything works.
//
// KEYWARD_FAULT_SEED names one seed to look at, KEYWARD_FAULT_SEEDS how many to try; with KEYWARD_TORTURE=1 they are many.
func TestEveryFault(t *testing.T) {
	seeds, first := 1500, uint64(0)
	if os.Getenv("KEYWARD_TORTURE") == "1" {
		seeds = 20_000
	}
	if testing.Short() {
		seeds = 500
	}
	if n, err := strconv.Atoi(os.Getenv("KEYWARD_FAULT_SEEDS")); err == nil {
		seeds = n
	}
	if n, err := strconv.ParseUint(os.Getenv("KEYWARD_FAULT_SEED"), 10, 64); err == nil {
		seeds, first = 1, n
	}
	before := ourGoroutines()
	began := time.Now()
	var sum faultCounts
	t.Run("seeds", func(t *testing.T) {
		var next atomic.Uint64
		var all sync.WaitGroup
		for range 12 { // most of the time they wait
			plain, secure := newFaultWorld(t, false, &sum), newFaultWorld(t, true, &sum)
			all.Go(func() {
				for n := next.Add(1); n <= uint64(seeds) && !t.Failed(); n = next.Add(1) {
					seed := first + n - 1
					map[bool]*faultWorld{false: plain, true: secure}[seed%4 == 3].try(seed)
				}
			})
		}
		all.Wait()
	})
	noGoroutinesLeft(t, before)
	if sum.whole.Load() == 0 || seeds > 100 && (sum.ours.Load() == 0 || sum.cut.Load() == 0) {
		t.Errorf("%d answers were whole, %d were refusals, %d were cut: nothing was tried", sum.whole.Load(), sum.ours.Load(), sum.cut.Load())
	}
	if late := sum.late.Load(); late > sum.asked.Load()/1000 { // a machine stands still for those 2 s now and then
		t.Errorf("%d of %d requests timed out although nothing had happened", late, sum.asked.Load())
	}
	t.Logf("figure: %d seeds in %v, %d requests: %d whole answers, %d refusals, %d cut; %d panics; sent twice: %d of those that are safe to repeat, 0 others",
		seeds, time.Since(began).Round(time.Second), sum.asked.Load(), sum.whole.Load(), sum.ours.Load(), sum.cut.Load(), sum.panics.Load(), sum.repeated.Load())
}

type faultCounts struct{ asked, whole, ours, cut, repeated, panics, late atomic.Int64 }

// ourGoroutines are those that run code of this package, by their stacks; the server library keeps workers for a while.
func ourGoroutines() (all []string) {
	buf := make([]byte, 4<<20)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "keyward/proxy.") && !strings.Contains(stack, "testing.tRunner") {
			all = append(all, stack)
		}
	}
	return all
}

func noGoroutinesLeft(t *testing.T, before []string) {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		now := ourGoroutines()
		if len(now) <= len(before) {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%d goroutines before, %d afterwards:\n%s", len(before), len(now), strings.Join(now, "\n\n"))
		}
	}
}

// A faultWorld is a proxy with two orgs' callers and a provider, whose connections are those of the seed that is being tried.
type faultWorld struct {
	*world
	secure bool
	token  string
	at     map[string]string // :: network → address
	now    atomic.Pointer[faults]
	sum    *faultCounts

	mu    sync.Mutex
	begun map[string]int // :: request → how often its head reached the provider
	wrong []string       // what was wrong with what reached it
}

func newFaultWorld(t *testing.T, secure bool, sum *faultCounts, change ...func(*Options)) *faultWorld {
	f := &faultWorld{secure: secure, sum: sum, begun: map[string]int{}, at: map[string]string{}}
	f.now.Store(newFaults(0, secure))
	f.world = newWorld(t, f.provider(t), append(change, func(o *Options) {
		o.FirstByteTimeout, o.IdleTimeout, o.HeadTimeout = 2*time.Second, 2*time.Second, 2*time.Second
	})...)
	for _, u := range *f.p.hosts.Load() {
		dial := u.connect
		u.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return f.now.Load().wrap("provider, our side", c), nil
		}
	}
	f.listen("unix", filepath.Join(t.TempDir(), "f"))
	f.listen("tcp", "127.0.0.1:0")
	f.token = f.world.token(store.Token{Name: "any"})
	return f
}

// listen listens so that what is accepted misbehaves.
func (f *faultWorld) listen(network, address string) {
	ln, err := net.Listen(network, address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.at[network] = ln.Addr().String()
	go func() {
		if err := f.p.Serve(&Listener{Listener: faultListener{ln, f}}); err != nil {
			f.t.Errorf("serving %s: %v", address, err)
		}
	}()
}

type faultListener struct {
	net.Listener
	f *faultWorld
}

func (l faultListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.f.now.Load().wrap("caller, our side", c), nil
}

// try runs one seed.
func (f *faultWorld) try(seed uint64) {
	now := newFaults(seed, f.secure)
	f.now.Store(now)
	bad := func(format string, args ...any) {
		f.t.Errorf("KEYWARD_FAULT_SEED=%d (tls %v): %s\n\t%s", seed, f.secure, fmt.Sprintf(format, args...), strings.Join(now.plans, "\n\t"))
	}
	var callers sync.WaitGroup
	for i, org := range []string{"acme", "globex"} {
		callers.Go(func() {
			g := rand.New(rand.NewPCG(seed, 1000+uint64(i)))
			c := &faultCaller{f: f, network: []string{"unix", "tcp"}[g.IntN(2)]}
			defer c.close()
			for j := range 1 + g.IntN(4) {
				a := drawAsk(g, org, fmt.Sprintf("%s/%d/%d", org, seed, j))
				if what := f.judge(a, c.ask(a)); what != "" {
					bad("%v: %s", a, what)
				}
			}
		})
	}
	callers.Wait()
	if what := f.settle(now); what != "" {
		bad("%s", what)
	}
	now.armed.Store(false)
	for _, org := range []string{"acme", "globex"} {
		c := &faultCaller{f: f, network: "unix"}
		a := faultAsk{id: fmt.Sprintf("%s/%d/after", org, seed), org: org, provider: "vapi", method: "GET", answer: "length", size: 100}
		if got := c.ask(a); got.err != nil || got.status != 200 || got.body != patternOf(a.id, a.size) {
			bad("afterwards %v got %v", a, got)
		}
		c.close()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, n := range f.begun {
		safe := strings.Contains(id, "GET") || strings.Contains(id, "HEAD")
		if most := map[bool]int{true: 2, false: 1}[safe]; n > most {
			bad("%s was sent %d times", id, n)
		}
		if n > 1 {
			f.sum.repeated.Add(1)
		}
	}
	for _, what := range f.wrong {
		bad("%s", what)
	}
	if n, want := f.p.stats.Panics.Swap(0), now.panics.Load(); n != want {
		bad("%d panics, of which %d were injected: %s", n, want, f.logs.String())
	}
	f.sum.panics.Add(now.panics.Load())
	if strings.Contains(f.logs.String(), panicText) {
		bad("what a panic said is in the log: %s", f.logs.String())
	}
	clear(f.begun)
	f.wrong = nil
	f.logs.mu.Lock()
	f.logs.b.Reset()
	f.logs.mu.Unlock()
}

// settle waits until all that the requests used has been given back, and says what has not.
func (f *faultWorld) settle(now *faults) (left string) {
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		for _, u := range *f.p.hosts.Load() {
			u.sweep(time.Now().Add(time.Hour))
		}
		var counted int64
		for _, n := range f.p.inflight.providers {
			counted += n.Load()
		}
		left = now.left()
		if n := len(f.p.conns.all()); n > 0 {
			left += fmt.Sprintf(", %d callers' connections", n)
		}
		if counted > 0 {
			left += fmt.Sprintf(", %d requests under way", counted)
		}
		if left == "" || time.Now().After(until) {
			break
		}
	}
	if left != "" {
		return "left open: " + left
	}
	return ""
}

// judge says what must not be in what a caller got.
func (f *faultWorld) judge(a faultAsk, got faultAnswer) string {
	f.sum.asked.Add(1)
	want := patternOf(a.id, a.size)
	if a.method == "HEAD" || a.answer == "none" {
		want = ""
	}
	happened := f.now.Load().happened.Load()
	switch {
	case got.err == nil && got.code == "":
		f.sum.whole.Add(1)
	case got.code != "":
		f.sum.ours.Add(1)
	default:
		f.sum.cut.Add(1)
	}
	switch {
	case got.code == "internal_error" && f.now.Load().panics.Load() == 0:
		return "the proxy failed: " + got.String()
	case got.code != "":
		if !happened && strings.HasSuffix(got.code, "_timeout") {
			f.sum.late.Add(1)
			return ""
		}
		if !happened && a.answer != "early" {
			return "was refused although nothing had happened: " + got.String()
		}
		return ""
	case !strings.HasPrefix(want, got.body):
		return "got bytes that are not its own: " + got.String()
	case got.err != nil && !happened && a.answer != "early":
		return "was cut although nothing had happened: " + got.String()
	case got.err != nil:
		return ""
	case got.status == 503 && a.answer == "early":
		return ""
	case got.status != map[string]int{"none": 204, "upgrade": 101}[a.answer] && got.status != 200:
		return "got another status: " + got.String()
	case got.body != want && (f.secure || a.answer != "until close"): // which nobody can tell from a cut without TLS
		return fmt.Sprintf("took %d bytes of %d for the whole: %v", len(got.body), len(want), got)
	}
	return ""
}

// patternOf tells whose a byte is.
func patternOf(id string, n int) string { return strings.Repeat("<"+id+">", n/(len(id)+2)+1)[:n] }
