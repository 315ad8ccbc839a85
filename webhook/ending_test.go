package webhook

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// A late listener has its taker wait, as one that gets no processor does.
type late struct {
	*net.TCPListener
	hold chan struct{}
}

func (l *late) Accept() (net.Conn, error) { <-l.hold; return l.TCPListener.Accept() }

// lateListener is served, at w's address, until the end begins; nobody is taken from it before hold is closed.
func lateListener(t *testing.T, w *world) (last func() bool, hold chan struct{}) {
	t.Helper()
	nl := &late{listenTCP(t), make(chan struct{})}
	w.url = "http://" + nl.Addr().String()
	go func() { _ = w.s.Serve(nl) }()
	var l *listener
	eventually(t, "it is served", func() bool {
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		i := slices.IndexFunc(w.s.listeners, func(l *listener) bool { return l.Listener == net.Listener(nl) })
		if i >= 0 {
			l = w.s.listeners[i]
		}
		return i >= 0
	})
	return l.last.Load, nl.hold
}

func listenTCP(t *testing.T) *net.TCPListener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l.(*net.TCPListener)
}

func (w *world) end() <-chan error {
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		ended <- w.s.Shutdown(ctx)
	}()
	return ended
}

// send has connected when it returns; what comes is the answer's status, 0 if there is none.
func (w *world) send() <-chan int {
	w.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		w.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	got := make(chan int, 1)
	go func() {
		defer close(got)
		defer func() { _ = c.Close() }()
		body := request("tool-calls", "")
		_, _ = fmt.Fprintf(c, "POST /webhooks/vapi/acme HTTP/1.1\r\nHost: hooks.example\r\n%s\r\nContent-Length: %d\r\n\r\n%s", acmeSecret, len(body), body)
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
			got <- resp.StatusCode
		}
	}()
	return got
}

// Who has connected when the end begins is served, also when it takes a while until somebody gets to it.
func TestWhoHasConnectedIsServedHoweverLate(t *testing.T) {
	w := newWorld(t)
	last, hold := lateListener(t, w)
	got := w.send()
	ended := w.end()
	eventually(t, "the end begins", last)
	time.Sleep(3 * aMoment)
	close(hold)
	if status := <-got; status != 200 {
		t.Errorf("it had connected: %d", status)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// One that is accepted as the last thing that a listener does is waited for.
func TestTheEndWaitsForTheLastOneAccepted(t *testing.T) {
	w := newWorld(t)
	asked, over := make(chan struct{}), make(chan struct{})
	w.app.answers(func(http.ResponseWriter, *http.Request) { close(asked); <-over })
	last, hold := lateListener(t, w)
	ended := w.end()
	eventually(t, "the end begins", last)
	var got <-chan int
	func() {
		w.s.mu.Lock()
		defer w.s.mu.Unlock()
		time.Sleep(50 * time.Millisecond) // so that the end waits for us to say whether there are listeners
		got = w.send()
		close(hold)
		eventually(t, "it is accepted", func() bool { return w.s.conns.count() == 1 })
		w.s.listeners = nil // as the last listener leaves them
	}()
	<-asked
	select {
	case err := <-ended:
		t.Errorf("it has ended with a message under way: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	close(over)
	if status := <-got; status != 200 {
		t.Error(status)
	}
}

// A listener whose turn comes after the end has begun, or after all was closed since a later step of the start failed, does not serve for ever.
func TestListenerThatComesTooLate(t *testing.T) {
	for about, end := range map[string]func(w *world){
		"ended":  func(w *world) { <-w.end() },
		"closed": func(w *world) { w.s.Close() },
	} {
		w := newWorld(t)
		end(w)
		l := listenTCP(t)
		served := make(chan error, 1)
		go func() { served <- w.s.Serve(l) }()
		select {
		case err := <-served:
			if err != nil {
				t.Errorf("%s: it ended with an error: %v", about, err)
			}
		case <-time.After(10 * time.Second):
			_ = l.Close()
			t.Errorf("%s: it serves", about)
		}
	}
}

// What arrives on a connection that is being closed is not done: its provider would not hear of it.
func TestNothingIsReadFromAConnectionThatIsClosed(t *testing.T) {
	near, far := net.Pipe()
	defer func() { _ = far.Close() }()
	s := &Server{}
	c := &conn{Conn: near, s: s}
	c.idleSince.Store(1)
	s.conns.add(c)
	go func() { _, _ = far.Write([]byte("POST")) }()
	if n, err := c.Read(make([]byte, 8)); n != 4 || err != nil {
		t.Fatalf("read %d bytes: %v", n, err)
	}
	if s.conns.closeIdle(time.Now()) != 1 {
		t.Error("a connection on which a request has just arrived was closed")
	}
	c.idleSince.Store(claimed)
	go func() { _, _ = far.Write([]byte("POST")) }()
	if n, err := c.Read(make([]byte, 8)); n > 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("read %d bytes: %v", n, err)
	}
}
