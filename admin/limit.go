package admin

import (
	"net"
	"sync"
)

// maxConns is how many connections a TCP listener of the API has open at once. More wait: descriptors are what callers need too.
const maxConns = 256

// Limited is a listener that takes a next connection only when there are few enough.
func Limited(l net.Listener) net.Listener {
	return &limitedListener{Listener: l, free: make(chan struct{}, maxConns), closed: make(chan struct{})}
}

type limitedListener struct {
	net.Listener
	free   chan struct{} // full: no more
	closed chan struct{}
	once   sync.Once
}

func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.free <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.free
		return nil, err
	}
	return &limitedConn{Conn: c, free: l.free}, nil
}

func (l *limitedListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type limitedConn struct {
	net.Conn
	free chan struct{}
	once sync.Once
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.free })
	return err
}
