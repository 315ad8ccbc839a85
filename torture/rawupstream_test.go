package torture

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A rawUpstream is a provider of raw bytes: it reads requests strictly, and what it answers is up to handle.
type rawUpstream struct {
	t       testing.TB
	address string
	handle  func(c *upstreamSide, r *rawRequest)
	// began is told of each request when its head is there, before any of its body is read; false ends the connection.
	began func(c *upstreamSide, r *rawRequest) bool

	mu    sync.Mutex
	open  map[*upstreamSide]bool
	shut  bool
	group sync.WaitGroup
}

// An upstreamSide is one connection from the sidecar.
type upstreamSide struct {
	net.Conn // TLS or tcp
	tcp      *net.TCPConn
	in       *bufio.Reader
	idle     bool // between requests; guarded by the upstream's mutex
	ended    bool // by handle: no further request is read
}

// A rawRequest is what stood on the wire.
type rawRequest struct {
	head         []byte // with the empty line
	line         string
	names        []string
	values       []string
	body         []byte
	method, path string
}

// first is a header's first value.
func (r *rawRequest) first(name string) string {
	for i := range r.names {
		if strings.EqualFold(r.names[i], name) {
			return r.values[i]
		}
	}
	return ""
}

func newRawUpstream(t testing.TB, handle func(*upstreamSide, *rawRequest)) *rawUpstream {
	t.Helper()
	return newUpstream(t, nil, handle)
}

// newUpstream is a rawUpstream that speaks TLS if there is a configuration for it.
func newUpstream(t testing.TB, secure *tls.Config, handle func(*upstreamSide, *rawRequest)) *rawUpstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &rawUpstream{t: t, address: l.Addr().String(), handle: handle, open: map[*upstreamSide]bool{}}
	u.group.Add(1)
	go func() {
		defer u.group.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			side := &upstreamSide{Conn: c, tcp: c.(*net.TCPConn), idle: true}
			if secure != nil {
				side.Conn = tls.Server(c, secure)
			}
			side.in = bufio.NewReaderSize(side.Conn, 64<<10)
			u.mu.Lock()
			u.open[side] = true
			if u.shut {
				_ = c.Close()
			}
			u.mu.Unlock()
			u.group.Add(1)
			go func() {
				defer u.group.Done()
				u.serve(side)
			}()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		u.mu.Lock()
		u.shut = true
		for c := range u.open {
			_ = c.Close()
		}
		u.mu.Unlock()
		u.group.Wait()
	})
	return u
}

// How long a connection may wait for a request, longer than the sidecar keeps one, and how long a request may take to be read and answered.
const (
	idleLimit = 2 * time.Minute
	workLimit = 30 * time.Second
)

func (u *rawUpstream) serve(c *upstreamSide) {
	defer func() {
		u.mu.Lock()
		delete(u.open, c)
		u.mu.Unlock()
		_ = c.Close()
	}()
	for !c.ended {
		u.setIdle(c, true)
		_ = c.SetDeadline(time.Now().Add(idleLimit))
		r, err := c.readHead()
		if err != nil {
			return
		}
		u.setIdle(c, false)
		_ = c.SetDeadline(time.Now().Add(workLimit))
		if u.began != nil && !u.began(c, r) {
			return
		}
		if err := c.readBody(r); err != nil {
			return
		}
		u.handle(c, r)
	}
}

func (u *rawUpstream) setIdle(c *upstreamSide, idle bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c.idle = idle
}

// reset closes the connection so that the other side sees a reset.
func (c *upstreamSide) reset() {
	_ = c.tcp.SetLinger(0)
	_ = c.tcp.Close()
	c.ended = true
}

func (c *upstreamSide) send(s string) { _, _ = io.WriteString(c.Conn, s) }

// vanish closes the connection after what was sent, without TLS's close_notify.
func (c *upstreamSide) vanish() {
	_ = c.tcp.Close()
	c.ended = true
}

// end closes the connection after what was sent.
func (c *upstreamSide) end() {
	_ = c.Close()
	c.ended = true
}

var errHead = errors.New("malformed head")

func (c *upstreamSide) readHead() (*rawRequest, error) {
	r := &rawRequest{}
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		r.head = append(r.head, line...)
		line, ok := bytes.CutSuffix(line, []byte("\r\n"))
		switch {
		case !ok:
			return nil, errHead
		case r.line == "":
			r.line = string(line)
			f := strings.Split(r.line, " ")
			if len(f) != 3 || f[2] != "HTTP/1.1" {
				return nil, errHead
			}
			r.method, r.path = f[0], f[1]
		case len(line) == 0:
			return r, nil
		default:
			name, value, ok := strings.Cut(string(line), ": ")
			if !ok {
				return nil, errHead
			}
			r.names = append(r.names, name)
			r.values = append(r.values, value)
		}
	}
}

func (c *upstreamSide) readBody(r *rawRequest) error {
	if r.first("Transfer-Encoding") != "" {
		for {
			line, err := c.in.ReadString('\n')
			if err != nil {
				return err
			}
			n, err := strconv.ParseUint(strings.TrimSuffix(line, "\r\n"), 16, 31)
			if err != nil {
				return err
			}
			chunk := make([]byte, n+2)
			if _, err := io.ReadFull(c.in, chunk); err != nil {
				return err
			}
			if n == 0 {
				return nil
			}
			r.body = append(r.body, chunk[:n]...)
		}
	}
	if s := r.first("Content-Length"); s != "" {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil {
			return err
		}
		r.body = make([]byte, n)
		_, err = io.ReadFull(c.in, r.body)
		return err
	}
	return nil
}

// plainAnswer is a whole answer with a length.
func plainAnswer(body string) string {
	return "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}
