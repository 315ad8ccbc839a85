package proxy

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/mask"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
	"github.com/valyala/fasthttp"
)

// A call is one request on its way: who, where, whose, and how it went. Calls are used again and again, with their buffers; nothing in
// one survives its request but memory, and memory that held a secret is overwritten first.
type call struct {
	p     *Proxy
	ctx   *fasthttp.RequestCtx
	conn  *callerConn
	at    *Listener
	id    [idLength]byte
	start time.Time

	head      head
	scanned   bool
	route     route
	org       []byte
	assistant string       // that named the org; empty: none did
	rule      *caller.Rule // that lets the caller in
	narrow    *caller.Rule // of a token beside a peer's rule; nil: none
	hash      [32]byte     // of the token that counts, if hashed
	hashed    bool
	connect   *via // of CONNECT; nil: it is another method
	row       *store.Credential
	hit       bool
	looked    time.Time // when row was looked up

	request provider.Request
	to      *upstream
	up      *upstreamConn // while the call owns it
	upload  *upload       // a body that is sent while the answer is awaited; nil: none

	body        []byte // read whole before it is sent, if bodyRead
	bodyRead    bool
	completes   bool // the provider's Complete has yet to see the body
	upgrade     bool
	mask        *mask.Fields // fields of the answer that are overwritten; nil: none
	readable    bool         // the provider is asked for an answer that can be read
	begun       bool         // the provider has begun to answer
	renewed     bool         // an exchanged token was renewed after a 401
	former      bool         // the former credential is used, after a 401 to the one that takes its place
	completed   bool         // body is longer than it came, by what the credential knows
	completedAt int          // its length as it came

	plain, value, token, out []byte  // hold secrets; see makeRoom and wipe
	mint                     *minted // that token came from
	spare                    []byte  // for renderings of a secret; likewise
	rewritten, basic         []byte
	plainPath                []byte
	parked                   []byte // method and path, of a call that waits
	red                      redactor
	zeros                    [256]byte

	traced bool
	tracing

	counted  [2]*atomic.Int64 // that the request is counted in
	answer   answer
	status   int
	code     string // of a refusal
	reason   string // of it
	sent     int64  // bytes of the body to the provider
	received int64  // bytes of the body to the caller
	waited   time.Duration
}

const idLength = 24

// idPrefix tells processes apart, idCounter the requests of one.
var (
	idPrefix = func() (b [4]byte) {
		_, _ = rand.Read(b[:])
		return b
	}()
	idCounter atomic.Uint64
)

// begin makes a call of what has just been received.
func (p *Proxy) begin(ctx *fasthttp.RequestCtx) *call {
	c := p.calls.Get().(*call)
	c.ctx = ctx
	c.conn, _ = ctx.Conn().(*callerConn)
	c.at = c.conn.at
	c.start = time.Now()
	var raw [12]byte
	copy(raw[:], idPrefix[:])
	binary.BigEndian.PutUint64(raw[4:], idCounter.Add(1))
	hex.Encode(c.id[:], raw[:])
	p.stats.Requests.Add(1)
	if v := c.conn.via; v != nil {
		v.requests++
	}
	return c
}

// end writes the decision line and gives the call back. Nobody may touch it afterwards.
func (c *call) end() {
	p := c.p
	ended := &p.unrouted[classOf(c.status)]
	if c.route.provider != nil {
		ended = &p.measured[c.route.provider].classes[classOf(c.status)].ended
	}
	ended.Add(1)
	if c.rule != nil {
		if answered := c.rule.Answered(); answered != nil {
			answered[classOf(c.status)].Add(1)
		}
	}
	p.logDecision(c)
	if c.traced {
		c.recordSpans()
		c.traced, c.tracing = false, tracing{}
	}
	c.leave()
	c.wipe()
	clear(c.basic[:cap(c.basic)]) // may have held a caller's token
	c.head.said = said{}
	c.connect = nil
	c.ctx, c.conn, c.at, c.rule, c.narrow, c.row, c.to, c.up, c.upload, c.mint, c.mask = nil, nil, nil, nil, nil, nil, nil, nil, nil, nil, nil
	c.route = route{}
	c.request = provider.Request{}
	c.begun, c.readable, c.scanned, c.hit, c.bodyRead, c.completes, c.upgrade, c.renewed = false, false, false, false, false, false, false, false
	c.former, c.completed, c.completedAt = false, false, 0
	c.org, c.assistant, c.body = c.org[:0], "", c.body[:0]
	if cap(c.body) > maxKept {
		c.body = nil
	}
	c.answer = answer{}
	c.red.forms, c.red.hid, c.red.mask = forms{}, false, false
	if cap(c.red.buf) > maxKept {
		c.red.buf = nil
	}
	c.status, c.code, c.reason, c.sent, c.received, c.waited = 0, "", "", 0, 0, 0
	p.calls.Put(c)
}

// maxKept is the largest body buffer that a call keeps for the next request.
const maxKept = 64 << 10

// refuse answers the caller with a refusal and ends the call.
func (c *call) refuse(r *refusal) {
	c.p.stats.Refused.Add(1)
	c.p.refusals.add(r.code)
	if r.head != "" {
		c.p.heads.add(r.head)
	}
	if c.conn.via == nil && (equalFold(c.head.method, "connect") || c.conn.head.connects()) {
		c.p.tunnels.add(c.refusedTunnel(r))
	}
	r.write(&c.ctx.Response, c.id[:])
	if c.p.draining.Load() {
		c.ctx.SetConnectionClose()
	}
	c.status, c.code, c.reason = r.status, r.code, r.reason
	if r == refuseGone {
		c.conn.reset()
	}
	c.end()
}

// refuseGone is logged for a caller that went away; nobody reads it. The status is nginx's.
var refuseGone = &refusal{status: 499, code: "caller_gone", detail: "the caller closed the connection", close: true}

// park leaves the call to the connection, which ends it when nobody else does. By then the head is gone, and its memory another
// request's: what end writes into the log is the call's own from here on.
func (c *call) park() {
	h, r := &c.head, &c.route
	n := len(h.method)
	c.parked = append(append(c.parked[:0], h.method...), r.path...)
	h.method, r.path = c.parked[:n:n], c.parked[n:]
	c.conn.waiting.Store(c)
}

// abandon closes what a failed request may have left half done at the provider, so that nobody uses it again.
func (c *call) abandon() {
	if c.up != nil {
		_ = c.up.Close()
	}
	_ = c.stopUpload()
	c.up = nil
	c.wipe()
}
