package load

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Target is where requests go.
type Target struct {
	Network string // "unix" or "tcp"
	Address string
	TLS     *tls.Config // nil: plain
}

// A conn is a non-blocking descriptor, with TLS over it where the target has it. The event loop of one thread owns it. Go's own net.Conn
// would put the scheduler and its poller between the clock and the answer.
type conn struct {
	fd   int
	tls  *tls.Conn
	wait bool // reads and writes wait: during the handshake
}

func dial(t Target) (*conn, error) {
	var (
		fd  int
		to  unix.Sockaddr
		err error
	)
	switch t.Network {
	case "unix":
		fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		to = &unix.SockaddrUnix{Name: t.Address}
	case "tcp":
		a, rerr := net.ResolveTCPAddr("tcp4", t.Address)
		if rerr != nil {
			return nil, fmt.Errorf("resolving %q: %w", t.Address, rerr)
		}
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		four := &unix.SockaddrInet4{Port: a.Port}
		copy(four.Addr[:], a.IP.To4())
		to = four
	default:
		return nil, fmt.Errorf("no network %q", t.Network)
	}
	if err != nil {
		return nil, fmt.Errorf("making a socket: %w", err)
	}
	c := &conn{fd: fd, wait: true}
	if err := c.open(t, to); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("connecting to %s:%s: %w", t.Network, t.Address, err)
	}
	return c, nil
}

func (c *conn) open(t Target, to unix.Sockaddr) error {
	if err := retryInterrupted(func() error { return unix.Connect(c.fd, to) }); err != nil {
		return err
	}
	if t.Network == "tcp" {
		if err := unix.SetsockoptInt(c.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			return err
		}
	}
	if err := unix.SetNonblock(c.fd, true); err != nil {
		return err
	}
	if t.TLS != nil {
		c.tls = tls.Client(raw{c}, t.TLS)
		if err := c.tls.Handshake(); err != nil {
			return err
		}
	}
	c.wait = false
	return nil
}

// read returns errAgain when there is nothing to read now, and io.EOF at the end.
func (c *conn) read(b []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Read(b)
	}
	return c.readRaw(b)
}

// write writes all of it. Requests are far smaller than a socket's buffer, so it hardly ever waits.
func (c *conn) write(b []byte) error {
	if c.tls != nil {
		_, err := c.tls.Write(b)
		return err
	}
	return c.writeRaw(b)
}

// close does not say goodbye in TLS: that could wait.
func (c *conn) close() { _ = unix.Close(c.fd) }

func (c *conn) readRaw(b []byte) (int, error) {
	for {
		n, err := unix.Read(c.fd, b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN && c.wait:
			if err := c.poll(unix.POLLIN); err != nil {
				return 0, err
			}
		case err == unix.EAGAIN:
			return 0, errAgain
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (c *conn) writeRaw(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(c.fd, b)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			if err := c.poll(unix.POLLOUT); err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			b = b[n:]
		}
	}
	return nil
}

const pollTimeout = 10 * time.Second

func (c *conn) poll(events int16) error {
	fds := []unix.PollFd{{Fd: int32(c.fd), Events: events}}
	return retryInterrupted(func() error {
		n, err := unix.Poll(fds, int(pollTimeout.Milliseconds()))
		if err == nil && n == 0 {
			return os.ErrDeadlineExceeded
		}
		return err
	})
}

func retryInterrupted(f func() error) error {
	for {
		if err := f(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// errAgain is temporary, so that crypto/tls keeps what it has read of a record and goes on at the next call.
var errAgain error = again{}

type again struct{}

func (again) Error() string   { return "nothing to read now" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

// raw is the descriptor as crypto/tls wants it.
type raw struct{ c *conn }

func (r raw) Read(b []byte) (int, error) { return r.c.readRaw(b) }
func (r raw) Write(b []byte) (int, error) {
	if err := r.c.writeRaw(b); err != nil {
		return 0, err
	}
	return len(b), nil
}
func (r raw) Close() error                     { return nil }
func (r raw) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (r raw) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (r raw) SetDeadline(time.Time) error      { return nil }
func (r raw) SetReadDeadline(time.Time) error  { return nil }
func (r raw) SetWriteDeadline(time.Time) error { return nil }

var (
	_ net.Conn  = raw{}
	_ net.Error = again{}
)
