package webhook

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A rawApp is an app that a test speaks for: serve gets each connection, and closes it.
type rawApp struct {
	*lane
	connections atomic.Int64
	requests    atomic.Int64 // that were read whole
}

func newRawApp(t *testing.T, serve func(a *rawApp, c net.Conn, r *bufio.Reader)) *rawApp {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := &rawApp{lane: &lane{network: "tcp", address: l.Addr().String()}}
	t.Cleanup(func() { _ = l.Close(); a.close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			a.connections.Add(1)
			go func() {
				defer func() { _ = c.Close() }()
				serve(a, c, bufio.NewReader(c))
			}()
		}
	}()
	return a
}

// reads reads a request whole; false: there is none.
func (a *rawApp) reads(r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	if _, err := io.Copy(io.Discard, req.Body); err != nil {
		return false
	}
	a.requests.Add(1)
	return true
}

// post sends a body and returns what comes back.
func (a *rawApp) post(ctx context.Context, body []byte) (status int, text string, err error) {
	until, _ := ctx.Deadline()
	got, err := a.ask(ctx, a.question("POST", body, until))
	if err != nil {
		return 0, "", err
	}
	status = got.StatusCode()
	whole, err := io.ReadAll(got)
	_ = got.Close()
	return status, string(whole), err
}

func (a *rawApp) question(method string, body []byte, until time.Time) *question {
	return &question{method: method, to: target{host: a.address, path: "/"}, lines: func(lineWriter) {}, body: body, until: until}
}

func (a *rawApp) answers(t *testing.T, want string) {
	t.Helper()
	if status, got, err := a.post(t.Context(), []byte("{}")); err != nil || status != 200 || got != want {
		t.Fatalf("%d %q %v, want %q", status, got, err, want)
	}
}

func keeps(a *rawApp, c net.Conn, r *bufio.Reader) {
	for a.reads(r) {
		_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

func TestConnectionsToTheAppAreKept(t *testing.T) {
	a := newRawApp(t, keeps)
	for range 20 {
		a.answers(t, "ok")
	}
	if n := a.connections.Load(); n != 1 {
		t.Errorf("%d connections for requests one after the other", n)
	}
	a.mu.Lock()
	a.idle[0].since = time.Now().Add(-2 * idleApp)
	a.mu.Unlock()
	a.answers(t, "ok")
	if n := a.connections.Load(); n != 2 {
		t.Errorf("%d connections: one that was idle for long is used again", n)
	}
	a.mu.Lock()
	c := a.idle[0]
	c.since = time.Now().Add(-2 * idleApp)
	a.mu.Unlock()
	a.expire()
	if _, err := c.Conn.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("one that was idle for long is not closed: %v", err)
	}
}

// What an app sends that nobody asked for is not taken for the next answer, which is another org's.
func TestNobodyGetsWhatWasNotAskedFor(t *testing.T) {
	a := newRawApp(t, func(a *rawApp, c net.Conn, r *bufio.Reader) {
		a.reads(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
		_, _ = io.Copy(io.Discard, r)
	})
	for range 20 {
		a.answers(t, "ok")
	}
}

// Whatever was sent may have been acted on: it is not sent again.
func TestARequestIsSentOnce(t *testing.T) {
	a := newRawApp(t, func(a *rawApp, c net.Conn, r *bufio.Reader) {
		if a.reads(r) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			a.reads(r) // and closes without an answer
		}
	})
	a.answers(t, "ok")
	if _, _, err := a.post(t.Context(), []byte("{}")); err == nil {
		t.Error("answered, though the app did not")
	}
	if n := a.requests.Load(); n != 2 {
		t.Errorf("the app got %d requests of two", n)
	}
}

// Whoever finds the connection closed when nothing was written yet opens another.
func TestAClosedConnectionCostsNoRequest(t *testing.T) {
	var leave atomic.Bool
	left := make(chan struct{}, 1)
	a := newRawApp(t, func(a *rawApp, c net.Conn, r *bufio.Reader) {
		for a.reads(r) {
			last := leave.Swap(false)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			if last {
				_ = c.Close()
				left <- struct{}{}
				return
			}
		}
	})
	for range 10 {
		leave.Store(true)
		a.answers(t, "ok")
		<-left
		for deadline := time.Now().Add(10 * time.Second); a.idle[0].quiet(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("that the app has closed the connection is not seen")
			}
		}
		a.answers(t, "ok")
		a.mu.Lock()
		_ = a.idle[0].Conn.(*net.TCPConn).CloseWrite() // writing fails, and nothing shows that before
		a.mu.Unlock()
		a.answers(t, "ok")
	}
	if n := a.requests.Load(); n != 30 {
		t.Errorf("the app got %d requests of 30", n)
	}
}

func TestALongRequestMayBeAnsweredEarly(t *testing.T) {
	a := newRawApp(t, func(_ *rawApp, c net.Conn, r *bufio.Reader) {
		_, _ = r.Peek(1)
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nlong")
		time.Sleep(100 * time.Millisecond)
		_, _ = io.Copy(io.Discard, r)
	})
	for range 5 {
		status, got, err := a.post(t.Context(), make([]byte, 16<<20))
		if err != nil || status != 413 || got != "long" {
			t.Fatalf("%d %q %v", status, got, err)
		}
	}
	if n := a.connections.Load(); n != 5 {
		t.Errorf("%d connections: one is used again that a request was not written whole to", n)
	}
	got := make(chan int, 1)
	whole := newRawApp(t, func(a *rawApp, c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		b, _ := io.ReadAll(req.Body)
		got <- len(b)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok")
	})
	if status, text, err := whole.post(t.Context(), make([]byte, 1<<20)); status != 200 || text != "ok" || err != nil || <-got != 1<<20 {
		t.Errorf("%d %q %v", status, text, err)
	}
}

func TestAnAnswersHeadIsBounded(t *testing.T) {
	head := ""
	a := newRawApp(t, func(a *rawApp, c net.Conn, r *bufio.Reader) {
		a.reads(r)
		_, _ = io.WriteString(c, head)
		_, _ = io.Copy(io.Discard, r)
	})
	for name, bad := range map[string]string{
		"endless":      "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 2*maxAppHead),
		"no HTTP":      "SSH-2.0-OpenSSH\r\n",
		"no HTTP, LF":  "SSH-2.0-OpenSSH\n",
		"only interim": strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 2*maxInterim),
	} {
		head = bad
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if _, _, err := a.post(ctx, []byte("{}")); err == nil || ctx.Err() != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
	head = "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", maxAppHead/2) + "\r\nContent-Length: " + "200000\r\n\r\n" + strings.Repeat("b", 200000)
	if _, got, err := a.post(t.Context(), []byte("{}")); err != nil || len(got) != 200000 {
		t.Errorf("a long body: %d bytes, %v", len(got), err)
	}
}

// An answer whose reading ends early, or that is given up, leaves no connection that goes on.
func TestWhatIsNotReadIsNotKept(t *testing.T) {
	begun, closed := make(chan struct{}, 10), make(chan struct{}, 10)
	a := newRawApp(t, func(a *rawApp, c net.Conn, r *bufio.Reader) {
		a.reads(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
		begun <- struct{}{}
		_, _ = io.Copy(io.Discard, r)
		closed <- struct{}{}
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("nobody waits")
	go func() { <-begun; cancel(gone) }()
	if _, _, err := a.post(ctx, []byte("{}")); !errors.Is(err, gone) {
		t.Errorf("%v, want %v", err, gone)
	}
	<-closed
	got, err := a.ask(t.Context(), a.question("GET", nil, time.Time{}))
	if err != nil {
		t.Fatal(err)
	}
	_ = got.Close()
	<-closed
	if c := a.last(); c != nil {
		t.Error("a connection is kept on which an answer is still to come")
	}
}
