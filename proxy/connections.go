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

// closeIdle closes the connections that have been silent since before, and returns how many are open.
func (s *connections) closeIdle(before time.Time) int {
	for _, c := range s.all() {
		if since := c.idleSince.Load(); since != 0 && since < before.UnixNano() {
			_ = c.Close()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

func (s *connections) closeAll() {
	for _, c := range s.all() {
		_ = c.Close()
	}
}

func (s *connections) all() []*callerConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*callerConn, 0, len(s.open))
	for c := range s.open {
		out = append(out, c)
	}
	return out
}

// connState notes when a connection begins and ends to serve a request.
func connState(nc net.Conn, state fasthttp.ConnState) {
	c, ok := nc.(*callerConn)
	if !ok {
		return
	}
	switch state {
	case fasthttp.StateActive, fasthttp.StateHijacked:
		c.idleSince.Store(0)
	case fasthttp.StateIdle:
		c.idleSince.Store(time.Now().UnixNano())
	}
}
