// Package webhook is the inbound path: it takes what providers send, finds out whose it is, verifies it with that org's secret, and only
// then trusts it and hands it to the app.
//
// One delivery, in the order of the files:
//
//	listener.go       accept: a cap on connections, a lack of file descriptors survived
//	call.go           what is known of it on its way, and its line in the log
//	head.go           the head as it was received, checked in one pass
//	body.go           the body, whole, in bounded memory
//	scan.go           the ids in a body, found without building a tree
//	identify.go       what each provider's deliveries say about themselves
//	resolve.go        whose it is, before and after verification
//	signature.go      the schemes, in verify*.go: Svix, ElevenLabs, Google, Vapi, Twilio
//	route.go          where it goes and what the app is told
//	redact.go         and what it is not
//	forward.go        the app's answer, to messages that need one
//	exchange.go       how the app is asked, over the connections that lane.go keeps
//	claims.go         and to each only once, whatever dies meanwhile
//	queue.go, deliver.go  what is acknowledged at once and delivered with retries
//	sealed.go         and is sealed while it waits
//	tracing.go        those that are followed across programs
//	numbers.go        what became of them all
//	errors.go         the answers that are Keyward's own
//
// Nothing in a delivery is trusted before it verifies, except for the choice of the secret. Who cannot be verified learns nothing but that,
// in the same time, whatever the reason: it is for the log.
package webhook

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"
	"golang.org/x/sync/semaphore"

	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
	"github.com/keyward/keyward/trace"
)

// Options are what a Server needs. Zero durations and sizes mean the defaults of the command line.
type Options struct {
	Store store.Reader  // a cache in front of the store
	Keys  *seal.Keyring // opens what the store holds
	Log   zerolog.Logger
	Usage *store.Usage // is told which assistants are used; nil: nobody is

	Tracer *trace.Tracer // nil: nothing is traced

	// AccountOwner is the store's: the org that an account id belongs to, store.ErrNotFound if none.
	AccountOwner func(ctx context.Context, provider, field, id string) (org string, err error)

	// Accept makes a delivery durable, together with its SeenKey. It says whether one with that key was accepted or claimed before; then
	// nothing is taken in. What it returned nil for may be acknowledged.
	Accept func(ctx context.Context, d *store.Delivery) (duplicate bool, err error)
	// Memory keeps the keys of messages that are answered at once.
	Memory Memory

	PublicURL string // the listener as providers see it; empty: https:// and the request's Host
	Routes    []Route
	Pulse     string // the target of requests of our own that ask whether listeners answer; empty: there are none

	MaxBody     int64         // bytes; default 25 MiB
	MaxHead     int           // bytes; default 32 KiB
	MaxConns    int           // open at once; 0: no limit
	HeadTimeout time.Duration // from the first byte of a request to the end of its head
	IdleTimeout time.Duration // without progress: between requests, and within a body or stream

	Now func() time.Time // the wall clock that signatures are checked with; nil: time.Now
}

// A Server takes webhooks. It is made by New, given listeners by Serve and ended by Shutdown and Close.
type Server struct {
	o       Options
	log     zerolog.Logger
	routes  atomic.Pointer[routes]
	owners  *owners
	unknown map[string]*store.Credential // :: provider → a credential that nobody has, for deliveries of unknown orgs
	memory  *semaphore.Weighted          // of long bodies
	targets *targets

	claims *claims
	owned  sync.WaitGroup // what keeps the claims

	server   *fasthttp.Server
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	draining atomic.Bool
	conns    connections
	stats    Stats

	outcomes, verifieds, refusals tally

	mu        sync.Mutex
	listeners []*listener // that are being served
	finished  bool        // none is served from now on
}

// Stats count what was received since the start.
type Stats struct {
	Requests, Refused, Unverified, Duplicates, Answered, Accepted, Failed, Panics atomic.Int64
}

// New makes a Server. It dials nothing yet.
func New(o Options) (*Server, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.MaxBody = or(o.MaxBody, 25<<20)
	o.MaxHead = or(o.MaxHead, 32<<10)
	o.IdleTimeout = or(o.IdleTimeout, 5*time.Minute)
	o.PublicURL = strings.TrimSuffix(o.PublicURL, "/")
	s := &Server{o: o, log: o.Log, memory: semaphore.NewWeighted(bodiesAtOnce * o.MaxBody), targets: newTargets()}
	s.owners = newOwners(o.AccountOwner)
	if err := s.SetRoutes(o.Routes); err != nil {
		return nil, err
	}
	s.unknown = unknownCredentials(o.Keys)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.claims = newClaims(o.Memory, o.Log)
	s.owned.Go(func() { s.claims.keep(s.ctx) })
	s.server = &fasthttp.Server{
		Handler:                      s.serve,
		ErrorHandler:                 s.refuseUnparsed,
		ExpectHandler:                s.expect,
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
		StreamRequestBody:            true,
		MaxRequestBodySize:           prefetch,
		ReadBufferSize:               o.MaxHead + 4<<10,
		WriteBufferSize:              8 << 10,
		ReadTimeout:                  or(o.HeadTimeout, 10*time.Second),
		IdleTimeout:                  o.IdleTimeout,
		Concurrency:                  1 << 20, // each listener has its own cap
		ConnState:                    connState,
		SecureErrorLogMessage:        true,
		Logger:                       silent{}, // fasthttp's own error lines print heads
	}
	return s, nil
}

// prefetch is how much of a body fasthttp waits for before a request is handled.
const prefetch = 8 << 10

func or[T int | int64 | time.Duration](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

type silent struct{}

func (silent) Printf(string, ...any) {}

// SetRoutes puts new routes in force. Deliveries that were accepted before go where they were to go then.
func (s *Server) SetRoutes(all []Route) error {
	r, err := newRoutes(all)
	if err != nil {
		return err
	}
	s.routes.Store(r)
	return nil
}

// Apply is told of every change in the store (store.DB.Watch), so that an account that changed hands is looked up again.
func (s *Server) Apply(c store.Change) {
	if c.Kind == store.KindCredential || c.Kind == "" {
		s.owners.forget()
	}
}

// Stats are the server's counters.
func (s *Server) Stats() *Stats { return &s.stats }

// Serve takes providers' deliveries from l until it is closed.
func (s *Server) Serve(l net.Listener) error { return s.serveListener(l) }

// Drain makes every further answer close its connection, while new ones are still served.
func (s *Server) Drain() { s.draining.Store(true) }

// Close ends whatever still runs.
func (s *Server) Close() {
	s.cancel()
	s.mu.Lock()
	s.finished = true
	for _, l := range s.listeners {
		_ = l.Close()
	}
	s.mu.Unlock()
	s.conns.closeAll()
	s.owned.Wait()
	s.targets.close()
}

// serve handles one delivery.
func (s *Server) serve(ctx *fasthttp.RequestCtx) {
	c, _ := ctx.UserValue(expected{}).(*call) // looked at already, before the sender was told to go on
	if c == nil {
		if s.o.Pulse != "" && string(ctx.Request.Header.RequestURI()) == s.o.Pulse {
			ctx.SetStatusCode(fasthttp.StatusNoContent) // nobody else knows it: neither counted nor logged
			ctx.SetConnectionClose()
			return
		}
		c = s.begin(ctx)
		defer s.recover(c)
		if bad := s.look(c); bad != nil {
			c.refuse(bad)
			return
		}
	} else {
		defer s.recover(c)
	}
	if bad := s.take(c); bad != nil {
		c.refuse(bad)
	}
}

// expected is the key under which a call waits whose head was looked at before its body was asked for.
type expected struct{}

func (s *Server) expect(ctx *fasthttp.RequestCtx) int {
	c := s.begin(ctx)
	defer s.recover(c)
	if bad := s.look(c); bad != nil {
		c.refuse(bad)
		return bad.status
	}
	ctx.SetUserValue(expected{}, c)
	return fasthttp.StatusContinue
}

// look settles what the head alone shows: a path of ours, and a body that is not too long.
func (s *Server) look(c *call) *refusal {
	rh := &c.ctx.Request.Header
	http10 := string(rh.Protocol()) == "HTTP/1.0"
	if !http10 && string(rh.Protocol()) != "HTTP/1.1" {
		return refuseVersion
	}
	raw := rh.RawHeaders()
	if err := c.head.scan(raw, http10); err != nil {
		return refuseHead(err)
	}
	c.target = string(rh.RequestURI())
	if !isTarget(c.target) {
		return refuseTarget
	}
	if len(raw)+len(c.target)+len(rh.Method())+len("  HTTP/1.1\r\n") > s.o.MaxHead {
		return refuseHeadSize
	}
	path, query, _ := strings.Cut(c.target, "?")
	if bad := c.find(path); bad != nil {
		return bad
	}
	if string(rh.Method()) != fasthttp.MethodPost {
		return refuseMethod
	}
	if c.head.length > s.o.MaxBody {
		return refuseBodySize
	}
	c.message = message{method: fasthttp.MethodPost, url: s.publicURL(c), rawQuery: query, head: &c.head}
	return nil
}

// find reads /webhooks/PROVIDER and /webhooks/PROVIDER/ORG.
func (c *call) find(path string) *refusal {
	rest, ok := strings.CutPrefix(path, "/webhooks/")
	if !ok {
		return refusePath
	}
	name, org, named := strings.Cut(rest, "/")
	for _, src := range sources {
		if strings.ReplaceAll(name, "-", "_") == src.provider.Name {
			c.source = src
		}
	}
	if c.source == nil || strings.Contains(org, "/") || named && org == "" || !named && !c.source.shared {
		return refusePath
	}
	c.org = org
	return nil
}

// publicURL is the request's URL as its sender knows it.
func (s *Server) publicURL(c *call) string {
	if s.o.PublicURL != "" {
		return s.o.PublicURL + c.target
	}
	return "https://" + string(c.head.host) + c.target
}

// take reads a delivery whole, verifies it and hands it on.
func (s *Server) take(c *call) *refusal {
	if bad := s.readBody(c); bad != nil {
		return bad
	}
	whole := time.Now()
	c.message.now = s.o.Now()
	c.source.read(&c.said, &c.message)
	c.said.tidy()
	v, bad := s.verify(c)
	c.follow()
	if bad != nil {
		return bad
	}
	if !c.verified {
		s.stats.Unverified.Add(1)
		s.level(whole)
		return refuseUnverified
	}
	if c.assistant != "" {
		s.o.Usage.Assistant(c.assistant, c.start)
	}
	return s.hand(c, v)
}

// level makes every refusal of an unverified delivery take a multiple of a fixed time, since its body was there: what little differs in
// the work, and whether a row came from the cache or the store, does not show.
func (s *Server) level(since time.Time) {
	const step = 4 * time.Millisecond
	t := time.NewTimer(step - time.Since(since)%step)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ctx.Done():
	}
}
