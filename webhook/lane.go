package webhook

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keyward/keyward/internal/peek"
	"github.com/keyward/keyward/internal/socket"
)

const (
	dialApp      = 2 * time.Second
	keepAliveApp = 30 * time.Second
	idleApp      = 3 * time.Second // before the app closes it: Node's servers do after five
	maxIdleApp   = 256
)

// A lane is the way to one app: it keeps connections and has each carry one exchange at a time. It does for it what http.Transport does, but
// the caller's own goroutine writes and reads: none has to be woken for it, which takes longer than the rest together.
type lane struct {
	network, address string
	tls              *tls.Config // nil: plain

	mu    sync.Mutex
	idle  []*appConn  // the one that has been idle for longest first
	sweep *time.Timer // nil: nothing is idle
}

// An appConn is one connection to an app, used by one request at a time.
type appConn struct {
	net.Conn
	sock  *socket.Socket // nil: TLS
	raw   syscall.RawConn
	br    *bufio.Reader
	bw    *bufio.Writer
	left  int64         // that may yet be read
	broke error         // what reading failed of
	wrote atomic.Bool   // something of this request
	sent  chan struct{} // closed when this request is written, or cannot be; nil: it is
	bad   error         // why it could not be
	used  bool          // before this request
	since time.Time     // when it became idle
}

func (c *appConn) Write(b []byte) (int, error) {
	n, err := write(c.sock, c.Conn, b)
	if n > 0 {
		c.wrote.Store(true)
	}
	return n, err
}

func (c *appConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		c.broke = errLongHead
		return 0, errLongHead
	}
	n, err := read(c.sock, c.Conn, b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	if err != nil {
		c.broke = err
	}
	return n, err
}

// take gives an idle connection that nothing has arrived on, or a new one.
func (l *lane) take(ctx context.Context, until time.Time) (*appConn, error) {
	for {
		c := l.last()
		if c == nil {
			return l.dial(ctx, until)
		}
		if c.quiet() {
			return c, nil
		}
		_ = c.Close()
	}
}

func (l *lane) last() *appConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.idle) - 1
	if n < 0 {
		return nil
	}
	c := l.idle[n]
	l.idle[n] = nil
	l.idle = l.idle[:n]
	return c
}

// quiet makes an idle connection ready for the next request, unless it was idle for too long, was closed, or something has arrived on it
// that belongs to none.
func (c *appConn) quiet() bool {
	if time.Since(c.since) > idleApp || c.br.Buffered() > 0 {
		return false
	}
	var b [1]byte
	var errno syscall.Errno
	if err := c.raw.Control(func(fd uintptr) { errno = peek.Socket(fd, &b) }); err != nil || errno != syscall.EAGAIN {
		return false
	}
	if c.sock == nil { // what arrived may stand in TLS's own buffers, and the socket be empty
		_ = c.SetReadDeadline(time.Unix(1, 0))
		c.left = 1
		if _, err := c.br.Peek(1); !errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
	}
	c.used, c.sent, c.broke = true, nil, nil
	c.wrote.Store(false)
	return true
}

func (l *lane) dial(ctx context.Context, until time.Time) (*appConn, error) {
	if !until.IsZero() {
		bounded, cancel := context.WithDeadline(ctx, until)
		defer cancel()
		ctx = bounded
	}
	dialer := &net.Dialer{Timeout: dialApp, KeepAlive: keepAliveApp}
	conn, err := dialer.DialContext(ctx, l.network, l.address)
	if err != nil {
		return nil, err
	}
	c := &appConn{Conn: conn}
	c.raw, err = conn.(syscall.Conn).SyscallConn()
	if l.tls == nil {
		c.sock = socket.New(conn)
	} else if err == nil {
		over := tls.Client(conn, l.tls)
		c.Conn, err = over, over.HandshakeContext(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	c.br, c.bw = bufio.NewReaderSize(c, 4<<10), bufio.NewWriterSize(c, 16<<10)
	return c, nil
}

// put keeps a connection for the next request, if there is room.
func (l *lane) put(c *appConn) bool {
	c.since = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.idle) >= maxIdleApp {
		return false
	}
	l.idle = append(l.idle, c)
	if l.sweep == nil {
		l.sweep = time.AfterFunc(idleApp, l.expire)
	}
	return true
}

// expire closes connections that were idle for too long.
func (l *lane) expire() {
	l.mu.Lock()
	n := 0
	for n < len(l.idle) && time.Since(l.idle[n].since) >= idleApp {
		n++
	}
	old := append([]*appConn(nil), l.idle[:n]...)
	l.idle = append(l.idle[:0], l.idle[n:]...)
	if l.sweep = nil; len(l.idle) > 0 {
		l.sweep = time.AfterFunc(idleApp-time.Since(l.idle[0].since), l.expire)
	}
	l.mu.Unlock()
	for _, c := range old {
		_ = c.Close()
	}
}

// close closes what no exchange uses.
func (l *lane) close() {
	for c := l.last(); c != nil; c = l.last() {
		_ = c.Close()
	}
}
