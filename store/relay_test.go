package store

import (
	"errors"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// socketOf is the unix socket of a URL of pgtest's.
func socketOf(t testing.TB, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	ok(t, err)
	return filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432")
}

// instead listens where a URL like address, which it returns, leads; serve gets every connection.
func instead(t testing.TB, address string, serve func(net.Conn)) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "kwrelay") // a socket's path is short
	ok(t, err)
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	ok(t, err)
	var serving sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			serving.Go(func() { serve(c); _ = c.Close() })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		serving.Wait()
		_ = os.RemoveAll(dir)
	})
	u, err := url.Parse(address)
	ok(t, err)
	q := u.Query()
	q.Set("host", dir)
	u.RawQuery = q.Encode()
	return u.String()
}

// A cable leads to PostgreSQL. It can be made to swallow what goes through it, as a network does that drops packets, and to break every
// connection as soon as it is used, as a router does that has forgotten it.
type cable struct {
	url string

	mu     sync.Mutex
	moved  *sync.Cond
	cut    bool
	broken int // times that connections were broken
}

func newCable(t testing.TB, address string) *cable {
	socket := socketOf(t, address)
	c := &cable{}
	c.moved = sync.NewCond(&c.mu)
	c.url = instead(t, address, func(near net.Conn) {
		far, err := net.Dial("unix", socket)
		if err != nil {
			return
		}
		c.mu.Lock()
		since := c.broken
		c.mu.Unlock()
		go func() { _, _ = io.Copy(through{c, since, near}, far); _ = near.Close() }()
		_, _ = io.Copy(through{c, since, far}, near)
		_ = near.Close()
		_ = far.Close()
	})
	t.Cleanup(func() { c.set(false) })
	return c
}

func (c *cable) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
	c.moved.Broadcast()
}

func (c *cable) breakAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken++
}

type through struct {
	c     *cable
	since int
	net.Conn
}

func (t through) Write(b []byte) (int, error) {
	t.c.mu.Lock()
	for t.c.cut {
		t.c.moved.Wait()
	}
	broken := t.since != t.c.broken
	t.c.mu.Unlock()
	if broken {
		return 0, io.ErrClosedPipe
	}
	return t.Conn.Write(b)
}

// A pooler shares a few sessions among all clients, as PgBouncer does in transaction mode: a client has one for a transaction, and gets
// another one for the next.
type pooler struct {
	t        testing.TB
	sessions chan *pgconn.HijackedConn
}

func newPooler(t testing.TB, address string, sessions int) string {
	p := &pooler{t: t, sessions: make(chan *pgconn.HijackedConn, sessions)}
	for range sessions {
		c, err := pgconn.Connect(t.Context(), address)
		ok(t, err)
		s, err := c.Hijack()
		ok(t, err)
		t.Cleanup(func() { _ = s.Conn.Close() })
		p.sessions <- s
	}
	return instead(t, address, func(c net.Conn) {
		if err := p.serve(c); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, net.ErrClosed) &&
			!strings.Contains(err.Error(), "connection reset") && !strings.Contains(err.Error(), "broken pipe") {
			t.Errorf("pooler: %v", err)
		}
	})
}

func (p *pooler) serve(conn net.Conn) error {
	client := pgproto3.NewBackend(conn, conn)
	if _, err := client.ReceiveStartupMessage(); err != nil {
		return err
	}
	s := <-p.sessions
	client.Send(&pgproto3.AuthenticationOk{})
	for name, value := range s.ParameterStatuses {
		client.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	p.sessions <- s
	client.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
	client.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if err := client.Flush(); err != nil {
		return err
	}
	for {
		if done, err := p.transaction(client); done || err != nil {
			return err
		}
	}
}

// transaction lends the client a session until it is idle again.
func (p *pooler) transaction(client *pgproto3.Backend) (done bool, err error) {
	msg, err := client.Receive()
	if err != nil {
		return true, err
	}
	if _, end := msg.(*pgproto3.Terminate); end {
		return true, nil
	}
	s := <-p.sessions
	defer func() { p.sessions <- s }()
	for {
		s.Frontend.Send(msg)
		switch msg.(type) {
		case *pgproto3.Query, *pgproto3.Sync:
			if err := s.Frontend.Flush(); err != nil {
				return true, err
			}
			idle, err := p.answer(client, s)
			if idle || err != nil {
				return false, err
			}
		}
		if msg, err = client.Receive(); err != nil {
			p.t.Errorf("pooler: a client left within a transaction: %v", err)
			return true, err
		}
	}
}

func (p *pooler) answer(client *pgproto3.Backend, s *pgconn.HijackedConn) (idle bool, err error) {
	for {
		msg, err := s.Frontend.Receive()
		if err != nil {
			return false, err
		}
		client.Send(msg)
		if ready, is := msg.(*pgproto3.ReadyForQuery); is {
			return ready.TxStatus == 'I', client.Flush()
		}
	}
}
