package proxy

import (
	"context"
	"errors"
	"slices"
	"time"
)

// maxDials is how many connections to one host are made at the same time. A thousand requests that begin together would otherwise make a
// thousand handshakes, which together take longer than any of them may; with answers that come soon, a few connections carry them all.
const maxDials = 64

// dials are the connections to a host that are being made, and who waits. It is guarded by the upstream's mu.
type dials struct {
	running int
	waiting []waiter // in order
}

// A waiter is sent one connection of its org, or nil: it is its turn to make one.
type waiter struct {
	whose string
	turn  chan *upstreamConn
}

var errNoTurn = errors.New("no connection was made in time, and no turn came to make one")

// obtain makes a connection, or, when many are being made already, waits for one of two things: its turn, or a connection that another
// request is done with. fresh asks for a new one, now.
func (u *upstream) obtain(ctx context.Context, whose string, fresh bool) (*upstreamConn, error) {
	patience := time.NewTimer(dialTimeout)
	defer patience.Stop()
	for {
		u.mu.Lock()
		switch {
		case fresh || u.dials.running < maxDials:
			u.dials.running++
			u.mu.Unlock()
			return u.dialInTurn(ctx, whose)
		case slices.ContainsFunc(u.idle, func(c *upstreamConn) bool { return c.whose == whose }):
			u.mu.Unlock()
			if c := u.take(whose, time.Now()); c != nil {
				return c, nil
			}
			continue
		}
		turn := make(chan *upstreamConn, 1)
		u.dials.waiting = append(u.dials.waiting, waiter{whose, turn})
		u.mu.Unlock()
		var err error
		select {
		case c := <-turn:
			switch {
			case c == nil:
				return u.dialInTurn(ctx, whose)
			case c.use():
				return c, nil
			}
			_ = c.Close()
			continue
		case <-patience.C:
			err = errNoTurn
		case <-ctx.Done():
			err = ctx.Err()
		}
		u.withdraw(turn)
		return nil, err
	}
}

// dialInTurn makes a connection; its turn then goes to who has waited longest.
func (u *upstream) dialInTurn(ctx context.Context, whose string) (*upstreamConn, error) {
	defer u.nextTurn()
	c, err := u.dial(ctx)
	if err == nil {
		c.whose = whose
	}
	return c, err
}

func (u *upstream) nextTurn() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.handOver(nil) {
		u.dials.running--
	}
}

// handOver gives a connection, or a turn, to who has waited longest for one such, if anyone does. mu is held.
func (u *upstream) handOver(c *upstreamConn) bool {
	i := slices.IndexFunc(u.dials.waiting, func(w waiter) bool { return c == nil || w.whose == c.whose })
	if i < 0 {
		return false
	}
	u.dials.waiting[i].turn <- c
	u.dials.waiting = slices.Delete(u.dials.waiting, i, i+1)
	return true
}

// withdraw ends a wait, and passes on what it was given in the last moment.
func (u *upstream) withdraw(turn chan *upstreamConn) {
	u.mu.Lock()
	i := slices.IndexFunc(u.dials.waiting, func(w waiter) bool { return w.turn == turn })
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
