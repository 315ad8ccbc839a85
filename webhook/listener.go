package webhook

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/keyward/keyward/internal/peek"
	"github.com/keyward/keyward/internal/socket"
)

// A listener is a place where providers connect: it caps how many may, and outlives a lack of file descriptors.
type listener struct {
	net.Listener
	s    *Server
	shut atomic.Bool
	last atomic.Bool // no more connections than those that have been made already

	until time.Time // when last ends in any case; set before it
}

func (s *Server) serveListener(nl net.Listener) error {
	l := &listener{Listener: nl, s: s}
	s.mu.Lock()
	s.listeners = append(s.listeners, l)
	if s.finished {
		l.finish() // told to stop before it was begun
	}
	s.mu.Unlock()
	err := s.server.Serve(l)
	_ = l.Close()
	s.mu.Lock()
	s.listeners = slices.DeleteFunc(s.listeners, func(o *listener) bool { return o == l })
	s.mu.Unlock()
	if errors.Is(err, net.ErrClosed) || l.shut.Load() {
		return nil
	}
	return err
}

// Accept waits for a provider. Running out of descriptors or buffers is not the end: it waits and tries again.
func (l *listener) Accept() (net.Conn, error) {
	const look = 5 * time.Millisecond
	for wait := look; ; {
		for l.s.Full() && !l.shut.Load() && !l.last.Load() {
			time.Sleep(look) // more wait in the kernel's queue
		}
		nc, err := l.Listener.Accept()
		if err != nil && l.last.Load() {
			if !l.shut.Load() && time.Now().Before(l.until) && peek.Queued(l.Listener) && l.endsIn(aMoment) {
				continue // the moment was over before we had the processor
			}
			return nil, net.ErrClosed
		}
		if err != nil {
			if !l.shut.Load() && isShortage(err) {
				l.s.log.Warn().Msg("webhook connections wait: file descriptors ran out")
				time.Sleep(wait)
				wait = min(2*wait, time.Second)
				continue
			}
			return nil, err
		}
		c := &conn{Conn: nc, s: l.s, sock: socket.New(nc)}
		c.idleSince.Store(time.Now().UnixNano())
		l.s.conns.add(c)
		return c, nil
	}
}

// Full says whether those who connect have to wait until somebody else leaves.
func (s *Server) Full() bool { return s.o.MaxConns > 0 && s.conns.count() >= s.o.MaxConns }

// How long a listener that ends waits for somebody who is just connecting, and how long it takes who has connected: of a socket that is
// shared with a successor there are always more.
const (
	aMoment = 20 * time.Millisecond
	atMost  = 2 * time.Second
)

// finish stops accepting, but for who has connected already.
func (l *listener) finish() {
	l.until = time.Now().Add(atMost)
	l.last.Store(true)
	if !l.endsIn(aMoment) {
		_ = l.Close()
	}
}

// endsIn has Accept wait no longer than d; false: it cannot be told.
func (l *listener) endsIn(d time.Duration) bool {
	with, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	return ok && with.SetDeadline(time.Now().Add(d)) == nil
}

// Close stops accepting.
func (l *listener) Close() error {
	if l.shut.Swap(true) {
		return nil
	}
	return l.Listener.Close()
}

// isShortage says whether accepting failed for want of something that comes back.
func isShortage(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Shutdown stops accepting and waits for what is in flight until ctx ends; what is left then is cut off. A connection between two
// requests is closed only after it has been silent for a while: its provider may be about to send the next one.
func (s *Server) Shutdown(ctx context.Context) error {
	const silent, look = time.Second, 10 * time.Millisecond
	s.Drain()
	s.mu.Lock()
	s.finished = true
	for _, l := range s.listeners {
		l.finish()
	}
	s.mu.Unlock()
	t := time.NewTicker(look)
	defer t.Stop()
	for {
		// In this order: what is accepted while the connections are counted would not be waited for.
		accepting := s.accepting()
		if open := s.conns.closeIdle(time.Now().Add(-silent)); open == 0 && !accepting {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			s.conns.closeAll()
			return ctx.Err()
		}
	}
}

func (s *Server) accepting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.listeners) > 0
}

// A conn is a provider's connection.
type conn struct {
	net.Conn
	s          *Server
	sock       *socket.Socket // nil: the connection is no socket
	idleSince  atomic.Int64   // Unix nanoseconds; 0: a request is being served; claimed: it is being closed
	closed     atomic.Bool
	writeUntil int64 // when the write deadline was last moved, in seconds
}

// Read ends a connection on which nothing was asked in time without a word: who keeps one that it has not used yet would take a refusal for the answer
// to what it sends at that very moment.
func (c *conn) Read(b []byte) (int, error) {
	n, err := read(c.sock, c.Conn, b)
	if n > 0 && !c.busy() {
		return 0, net.ErrClosed
	}
	if n == 0 && c.idleSince.Load() != 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, net.ErrClosed
	}
	return n, err
}

// Write renews the write deadline, at most once a second.
func (c *conn) Write(b []byte) (int, error) {
	now := time.Now()
	if s := now.Unix(); s != c.writeUntil {
		c.writeUntil = s
		if err := c.SetWriteDeadline(now.Add(c.s.o.IdleTimeout)); err != nil {
			return 0, err
		}
	}
	return write(c.sock, c.Conn, b)
}

func read(s *socket.Socket, c net.Conn, b []byte) (int, error) {
	if s != nil {
		return s.Read(b)
	}
	return c.Read(b)
}

func write(s *socket.Socket, c net.Conn, b []byte) (int, error) {
	if s != nil {
		return s.Write(b)
	}
	return c.Write(b)
}

func (c *conn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.s.conns.remove(c)
	}
	return c.Conn.Close()
}

// reset ends the connection so that a cut answer cannot be taken for a whole one.
func (c *conn) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// busy notes that a request has begun; false: the connection is being closed, and what it asks must not be done.
func (c *conn) busy() bool {
	since := c.idleSince.Load()
	return since == 0 || since != claimed && c.idleSince.CompareAndSwap(since, 0)
}

// connState notes when a connection begins and ends to serve a request.
func connState(nc net.Conn, state fasthttp.ConnState) {
	if c, ok := nc.(*conn); ok {
		switch state {
		case fasthttp.StateActive:
			c.busy()
		case fasthttp.StateIdle:
			c.idleSince.Store(time.Now().UnixNano())
		}
	}
}

// connections are those that are open, so that a drain knows what it waits for.
type connections struct {
	mu   sync.Mutex
	open map[*conn]struct{}
}

func (s *connections) add(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*conn]struct{}{}
	}
	s.open[c] = struct{}{}
}

func (s *connections) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

func (s *connections) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// claimed stands in idleSince of a connection that is being closed.
const claimed = -1

// closeIdle closes the connections that have been silent since before, and returns how many are open. A connection is claimed before it is
// closed: one on which a request has just arrived is left alone.
func (s *connections) closeIdle(before time.Time) int {
	for _, c := range s.list() {
		if since := c.idleSince.Load(); since > 0 && since < before.UnixNano() && c.idleSince.CompareAndSwap(since, claimed) {
			_ = c.Close()
		}
	}
	return s.count()
}

func (s *connections) closeAll() {
	for _, c := range s.list() {
		_ = c.Close()
	}
}

func (s *connections) list() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*conn, 0, len(s.open))
	for c := range s.open {
		all = append(all, c)
	}
	return all
}
