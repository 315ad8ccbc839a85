package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
	"github.com/keyward/keyward/trace"
	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"
)

// A Proxy serves callers. It is made by New, given listeners by Serve and ended by Shutdown and Close.
type Proxy struct {
	store     store.Reader
	providers provider.Set
	keys      *seal.Keyring
	rules     atomic.Pointer[caller.Rules]
	tokens    tokenRules
	usage     *store.Usage
	tracer    *trace.Tracer
	log       zerolog.Logger
	requests  *zerolog.Logger

	hosts   atomic.Pointer[map[string]*upstream] // :: host → upstream; the map is never changed once it is here
	names   map[string]*provider.Provider        // :: path segment or host label → provider
	dropped *names
	places  []string // headers in lower case, in which SDKs of configured providers put a caller's token
	roots   *x509.CertPool
	anyHost bool
	isolate bool

	intercept *Interception // nil: CONNECT is refused
	within    *tls.Config   // of what is intercepted
	dialOut   func(ctx context.Context, network, address string) (net.Conn, error)

	pulse    string
	minted   *exchanges
	suspects func(*store.Credential)
	mints    map[string]*mintRoute // :: name in the path → what is minted there
	audit    func(context.Context, store.Event) error
	inflight *inflight
	measured map[*provider.Provider]*measure
	unrouted [Classes]atomic.Uint64 // answered before the provider was known
	refusals counter[string]        // :: code
	heads    counter[string]        // :: what is wrong with them
	heldUp   counter[string]        // :: why a caller's connection was not served at once
	tunnels  counter[Tunnel]
	masked   atomic.Uint64 // answers in which fields were overwritten
	secrets  map[*provider.Provider]*secretTable

	maxHead int
	limits  atomic.Pointer[Limits]

	server   *fasthttp.Server
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	calls    sync.Pool
	draining atomic.Bool
	stats    Stats
	sweeper  chan struct{}
	conns    connections

	mu        sync.Mutex
	listeners []*Listener // that are being served
	finished  bool        // none of them takes connections any more
}

// Stats count what was served since the start.
type Stats struct {
	Requests, Refused, Failed, Panics atomic.Int64
	// Exchanges, Echoes and Minted leave copies of secrets in memory that only the garbage collector can overwrite: tokens traded for a
	// credential, answers in which a provider repeated one, and answers of ours that hold a token.
	Exchanges, Echoes, Minted atomic.Int64
}

// New makes a Proxy. It dials nothing yet.
func New(o Options) (*Proxy, error) {
	all := o.Providers.Or()
	p := &Proxy{
		store: o.Store, providers: all, keys: o.Keys, log: o.Log, usage: o.Usage, tracer: o.Tracer, names: map[string]*provider.Provider{}, dropped: droppedNames(all),
		roots: o.Roots, anyHost: o.AnyHost, isolate: o.Isolate, intercept: o.Intercept, within: newWithin(), dialOut: newDialer(), pulse: o.Pulse, maxHead: or(o.MaxHead, 32<<10), sweeper: make(chan struct{}),
	}
	var err error
	if p.secrets, err = newSecretTables(all); err != nil {
		return nil, err
	}
	p.measured = newMeasures(all)
	if err := p.SetUpstreams(o.Upstreams); err != nil {
		return nil, err
	}
	p.SetLimits(o.Limits)
	for _, v := range all {
		for _, h := range v.AuthHeaders {
			if v.Custom && h != "Authorization" && h != "Proxy-Authorization" && h != "Cookie" { // which are looked at anyway, or never
				p.places = append(p.places, strings.ToLower(h))
			}
		}
		p.names[v.Name] = v
		p.names[strings.ReplaceAll(v.Name, "_", "-")] = v
		p.tokens.known = append(p.tokens.known, v.Name)
	}
	if p.requests = o.Requests; p.requests == nil {
		p.requests = &p.log
	}
	p.rules.Store(o.Rules)
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.inflight = newInflight(all)
	p.refusals, p.heads = newCounter(codes...), newCounter(headReasons...)
	p.heldUp, p.tunnels = newCounter(uidShare, noRoom), newCounter(tunnelsThatAre...)
	p.minted = newExchanges(p, o.Rotated)
	p.suspects = o.Suspect
	p.mints, p.audit = newMintRoutes(all), o.Audit
	p.calls.New = func() any { return &call{p: p} }
	p.server = &fasthttp.Server{
		Handler:                      p.serve,
		ErrorHandler:                 p.refuseUnparsed,
		ExpectHandler:                p.expect,
		HeaderReceived:               p.bodyTimeout,
		NoDefaultServerHeader:        true,
		NoDefaultDate:                true,
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
		StreamRequestBody:            true,
		MaxRequestBodySize:           prefetch,
		ReadBufferSize:               p.maxHead + 4<<10,
		WriteBufferSize:              8 << 10,
		ReadTimeout:                  or(o.HeadTimeout, 10*time.Second),
		IdleTimeout:                  p.limits.Load().IdleTimeout,
		Concurrency:                  1 << 20, // each listener has its own cap
		ConnState:                    connState,
		SecureErrorLogMessage:        true,
		Logger:                       silent{}, // fasthttp's own error lines print heads
	}
	go p.sweep()
	return p, nil
}

// prefetch is how much of a body fasthttp waits for before a request is handled. A body of this size or less goes to the provider in
// one piece with the head.
const prefetch = 8 << 10

func or[T int | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

type silent struct{}

func (silent) Printf(string, ...any) {}

// SetRules puts new caller rules in force, for open connections too.
func (p *Proxy) SetRules(r *caller.Rules) { p.rules.Store(r) }

// Rules are the caller rules in force.
func (p *Proxy) Rules() *caller.Rules { return p.rules.Load() }

// SetLimits puts new limits in force. How long a connection may be idle between requests is as it was at the start.
func (p *Proxy) SetLimits(l Limits) {
	l.IdleTimeout = or(l.IdleTimeout, 5*time.Minute)
	l.FirstByteTimeout = or(l.FirstByteTimeout, time.Minute)
	p.limits.Store(&l)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, at := range p.listeners {
		at.wake()
	}
}

// SetUpstreams puts new overrides in force: host → where it is dialled instead. Connections to hosts that stay where they are stay too.
func (p *Proxy) SetUpstreams(overrides map[string]*url.URL) error {
	next, err := newUpstreams(p.providers, overrides, p.roots)
	if err != nil {
		return err
	}
	for _, u := range next {
		u.measure = p.measured[u.provider]
	}
	var old []*upstream
	if before := p.hosts.Load(); before != nil {
		for host, u := range *before {
			if n := next[host]; n.address == u.address && n.public == u.public && (n.tls == nil) == (u.tls == nil) {
				next[host] = u
			} else {
				old = append(old, u)
			}
		}
	}
	p.hosts.Store(&next)
	for _, u := range old {
		u.retire()
	}
	return nil
}

// at is the upstream of a host in lower case, those that only Keyward calls included; nil if no provider has it.
func (p *Proxy) at(host []byte) *upstream { return (*p.hosts.Load())[string(host)] }

// idle is the longest that a connection or a stream may stand still.
func (p *Proxy) idle() time.Duration { return p.limits.Load().IdleTimeout }

// Stats are the proxy's counters.
func (p *Proxy) Stats() *Stats { return &p.stats }

// bodyTimeout ends the head's time limit where the head ends: a body may take the idle time for each of its pieces.
func (p *Proxy) bodyTimeout(*fasthttp.RequestHeader) fasthttp.RequestConfig {
	return fasthttp.RequestConfig{ReadTimeout: p.idle()}
}

// serve handles one request.
func (p *Proxy) serve(ctx *fasthttp.RequestCtx) {
	conn, _ := ctx.Conn().(*callerConn)
	c := conn.waiting.Swap(nil) // decided already, before the caller was told to go on
	if c == nil {
		if p.pulse != "" && string(ctx.Request.Header.RequestURI()) == p.pulse {
			ctx.SetStatusCode(fasthttp.StatusNoContent) // nobody else knows it: neither counted nor logged
			ctx.SetConnectionClose()
			return
		}
		c = p.begin(ctx)
		defer p.recover(c)
		if bad := p.decide(c); bad != nil {
			c.refuse(bad)
			return
		}
	} else {
		defer p.recover(c)
	}
	if c.connect != nil {
		if bad := p.answerConnect(c); bad != nil {
			c.refuse(bad)
		}
		return
	}
	if c.route.mint != nil {
		if bad := p.mint(c); bad != nil {
			c.refuse(bad)
		}
		return
	}
	if bad := p.forward(c); bad != nil {
		c.refuse(bad)
	}
}

// expect decides a request that waits for "100 Continue": who is refused is not told to send the body.
func (p *Proxy) expect(ctx *fasthttp.RequestCtx) (status int) {
	status = fasthttp.StatusInternalServerError // of a panic
	c := p.begin(ctx)
	defer p.recover(c)
	if bad := p.decide(c); bad != nil {
		c.refuse(bad)
		return bad.status
	}
	c.park()
	return fasthttp.StatusContinue
}

// decide settles everything that can be known from the head: who calls, where to, for whom, and whether they may.
func (p *Proxy) decide(c *call) *refusal {
	rh := &c.ctx.Request.Header
	raw := rh.RawHeaders()
	http10, ok := version(rh.Protocol())
	if !ok {
		return refuseVersion
	}
	if err := c.head.scan(rh.Method(), rh.RequestURI(), raw, http10); err != nil {
		return refuseHead(err)
	}
	c.scanned = true
	h := &c.head
	if len(h.method)+len(h.target)+len(raw)+len("  HTTP/1.1\r\n") > p.maxHead {
		return refuseHeadSize
	}
	connects := equalFold(h.method, "connect")
	if v := c.conn.via; v != nil && v.misdirected(h) {
		return refuseMisdirected
	}
	if !c.at.unix {
		if bad := p.fromBrowser(h, connects); bad != nil {
			return bad
		}
	}
	if bad := p.authenticate(c); bad != nil {
		if bad == refuseCaller && connects && p.intercept != nil && h.proxyAuth == nil {
			return refuseProxyAuth // who has a token may wait to be asked for it
		}
		return bad
	}
	if p.tracer != nil {
		c.follow() // the traceparent of somebody unknown counts for nothing: all could be traced, and crowd out what others sent
	}
	if connects && c.conn.via == nil {
		return p.decideConnect(c)
	}
	if bad := p.find(&c.route, h, c.at, c.conn.via); bad != nil {
		return bad
	}
	if bad := p.orgOf(c); bad != nil {
		return bad
	}
	if bad := p.allowed(c); bad != nil {
		return bad
	}
	if c.assistant != "" {
		p.usage.Assistant(c.assistant, c.start)
	}
	if bad := p.guardSecrets(c); bad != nil {
		return bad
	}
	if p.overBody(h.length) {
		return refuseBodySize
	}
	c.upgrade = h.webSocket()
	switch {
	case c.upgrade && (h.body() || h.close || http10):
		return refuseUpgrade
	case c.upgrade && p.draining.Load():
		return refuseDraining // a tunnel would last longer than we do
	}
	return p.look(c, c.start)
}

// version tells HTTP/1.0 from HTTP/1.1; nothing else is spoken here.
func version(proto []byte) (http10, ok bool) {
	switch string(proto) {
	case "HTTP/1.1":
		return false, true
	case "HTTP/1.0":
		return true, true
	}
	return false, false
}

// refuseUnparsed answers what fasthttp could not read as a request.
func (p *Proxy) refuseUnparsed(ctx *fasthttp.RequestCtx, err error) {
	conn, _ := ctx.Conn().(*callerConn)
	c := conn.waiting.Swap(nil) // its body, asked for by "100 Continue", did not come
	if c == nil {
		c = p.begin(ctx)
	}
	defer p.recover(c)
	var small *fasthttp.ErrSmallBuffer
	var bad *headError
	var ne net.Error
	switch {
	case errors.As(err, &small):
		c.refuse(refuseHeadSize)
	case errors.As(err, &bad):
		c.refuse(refuseHead(bad))
	case errors.As(err, &ne) && ne.Timeout():
		c.refuse(refuseSlow)
	default:
		c.refuse(refuseMalformed)
	}
}

// bytesOf and stringOf look at memory as the other type, for look-ups within one request; what outlives the request is copied.
func bytesOf(s string) []byte  { return unsafe.Slice(unsafe.StringData(s), len(s)) }
func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
