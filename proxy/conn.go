package proxy

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/internal/socket"
	"golang.org/x/sys/unix"
)

// A callerConn is a connection from a caller, with what was learnt about it when it was accepted. Deadlines move forward with
// progress: a stream may last for hours, but not stand still.
type callerConn struct {
	net.Conn
	raw  syscall.RawConn
	at   *Listener
	peer caller.Peer
	held bool          // it counts among its uid's connections; Listener.mu guards it
	rule *caller.Rule  // of the peer; nil on TCP and for a peer that no rule fits
	from *caller.Rules // that rule came from: another one is looked up after a reload

	inner atomic.Pointer[callerConn] // that TLS within CONNECT is read from; nil: there is no CONNECT
	outer *callerConn                // the other way round
	via   *via                       // what CONNECT has settled; nil unless there is an outer one
	over  chan struct{}              // closed with an inner one

	sock      *socket.Socket // nil: the connection is no socket
	deadline  readDeadline
	idleSince atomic.Int64 // nanoseconds since started; 0: a request is being served
	closed    atomic.Bool
	waiting   atomic.Pointer[call] // decided and not served yet (see await); whoever takes it out ends it
	head      headWatch
	renewed   time.Duration // when the write deadline was last moved, since started
	poll      []unix.PollFd
	events    int16
	checkFn   func(fd uintptr) // built once: checking costs no allocation
}

func newCallerConn(c net.Conn, l *Listener) *callerConn {
	cc := &callerConn{Conn: c, at: l, poll: make([]unix.PollFd, 1)}
	cc.sock = socket.New(c)
	cc.deadline.over(c, cc.sock)
	cc.idleSince.Store(int64(time.Since(started)))
	cc.head.idle()
	if sc, ok := c.(syscall.Conn); ok {
		cc.raw, _ = sc.SyscallConn()
	}
	cc.checkFn = func(fd uintptr) {
		cc.poll[0] = unix.PollFd{Fd: int32(fd), Events: pollGone}
		if n, err := unix.Poll(cc.poll, 0); err == nil && n > 0 {
			cc.events = cc.poll[0].Revents
		}
	}
	return cc
}

// Read is fasthttp's way to the caller's bytes.
func (c *callerConn) Read(b []byte) (n int, err error) {
	defer c.guard(&err)
	n, err = c.deadline.read(b)
	if n > 0 && !c.busy() {
		return 0, net.ErrClosed
	}
	if n > 0 {
		if bad := c.head.look(b[:n]); bad != nil {
			return 0, bad
		}
	}
	if n == 0 && c.idleSince.Load() != 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		// Nothing has been asked, so that there is nothing to answer: clients keep connections that they have not used yet, and would take a refusal for
		// the answer to what they send at that very moment.
		return 0, net.ErrClosed
	}
	return n, err
}

// busy notes that a request has begun; false: the connection is being closed, and what it asks must not be done.
func (c *callerConn) busy() bool {
	since := c.idleSince.Load()
	return since == 0 || since != claimed && c.idleSince.CompareAndSwap(since, 0)
}

// Write renews the write deadline, at most once a second: a caller that does not read for the idle time is cut off.
func (c *callerConn) Write(b []byte) (n int, err error) {
	defer c.guard(&err)
	if now := time.Since(started); c.renewed == 0 || now-c.renewed >= time.Second {
		c.renewed = now
		if err := c.Conn.SetWriteDeadline(started.Add(now + c.at.p.idle())); err != nil {
			return 0, err
		}
	}
	if c.sock != nil {
		return c.sock.Write(b)
	}
	return c.Conn.Write(b)
}

func (c *callerConn) Close() (err error) {
	defer c.guard(&err)
	if c.closed.CompareAndSwap(false, true) {
		if c.outer != nil {
			defer close(c.over)
		} else {
			defer c.at.done(c)
		}
		if w := c.waiting.Swap(nil); w != nil {
			w.giveUp()
		}
	}
	return c.Conn.Close()
}

// giveUp ends a call whose caller has gone before it was served.
func (c *call) giveUp() {
	defer c.p.drop(c)
	c.code = refuseGone.code
	c.abandon()
	c.end()
}

// reset ends the connection so that the caller cannot take a cut answer for a whole one.
func (c *callerConn) reset() {
	if c.outer != nil {
		c.outer.reset() // before TLS can say farewell
	}
	if tcp, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
