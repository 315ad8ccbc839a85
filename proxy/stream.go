package proxy

import (
	"bytes"
	"net"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

// reply makes the provider's answer the caller's. A short body that has already arrived is copied and the connection is free at once;
// any other is streamed as it comes, and the call ends with it.
func (p *Proxy) reply(c *call) *refusal {
	resp := &c.ctx.Response
	h := &resp.Header
	c.status = h.StatusCode()
	length := h.ContentLength() // -1: chunked, -2: until the connection closes
	c.answer = answer{c: c, left: int64(length), keep: !h.ConnectionClose() && h.IsHTTP11()}
	text := isText(h.ContentType(), h.ContentEncoding())
	if c.readable && !text && len(h.ContentEncoding()) > 0 {
		return refuseProtocol // it was asked for an answer that can be read
	}
	if !isJSON(h.ContentType()) {
		c.mask = nil
	}
	cleanAnswer(h)
	for _, v := range h.All() {
		c.red.forms.overwrite(v) // the header's own memory
	}
	c.mark(h)
	if p.draining.Load() || c.upload != nil && !c.upload.ends() {
		// The server library looks at the request's body when the handler has returned, unless the connection ends in any case: not while the
		// upload still reads it.
		c.ctx.SetConnectionClose()
	}
	none := c.ctx.IsHead() || c.status == fasthttp.StatusNoContent || c.status == fasthttp.StatusNotModified
	switch {
	case none:
		c.answer.left = 0
		c.answer.complete = true
		c.answer.free()
		c.end()
	case length >= 0 && c.up.br.Buffered() >= length && c.upload == nil:
		b, _ := c.up.br.Peek(length)
		resp.SetBody(b)
		if text {
			c.red.whole(resp.Body(), c.mask)
		}
		c.countMasked()
		_, _ = c.up.br.Discard(length)
		c.received = int64(length)
		c.answer.complete = true
		c.answer.free()
		c.end()
	default:
		if text {
			c.answer.red = &c.red
			c.red.start(c.mask)
		}
		if length < 0 && !c.ctx.Request.Header.IsHTTP11() {
			p.untilClosed(c)
			return nil
		}
		resp.ImmediateHeaderFlush = true
		if length >= 0 {
			resp.SetBodyStream(&c.answer, length)
		} else {
			resp.SetBodyStream(&c.answer, -1)
		}
	}
	return nil
}

// untilClosed sends a body of unknown length to an HTTP/1.0 caller, who knows no chunks: it ends with the connection.
func (p *Proxy) untilClosed(c *call) {
	h := &c.ctx.Response.Header
	h.Del("Transfer-Encoding")
	h.SetConnectionClose()
	head := bytes.Clone(h.Header())
	ctx, from := c.ctx, c.conn // a call that is parked may be ended, and another request's, at any time
	c.park()
	ctx.HijackSetNoResponse(true)
	ctx.Hijack(func(net.Conn) {
		if from.waiting.Swap(nil) != c {
			return
		}
		defer p.drop(c)
		a := &c.answer
		if _, err := c.conn.Write(head); err == nil {
			_, _ = a.WriteTo(nil)
		}
		_ = a.Close()
	})
}

// hopByHop are the headers of an answer that are this hop's (RFC 9110, section 7.6.1).
var hopByHop = []string{"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "te", "upgrade"}

// cleanAnswer removes what is this hop's, and what only Keyward may say.
func cleanAnswer(h *fasthttp.ResponseHeader) {
	h.SetProtocol(http11)
	if !hasOurs(h) {
		return // the usual case
	}
	if v := h.Peek("Connection"); len(v) > 0 {
		var listed head
		if listed.list(v) == nil {
			for _, name := range listed.listed[:listed.nListed] {
				if !equalFold(name, "connection") && !equalFold(name, "content-length") && !equalFold(name, "transfer-encoding") {
					h.DelBytes(name)
				}
			}
		}
	}
	h.ResetConnectionClose()
	for _, name := range hopByHop {
		h.Del(name)
	}
	for ours := true; ours; {
		ours = false
		for name := range h.All() {
			if isKeyward(name) {
				h.DelBytes(append([]byte(nil), name...))
				ours = true
				break
			}
		}
	}
}

// hasOurs says whether there is anything to remove.
func hasOurs(h *fasthttp.ResponseHeader) bool {
	for name := range h.All() {
		if isKeyward(name) {
			return true
		}
		for _, hop := range hopByHop {
			if equalFold(name, hop) {
				return true
			}
		}
	}
	return false
}

// isKeyward says whether a header is one that only Keyward may say.
func isKeyward(name []byte) bool { return len(name) > 8 && equalFold(name[:8], "keyward-") }

var http11 = []byte("HTTP/1.1")

// mark adds what tells the caller which request this was and where its time went, in milliseconds.
func (c *call) mark(h *fasthttp.ResponseHeader) {
	h.SetBytesV("Keyward-Request-Id", c.id[:])
	took := time.Since(c.start)
	own := max(took-c.waited, 0)
	m := &c.p.measured[c.route.provider].classes[classOf(c.status)]
	m.answers.record(took)
	m.own.record(own)
	m.upstream.record(c.waited)
	if c.traced {
		m.examples[exampleOf(took)].Store(&Example{Took: took, At: time.Now(), Trace: c.own})
	}
	b := append(c.basic[:0], "keyward;dur="...)
	b = appendMillis(b, own)
	b = append(b, ", upstream;dur="...)
	b = appendMillis(b, c.waited)
	c.basic = b
	h.AddBytesV("Server-Timing", b)
}

// appendMillis appends a duration that is not negative.
func appendMillis(b []byte, d time.Duration) []byte {
	us := d.Microseconds()
	b = append(strconv.AppendInt(b, us/1000, 10), '.')
	us %= 1000
	return append(b, '0'+byte(us/100), '0'+byte(us/10%10), '0'+byte(us%10))
}

// countMasked counts an answer in which fields were overwritten.
func (c *call) countMasked() {
	if c.red.masked() {
		c.p.masked.Add(1)
	}
}
