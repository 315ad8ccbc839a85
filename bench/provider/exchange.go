package provider

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// An exchange is one connection's requests.
type exchange struct {
	p *Provider
	c net.Conn
	r *bufio.Reader

	// Of the request in hand. What is a slice lies in the reader's buffer, and is good until the body is read.
	path, org, key         []byte
	id                     []byte // of X-Bench-Id, which the answer repeats; of the exchange
	length                 int64
	chunked, upgrade, wait bool

	out []byte // of an answer with an id
}

var (
	okHead       = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ")
	okLine       = []byte("HTTP/1.1 200 OK\r\n")
	unauthorized = []byte("HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n{\"error\":\"no such api key\"}")
	uploaded     = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	goOn         = []byte("HTTP/1.1 100 Continue\r\n\r\n")
	errRequest   = errors.New("not a request")
	defaultOrg   = []byte("acme")
)

func usualAnswer(n int) []byte {
	a := strconv.AppendInt(append([]byte(nil), okHead...), int64(n), 10)
	a = append(a, "\r\n\r\n{\"id\":\""...)
	return append(append(a, bytes.Repeat([]byte("x"), n-9)...), `"}`...)
}

// one reads a request and answers it.
func (x *exchange) one() error {
	head, err := x.head()
	if err != nil {
		return err
	}
	if err := x.parse(head); err != nil {
		return err
	}
	n := x.p.reqs.Add(1)
	ok := x.p.allowed(x.org, x.key)
	stream, socket, upload := bytes.HasSuffix(x.path, []byte("/stream")), x.upgrade, bytes.HasPrefix(x.path, []byte("/v1/speech-to-text"))
	_, _ = x.r.Discard(len(head))
	if x.wait {
		if _, err := x.c.Write(goOn); err != nil {
			return err
		}
	}
	if err := x.body(); err != nil {
		return err
	}
	x.p.hold(n)
	if x.p.resets(n) && !stream {
		return x.reset()
	}
	switch {
	case !ok:
		x.p.refused.Add(1)
		_, err = x.c.Write(unauthorized)
	case socket:
		err = x.echo()
	case stream:
		err = x.stream(n)
	case upload:
		_, err = x.c.Write(x.identified(uploaded))
	default:
		_, err = x.c.Write(x.identified(x.p.answer))
	}
	return err
}

// identified is an answer with the request's id in its head, if the request has one.
func (x *exchange) identified(answer []byte) []byte {
	if len(x.id) == 0 {
		return answer
	}
	x.out = append(append(append(x.out[:0], okLine...), "X-Bench-Id: "...), x.id...)
	return append(append(x.out, "\r\n"...), answer[len(okLine):]...)
}

var errReset = errors.New("reset")

// reset ends the connection as one that was lost: no close_notify, no FIN.
func (x *exchange) reset() error {
	c := x.c
	if over, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = over.NetConn()
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
	return errReset
}

// head is the next request's, still in the reader's buffer.
func (x *exchange) head() ([]byte, error) {
	for want, seen := 1, 0; ; {
		if _, err := x.r.Peek(want); err != nil {
			return nil, err
		}
		b, _ := x.r.Peek(x.r.Buffered())
		if end := bytes.Index(b[max(seen-3, 0):], []byte("\r\n\r\n")); end >= 0 {
			return b[:max(seen-3, 0)+end+4], nil
		}
		seen, want = len(b), len(b)+1
	}
}

// parse reads what matters.
func (x *exchange) parse(head []byte) error {
	line, rest, _ := bytes.Cut(head, []byte("\r\n"))
	_, target, ok := bytes.Cut(line, []byte(" "))
	path, _, ok2 := bytes.Cut(target, []byte(" "))
	if !ok || !ok2 {
		return errRequest
	}
	x.path, x.org, x.key, x.id = path, defaultOrg, nil, x.id[:0]
	x.length, x.chunked, x.upgrade, x.wait = 0, false, false, false
	for len(rest) > 2 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch len(name) {
		case len("X-Bench-Org"):
			if bytes.EqualFold(name, []byte("X-Bench-Org")) {
				x.org = value
			}
		case len("Authorization"):
			if bytes.EqualFold(name, []byte("Authorization")) {
				x.key = bytes.TrimPrefix(value, []byte("Bearer "))
			}
		case len("xi-api-key"):
			if bytes.EqualFold(name, []byte("xi-api-key")) {
				x.key = value
			}
			if bytes.EqualFold(name, []byte("X-Bench-Id")) { // of the same length
				x.id = append(x.id, value...)
			}
		case len("Content-Length"):
			if bytes.EqualFold(name, []byte("Content-Length")) {
				n, err := strconv.ParseInt(string(value), 10, 64)
				if err != nil {
					return fmt.Errorf("%w: %w", errRequest, err)
				}
				x.length = n
			}
		case len("Transfer-Encoding"):
			if bytes.EqualFold(name, []byte("Transfer-Encoding")) {
				x.chunked = bytes.EqualFold(value, []byte("chunked"))
			}
		case len("Upgrade"):
			if bytes.EqualFold(name, []byte("Upgrade")) {
				x.upgrade = bytes.EqualFold(value, []byte("websocket"))
			}
		case len("Expect"):
			if bytes.EqualFold(name, []byte("Expect")) {
				x.wait = true
			}
		}
	}
	return nil
}

// body reads it and throws it away.
func (x *exchange) body() error {
	if !x.chunked {
		return x.discard(x.length)
	}
	for {
		line, err := x.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		size, _, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte(";"))
		n, err := strconv.ParseInt(string(size), 16, 63)
		if err != nil {
			return fmt.Errorf("%w: %w", errRequest, err)
		}
		if err := x.discard(n + 2); err != nil { // the line's end behind it; of the last chunk the empty line
			return err
		}
		if n == 0 {
			return nil
		}
	}
}

func (x *exchange) discard(n int64) error {
	_, err := io.CopyN(io.Discard, x.r, n)
	return err
}

// The audio that stream sends.
const (
	// Chunks is how many, ChunkGap how far apart, and ChunkBytes how long each is.
	Chunks     = 20
	ChunkGap   = 10 * time.Millisecond
	ChunkBytes = 4096
)

// stream sends chunked audio. Each chunk begins with the time at which it was sent, 16 hexadecimal digits of Unix nanoseconds: sender and
// receiver share the machine's clock, so that the way of each chunk can be measured, not only the gap to its neighbour.
//
// While connections are reset, the reset meets a stream in its middle.
func (x *exchange) stream(n int64) error {
	if _, err := x.c.Write(x.identified([]byte("HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n"))); err != nil {
		return err
	}
	chunk := make([]byte, 0, ChunkBytes+16)
	begun := time.Now()
	for i := range Chunks {
		if i == Chunks/2 && x.p.resets(n) {
			return x.reset()
		}
		time.Sleep(time.Until(begun.Add(time.Duration(i) * ChunkGap)))
		chunk = fmt.Appendf(chunk[:0], "%x\r\n%016x", ChunkBytes, time.Now().UnixNano())
		for len(chunk) < ChunkBytes+len("1000\r\n") {
			chunk = append(chunk, 0x55)
		}
		if _, err := x.c.Write(append(chunk, "\r\n"...)); err != nil {
			return err
		}
	}
	_, err := io.WriteString(x.c, "0\r\n\r\n")
	return err
}
