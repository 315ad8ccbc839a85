package proxy

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
	"github.com/rs/zerolog"
)

// TestPanicsEndOneRequest has code that the proxy calls panic, with secrets as the panic's value, at every place where it calls any: the
// store, the providers' functions, the log, both connections in each of their methods. The process lives; the request that was hit is
// answered as failed, or its connection ends; the next one works; nothing stays open; and no secret is printed.
func TestPanicsEndOneRequest(t *testing.T) {
	panics := 300
	if os.Getenv("KEYWARD_TORTURE") == "1" {
		panics = 5000
	}
	if testing.Short() {
		panics = 100
	}
	x := newExplosions(t)
	before := ourGoroutines()
	began, rounds := time.Now(), 0
	hit := map[string]int{} // :: place → panics
	for total := 0; total < panics && !t.Failed(); rounds++ {
		b := x.round(uint64(rounds))
		hit[b.at] += b.went
		total += b.went
		if rounds > 100*panics {
			t.Fatalf("%d rounds had only %d panics", rounds, total)
		}
	}
	noGoroutinesLeft(t, before)
	for _, at := range bombPlaces {
		if hit[at] == 0 {
			t.Errorf("nothing panicked at %q", at)
		}
	}
	t.Logf("figure: %d injected panics at %d places in %v, %d requests: the process lives, 0 secrets printed, 0 left open", panics, len(bombPlaces), time.Since(began).Round(time.Second), x.sum.asked.Load())
}

// The places where something panics.
var bombPlaces = []string{
	"store: credential", "store: token", "log", "inject", "dial",
	"caller: read", "caller: write", "caller: deadline", "caller: close", "provider: read", "provider: write", "provider: deadline", "provider: close",
}

// A bomb panics when its place has been passed so many times, and perhaps again and again.
type bomb struct {
	mu    sync.Mutex
	at    string
	left  int
	times int
	went  int
	value func()
}

func (b *bomb) pass(at string) {
	b.mu.Lock()
	if b.at != at || b.times == 0 {
		b.mu.Unlock()
		return
	}
	if b.left--; b.left > 0 {
		b.mu.Unlock()
		return
	}
	b.times--
	b.went++
	value := b.value
	b.mu.Unlock()
	value()
}

// An unsaid value says a secret when it is printed.
type unsaid string

func (u unsaid) Error() string { return "failed for " + string(u) }

// bombValues panic with everything that a panic's value may be.
func bombValues(secret string) []func() {
	return []func(){
		func() { panic("panic about " + secret) },
		func() { panic(errors.New("panic about " + secret)) },
		func() { panic(unsaid(secret)) },
		func() { panic([]byte(secret)) },
		func() { panic(map[string]any{"key": secret}) },
		func() { _ = []byte(secret)[len(secret)+len(os.Args)] },
		func() { none[map[string]string]()[secret] = secret },
		func() { none[*store.Credential]().Org = secret },
		func() { panic(fmt.Errorf("wrapping %w", unsaid(secret))) },
	}
}

func none[T any]() (zero T) { return zero }

// explosions are a proxy with and one without TLS to its provider, which share the bomb.
type explosions struct {
	t       *testing.T
	sum     faultCounts
	both    []*faultWorld
	mu      sync.Mutex
	now     *bomb
	secrets []string // what no log and no answer may hold
}

func newExplosions(t *testing.T) *explosions {
	x := &explosions{t: t, now: &bomb{}}
	for _, p := range []*provider.Provider{&provider.Vapi, &provider.ElevenLabs} {
		inject := p.Inject
		p.Inject = func(r *provider.Request, s provider.Secret) error {
			x.pass("inject")
			err := inject(r, s)
			x.pass("inject")
			return err
		}
		t.Cleanup(func() { p.Inject = inject })
	}
	for _, secure := range []bool{false, true} {
		f := newFaultWorld(t, secure, &x.sum, func(o *Options) {
			o.Store = bombStore{o.Store, x}
			o.Log = o.Log.Hook(zerolog.HookFunc(func(*zerolog.Event, zerolog.Level, string) { x.pass("log") }))
		})
		x.both = append(x.both, f)
		for _, u := range *f.p.hosts.Load() {
			connect := u.connect
			u.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
				x.pass("dial")
				return connect(ctx, network, address)
			}
		}
	}
	for _, byProvider := range credentialsOf {
		for _, text := range byProvider {
			fields := map[string]any{}
			if err := json.Unmarshal([]byte(text), &fields); err != nil {
				t.Fatal(err)
			}
			for name, v := range fields {
				if s, ok := v.(string); ok && (strings.Contains(name, "key") || strings.Contains(name, "token") || strings.Contains(name, "secret")) {
					x.secrets = append(x.secrets, s, base64.StdEncoding.EncodeToString([]byte(s)))
					for i := 0; i+8 <= len(s); i++ { // as a word in a stack
						x.secrets = append(x.secrets, fmt.Sprintf("0x%x", binary.LittleEndian.Uint64([]byte(s[i:i+8]))))
					}
				}
			}
		}
	}
	return x
}

func (x *explosions) pass(at string) {
	x.mu.Lock()
	b := x.now
	x.mu.Unlock()
	b.pass(at)
}

type bombStore struct {
	store.Reader
	x *explosions
}

func (s bombStore) Credential(ctx context.Context, ref store.Ref) (*store.Credential, bool, error) {
	s.x.pass("store: credential")
	return s.Reader.Credential(ctx, ref)
}

func (s bombStore) Token(ctx context.Context, hash [32]byte) (*store.Token, error) {
	s.x.pass("store: token")
	return s.Reader.Token(ctx, hash)
}

// A bombConn is a connection of ours.
type bombConn struct {
	*faultConn
	side string
	pass func(at string)
}

func (c *bombConn) Read(b []byte) (int, error) {
	c.pass(c.side + ": read")
	n, err := c.faultConn.Read(b)
	c.pass(c.side + ": read")
	return n, err
}

func (c *bombConn) Write(b []byte) (int, error) {
	c.pass(c.side + ": write")
	n, err := c.faultConn.Write(b)
	c.pass(c.side + ": write")
	return n, err
}

func (c *bombConn) SetDeadline(at time.Time) error {
	c.pass(c.side + ": deadline")
	return c.faultConn.SetDeadline(at)
}

func (c *bombConn) SetReadDeadline(at time.Time) error {
	c.pass(c.side + ": deadline")
	return c.faultConn.SetReadDeadline(at)
}

func (c *bombConn) SetWriteDeadline(at time.Time) error {
	c.pass(c.side + ": deadline")
	return c.faultConn.SetWriteDeadline(at)
}

// Close has closed the connection when it panics: what is tested is that it is called.
func (c *bombConn) Close() error {
	err := c.faultConn.Close()
	c.pass(c.side + ": close")
	return err
}

// round sends a few requests past one bomb.
func (x *explosions) round(n uint64) *bomb {
	g := rand.New(rand.NewPCG(7, n))
	f := x.both[n%2]
	secret := credentialsOf["acme"]["elevenlabs"] + credentialsOf["acme"]["vapi"] + acmeBasic
	values := bombValues(secret)
	b := &bomb{at: bombPlaces[n/2%uint64(len(bombPlaces))], left: 1 + g.IntN([]int{3, 10, 30}[g.IntN(3)]), times: 1, value: values[g.IntN(len(values))]}
	if g.IntN(4) == 0 {
		b.times = 1 + g.IntN(3)
	}
	now := &faults{places: map[string]bool{}, made: map[string]uint64{}, open: map[string]int{}, pass: x.pass}
	f.now.Store(now)
	bad := func(format string, args ...any) {
		x.t.Errorf("round %d (TLS %v), %d panics at %q: %s", n, f.secure, b.went, b.at, fmt.Sprintf(format, args...))
	}
	x.arm(b)
	network := "unix"
	if b.at == "store: token" || g.IntN(2) == 0 {
		network = "tcp"
	}
	c := &faultCaller{f: f, network: network}
	for j := range 1 + g.IntN(4) {
		a := drawAsk(g, "acme", fmt.Sprintf("acme/%d/%d", n, j))
		got := c.ask(a)
		x.sum.asked.Add(1)
		if what := x.judge(b, a, got); what != "" {
			bad("%v: %s", a, what)
		}
	}
	c.close()
	if what := f.settle(now); what != "" {
		bad("%s", what)
	}
	x.arm(&bomb{})
	for _, org := range []string{"acme", "globex"} {
		c := &faultCaller{f: f, network: "unix"}
		a := faultAsk{id: fmt.Sprintf("%s/%d/after", org, n), org: org, provider: "vapi", method: "GET", answer: "length", size: 100}
		if got := c.ask(a); got.err != nil || got.status != 200 || got.body != patternOf(a.id, a.size) {
			bad("afterwards %v got %v", a, got)
		}
		c.close()
	}
	if what := f.settle(now); what != "" {
		bad("afterwards, %s", what)
	}
	x.inspect(f, b, bad)
	return b
}

func (x *explosions) arm(b *bomb) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.now = b
}

// judge says what must not be in what a caller got.
func (x *explosions) judge(b *bomb, a faultAsk, got faultAnswer) string {
	b.mu.Lock()
	went := b.went
	b.mu.Unlock()
	want := patternOf(a.id, a.size)
	switch {
	case slices.ContainsFunc(x.secrets, func(s string) bool { return strings.Contains(got.body, s) }):
		return "got a secret: " + got.String()
	case got.code != "":
		if went == 0 && a.answer != "early" {
			return "was refused although nothing had happened: " + got.String()
		}
	case !strings.HasPrefix(want, got.body):
		return "got bytes that are not its own: " + got.String()
	case got.err != nil && went == 0 && a.answer != "early":
		return "was cut although nothing had happened: " + got.String()
	case got.err == nil && a.answer != "until close" && a.answer != "early" && a.answer != "none" && a.method != "HEAD" && got.body != want:
		return fmt.Sprintf("took %d bytes of %d for the whole: %v", len(got.body), len(want), got)
	}
	return ""
}

// inspect looks at what the proxy counted and printed, and at what the provider saw, and forgets it.
func (x *explosions) inspect(f *faultWorld, b *bomb, bad func(string, ...any)) {
	text := f.logs.String()
	for _, s := range x.secrets {
		if strings.Contains(text, s) {
			bad("the log holds a secret:\n%s", text)
			break
		}
	}
	if n := f.p.stats.Panics.Swap(0); b.went > 0 && n == 0 && b.at != "provider: close" { // a closed connection is done with, however it ended
		bad("none was noticed")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, n := range f.begun {
		if most := map[bool]int{true: 2, false: 1}[strings.Contains(id, "GET") || strings.Contains(id, "HEAD")]; n > most {
			bad("%s was sent %d times", id, n)
		}
	}
	for _, what := range f.wrong {
		bad("%s", what)
	}
	clear(f.begun)
	f.wrong = nil
	f.logs.mu.Lock()
	f.logs.b.Reset()
	f.logs.mu.Unlock()
}
