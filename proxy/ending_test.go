package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// A late listener has its taker wait, as one that gets no processor does.
type late struct {
	*net.UnixListener
	hold chan struct{}
}

func (l *late) Accept() (net.Conn, error) { <-l.hold; return l.UnixListener.Accept() }

// lateListener is served, and w's socket, until the end begins; nobody is taken from it before hold is closed.
func lateListener(t *testing.T, w *world) (l *Listener, hold chan struct{}, ended chan error) {
	t.Helper()
	w.socket = filepath.Join(t.TempDir(), "l")
	ln, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	hold = make(chan struct{})
	l = &Listener{Listener: &late{ln.(*net.UnixListener), hold}}
	go func() { _ = w.p.Serve(l) }()
	waitFor(t, func() bool { w.p.mu.Lock(); defer w.p.mu.Unlock(); return slices.Contains(w.p.listeners, l) })
	return l, hold, make(chan error, 1)
}

func (w *world) end(ended chan<- error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ended <- w.p.Shutdown(ctx)
}

// answered asks on a connection, and says what came of it.
func answered(c net.Conn) <-chan error {
	got := make(chan error, 1)
	_, _ = io.WriteString(c, "GET /vapi/x HTTP/1.1\r\n"+orgLine+"\r\n")
	go func() {
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil && resp.StatusCode != 200 {
			err = errors.New(resp.Status)
		}
		_ = c.Close()
		got <- err
	}()
	return got
}

// Who has connected when the end begins is served, also when it takes a while until somebody gets to it.
func TestWhoHasConnectedIsServedHoweverLate(t *testing.T) {
	w := newWorld(t, newPeer(t, true).url)
	l, hold, ended := lateListener(t, w)
	var all []<-chan error
	for range 5 {
		all = append(all, answered(w.dial("unix")))
	}
	go w.end(ended)
	waitFor(t, l.last.Load)
	time.Sleep(3 * aMoment)
	close(hold)
	for _, got := range all {
		if err := <-got; err != nil {
			t.Errorf("it had connected: %v", err)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// One that is accepted as the last thing that a listener does is waited for.
func TestTheEndWaitsForTheLastOneAccepted(t *testing.T) {
	peer := newPeer(t, true)
	over := make(chan struct{})
	peer.answer = func(int, string) string { <-over; return okAnswer }
	w := newWorld(t, peer.url)
	l, hold, ended := lateListener(t, w)
	go w.end(ended)
	waitFor(t, l.last.Load)
	var got <-chan error
	func() {
		w.p.mu.Lock()
		defer w.p.mu.Unlock()
		time.Sleep(50 * time.Millisecond) // so that the end waits for us to say whether there are listeners
		got = answered(w.dial("unix"))
		close(hold)
		waitFor(t, func() bool { return w.p.conns.count() == 1 })
		w.p.listeners = nil // as the last listener leaves them
	}()
	select {
	case err := <-ended:
		t.Errorf("it has ended with a request under way: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	close(over)
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// What arrives on a connection that is being closed is not done: nobody would hear of it.
func TestNothingIsReadFromAConnectionThatIsClosed(t *testing.T) {
	w := newWorld(t, "")
	near, far := net.Pipe()
	defer func() { _ = far.Close() }()
	c := newCallerConn(near, &Listener{p: w.p})
	c.idleSince.Store(claimed)
	go func() { _, _ = far.Write([]byte("POST")) }()
	if n, err := c.Read(make([]byte, 8)); n > 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("read %d bytes: %v", n, err)
	}
}
