package proxy

import (
	"context"
	"os"
	"slices"
	"time"
)

// maxDials is how many connections to one host are made at the same time. A thousand requests that begin together would otherwise make a
// thousand handshakes, which together take longer than any of them may; with answers that come soon, a few connections carry them all.
const maxDials = 64

// dials are the connections to a host that are being made, and who waits. It is guarded by the upstream's mu.
type dials struct {
	running int
	waiting []chan *upstreamConn // in order; each is sent one connection, or nil: it is its turn to make one
}

// obtain makes a connection, or, when many are being made already, waits for one of two things: its turn, or a connection that another
// request is done with. fresh asks for a new one, now.
func (u *upstream) obtain(ctx context.Context, fresh bool) (*upstreamConn, error) {
	patience := time.NewTimer(dialTimeout)
	defer patience.Stop()
	for {
		u.mu.Lock()
		switch {
		case fresh || u.dials.running < maxDials:
			u.dials.running++
			u.mu.Unlock()
			return u.dialInTurn(ctx)
		case len(u.idle) > 0:
			u.mu.Unlock()
			if c := u.take(time.Now()); c != nil {
				return c, nil
			}
			continue
		}
		turn := make(chan *upstreamConn, 1)
		u.dials.waiting = append(u.dials.waiting, turn)
		u.mu.Unlock()
		var err error
		select {
		case c := <-turn:
			switch {
			case c == nil:
				return u.dialInTurn(ctx)
			case c.use():
				return c, nil
			}
			_ = c.Close()
			continue
		case <-patience.C:
			err = os.ErrDeadlineExceeded
		case <-ctx.Done():
			err = ctx.Err()
		}
		u.withdraw(turn)
		return nil, err
	}
}

// dialInTurn makes a connection; its turn then goes to who has waited longest.
func (u *upstream) dialInTurn(ctx context.Context) (*upstreamConn, error) {
	defer u.nextTurn()
	return u.dial(ctx)
}

func (u *upstream) nextTurn() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.handOver(nil) {
		u.dials.running--
	}
}

// handOver gives a connection, or a turn, to who has waited longest, if anyone waits. mu is held.
func (u *upstream) handOver(c *upstreamConn) bool {
	if len(u.dials.waiting) == 0 {
		return false
	}
	u.dials.waiting[0] <- c
	u.dials.waiting[0] = nil
	u.dials.waiting = u.dials.waiting[1:]
	return true
}

// withdraw ends a wait, and passes on what it was given in the last moment.
func (u *upstream) withdraw(turn chan *upstreamConn) {
	u.mu.Lock()
	i := slices.Index(u.dials.waiting, turn)
	if i >= 0 {
		u.dials.waiting = slices.Delete(u.dials.waiting, i, i+1)
	}
	u.mu.Unlock()
	if i >= 0 {
		return
	}
	if c := <-turn; c != nil {
		u.put(c, time.Now())
	} else {
		u.nextTurn()
	}
}
