package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
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

// An answer is the body of a provider's answer on its way to the caller. Nothing is held back: what has arrived is written before
// more is awaited.
type answer struct {
	c        *call
	left     int64 // of a body of known length; -1: chunked, -2: until the connection closes
	chunk    int64 // left of the current chunk
	keep     bool  // the connection can be used again after a complete answer
	ended    bool  // a chunk was read to its end, but for its line end
	complete bool
	freed    bool
	red      *redactor // nil: the body passes as it is
	ready    []byte    // redacted and not read yet
	flushed  bool
}

var errCut = errors.New("answer was cut off")

// next waits for bytes of the body and returns what is there, up to most. They stay in the connection's buffer until taken.
func (a *answer) next(most int) ([]byte, error) {
	u := a.c.up
	switch {
	case a.left == 0, a.complete:
		a.complete = true
		return nil, io.EOF
	case a.left > 0:
		most = int(min(int64(most), a.left))
	case a.left == -1:
		if a.chunk == 0 {
			if err := a.nextChunk(); err != nil {
				return nil, err
			}
		}
		most = int(min(int64(most), a.chunk))
	}
	if err := a.c.awaitByte(u, time.Now(), a.c.p.idle()); err != nil {
		if err == io.EOF && a.left == -2 && !u.guard.cut() {
			a.complete, a.keep = true, false
			return nil, io.EOF
		}
		if err == io.EOF {
			err = errCut
		}
		return nil, err
	}
	return u.br.Peek(min(most, u.br.Buffered()))
}

// took is told that n bytes have been passed on.
func (a *answer) took(n int) {
	u := a.c.up
	_, _ = u.br.Discard(n)
	a.c.received += int64(n)
	switch {
	case a.left > 0:
		a.left -= int64(n)
	case a.left == -1:
		a.chunk -= int64(n)
		a.ended = a.chunk == 0
	}
}

// nextChunk reads a chunk's size; after the last chunk, the trailers.
func (a *answer) nextChunk() error {
	u := a.c.up
	if a.ended { // the line end of the chunk before: not waited for when its data had come
		if err := a.await(); err != nil {
			return err
		}
		if err := a.line(); err != nil {
			return err
		}
		a.ended = false
	}
	if err := a.await(); err != nil {
		return err
	}
	line, err := u.br.ReadSlice('\n')
	if err != nil {
		return errCut
	}
	n, ok := chunkSize(line)
	if !ok {
		return errBadHead
	}
	if n > 0 {
		a.chunk = n
		return nil
	}
	if err := a.trailers(); err != nil {
		return err
	}
	a.complete = true
	return io.EOF
}

// await waits for the next byte, and allows the idle time for the rest of its line.
func (a *answer) await() error {
	if err := a.c.awaitByte(a.c.up, time.Now(), a.c.p.idle()); err != nil {
		if err == io.EOF {
			err = errCut
		}
		return err
	}
	return a.c.up.SetReadDeadline(time.Now().Add(a.c.p.idle()))
}

// trailers reads what follows the last chunk: header lines, cleaned like the head's, up to an empty line.
func (a *answer) trailers() error {
	const most = 8 << 10
	u := a.c.up
	var kept []byte
	for total := 0; ; {
		line, err := u.br.ReadSlice('\n')
		if err != nil || len(line) < 2 || line[len(line)-2] != '\r' {
			return errCut
		}
		if total += len(line); total > most {
			return errBadHead
		}
		if len(line) == 2 {
			break
		}
		if len(line) > 8 && equalFold(line[:8], "keyward-") {
			continue
		}
		kept = append(kept, line...)
	}
	if len(kept) == 0 {
		return nil
	}
	a.c.red.forms.overwrite(kept)
	kept = append(kept, "\r\n"...)
	if err := a.c.ctx.Response.Header.ReadTrailer(bufio.NewReader(bytes.NewReader(kept))); err != nil && err != io.EOF {
		return errBadHead
	}
	return nil
}

// line reads the CRLF that ends a chunk.
func (a *answer) line() error {
	u := a.c.up
	b, err := u.br.Peek(2)
	if err != nil {
		return errCut
	}
	if b[0] != '\r' || b[1] != '\n' {
		return errBadHead
	}
	_, _ = u.br.Discard(2)
	return nil
}

// chunkSize reads a chunk's size line (RFC 9112, section 7.1): hex digits, then CRLF or an extension.
func chunkSize(line []byte) (int64, bool) {
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return 0, false
	}
	line = line[:len(line)-2]
	var n int64
	i := 0
	for ; i < len(line); i++ {
		d := unhex(line[i])
		if d < 0 {
			break
		}
		if i == 15 {
			return 0, false
		}
		n = n<<4 | int64(d)
	}
	if i == 0 {
		return 0, false
	}
	rest := trimSpace(line[i:])
	return n, len(rest) == 0 || rest[0] == ';'
}

// Read gives fasthttp the pieces of a body that it sends in chunks.
func (a *answer) Read(b []byte) (n int, err error) {
	defer a.guard(&err)
	for len(a.ready) == 0 {
		p, err := a.piece(len(b))
		if err != nil {
			return 0, err
		}
		a.ready = p
	}
	n = copy(b, a.ready)
	a.ready = a.ready[n:]
	if a.red == nil { // it was the connection's own memory
		a.took(n)
		a.ready = nil
	}
	return n, nil
}

// guard turns a panic while an answer is streamed into its end.
func (a *answer) guard(err *error) {
	if v := recover(); v != nil {
		a.c.p.panicked(a.c.id[:], v)
		*err = a.failed(errCut)
	}
}

// piece is the next part of the body as the caller gets it; it may be empty. The end is io.EOF.
func (a *answer) piece(most int) ([]byte, error) {
	p, err := a.next(most)
	switch {
	case err == io.EOF && a.red != nil && !a.flushed:
		a.flushed = true
		return a.red.feed(nil, true), nil
	case err != nil:
		return nil, a.failed(err)
	case a.red == nil:
		return p, nil
	}
	out := a.red.feed(p, false)
	a.took(len(p))
	return out, nil
}

// WriteTo sends a body of known length straight to the caller: fasthttp's writer would hold a slow one back until its buffer is full
// or the body ends. The head has been flushed by then (ImmediateHeaderFlush).
func (a *answer) WriteTo(io.Writer) (total int64, err error) {
	defer a.guard(&err)
	for {
		p, err := a.piece(1 << 30)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := a.c.conn.Write(p)
		total += int64(n)
		if err != nil {
			return total, err
		}
		if a.red == nil {
			a.took(n)
		}
	}
}

// failed makes sure that the caller cannot take a cut answer for a whole one.
func (a *answer) failed(err error) error {
	if err != io.EOF {
		if a.c.code == "" {
			a.c.code = "answer_cut"
			if errors.Is(err, errGone) {
				a.c.code = refuseGone.code
			}
		}
		a.c.conn.reset()
	}
	return err
}

// Close ends the call: fasthttp calls it when the body has been sent, or could not be.
func (a *answer) Close() error {
	c := a.c
	if c == nil {
		return nil
	}
	defer c.p.drop(c)
	a.free()
	if !a.complete && c.code == "" {
		c.code = refuseGone.code
	}
	c.end()
	return nil
}

// free gives the connection back, or closes it when anything about it is in doubt.
func (a *answer) free() {
	c := a.c
	if a.freed || c.up == nil {
		return
	}
	a.freed = true
	if c.upload != nil && !c.upload.finished() {
		a.keep = false // the answer is complete, the request is not
	}
	_ = c.stopUpload()
	if a.red != nil {
		c.countMasked()
	}
	if c.red.forms.found {
		// What the connection has read holds the secret in clear: it is not used again, and the collector overwrites it soon (see Echoes).
		a.keep = false
		c.p.stats.Echoes.Add(1)
	}
	if a.complete && a.keep && (c.upload == nil || c.upload.err == nil) {
		c.up.to.put(c.up, time.Now())
	} else {
		_ = c.up.Close()
	}
	c.up = nil
}

// countMasked counts an answer in which fields were overwritten.
func (c *call) countMasked() {
	if c.red.masked() {
		c.p.masked.Add(1)
	}
}

// unhex is the value of a hex digit, or -1.
func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
