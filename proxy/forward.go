package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/keyward/keyward/provider"
	"github.com/valyala/fasthttp"
)

const (
	maxForm    = 256 << 10              // a form that gets defaults is read whole up to this size
	maxRenewed = 64 << 10               // a body up to this size can be sent again, with a renewed token or a former credential
	lookEvery  = 100 * time.Millisecond // how often a waiting request looks whether its caller is still there
	onePiece   = 16 << 10               // a body up to this size is written together with the head
)

// forward sends the request to the provider and makes its answer the caller's.
func (p *Proxy) forward(c *call) *refusal {
	if bad := p.enter(c); bad != nil {
		return bad
	}
	if bad := p.readBody(c); bad != nil {
		return bad
	}
	for retried := false; ; {
		if c.traced {
			c.beginAttempt()
		}
		bad, again := p.exchange(c, retried)
		if c.traced {
			c.endAttempt(bad)
		}
		switch {
		case bad == nil:
		case again && !retried:
			retried = true
			_ = c.up.Close()
			c.up = nil
			continue
		default:
			c.abandon()
			p.stats.Failed.Add(1)
			return bad
		}
		if p.renew(c) || p.fallBack(c) {
			continue
		}
		break
	}
	p.suspect(c.row, c.ctx.Response.StatusCode())
	if c.upgrade && c.ctx.Response.StatusCode() == fasthttp.StatusSwitchingProtocols {
		return p.tunnel(c)
	}
	if bad := p.reply(c); bad != nil {
		c.abandon()
		return bad
	}
	return nil
}

// readBody reads a body whole where it is needed whole: one that fits into one piece with the head, a form that the provider's
// defaults complete, and one that may have to be sent again with a renewed token or a former credential. All others are streamed.
func (p *Proxy) readBody(c *call) *refusal {
	h := &c.head
	if !h.body() {
		return nil
	}
	prov := c.route.provider
	limit := int64(prefetch)
	if m := prov.Complete; m != nil && isForm(h) && m.Match(h.method, hostOf(c), c.route.path) {
		limit, c.completes = maxForm, true
	} else if prov.Exchange != nil || c.row.Previous != nil {
		limit = maxRenewed
	}
	if h.length > limit || h.chunked && limit == prefetch {
		c.completes = false
		return nil
	}
	return p.takeBody(c, limit)
}

// takeBody reads a body whole; not bodyRead afterwards: it is chunked, and longer than the limit.
func (p *Proxy) takeBody(c *call, limit int64) *refusal {
	h := &c.head
	in := c.ctx.RequestBodyStream()
	if in == nil {
		c.bodyRead = true
		return nil
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(p.idle()))
	body, err := readUpTo(c.body[:0], in, limit)
	c.body = body
	switch {
	case err == nil && !h.chunked && int64(len(body)) != h.length:
		return refuseShort
	case err == nil:
		c.bodyRead = true
		if h.chunked && hasTrailers(c.ctx) {
			return refuseHead(errTrailers)
		}
		if p.overBody(int64(len(body))) {
			return refuseBodySize
		}
	case errors.Is(err, errLong): // chunked and longer than expected: the rest is streamed behind what was read
		c.completes = false
	default:
		return refuseShort
	}
	return nil
}

// overBody says whether a body of n bytes is over the limit.
func (p *Proxy) overBody(n int64) bool {
	most := p.limits.Load().MaxBody
	return most > 0 && n > most
}

// hostOf is the host that the request names, or the provider's usual one.
func hostOf(c *call) string {
	if c.route.to != nil {
		return c.route.to.host
	}
	return c.route.provider.DefaultHost(provider.Secret{})
}

var refuseShort = &refusal{status: 400, code: "bad_request", detail: "the body ended before it was complete", close: true}

func isForm(h *head) bool {
	t, _, _ := bytes.Cut(h.contentType, []byte(";"))
	return h.contentEncoding == nil && equalFold(trimSpace(t), "application/x-www-form-urlencoded")
}

func hasTrailers(ctx *fasthttp.RequestCtx) bool {
	for range ctx.Request.Header.Trailers() {
		return true
	}
	return false
}

var errLong = errors.New("longer than the limit")

func readUpTo(b []byte, r io.Reader, limit int64) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case err == io.EOF:
			return b, nil
		case err != nil:
			return b, err
		case int64(len(b)) > limit:
			return b, errLong
		}
	}
}

// whose is the org that connections are kept for, if they are not shared. It is good until the call ends.
func (c *call) whose() string {
	if !c.p.isolate {
		return ""
	}
	return stringOf(c.org)
}

// exchange sends the request once and reads the head of the answer. again says whether it may be sent once more: only when the
// provider cannot have acted on it.
func (p *Proxy) exchange(c *call, fresh bool) (bad *refusal, again bool) {
	sentAt := time.Now()
	if bad := p.build(c, sentAt); bad != nil {
		c.wipe()
		return bad, false
	}
	if c.route.provider.Exchange != nil {
		sentAt = time.Now() // a token may have been waited for
	}
	now := sentAt
	var u *upstreamConn
	if !fresh {
		u = c.to.take(c.whose(), now)
	}
	c.up = u
	if u == nil {
		c.wipe() // not kept while a connection is made
		var err error
		if u, err = c.to.obtain(p.ctx, strings.Clone(c.whose()), fresh); err != nil {
			return refusalFor(err), false
		}
		c.up = u
		now = time.Now()
		if bad := p.build(c, now); bad != nil {
			c.wipe()
			return bad, false
		}
		if c.to != u.to { // meanwhile the credential, or the configuration, has named another place: nothing was sent
			c.wipe()
			return refuseMoved, true
		}
	}
	m := p.measured[c.route.provider]
	if u.reused {
		m.reused.Add(1)
	} else {
		m.dialled.Add(1)
	}
	err := c.send(u, now)
	c.wipe()
	if err != nil {
		return refusalOfEnd(err), !u.guard.wrote && c.upload == nil
	}
	if len(c.body) > onePiece {
		now = time.Now() // writing may have taken a while
	}
	err = c.awaitHead(u, now)
	c.waited += time.Since(sentAt)
	if err == nil {
		return nil, false
	}
	if bad := c.stopUpload(); bad != nil {
		return bad, false
	}
	bad = refusalOfAnswer(err)
	return bad, bad.code == refuseUnreachable.code && !c.begun && c.mayRepeat()
}

// mayRepeat says whether sending the request again does nothing twice.
func (c *call) mayRepeat() bool {
	m := stringOf(c.head.method)
	return (m == "GET" || m == "HEAD") && !c.head.body() && !c.upgrade
}

// send writes the head, with the body when that is at hand, in one piece where it is small.
func (c *call) send(u *upstreamConn, now time.Time) error {
	if c.bodyRead && len(c.body) <= onePiece {
		c.out = append(c.out, c.body...)
	}
	u.writesUntil(now, c.p.idle())
	if _, err := u.Write(c.out); err != nil {
		return err
	}
	switch {
	case c.bodyRead && len(c.body) > onePiece:
		if _, err := u.Write(c.body); err != nil {
			return err
		}
		fallthrough
	case c.bodyRead:
		c.sent = int64(len(c.body))
	case c.head.body():
		c.startUpload(u)
	}
	return nil
}

var (
	errGone    = errors.New("caller went away")
	errLate    = errors.New("no answer in time")
	errBadHead = errors.New("answer is not valid HTTP")
)

// awaitHead reads the head of the answer into the response. While it waits it looks after the caller: one that went away takes its
// request with it.
func (c *call) awaitHead(u *upstreamConn, began time.Time) error {
	most := c.p.limits.Load().FirstByteTimeout
	c.begun = false
	for i, now := 0, began; i < maxInterim; i, now = i+1, time.Now() {
		left := most
		if c.upload == nil {
			left -= now.Sub(began)
		}
		if err := c.awaitByte(u, now, left); err != nil {
			return err
		}
		c.begun = true
		if b, _ := u.br.Peek(u.br.Buffered()); !bytes.Contains(b, endOfHead) {
			_ = u.SetReadDeadline(time.Now().Add(most))
		}
		if line, err := u.br.Peek(statusLine); err == nil && !isStatusLine(line) {
			return errBadHead
		}
		h := &c.ctx.Response.Header
		if err := h.Read(u.br); err != nil {
			var ne net.Error
			switch {
			case errors.As(err, &ne) && ne.Timeout(), errors.Is(err, fasthttp.ErrTimeout):
				return errLate
			case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
				return err
			}
			return errBadHead
		}
		status := h.StatusCode()
		if h.ContentLength() == -1 && len(h.Peek("Content-Length")) > 0 {
			return errBadHead // two lengths: which of them another reader believes is anyone's guess
		}
		if status >= 200 || status == fasthttp.StatusSwitchingProtocols && c.upgrade {
			return nil
		}
		if status == fasthttp.StatusSwitchingProtocols {
			return errBadHead
		}
		// 100 and other interim answers are between the provider and us.
	}
	return errBadHead
}

var endOfHead = []byte("\r\n\r\n")

// statusLine is how much of a status line can be checked before the rest is read: "HTTP/1.1 200" and what stands behind it.
const statusLine = 13

// isStatusLine checks it to the letter (RFC 9112, section 4): the library takes other versions, more spaces, and a status of 000.
func isStatusLine(b []byte) bool {
	return string(b[:7]) == "HTTP/1." && (b[7] == '0' || b[7] == '1') && b[8] == ' ' && b[9] >= '1' && b[9] <= '9' &&
		b[10] >= '0' && b[10] <= '9' && b[11] >= '0' && b[11] <= '9' && (b[12] == ' ' || b[12] == '\r')
}

// maxInterim is how many interim answers a provider may send before the real one.
const maxInterim = 8

// awaitByte waits until a byte can be read from the provider, at most for the given time from began on without one.
func (c *call) awaitByte(u *upstreamConn, began time.Time, most time.Duration) error {
	if u.br.Buffered() > 0 {
		return nil
	}
	for now := began; ; now = time.Now() {
		step := lookEvery
		if left := most - now.Sub(began); left < step {
			step = left
		}
		if step <= 0 {
			// A provider that is still being sent to is not late.
			switch {
			case c.upload == nil:
				return errLate
			case !c.upload.finished():
				began = now
			case c.upload.at.After(began):
				began = c.upload.at
			default:
				return errLate
			}
			continue
		}
		if err := u.SetReadDeadline(now.Add(step)); err != nil {
			return err
		}
		_, err := u.br.Peek(1)
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		if c.conn.gone() {
			return errGone
		}
	}
}

// refusalOfAnswer is what an answer that did not come looks like to the caller.
func refusalOfAnswer(err error) *refusal {
	switch {
	case errors.Is(err, errGone):
		return refuseGone
	case errors.Is(err, errLate):
		return refuseTimeout
	case errors.Is(err, errBadHead):
		return refuseProtocol
	}
	return refusalOfEnd(err)
}

// renew says whether the request is to be sent again because the provider no longer took an exchanged token. A 401 was not acted on.
func (p *Proxy) renew(c *call) bool {
	if c.route.provider.Exchange == nil || c.ctx.Response.StatusCode() != fasthttp.StatusUnauthorized {
		return false
	}
	if !p.minted.forget(c) {
		return false
	}
	if c.head.body() && !c.bodyRead {
		return false // a streamed body is gone; the next request gets a new token
	}
	if p.look(c, time.Now()) != nil { // the refresh token may have been replaced since
		return false
	}
	c.renewed = true
	c.abandon()
	return true
}
