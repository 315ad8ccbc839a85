package proxy

import (
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
	c.park()
	c.ctx.Hijack(func(conn net.Conn) {
		if c.conn.waiting.Swap(nil) != c {
			return
		}
		defer c.end()
		defer p.guard(c)
		c.relay(conn)
	})
	return nil
}

// guard keeps a panic in a goroutine of its own from ending the process.
func (p *Proxy) guard(c *call) {
	if v := recover(); v != nil {
		p.panicked(stringOf(c.id[:]), v)
		_ = c.conn.Close()
	}
}

// relay copies both ways until both sides have said that they are done, or nothing has moved for the idle time.
func (c *call) relay(conn net.Conn) {
	u := c.up
	c.up = nil
	defer func() { _ = u.Close() }()
	stop := make(chan struct{})
	defer close(stop)
	go func() { // ends the tunnel with the proxy
		select {
		case <-c.p.ctx.Done():
			_ = u.Close()
			_ = c.conn.Close()
		case <-stop:
		}
	}()
	t := &tunnel{idle: c.p.idle()}
	t.moved.Store(time.Now().UnixNano())
	var sent int64
	var both sync.WaitGroup
	ended := false
	defer func() {
		if !ended { // a panic
			_ = u.Close()
			_ = c.conn.Close()
		}
		both.Wait() // the library gives conn's buffer to another connection afterwards
	}()
	both.Go(func() {
		defer c.p.guard(c)
		sent = t.copy(u, conn, c.conn)
		closeWrite(u.Conn)
		if t.failed.Load() {
			_ = u.Close()
		}
	})
	received := t.copy(conn, u.br, u)
	closeWrite(c.conn.Conn)
	if t.failed.Load() {
		_ = c.conn.Close()
	}
	both.Wait()
	ended = true
	c.sent, c.received = sent, received
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
	if g, ok := c.(*guardedConn); ok {
		c = g.Conn
	}
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
}
