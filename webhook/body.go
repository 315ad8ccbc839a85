package webhook

import (
	"context"
	"errors"
	"io"
	"net"
	"time"
)

// Bodies are read whole, since a signature is over all of it. Those up to freeBody are bounded by the number of connections alone; all
// longer ones share memory for bodiesAtOnce of the longest kind, taken as the bytes arrive and not as they are announced.
const (
	freeBody     = 64 << 10
	bodiesAtOnce = 4
	waitMemory   = 2 * time.Second
	bodyTimeout  = 30 * time.Second // for a whole body: no provider waits longer for its answer
)

// readBody reads the body up to the limit.
func (s *Server) readBody(c *call) *refusal {
	in := c.ctx.RequestBodyStream()
	if in == nil {
		if c.head.length > 0 {
			return refuseShort
		}
		return nil
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(bodyTimeout))
	body := make([]byte, 0, min(max(c.head.length, 512), freeBody)+1)
	for {
		if len(body) == cap(body) {
			if bad := s.reserve(c, int64(cap(body))); bad != nil {
				return bad
			}
			body = append(make([]byte, 0, 2*cap(body)), body...)
		}
		n, err := in.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case int64(len(body)) > s.o.MaxBody:
			return refuseBodySize
		case err == io.EOF && !c.head.chunked && int64(len(body)) != c.head.length:
			return refuseShort
		case err == io.EOF:
			c.message.body = body
			return nil
		case err != nil:
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				return refuseSlow
			}
			return refuseShort
		}
	}
}

// reserve takes n more bytes of the memory for long bodies. A body that never grows takes none.
func (s *Server) reserve(c *call, n int64) *refusal {
	if c.reserved == 0 && n < freeBody {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, waitMemory)
	defer cancel()
	if s.memory.Acquire(ctx, n) != nil {
		return refuseBusy
	}
	c.reserved += n
	return nil
}

// release gives the memory back.
func (s *Server) release(c *call) {
	if c.reserved > 0 {
		s.memory.Release(c.reserved)
		c.reserved = 0
	}
}

// discard reads what is left of a body that nobody wants: an answer in front of unread bytes is lost with the connection's reset. A body
// that is out of all proportion is cut off all the same.
func (c *call) discard() {
	in := c.ctx.RequestBodyStream()
	if in == nil || c.conn == nil || c.head.length > discardAtMost {
		return
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(discardTime))
	_, _ = io.Copy(io.Discard, io.LimitReader(in, discardAtMost))
}

const (
	discardAtMost = 64 << 20
	discardTime   = 3 * time.Second
)
