package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// tunnel joins caller and provider after the provider has agreed to the upgrade. Frames are not looked at. Not a byte of the caller is
// forwarded before the 101: until then it is not known that the other side speaks WebSocket.
func (p *Proxy) tunnel(c *call) *refusal {
	h := &c.ctx.Response.Header
	c.status = fasthttp.StatusSwitchingProtocols
	cleanAnswer(h)
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "websocket")
	c.mark(h)
	// fasthttp does not begin the tunnel when the 101 could not be written: the connection ends the call then.
	ctx, from := c.ctx, c.conn // a call that is parked may be ended, and another request's, at any time
	c.park()
	ctx.Hijack(func(conn net.Conn) {
		if from.waiting.Swap(nil) != c {
			return
		}
		defer p.drop(c)
		defer c.end()
		defer p.guard(c)
		c.relay(conn)
	})
	return nil
}

// relay copies both ways until both sides have said that they are done, or nothing has moved for the idle time.
func (c *call) relay(conn net.Conn) {
	u := c.up
	c.up = nil
	defer func() { _ = u.Close() }()
	c.p.join(c.p.ctx, c.id[:], c.conn, conn, u, u.br, &c.sent, &c.received)
}

// join copies between a caller and the other side, whose bytes come from answers, until both are done or ctx is. in is the caller's connection as the
// server library has left it.
func (p *Proxy) join(ctx context.Context, id []byte, caller *callerConn, in, u net.Conn, answers io.Reader, sent, received *int64) {
	defer context.AfterFunc(ctx, func() {
		_ = u.Close()
		_ = caller.Close()
	})()
	t := &tunnel{idle: p.idle()}
	t.moved.Store(time.Now().UnixNano())
	// Whatever happens to one way, both have ended when the call does: nobody may use its connections afterwards.
	way := func(dst io.Writer, src io.Reader, from deadliner, to net.Conn, n *int64) {
		ended := false
		defer func() {
			if !ended || t.failed.Load() {
				_ = to.Close()
			}
			if !ended {
				_ = u.Close()
				_ = caller.Close()
			}
		}()
		defer p.guardTunnel(id, caller)
		*n = t.copy(dst, src, from)
		closeWrite(to)
		ended = true
	}
	var both sync.WaitGroup
	both.Go(func() { way(u, in, caller, u, sent) })
	way(in, answers, u, caller, received)
	both.Wait()
}

type tunnel struct {
	idle   time.Duration
	moved  atomic.Int64 // when a byte last went either way, in Unix nanoseconds
	failed atomic.Bool  // one side broke: the other has no one to talk to
}

type deadliner interface{ SetReadDeadline(time.Time) error }

// copy moves bytes from src to dst until src ends. Silence counts only when it is on both sides.
func (t *tunnel) copy(dst io.Writer, src io.Reader, d deadliner) (n int64) {
	pb := uploadBuffers.Get().(*[]byte)
	defer uploadBuffers.Put(pb)
	buf := *pb
	for {
		until := time.Unix(0, t.moved.Load()).Add(t.idle)
		_ = d.SetReadDeadline(until)
		m, err := src.Read(buf)
		if m > 0 {
			t.moved.Store(time.Now().UnixNano())
			if w, ok := dst.(interface{ SetWriteDeadline(time.Time) error }); ok {
				_ = w.SetWriteDeadline(time.Now().Add(t.idle))
			}
			if _, werr := dst.Write(buf[:m]); werr != nil {
				t.failed.Store(true)
				return n
			}
			n += int64(m)
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && time.Since(time.Unix(0, t.moved.Load())) < t.idle:
		case errors.Is(err, io.EOF):
			return n
		default:
			t.failed.Store(true)
			return n
		}
	}
}

// closeWrite says that nothing more will be sent, and leaves the other direction open.
func closeWrite(c net.Conn) {
	for {
		switch in := c.(type) {
		case *upstreamConn:
			c = in.Conn
		case *callerConn:
			c = in.Conn
		case *guardedConn:
			c = in.Conn
		case interface{ CloseWrite() error }:
			_ = in.CloseWrite()
			return
		default:
			return
		}
	}
}
