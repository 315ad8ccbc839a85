package provider

import (
	"net"
	"sync"
	"time"
)

// A Link is a way to an address that takes time, made in user space: what goes in comes out half a round trip later, in both directions, and
// a new connection carries its first byte only after one round trip, as TCP's handshake takes. (The kernel's own is done at once, on
// loopback.) Bandwidth is not limited and nothing is lost.
type Link struct {
	l       net.Listener
	to      string
	half    time.Duration
	mu      sync.Mutex
	open    map[net.Conn]bool
	closed  bool
	running sync.WaitGroup
}

// NewLink listens on a port of loopback for what goes to the address.
func NewLink(to string, roundTrip time.Duration) (*Link, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k := &Link{l: l, to: to, half: roundTrip / 2, open: map[net.Conn]bool{}}
	k.running.Go(k.accept)
	return k, nil
}

// Address is HOST:PORT of this end.
func (k *Link) Address() string { return k.l.Addr().String() }

// Close breaks all connections and waits.
func (k *Link) Close() error {
	err := k.l.Close()
	k.mu.Lock()
	k.closed = true
	for c := range k.open {
		_ = c.Close()
	}
	k.mu.Unlock()
	k.running.Wait()
	return err
}

func (k *Link) accept() {
	for {
		c, err := k.l.Accept()
		if err != nil {
			return
		}
		established := time.Now().Add(2 * k.half)
		k.running.Go(func() { k.carry(c, established) })
	}
}

func (k *Link) carry(near net.Conn, established time.Time) {
	defer func() { _ = near.Close() }()
	far, err := net.Dial("tcp", k.to)
	if err != nil {
		return
	}
	defer func() { _ = far.Close() }()
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return
	}
	k.open[near], k.open[far] = true, true
	k.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { k.pipe(far, near, established) })
	both.Go(func() { k.pipe(near, far, time.Time{}) })
	both.Wait()
	k.mu.Lock()
	delete(k.open, near)
	delete(k.open, far)
	k.mu.Unlock()
}

// A parcel is on its way.
type parcel struct {
	bytes []byte
	due   time.Time
}

// pipe carries one direction; nothing that came before notBefore leaves this side earlier.
func (k *Link) pipe(to, from net.Conn, notBefore time.Time) {
	way := make(chan parcel, 4096)
	var sender sync.WaitGroup
	sender.Go(func() {
		for p := range way {
			until(p.due)
			if _, err := to.Write(p.bytes); err != nil {
				_ = from.Close()
			}
		}
		if t, ok := to.(*net.TCPConn); ok {
			_ = t.CloseWrite()
		}
	})
	for {
		b := make([]byte, 16<<10)
		n, err := from.Read(b)
		if n > 0 {
			at := time.Now()
			if at.Before(notBefore) {
				at = notBefore
			}
			way <- parcel{b[:n], at.Add(k.half)}
		}
		if err != nil {
			break
		}
	}
	close(way)
	sender.Wait()
}

// until waits exactly: sleeping is 1 ms coarse, which is 5 % of the way.
func until(t time.Time) {
	const coarse = 2 * time.Millisecond
	if d := time.Until(t); d > coarse {
		time.Sleep(d - coarse)
	}
	for time.Now().Before(t) { // the last of it is spun
	}
}
