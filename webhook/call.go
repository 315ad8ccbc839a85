package webhook

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/valyala/fasthttp"

	"github.com/keyward/keyward/store"
)

// A call is one delivery on its way.
type call struct {
	s       *Server
	ctx     *fasthttp.RequestCtx
	conn    *conn
	id      string
	start   time.Time
	head    head
	target  string // of the request: path and query as received
	source  *source
	org     string // named in the path, or found; trusted once verified is set
	message message
	said    identity

	verified  bool
	reason    string // why it is not verified
	hide      string // a further header that the app does not get
	assistant string // mapped to the org
	claim     *claim // nil: it needs none, or has it no more
	reserved  int64  // of the memory for long bodies
	lent      *[]byte
	status    int
	code      string
	synced    bool
	duplicate bool // it was accepted before
	traced    bool
	tracing
	once sync.Once
}

func (s *Server) begin(ctx *fasthttp.RequestCtx) *call {
	var b [12]byte
	_, _ = rand.Read(b[:])
	c := &call{s: s, ctx: ctx, id: hex.EncodeToString(b[:]), start: time.Now()}
	c.conn, _ = ctx.Conn().(*conn)
	s.stats.Requests.Add(1)
	return c
}

// finish writes the decision line and gives back what the call holds.
func (c *call) finish() {
	c.once.Do(func() {
		c.s.release(c)
		c.count()
		c.logDecision()
		if c.traced {
			c.recordSpan()
		}
	})
}

// logDecision never writes a header's value, a query or a body: they may hold the tenant's secrets.
func (c *call) logDecision() {
	e := c.s.log.Info()
	if c.status >= 500 {
		e = c.s.log.Warn()
	}
	if e == nil {
		return
	}
	e.Str("request_id", c.id).Int("status", c.status)
	if c.code != "" {
		e.Str("code", c.code)
	}
	if c.reason != "" {
		e.Str("reason", c.reason)
	}
	if c.traced {
		e.Str("trace_id", c.own.Trace.String())
	}
	if c.source != nil {
		e.Str("provider", c.source.provider.Name)
	}
	if c.org != "" && store.IsOrg(c.org) {
		e.Str("org", c.org).Bool("verified", c.verified)
	}
	if c.verified {
		e.Str("type", c.said.typ).Bool("sync", c.synced)
	}
	if c.assistant != "" {
		e.Str("assistant", c.assistant)
	}
	e.Int("bytes", len(c.message.body)).Dur("duration_ms", time.Since(c.start)).Msg("webhook")
}

// recover turns a panic into a 500 for this request.
func (s *Server) recover(c *call) {
	v := recover()
	if v == nil {
		return
	}
	s.panicked(c, v)
	s.guarded(c, c.unclaim) // what is wrong may be the store, or the log
	s.guarded(c, func() { c.refuse(refusePanic) })
}

// guarded does what ends a call, and survives it.
func (s *Server) guarded(c *call, do func()) {
	defer func() {
		if v := recover(); v != nil {
			s.panicked(c, v)
		}
	}()
	do()
}

// panicked notes that a mistake in the program has cost a message.
func (s *Server) panicked(c *call, v any) {
	s.stats.Panics.Add(1)
	logPanic(&s.log, v, c.id, "panic while taking a webhook")
}

// logPanic never writes a panic's value: it may hold bytes of a request.
func logPanic(log *zerolog.Logger, v any, requestID, msg string) {
	defer func() { _ = recover() }() // of the log itself
	e := log.Error()
	if requestID != "" {
		e = e.Str("request_id", requestID)
	}
	e.Str("type", fmt.Sprintf("%T", v)).Bytes("stack", debug.Stack()).Msg(msg)
}
