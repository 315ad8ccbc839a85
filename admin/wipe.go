package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// Wiping makes the connections of l forget the requests that brought a body: net/http keeps its read buffers for the next connection,
// with the tails of what was read into them, and a credential may be among that.
func Wiping(l net.Listener) net.Listener { return wipingListener{l} }

type wipingListener struct{ net.Listener }

func (l wipingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &wipingConn{Conn: c}, nil
}

// A wipingConn remembers into which memory it has read.
type wipingConn struct {
	net.Conn
	mu     sync.Mutex
	filled [][]byte
}

func (c *wipingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.mu.Lock()
		c.filled = append(c.filled, b[:n:n])
		c.mu.Unlock()
	}
	return n, err
}

// SyscallConn lets the peer's credentials be asked for.
func (c *wipingConn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := c.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, syscall.EINVAL
}

func (c *wipingConn) wipe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range c.filled {
		clear(b)
	}
	c.filled = nil
}

type wipeKey struct{}

// wiped serves a request and overwrites what was read for it. The connection ends with a request that has a body, so that nothing of a
// next one lies in the same memory yet.
func wiped(w http.ResponseWriter, r *http.Request, serve func(http.ResponseWriter, *http.Request)) {
	c, _ := r.Context().Value(wipeKey{}).(*wipingConn)
	if c == nil || r.ContentLength == 0 {
		serve(w, r)
		if c != nil {
			c.mu.Lock()
			c.filled = nil
			c.mu.Unlock()
		}
		return
	}
	w.Header().Set("Connection", "close")
	serve(w, r)
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, maxBody))
	c.wipe()
}

func withWiping(ctx context.Context, c net.Conn) context.Context {
	if w, ok := c.(*wipingConn); ok {
		return context.WithValue(ctx, wipeKey{}, w)
	}
	return ctx
}
