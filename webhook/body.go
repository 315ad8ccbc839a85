package webhook

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Bodies are read whole, since a signature is over all of it. Those up to smallBody are bounded by the number of connections alone; all
// longer ones share memory for bodiesAtOnce of the longest kind, taken as the bytes arrive and not as they are announced.
const (
	smallBody    = 64 << 10
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
	body := c.lend(int(min(max(c.head.length, 512), smallBody)) + 1)
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

// lent are bodies of messages that were answered.
var lent = sync.Pool{New: func() any { return new([]byte) }}

// lend gives the call an empty body that n bytes fit in.
func (c *call) lend(n int) []byte {
	const least = 8 << 10
	c.lent = lent.Get().(*[]byte) //nolint:forcetypeassert // nothing else is put there
	if cap(*c.lent) < n {
		*c.lent = make([]byte, 0, max(n, least))
	}
	return *c.lent
}

// giveBack lets the next message have the body's memory. Nobody looks at it any more, neither the app's connection nor the store.
func (c *call) giveBack() {
	body := c.message.body
	if c.lent == nil || cap(body) > 2*smallBody {
		return
	}
	clear(body)
	*c.lent = body[:0]
	lent.Put(c.lent)
	c.lent, c.message.body = nil, nil
}

// reserve takes n more bytes of the memory for long bodies. A body that never grows takes none.
func (s *Server) reserve(c *call, n int64) *refusal {
	if c.reserved == 0 && n < smallBody {
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
