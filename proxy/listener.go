package proxy

import (
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/internal/peek"
	"golang.org/x/sys/unix"
)

// A Listener is a place where callers connect: it learns who connects, caps how many may, and outlives a lack of file descriptors.
type Listener struct {
	net.Listener
	// Org and Upstream are what a listener of the configuration's listeners: section fixes; empty: nothing.
	Org, Upstream string
	unix          bool
	p             *Proxy
	most          int64 // connections that the process's descriptors allow
	open          atomic.Int64
	mu            sync.Mutex
	free          *sync.Cond       // of mu; nil before Serve, beside which Close may be called
	peers         map[uint32]int64 // :: uid → connections that are open, guarded by mu; unix alone
	shut          atomic.Bool
	last          atomic.Bool // no more connections than those that have been made already
	until         time.Time   // when last ends in any case; set before it
	queued        time.Time   // when there was no room last; Accept's own
	backlog       bool        // since there was no room, the kernel's queue was never found empty; Accept's own
	told          time.Time   // when the log was told of a uid with too many; Accept's own
	full          func()      // told, at most once a second, that descriptors or connections ran out
}

// prepare makes l ready to serve.
func (l *Listener) prepare(p *Proxy, full func()) {
	l.unix = l.Addr().Network() == "unix"
	l.p = p
	l.most = descriptorShare(l.unix)
	l.full = full
	l.mu.Lock()
	l.free = sync.NewCond(&l.mu)
	l.mu.Unlock()
}

// Accept waits for a caller. Running out of descriptors or buffers is not the end: it waits and tries again.
func (l *Listener) Accept() (net.Conn, error) {
	for wait := 5 * time.Millisecond; ; {
		if l.crowded() {
			l.queued = time.Now()
			l.full()
			l.mu.Lock()
			for l.crowded() && !l.shut.Load() && !l.last.Load() {
				l.free.Wait()
			}
			l.mu.Unlock()
			l.backlog = true
		}
		l.backlog = l.backlog && peek.Queued(l.Listener)
		c, err := l.Listener.Accept()
		if err != nil && l.last.Load() {
			if !l.shut.Load() && time.Now().Before(l.until) && peek.Queued(l.Listener) && l.endsIn(aMoment) {
				continue // the moment was over before we had the processor
			}
			return nil, net.ErrClosed
		}
		if err != nil {
			if !l.shut.Load() && isShortage(err) {
				l.full()
				time.Sleep(wait)
				wait = min(2*wait, 100*time.Millisecond)
				continue
			}
			return nil, err
		}
		l.open.Add(1)
		cc := newCallerConn(c, l)
		l.p.conns.add(cc)
		if l.unix {
			if !cc.readPeer() {
				_ = cc.Close()
				continue
			}
			if !l.admit(cc) {
				l.turnAway(cc)
				continue
			}
		}
		if l.backlog {
			l.p.heldUp.add(noRoom)
		}
		// Who has left while there was no room is not served: what a crowd leaves behind in the queue would keep all others waiting.
		if !l.queued.IsZero() && time.Since(l.queued) < longestQueue && cc.gone() {
			_ = cc.Close()
			continue
		}
		return cc, nil
	}
}

// longestQueue is for how long after a crowd the kernel's queue may hold some of it.
const longestQueue = 10 * time.Second

// How long a listener that ends waits for somebody who is just connecting, and how long it takes who has connected: of a socket that is
// shared with a successor there are always more.
const (
	aMoment = 20 * time.Millisecond
	atMost  = 2 * time.Second
)

// finish stops accepting, but for who has connected already: the socket's name goes first, then what waits in its queue is taken. It is called under
// the proxy's lock, and once it has been, again has no effect: Accept reads what it has set.
func (l *Listener) finish() {
	if l.last.Load() {
		return
	}
	if u, ok := l.Listener.(interface{ Unlink() }); ok {
		u.Unlink()
	}
	l.until = time.Now().Add(atMost)
	l.last.Store(true)
	l.wake()
	if !l.endsIn(aMoment) {
		_ = l.Close()
	}
}

// endsIn has Accept wait no longer than d; false: it cannot be told.
func (l *Listener) endsIn(d time.Duration) bool {
	with, ok := l.Listener.(interface{ SetDeadline(time.Time) error })
	return ok && with.SetDeadline(time.Now().Add(d)) == nil
}

// Close stops accepting.
func (l *Listener) Close() error {
	if l.shut.Swap(true) {
		return nil
	}
	l.wake()
	return l.Listener.Close()
}

// done is told that a connection was closed.
func (l *Listener) done(c *callerConn) {
	l.p.conns.remove(c)
	l.open.Add(-1)
	l.leave(c)
	l.wake()
}

// wake has Accept look again whether there is room.
func (l *Listener) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free != nil {
		l.free.Broadcast()
	}
}

// crowded says whether as many connections are open as may be; more wait in the kernel's queue.
func (l *Listener) crowded() bool {
	return l.open.Load() >= l.room()
}

// room is how many connections may be open.
func (l *Listener) room() int64 {
	if most := int64(l.p.limits.Load().MaxConns); most > 0 {
		return min(most, l.most)
	}
	return l.most
}

// Full says whether those who connect to l have to wait until somebody else leaves.
func (p *Proxy) Full(l *Listener) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Contains(p.listeners, l) && l.crowded()
}

// descriptorShare is how many connections a listener may take of the descriptors that the process may have: whoever opens all that TCP
// gives must not keep callers from the unix socket, nor either of them the connections to providers, the store and the log.
func descriptorShare(isUnix bool) int64 {
	const others, unixShare, tcpShare = 64, 4, 6
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) != nil || r.Cur > 1<<20 {
		return 1 << 20
	}
	left := max(int64(r.Cur)-others, 16)
	if isUnix {
		return left / unixShare
	}
	return left / tcpShare
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

// readPeer asks the kernel who connected: the credentials of the process at the time of its connect.
func (c *callerConn) readPeer() bool {
	if c.raw == nil {
		return false
	}
	var err error
	cerr := c.raw.Control(func(fd uintptr) { c.peer, err = caller.PeerOf(fd) })
	return cerr == nil && err == nil
}
