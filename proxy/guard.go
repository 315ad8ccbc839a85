package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/keyward/keyward/internal/peek"
	"github.com/keyward/keyward/internal/socket"
)

// recordBuffer holds one TLS record of the largest size (RFC 8446, section 5.2) and its header.
const recordBuffer = 5 + 16384 + 256

// A guardedConn lies between a provider's TCP connection and TLS. It knows two things that neither of them tells: whether a byte of
// a request has been written, and whether anything has arrived that nobody asked for. For the second it hands TLS one record at a
// time and keeps the rest where it can be seen: bytes that a provider sends beyond its answer must never become the next org's
// answer.
type guardedConn struct {
	net.Conn
	sock     *socket.Socket // nil: the connection is no socket
	deadline readDeadline
	raw      syscall.RawConn
	tls      bool
	wrote    bool // a byte was written since the last reset of this flag
	probing  bool // reads do not wait: see dirty
	ended    bool // the other side closed TCP

	buf        []byte
	start, end int
	left       int // bytes of the current TLS record still to hand out

	nread  int
	rerr   error
	readFn func(fd uintptr) bool
	peekFn func(fd uintptr)
	peek   [1]byte
	errno  syscall.Errno // of peekFn
}

func newGuardedConn(c net.Conn, tls bool) *guardedConn {
	g := &guardedConn{Conn: c, tls: tls}
	g.sock = socket.New(c)
	g.deadline.over(c, g.sock)
	if sc, ok := c.(syscall.Conn); ok {
		g.raw, _ = sc.SyscallConn()
	}
	size := 1 // to see whether anything is there
	if tls {
		size = recordBuffer
	}
	g.buf = make([]byte, size)
	g.readFn = func(fd uintptr) bool {
		g.nread, g.rerr = syscall.Read(int(fd), g.buf[g.end:])
		return true
	}
	g.peekFn = func(fd uintptr) {
		g.errno = peek.Socket(fd, &g.peek)
	}
	return g
}

// SetReadDeadline costs next to nothing: see readDeadline.
func (g *guardedConn) SetReadDeadline(t time.Time) error { return g.deadline.move(t) }

// SetDeadline sets both deadlines.
func (g *guardedConn) SetDeadline(t time.Time) error {
	return errors.Join(g.deadline.move(t), g.SetWriteDeadline(t))
}

// errNothing is what a read returns while probing when nothing has arrived. It is a temporary net.Error, after which crypto/tls
// goes on as if it had not been asked.
var errNothing net.Error = nothing{}

type nothing struct{}

func (nothing) Error() string   { return "nothing to read" }
func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

func (g *guardedConn) Write(b []byte) (int, error) {
	var n int
	var err error
	if g.sock != nil {
		n, err = g.sock.Write(b)
	} else {
		n, err = g.Conn.Write(b)
	}
	if n > 0 {
		g.wrote = true
	}
	return n, err
}

func (g *guardedConn) Read(b []byte) (int, error) {
	if !g.tls && !g.probing {
		return g.deadline.read(b)
	}
	if !g.tls {
		n, err := g.readSome()
		return copy(b, g.buf[:n]), err
	}
	if g.left == 0 {
		if err := g.fill(5); err != nil {
			return 0, err
		}
		g.left = 5 + int(g.buf[g.start+3])<<8 + int(g.buf[g.start+4])
	}
	if g.start == g.end {
		if err := g.fill(1); err != nil {
			return 0, err
		}
	}
	n := copy(b, g.buf[g.start:min(g.end, g.start+g.left)])
	g.start += n
	g.left -= n
	return n, nil
}

// fill reads until at least n bytes are buffered.
func (g *guardedConn) fill(n int) error {
	if g.start == g.end {
		g.start, g.end = 0, 0
	} else if g.start > 0 && len(g.buf)-g.start < n {
		copy(g.buf, g.buf[g.start:g.end])
		g.start, g.end = 0, g.end-g.start
	}
	for g.end-g.start < n {
		m, err := g.readSome()
		g.end += m
		if m == 0 && err != nil {
			if err == io.EOF && g.end > g.start {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

func (g *guardedConn) readSome() (int, error) {
	if !g.probing {
		n, err := g.deadline.read(g.buf[g.end:])
		g.ended = g.ended || err == io.EOF
		return n, err
	}
	for {
		err := g.raw.Read(g.readFn)
		if err == nil {
			break
		}
		if !g.deadline.early(err) {
			return 0, err
		}
	}
	switch {
	case g.rerr == nil && g.nread == 0:
		return 0, io.EOF
	case g.rerr == nil:
		return g.nread, nil
	case errors.Is(g.rerr, syscall.EAGAIN), errors.Is(g.rerr, syscall.EINTR):
		return 0, errNothing
	}
	return 0, os.NewSyscallError("read", g.rerr)
}

// cut says whether TLS was ended by closing TCP and not by its own farewell (close_notify): then whoever lies in between may have ended
// it, and what ends with the connection is not known to be whole (RFC 8446, section 6.1).
func (g *guardedConn) cut() bool { return g.tls && g.ended }

// quiet says that nothing has arrived, and that the connection is open: what is nearly always so, for one system call.
func (g *guardedConn) quiet() bool {
	if g.start != g.end || g.left > 0 {
		return false
	}
	err := g.raw.Control(g.peekFn)
	return err == nil && g.errno == syscall.EAGAIN
}

// Read notes whether TLS may hold more of what has arrived than was asked for.
func (c *upstreamConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.more = n == len(b)
	return n, err
}

// dirty says whether an idle connection cannot be used again: it was closed, or something arrived that belongs to no request. Reading
// goes through TLS, so that what TLS itself sends between requests (session tickets, key updates) is taken for what it is.
func (c *upstreamConn) dirty() bool {
	looked := false
	defer func() {
		if !looked {
			_ = c.Close() // it panicked, and nobody has the connection
		}
	}()
	dirty := c.isDirty()
	looked = true
	return dirty
}

func (c *upstreamConn) isDirty() bool {
	if c.br.Buffered() > 0 {
		return true
	}
	if c.guard.raw == nil {
		return false
	}
	if c.guard.quiet() && !c.more {
		return false
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return true
	}
	c.guard.probing = true
	n, err := c.Read(c.one[:])
	c.guard.probing = false
	return n > 0 || !errors.Is(err, errNothing) || c.guard.end > c.guard.start || c.guard.left > 0
}
