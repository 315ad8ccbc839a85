package proxy

import (
	"net"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// connections are the callers' open connections, so that a drain knows what it waits for.
type connections struct {
	mu   sync.Mutex
	open map[*callerConn]struct{}
}

func (s *connections) add(c *callerConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*callerConn]struct{}{}
	}
	s.open[c] = struct{}{}
}

func (s *connections) remove(c *callerConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
}

// closeIdle closes the connections that have been silent for a while, once the patience with them has ended, and returns how many are
// open. A connection is claimed before it is closed: one on which a request has just arrived is left alone.
func (s *connections) closeIdle(now, patient time.Time, silent time.Duration) int {
	if now.After(patient) {
		for _, c := range s.all() {
			since := c.idleSince.Load()
			if since > 0 && since < int64(now.Add(-silent).Sub(started)) && c.idleSince.CompareAndSwap(since, claimed) {
				_ = c.Close()
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

func (s *connections) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

func (s *connections) closeAll() {
	for _, c := range s.all() {
		if c.outer != nil {
			_ = c.outer.Close() // TLS's farewell may have to wait
		}
		_ = c.Close()
	}
}

// all are the connections that requests are read from.
func (s *connections) all() []*callerConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*callerConn, 0, len(s.open))
	for c := range s.open {
		if in := c.inner.Load(); in != nil {
			c = in
		}
		out = append(out, c)
	}
	return out
}

// claimed stands in idleSince of a connection that is being closed.
const claimed = -1

// connState notes when a connection begins and ends to serve a request.
func connState(nc net.Conn, state fasthttp.ConnState) {
	c, ok := nc.(*callerConn)
	if !ok {
		return
	}
	switch state {
	case fasthttp.StateActive:
		c.head.active()
		c.busy()
	case fasthttp.StateIdle:
		c.head.idle()
		c.idleSince.Store(int64(time.Since(started)))
	}
}
