package proxy

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/store"
)

// Check says what is wrong with a listener's fixed org or upstream, before anything listens.
func (p *Proxy) Check(l *Listener) error {
	if l.Org != "" && !store.IsOrg(l.Org) {
		return fmt.Errorf("listener %s: malformed org %q", l.Addr(), l.Org)
	}
	if l.Upstream != "" && p.upstreamAt([]byte(l.Upstream)) == nil {
		return fmt.Errorf("listener %s: no provider has the host %q", l.Addr(), l.Upstream)
	}
	return nil
}

// Serve takes callers from l until it is closed.
func (p *Proxy) Serve(l *Listener) error {
	if err := p.Check(l); err != nil {
		return err
	}
	var last atomic.Int64
	l.prepare(p, func() {
		if now := time.Now().Unix(); last.Swap(now) != now {
			p.log.Warn().Str("listener", l.Addr().String()).Msg("connections wait: too many are open, or file descriptors ran out")
		}
	})
	p.mu.Lock()
	p.listeners = append(p.listeners, l)
	if p.finished {
		l.finish() // told to stop before it was begun
	}
	p.mu.Unlock()
	err := p.server.Serve(l)
	asked := l.shut.Load() || l.last.Load()
	_ = l.Close()
	p.mu.Lock()
	p.listeners = slices.DeleteFunc(p.listeners, func(o *Listener) bool { return o == l })
	p.mu.Unlock()
	if asked {
		return nil
	}
	return err
}

// Drain makes every further answer close its connection, while new ones are still served.
func (p *Proxy) Drain() { p.draining.Store(true) }

// Shutdown stops accepting and waits for what is in flight, streams and tunnels included, until ctx ends; what is left then is cut off.
// A connection between two requests is not closed at once: its caller may be about to send the next one, and is told by that one's
// answer. Only one that has been silent for a while is.
func (p *Proxy) Shutdown(ctx context.Context) error {
	const (
		grace  = 3 * time.Second // for callers between two requests
		silent = time.Second
		look   = 10 * time.Millisecond
	)
	p.Drain()
	patient := time.Now().Add(grace)
	p.mu.Lock()
	p.finished = true
	for _, l := range p.listeners {
		l.finish()
	}
	p.mu.Unlock()
	t := time.NewTicker(look)
	defer t.Stop()
	for {
		// In this order: what is accepted while the connections are counted would not be waited for.
		accepting := p.accepting()
		if open := p.conns.closeIdle(time.Now(), patient, silent); open == 0 && !accepting {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			p.conns.closeAll()
			return ctx.Err()
		}
	}
}

// accepting says whether a listener still takes connections.
func (p *Proxy) accepting() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.listeners) > 0
}

// Close ends whatever still runs and closes the connections to providers.
func (p *Proxy) Close() {
	p.cancel()
	<-p.sweeper
	for _, u := range *p.hosts.Load() {
		u.retire()
	}
	p.minted.wipe()
}

// sweep closes upstream connections that have been idle for long.
func (p *Proxy) sweep() {
	defer close(p.sweeper)
	t := time.NewTicker(idleUpstream / 5)
	defer t.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case now := <-t.C:
			for _, u := range *p.hosts.Load() {
				u.sweep(now)
			}
			p.minted.sweep(now)
		}
	}
}
