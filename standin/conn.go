package standin

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
)

// A recordingListener keeps the heads of all requests as they arrive on its connections, because net/http forgets the order and the
// case of header names.
type recordingListener struct{ net.Listener }

func (l recordingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &recordingConn{Conn: c}, nil
}

// A recordingConn reads along with net/http: it takes the byte stream apart into heads and bodies, and keeps the heads.
type recordingConn struct {
	net.Conn

	mu    sync.Mutex
	state connState
	buf   []byte // the head, or the chunk-size line, so far
	left  int64  // of the body or chunk
	heads []string
}

type connState int

const (
	inHead connState = iota
	inBody
	inChunkSize
	inChunk
	inTrailer
	lost // a WebSocket, or nothing that HTTP/1.1 knows
)

// maxHead is what net/http takes too.
const maxHead = 1 << 20

type recorderKey struct{}

// withRecorder lets the handler find the connection that a request came over.
func withRecorder(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, recorderKey{}, c)
}

// headOf is r's head as it arrived, or "" behind another server. It is asked once for each request.
func headOf(r *http.Request) string {
	if c, ok := r.Context().Value(recorderKey{}).(*recordingConn); ok {
		return c.nextHead()
	}
	return ""
}

func (c *recordingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.mu.Lock()
		c.see(p[:n])
		c.mu.Unlock()
	}
	return n, err
}

// nextHead is the head of the request that is served now. Heads are taken in the order of their requests.
func (c *recordingConn) nextHead() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.heads) == 0 {
		return ""
	}
	h := c.heads[0]
	c.heads = c.heads[1:]
	return h
}

func (c *recordingConn) see(p []byte) {
	for len(p) > 0 && c.state != lost {
		switch c.state {
		case inBody, inChunk:
			n := min(int64(len(p)), c.left)
			p, c.left = p[n:], c.left-n
			if c.left == 0 {
				c.state = map[connState]connState{inBody: inHead, inChunk: inChunkSize}[c.state]
			}
		default:
			// A head ends with an empty line; a chunk size and each line of a trailer with their own end.
			i := bytes.IndexByte(p, '\n')
			if i < 0 {
				c.buf = append(c.buf, p...)
				p = nil
			} else {
				c.buf = append(c.buf, p[:i+1]...)
				p = p[i+1:]
				c.line()
			}
			if len(c.buf) > maxHead {
				c.state, c.buf = lost, nil
			}
		}
	}
}

// line is called with a line more in buf.
func (c *recordingConn) line() {
	switch c.state {
	case inHead:
		if len(c.buf) == 2 && c.buf[0] == '\r' {
			c.buf = c.buf[:0] // an empty line in front of a request
			return
		}
		if head, ok := bytes.CutSuffix(c.buf, []byte("\r\n\r\n")); ok {
			c.heads = append(c.heads, string(head))
			c.buf = nil
			c.after(string(head))
		}
	case inChunkSize:
		size, _, _ := strings.Cut(strings.TrimSpace(string(c.buf)), ";")
		c.buf = c.buf[:0]
		n, err := strconv.ParseInt(strings.TrimSpace(size), 16, 64)
		switch {
		case err != nil || n < 0:
			c.state = lost
		case n == 0:
			c.state = inTrailer
		default:
			c.state, c.left = inChunk, n+2 // and the line end after it
		}
	case inTrailer:
		if len(c.buf) <= 2 {
			c.state = inHead
		}
		c.buf = c.buf[:0]
	}
}

// after says what follows a head.
func (c *recordingConn) after(head string) {
	c.state = inHead
	for _, f := range parseHead(head) {
		switch strings.ToLower(f.Name) {
		case "upgrade":
			c.state = lost // refused upgrades end the connection, see Set.serve
			return
		case "transfer-encoding":
			c.state = inChunkSize
			return
		case "content-length":
			if n, err := strconv.ParseInt(f.Value, 10, 64); err == nil && n > 0 {
				c.state, c.left = inBody, n
			}
		}
	}
}
