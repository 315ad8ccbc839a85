package webhook

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keyward/keyward/internal/peek"
)

const (
	dialApp      = 2 * time.Second
	keepAliveApp = 30 * time.Second
	idleApp      = 3 * time.Second // before the app closes it: Node's servers do after five
	maxIdleApp   = 256
	maxAppHead   = 64 << 10              // of an answer
	maxInterim   = 8                     // answers of 1xx before the one that counts
	shortBody    = 32 << 10              // longer ones are written while the answer may come already
	brokenGrace  = 50 * time.Millisecond // for the answer of an app that does not read the whole request
)

var (
	errLongHead    = errors.New("the head of the app's answer is too long")
	errManyInterim = errors.New("malformed HTTP response: too many of 1xx")
)

// A lane is the way to one app over plain HTTP: an http.RoundTripper that sends a request once. It does for it what http.Transport does,
// but the caller's own goroutine writes and reads: none has to be woken for it, which takes longer than the rest together.
type lane struct {
	network, address string

	mu    sync.Mutex
	idle  []*appConn  // the one that has been idle for longest first
	sweep *time.Timer // nil: nothing is idle
}

// An appConn is one connection to an app, used by one request at a time.
type appConn struct {
	net.Conn
	raw   syscall.RawConn
	br    *bufio.Reader
	bw    *bufio.Writer
	left  int64         // that may yet be read
	wrote atomic.Bool   // something of this request
	sent  chan struct{} // closed when this request is written, or cannot be; nil: it is
	bad   error         // why it could not be
	used  bool          // before this request
	since time.Time     // when it became idle
}

func (c *appConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if n > 0 {
		c.wrote.Store(true)
	}
	return n, err
}

func (c *appConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errLongHead
	}
	n, err := c.Conn.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	return n, err
}

// RoundTrip sends a request and returns when the head of its answer is there. It is sent a second time only if nothing of it was written,
// because the app had closed the connection meanwhile.
func (l *lane) RoundTrip(req *http.Request) (*http.Response, error) {
	for {
		c, err := l.take(req.Context())
		if err != nil {
			return nil, err
		}
		resp, err := l.exchange(c, req)
		if err == nil || !c.used || c.wrote.Load() || req.Context().Err() != nil {
			return resp, err
		}
		if req.GetBody != nil {
			if req.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

func (l *lane) exchange(c *appConn, req *http.Request) (*http.Response, error) {
	b := &appBody{l: l, c: c, ctx: req.Context()}
	b.stop = context.AfterFunc(b.ctx, func() { _ = c.Close() }) // the app sees that nobody waits any more
	begun := false
	defer func() {
		if !begun { // also when it panicked
			b.end(false)
		}
	}()
	c.send(req)
	resp, err := c.answer(req)
	if err != nil {
		b.end(false)
		return nil, b.why(err)
	}
	begun = true
	b.ReadCloser, b.keep = resp.Body, !resp.Close && resp.StatusCode != http.StatusSwitchingProtocols
	if resp.Body == http.NoBody {
		b.end(b.keep)
	}
	resp.Body = b
	return resp, nil
}

// send writes a request. What goes wrong shows at its answer: an app may have given one before it closed the connection.
func (c *appConn) send(req *http.Request) {
	write := func() {
		err := req.Write(c.bw)
		if err == nil {
			err = c.bw.Flush()
		}
		if err != nil {
			c.bad = err
			_ = c.SetReadDeadline(time.Now().Add(brokenGrace))
		}
	}
	if req.ContentLength <= shortBody {
		write()
		return
	}
	c.sent = make(chan struct{})
	go func() {
		defer close(c.sent)
		write()
	}()
}

// answer reads the head of an answer.
func (c *appConn) answer(req *http.Request) (*http.Response, error) {
	for range maxInterim {
		c.left = maxAppHead
		resp, err := http.ReadResponse(c.br, req)
		c.left = math.MaxInt64
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
	return nil, errManyInterim
}

// An appBody is the body of an answer. Read to its end, its connection can be used again.
type appBody struct {
	io.ReadCloser // from the connection
	l             *lane
	c             *appConn
	ctx           context.Context //nolint:containedctx // the request's, whose answer this is
	stop          func() bool
	keep          bool
	ended         bool
}

func (b *appBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.end(b.keep)
	case err != nil:
		b.end(false)
		err = b.why(err)
	}
	return n, err
}

// Close ends the exchange. What is left of the answer is not waited for.
func (b *appBody) Close() error {
	b.end(false)
	return nil
}

func (b *appBody) end(keep bool) {
	if b.ended {
		return
	}
	b.ended = true
	c := b.c
	if c.sent != nil {
		select {
		case <-c.sent:
		default:
			keep = false
			_ = c.Close()
			<-c.sent // nobody reads the request any more when this returns
		}
	}
	if !b.stop() || !keep || c.bad != nil || !b.l.put(c) {
		_ = c.Close()
	}
}

// why is what an exchange failed of, once it has ended: the request's own end comes first, then what kept it from being written.
func (b *appBody) why(err error) error {
	switch {
	case b.ctx.Err() != nil:
		return context.Cause(b.ctx)
	case b.c.bad != nil:
		return fmt.Errorf("sending: %w", b.c.bad)
	}
	return err
}

// take gives an idle connection that nothing has arrived on, or a new one.
func (l *lane) take(ctx context.Context) (*appConn, error) {
	for {
		c := l.last()
		if c == nil {
			return l.dial(ctx)
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
	c.used, c.sent = true, nil
	c.wrote.Store(false)
	return true
}

func (l *lane) dial(ctx context.Context) (*appConn, error) {
	dialer := &net.Dialer{Timeout: dialApp, KeepAlive: keepAliveApp}
	conn, err := dialer.DialContext(ctx, l.network, l.address)
	if err != nil {
		return nil, err
	}
	c := &appConn{Conn: conn}
	c.raw, err = conn.(syscall.Conn).SyscallConn()
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

// CloseIdleConnections closes what no request uses.
func (l *lane) CloseIdleConnections() {
	for c := l.last(); c != nil; c = l.last() {
		_ = c.Close()
	}
}
