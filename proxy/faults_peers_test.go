package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A faultAsk is one request, and how the provider is to answer it.
type faultAsk struct {
	id, org, provider, method string
	body                      int // bytes; -1: none
	chunked, expect, mine     bool
	answer                    string
	size                      int // of the answer
}

func (a faultAsk) String() string {
	return fmt.Sprintf("%s %s with a body of %d (chunked %v, expect %v), answered by %s of %d", a.method, a.id, a.body, a.chunked, a.expect, a.answer, a.size)
}

var faultAnswers = []string{"length", "length", "length", "chunked", "chunked", "until close", "none", "early", "upgrade"}

func drawAsk(g *rand.Rand, org, id string) faultAsk {
	sizes := []int{0, 1, 100, 3000, 20_000, 100_000}
	a := faultAsk{
		org: org, provider: []string{"vapi", "elevenlabs"}[g.IntN(2)], method: []string{"GET", "HEAD", "POST", "POST", "PUT", "DELETE"}[g.IntN(6)], body: -1,
		answer: faultAnswers[g.IntN(len(faultAnswers))], size: sizes[g.IntN(len(sizes))], mine: g.IntN(2) == 0,
	}
	if org == "globex" {
		a.provider = "vapi" // its other one is in another region
	}
	switch {
	case a.answer == "upgrade":
		a.method, a.size = "GET", a.size+1
		a.id = "upgrade/" + id
		return a
	case a.method == "POST" || a.method == "PUT":
		a.body, a.chunked, a.expect = sizes[g.IntN(len(sizes))], g.IntN(2) == 0, g.IntN(5) == 0
	}
	a.id = a.method + "/" + id
	return a
}

func (a faultAsk) head(token string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s /%s/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: %s\r\nX-Id: %s\r\nX-Body: %d\r\nX-Answer: %s\r\nX-Size: %d\r\n", a.method, a.provider, a.org, a.id, a.body, a.answer, a.size)
	if token != "" {
		b.WriteString("Keyward-Token: " + token + "\r\n")
	}
	if a.mine {
		b.WriteString("Authorization: Bearer mine\r\nxi-api-key: mine\r\n")
	}
	switch {
	case a.answer == "upgrade":
		b.WriteString("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
	case a.body >= 0 && a.chunked:
		b.WriteString("Transfer-Encoding: chunked\r\n")
	case a.body >= 0:
		fmt.Fprintf(&b, "Content-Length: %d\r\n", a.body)
	}
	if a.expect {
		b.WriteString("Expect: 100-continue\r\n")
	}
	return b.String() + "\r\n"
}

// payload is the body as it goes over the wire.
func (a faultAsk) payload() string {
	if a.body < 0 {
		return ""
	}
	body := patternOf(a.id, a.body)
	if !a.chunked {
		return body
	}
	var b strings.Builder
	for rest := body; rest != ""; {
		n := min(len(rest), 7000)
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, rest[:n])
		rest = rest[n:]
	}
	return b.String() + "0\r\n\r\n"
}

// A faultAnswer is what a caller made of what it got.
type faultAnswer struct {
	status int
	code   string // of the proxy's own refusal
	body   string
	err    error // it could not take the answer for a whole one
}

func (a faultAnswer) String() string {
	return fmt.Sprintf("%d %s %d bytes %.80q %v", a.status, a.code, len(a.body), a.body, a.err)
}

// A faultCaller has one keep-alive connection, dialled anew when it has broken.
type faultCaller struct {
	f       *faultWorld
	network string
	c       net.Conn
	in      *bufio.Reader
}

func (c *faultCaller) close() {
	if c.c != nil {
		_ = c.c.Close()
		c.c = nil
	}
}

func (c *faultCaller) ask(a faultAsk) (got faultAnswer) {
	token := ""
	if c.network == "tcp" {
		token = c.f.token
	}
	if c.c == nil {
		raw, err := net.Dial(c.network, c.f.at[c.network])
		if err != nil {
			return faultAnswer{err: err}
		}
		c.c = c.f.now.Load().wrap("caller, its side", raw)
		c.in = bufio.NewReader(c.c)
	}
	defer func() {
		if got.err != nil {
			c.close()
		}
	}()
	_ = c.c.SetDeadline(time.Now().Add(20 * time.Second))
	if a.expect {
		if _, err := io.WriteString(c.c, a.head(token)); err != nil {
			return faultAnswer{err: err}
		}
		if got := c.read(a); got.status != http.StatusContinue {
			c.close()
			return got
		}
		return c.exchange(a, a.payload())
	}
	return c.exchange(a, a.head(token)+a.payload())
}

// exchange sends while it reads, as callers do whose requests are long.
func (c *faultCaller) exchange(a faultAsk, out string) faultAnswer {
	conn, sent := c.c, make(chan error, 1)
	go func() {
		_, err := io.WriteString(conn, out)
		if err != nil {
			_ = conn.Close() // nobody waits for the answer to half a request
		}
		sent <- err
	}()
	got := c.read(a)
	if got.err != nil {
		_ = conn.Close() // ends the writing
	} else if got.code != "" || a.answer == "early" {
		c.close() // it need not have read the whole request
	}
	if err := <-sent; err != nil {
		c.close()
	}
	return got
}

func (c *faultCaller) read(a faultAsk) faultAnswer {
	resp, err := http.ReadResponse(c.in, &http.Request{Method: a.method})
	if err != nil {
		return faultAnswer{err: err}
	}
	got := faultAnswer{status: resp.StatusCode, code: resp.Header.Get("Keyward-Error")}
	switch resp.StatusCode {
	case http.StatusContinue:
		return got
	case http.StatusSwitchingProtocols:
		return c.echo(a, got)
	}
	b, err := io.ReadAll(resp.Body)
	got.body, got.err = string(b), err
	if resp.Close {
		c.close()
	}
	return got
}

// echo sends through a tunnel and reads what comes back.
func (c *faultCaller) echo(a faultAsk, got faultAnswer) faultAnswer {
	sent := make(chan bool)
	go func() {
		defer close(sent)
		_, _ = io.WriteString(c.c, patternOf(a.id, a.size))
	}()
	b, err := io.ReadAll(io.LimitReader(c.in, int64(a.size)))
	got.body = string(b)
	if len(b) < a.size {
		got.err = fmt.Errorf("the tunnel ended early: %w", io.ErrUnexpectedEOF)
	}
	if err != nil {
		got.err = err
	}
	_ = c.c.Close()
	<-sent
	c.c = nil
	return got
}

// provider listens, and answers as the requests say.
func (f *faultWorld) provider(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				c := f.now.Load().wrap("provider, its side", c)
				defer func() { _ = c.Close() }() // the connection itself: TLS would wait to say farewell
				if f.secure {
					c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{testCertificate()}, CurvePreferences: []tls.CurveID{tls.X25519}})
				}
				f.serveProvider(c)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return map[bool]string{false: "http://", true: "https://"}[f.secure] + l.Addr().String()
}

// endWatch knows whether its reader has ended: what is malformed then is only cut.
type endWatch struct {
	io.Reader
	err error
}

func (e *endWatch) Read(b []byte) (int, error) {
	n, err := e.Reader.Read(b)
	e.err = err
	return n, err
}

func (f *faultWorld) complain(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrong = append(f.wrong, fmt.Sprintf(format, args...))
}

func (f *faultWorld) serveProvider(c net.Conn) {
	from := &endWatch{Reader: c}
	in := bufio.NewReader(from)
	for {
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		r, err := http.ReadRequest(in)
		if err != nil {
			if from.err == nil {
				f.complain("the provider got what is no request: %v", err)
			}
			return
		}
		id := r.Header.Get("X-Id")
		f.mu.Lock()
		f.begun[id]++
		f.mu.Unlock()
		f.inspectHead(id, r)
		if r.Header.Get("X-Answer") == "early" {
			_, _ = io.WriteString(c, "HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // not whole: nobody acts on it
		}
		n, _ := strconv.Atoi(r.Header.Get("X-Body"))
		if want := patternOf(id, max(n, 0)); string(body) != want {
			f.complain("%s reached the provider with a body of %d bytes, want %d: %.80q", id, len(body), len(want), body)
		}
		if in.Buffered() > 0 {
			f.complain("%s was followed by more on its connection", id)
		}
		if !f.answer(c, in, r, id) {
			return
		}
	}
}

// inspectHead looks for exactly one credential, the org's own.
func (f *faultWorld) inspectHead(id string, r *http.Request) {
	_, org, _ := strings.Cut(id, "/")
	org, _, _ = strings.Cut(org, "/")
	if strings.HasPrefix(id, "acme/") || strings.HasPrefix(id, "globex/") {
		org, _, _ = strings.Cut(id, "/")
	}
	want := map[string][2]string{
		"acme api.vapi.ai": {"Bearer vapi-private-acme-0001"}, "globex api.vapi.ai": {"Bearer vapi-private-globex-01"},
		"acme api.elevenlabs.io": {"", "sk_acme_0123456789abcdef"},
	}[org+" "+r.Host]
	got := [2]string{strings.Join(r.Header["Authorization"], "|"), strings.Join(r.Header["Xi-Api-Key"], "|")}
	if got != want || want == [2]string{} {
		f.complain("%s reached %s with the credentials %q, want %q", id, r.Host, got, want)
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "Keyward-") {
			f.complain("%s reached the provider with %s", id, name)
		}
	}
}

// answer says whether the connection stays.
func (f *faultWorld) answer(c net.Conn, in *bufio.Reader, r *http.Request, id string) bool {
	size, _ := strconv.Atoi(r.Header.Get("X-Size"))
	body := patternOf(id, size)
	send := func(s string) bool { _, err := io.WriteString(c, s); return err == nil }
	switch r.Header.Get("X-Answer") {
	case "upgrade":
		if !send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n") {
			return false
		}
		buf := make([]byte, 4096)
		for got := 0; got < size; {
			n, err := in.Read(buf)
			if n > 0 && string(buf[:n]) != body[got:min(got+n, size)] {
				f.complain("%s: other bytes came through the tunnel", id)
			}
			got += n
			if _, werr := c.Write(buf[:n]); err != nil || werr != nil {
				return false
			}
		}
		_, _ = in.ReadByte() // until the other side has gone
		return false
	case "none":
		return send("HTTP/1.1 204 No Content\r\n\r\n")
	case "until close":
		if r.Method == "HEAD" {
			body = ""
		}
		_ = send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/plain\r\n\r\n" + body)
		if t, ok := c.(*tls.Conn); ok {
			_ = t.CloseWrite()
		}
		return false
	case "chunked":
		out := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
		if r.Method == "HEAD" {
			return send(out)
		}
		for rest := body; rest != ""; {
			n := min(len(rest), 9000)
			out += fmt.Sprintf("%x\r\n%s\r\n", n, rest[:n])
			rest = rest[n:]
		}
		return send(out + "0\r\n\r\n")
	}
	out := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(body))
	if r.Method != "HEAD" {
		out += body
	}
	return send(out)
}
