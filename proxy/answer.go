package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"time"
)

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
