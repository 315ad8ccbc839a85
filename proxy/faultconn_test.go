package proxy

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A faultConn is a connection that misbehaves as its plan says: what goes through comes in arbitrary pieces, late, and at some byte one
// direction or both end in one of the ways in which connections do.
type faultConn struct {
	net.Conn
	plan faultPlan
	of   *faults
	done func() // told once that it was closed

	mu     sync.Mutex // of the dice and of what follows
	dice   *rand.Rand
	read   int64
	wrote  int64
	broken error // what every further call returns
	lost   bool  // what is written goes nowhere
	waits  int   // delays so far
	cuts   int   // pieces so far
	over   bool  // the plan has been carried out, and the connection goes on
	once   sync.Once
}

// An ending is what happens at the byte that the plan names.
type ending int

const (
	noEnding   ending = iota
	endCut            // closed in both directions
	endReset          // the same by a reset
	endHalf           // closed for writing; reading goes on
	endError          // an error of the system, and nothing else: the connection stays as it is
	endSwallow        // what is written is lost from here on, as on a connection whose other end has gone without a word
	endPanic          // a panic, in whichever goroutine came so far; then as endError
	endFlip           // one bit is another; the rest is as it was
	endings
)

func (e ending) String() string {
	return [...]string{"nothing", "cut", "reset", "half closed", "error", "swallowed", "panic", "bit flipped"}[e]
}

// A faultPlan is drawn by a seed.
type faultPlan struct {
	seed    uint64
	pieces  int           // at most so many bytes at a time; 0: as they come
	delay   time.Duration // at most so long before a piece, now and then
	end     ending
	onWrite bool  // counts what is written, else what is read
	at      int64 // bytes before it happens
	along   bool  // the last bytes are returned together with the error
}

func (p faultPlan) String() string {
	dir := map[bool]string{true: "writing", false: "reading"}[p.onWrite]
	return fmt.Sprintf("pieces of %d, delays of %v, %v at byte %d of %s", p.pieces, p.delay, p.end, p.at, dir)
}

// These keep a long body that goes byte by byte from taking minutes.
const maxWaits, maxPieces = 30, 2000

// drawPlan makes one; whether it ends the connection is a matter of chance too. Swallowing costs a time-out, and so is rare.
func drawPlan(g *rand.Rand, ours, flips bool) faultPlan {
	p := faultPlan{seed: g.Uint64(), onWrite: g.IntN(2) == 0, along: g.IntN(2) == 0}
	if g.IntN(2) == 0 {
		p.pieces = 1 + g.IntN([]int{3, 30, 3000}[g.IntN(3)])
	}
	if g.IntN(4) == 0 {
		p.delay = time.Duration(g.IntN(2000)) * time.Microsecond
	}
	p.end = ending(g.IntN(int(endings)))
	switch {
	case p.end == endSwallow && g.IntN(12) > 0, p.end == endFlip && !flips, p.end == endPanic && !ours:
		p.end = endCut
	case p.end == endHalf, p.end == endSwallow:
		p.onWrite = true
	}
	p.at = g.Int64N([]int64{2, 60, 600, 3000, 150_000}[g.IntN(5)])
	return p
}

// panicText is in every panic: it must be in no log and no answer.
const panicText = "secret-in-panic"

var errFault = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("injected fault")}

func newFaultConn(c net.Conn, p faultPlan, of *faults, done func()) *faultConn {
	return &faultConn{Conn: c, plan: p, of: of, done: done, dice: rand.New(rand.NewPCG(p.seed, 0))}
}

func (f *faultConn) Read(b []byte) (int, error) {
	if !f.of.armed.Load() || len(b) == 0 {
		return f.Conn.Read(b)
	}
	f.mu.Lock()
	broken, left := f.broken, f.left(false)
	b = b[:f.piece(len(b))]
	f.mu.Unlock()
	switch {
	case broken != nil:
		return 0, broken
	case left == 0 && f.plan.end != endFlip:
		return 0, f.happens(io.EOF)
	case left > 0:
		b = b[:min(int64(len(b)), left)]
	}
	n, err := f.Conn.Read(b)
	f.mu.Lock()
	f.read += int64(n)
	f.mu.Unlock()
	switch {
	case n == 0 || err != nil:
	case left == 0:
		b[0] ^= f.flip()
	case left == int64(n) && f.plan.along && f.plan.end != endFlip:
		err = f.happens(io.EOF)
	}
	return n, err
}

func (f *faultConn) Write(b []byte) (total int, err error) {
	if !f.of.armed.Load() {
		return f.Conn.Write(b)
	}
	for len(b) > 0 {
		f.mu.Lock()
		broken, lost, left := f.broken, f.lost, f.left(true)
		n := f.piece(len(b))
		f.mu.Unlock()
		out := b[:n]
		switch {
		case broken != nil:
			return total, broken
		case lost:
			return total + len(b), nil
		case left == 0 && f.plan.end == endFlip:
			out = append([]byte{b[0] ^ f.flip()}, b[1:n]...)
		case left == 0:
			if err := f.happens(syscall.EPIPE); err != nil {
				return total, err
			}
			continue
		case left > 0:
			out = out[:min(int64(n), left)]
		}
		n, err := f.Conn.Write(out)
		total += n
		f.mu.Lock()
		f.wrote += int64(n)
		f.mu.Unlock()
		if err != nil {
			return total, err
		}
		b = b[n:]
	}
	return total, nil
}

// left is how many bytes are left in this direction until it happens; negative: it does not. It is called with the lock held.
func (f *faultConn) left(writing bool) int64 {
	if f.plan.end == noEnding || f.over || f.lost || writing != f.plan.onWrite {
		return -1
	}
	if writing {
		return f.plan.at - f.wrote
	}
	return f.plan.at - f.read
}

// flip is the bit that is to be another one.
func (f *faultConn) flip() byte {
	f.of.happened.Store(true)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.over = true
	return 1 << (f.plan.at % 8)
}

// piece is how many of n bytes go at once. It is called with the lock held, and lets go of it to wait.
func (f *faultConn) piece(n int) int {
	if f.plan.pieces > 0 && f.cuts < maxPieces {
		f.cuts++
		n = min(n, 1+f.dice.IntN(f.plan.pieces))
	}
	if f.plan.delay > 0 && f.waits < maxWaits && f.dice.IntN(4) == 0 {
		f.waits++
		d := time.Duration(f.dice.Int64N(int64(f.plan.delay)))
		f.mu.Unlock()
		time.Sleep(d)
		f.mu.Lock()
	}
	return n
}

// happens does what the plan has for this byte. onCut is what the side sees that ran into a closed connection.
func (f *faultConn) happens(onCut error) error {
	f.of.happened.Store(true)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch f.plan.end {
	case endCut:
		f.broken = onCut
		f.shut()
	case endReset:
		f.broken = &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
		if tcp, ok := f.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		f.shut()
	case endHalf:
		closeWrite(f.Conn)
		f.over = true // what is written now meets the system's own error
		return nil
	case endSwallow:
		f.lost = true
		return nil
	case endPanic:
		f.broken = errFault
		f.of.panics.Add(1)
		panic(panicText)
	default:
		f.broken = errFault
	}
	return f.broken
}

func (f *faultConn) shut() {
	_ = f.Conn.Close()
	f.once.Do(f.done)
}

func (f *faultConn) Close() error {
	f.once.Do(f.done)
	return f.Conn.Close()
}

func (f *faultConn) CloseWrite() error {
	closeWrite(f.Conn)
	return nil
}

func (f *faultConn) SetLinger(seconds int) error {
	if tcp, ok := f.Conn.(*net.TCPConn); ok {
		return tcp.SetLinger(seconds)
	}
	return nil
}

// SyscallConn is the system's own connection: what the proxy asks of that, it learns without faults.
func (f *faultConn) SyscallConn() (syscall.RawConn, error) {
	return f.Conn.(syscall.Conn).SyscallConn()
}

// faults makes the connections of one seed: each place where there are some has its own dice.
type faults struct {
	seed   uint64
	armed  atomic.Bool
	flips  bool            // a flipped bit would be noticed: there is TLS over it
	places map[string]bool // where there are any
	pass   func(at string) // called in every method of the connections on our side; nil: nobody is

	panics   atomic.Int64
	happened atomic.Bool // a connection ended before its time, or lost something

	mu    sync.Mutex
	made  map[string]uint64 // :: place → connections
	open  map[string]int    // :: place → connections that were not closed
	plans []string          // for who has to find out
}

// The places: on both sides of each of the two connections.
var faultPlaces = []string{"caller, its side", "caller, our side", "provider, our side", "provider, its side"}

func newFaults(seed uint64, secure bool) *faults {
	g := rand.New(rand.NewPCG(seed, 1))
	f := &faults{seed: seed, flips: secure, places: map[string]bool{}, made: map[string]uint64{}, open: map[string]int{}}
	f.armed.Store(true)
	for _, at := range faultPlaces {
		f.places[at] = g.IntN(3) == 0
	}
	if g.IntN(4) == 0 {
		f.places[faultPlaces[2]] = true
	}
	return f
}

func (f *faults) wrap(at string, c net.Conn) net.Conn {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.made[at]++
	g := rand.New(rand.NewPCG(f.seed, f.made[at]<<8+uint64(slices.Index(faultPlaces, at))))
	p := faultPlan{}
	if f.places[at] && g.IntN(4) > 0 {
		p = drawPlan(g, strings.HasSuffix(at, "our side"), f.flips && strings.HasPrefix(at, "provider"))
	}
	f.open[at]++
	if p != (faultPlan{}) {
		f.plans = append(f.plans, fmt.Sprintf("%s, connection %d: %v", at, f.made[at], p))
	}
	fc := newFaultConn(c, p, f, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.open[at]--
	})
	if side, ours := strings.CutSuffix(at, ", our side"); ours && f.pass != nil {
		return &bombConn{fc, side, f.pass}
	}
	return fc
}

// left says which connections are still open.
func (f *faults) left() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for at, n := range f.open {
		if n != 0 {
			all = append(all, fmt.Sprintf("%d of %q", n, at))
		}
	}
	return strings.Join(all, ", ")
}
