package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/store"
)

// shortOf is a listener that runs out of something a few times.
type shortOf struct {
	net.Listener
	err  error
	left atomic.Int32
}

func (s *shortOf) Accept() (net.Conn, error) {
	if s.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", s.err)}
	}
	return s.Listener.Accept()
}

// TestShortageIsNotTheEnd: a listener outlives a lack of descriptors and of buffers.
func TestShortageIsNotTheEnd(t *testing.T) {
	peer := newPeer(t, true)
	for _, err := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ECONNABORTED} {
		w := newWorld(t, peer.url)
		ln, lerr := net.Listen("tcp", "127.0.0.1:0")
		if lerr != nil {
			t.Fatal(lerr)
		}
		s := &shortOf{Listener: ln, err: err}
		s.left.Store(3)
		ended := make(chan error, 1)
		go func() { ended <- w.p.Serve(&Listener{Listener: s}) }()
		w.tcp = ln.Addr().String()
		resp := w.raw("tcp", "GET /vapi/x HTTP/1.1\r\n"+orgLine+"Keyward-Token: "+w.token(anyToken)+"\r\n\r\n")
		if resp.StatusCode != 200 {
			t.Errorf("%v: status %d", err, resp.StatusCode)
		}
		select {
		case e := <-ended:
			t.Errorf("%v ended the listener: %v", err, e)
		default:
		}
		if !strings.Contains(w.logs.String(), "file descriptors") {
			t.Errorf("%v: nothing in the log", err)
		}
	}
}

// TestListenerThatComesTooLate: one whose turn comes after the proxy was told to stop does not serve for ever.
func TestListenerThatComesTooLate(t *testing.T) {
	w := newWorld(t, "")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := w.p.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.p.Serve(&Listener{Listener: ln}) }()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with an error: %v", err)
		}
	case <-time.After(30 * time.Second):
		_ = ln.Close()
		t.Error("it serves")
	}
}

// TestListenerToldTwiceToEnd: who stops the proxy a second time does not give a listener longer, and does not change what its Accept reads.
func TestListenerToldTwiceToEnd(t *testing.T) {
	w := newWorld(t, "")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &Listener{Listener: ln}
	l.prepare(w.p, func() {})
	t.Cleanup(func() { _ = l.Close() })
	l.finish()
	first := l.until
	l.finish()
	if first.IsZero() || !l.until.Equal(first) {
		t.Errorf("it ended at %v at the latest, then at %v", first, l.until)
	}
}

// TestListenerClosedAsItBegins: a start that fails at a later step closes listeners that are only just being served.
func TestListenerClosedAsItBegins(t *testing.T) {
	w := newWorld(t, "")
	for range 200 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l := &Listener{Listener: ln}
		ended := make(chan error, 1)
		go func() { ended <- w.p.Serve(l) }()
		_ = l.Close()
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("it ended with an error: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("it serves")
		}
	}
}

// TestConnectionsAreCapped: one connection too many waits, and is served once another has gone.
func TestConnectionsAreCapped(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url, func(o *Options) { o.MaxConns = 2 })
	first, second := w.dial("unix"), w.dial("unix")
	for _, c := range []net.Conn{first, second} {
		_, _ = io.WriteString(c, "GET /vapi/x HTTP/1.1\r\n"+orgLine+"\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
	}
	third := w.dial("unix")
	_, _ = io.WriteString(third, "GET /vapi/x HTTP/1.1\r\n"+orgLine+"\r\n")
	_ = third.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := third.Read(make([]byte, 1)); err == nil {
		t.Fatalf("a third connection was served: %d bytes", n)
	}
	_ = first.Close()
	_ = third.SetReadDeadline(time.Now().Add(30 * time.Second))
	if resp, err := http.ReadResponse(bufio.NewReader(third), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("after one had gone: %v %v", resp, err)
	}
}

// Who has left while there was no room is not served any more: their requests would be asked of the provider for nobody.
func TestWhoLeftTheQueueIsNotServed(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			peer := newPeer(t, true)
			w := newWorld(t, peer.url, func(o *Options) { o.MaxConns = 1 })
			head := "GET /vapi/x HTTP/1.1\r\n" + orgLine
			if network == "tcp" {
				head += "Keyward-Token: " + w.token(store.Token{Name: "app"}) + "\r\n"
			}
			ask := func() net.Conn {
				c := w.dial(network)
				_, _ = io.WriteString(c, head+"\r\n")
				return c
			}
			first := ask()
			if _, err := http.ReadResponse(bufio.NewReader(first), nil); err != nil {
				t.Fatal(err)
			}
			for range 20 {
				_ = ask().Close()
			}
			last := ask()
			_ = first.Close()
			_ = last.SetReadDeadline(time.Now().Add(30 * time.Second))
			if resp, err := http.ReadResponse(bufio.NewReader(last), nil); err != nil || resp.StatusCode != 200 {
				t.Fatalf("who waits is not served: %v %v", resp, err)
			}
			if n, _ := peer.count(); n != 2 {
				t.Errorf("the provider was asked %d times, of which two for somebody", n)
			}
		})
	}
}

// TestPeerRules: the kernel says who is at the other end of the socket, and the rules what they may.
func TestPeerRules(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	me, other := uint32(os.Getuid()), uint32(os.Getuid())+1
	ask := func(line string) string {
		resp := w.raw("unix", line+" HTTP/1.1\r\n"+orgLine+"\r\n")
		return problemCode(resp)
	}
	expect := func(what, line, want string) {
		t.Helper()
		if got := ask(line); got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	unix := func(uid uint32) caller.Unix { return caller.Unix{UID: &uid} }
	expect("no rules at all, own uid", "GET /vapi/x", "")
	w.callers(caller.Spec{Name: "other", Unix: unix(other), Orgs: []string{"*"}})
	expect("no rule for this uid", "GET /vapi/x", "caller_unauthenticated")
	w.callers(caller.Spec{Name: "me", Unix: unix(me), Orgs: []string{"globex"}})
	expect("another org's rule", "GET /vapi/x", "org_forbidden")
	w.callers(caller.Spec{Name: "me", Unix: unix(me), Orgs: []string{"acme"}, Providers: []string{"twilio"}})
	expect("another provider's rule", "GET /vapi/x", "provider_forbidden")
	w.callers(caller.Spec{Name: "me", Unix: unix(me), Orgs: []string{"acme"}, Allow: []string{"POST /call"}})
	expect("another route", "GET /vapi/assistant", "route_forbidden")
	expect("another method", "GET /vapi/call", "route_forbidden")
	expect("the route", "POST /vapi/call", "")
	expect("a method overridden in the query", "POST /vapi/call?%24httpMethod=DELETE", "route_forbidden")
	if resp := w.raw("unix", "POST /vapi/call HTTP/1.1\r\n"+orgLine+"X-HTTP-Method-Override: DELETE\r\n\r\n"); problemCode(resp) != "route_forbidden" {
		t.Errorf("an overridden method: %d", resp.StatusCode)
	}
	w.callers(caller.Spec{Name: "first", Unix: unix(me), Orgs: []string{"globex"}}, caller.Spec{Name: "second", Unix: unix(me), Orgs: []string{"acme"}})
	expect("the first rule that fits counts", "GET /vapi/x", "org_forbidden")
	w.callers(caller.Spec{Name: "me", Unix: unix(me), Orgs: []string{"*"}, Rate: "1/h"})
	expect("within the rate", "GET /vapi/x", "")
	expect("over the rate", "GET /vapi/x", "rate_limited")
	w.callers(caller.Spec{Name: "me", Unix: unix(me), Orgs: []string{"acme"}})
	if resp := w.raw("unix", "GET /vapi/x HTTP/1.1\r\nHost: localhost\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("the caller's only org: %d %s", resp.StatusCode, problemCode(resp))
	}
}

// TestRevokedTokenIsForgotten: a token that the store no longer knows is refused, whatever was compiled from it.
func TestRevokedTokenIsForgotten(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	token := w.token(store.Token{Name: "t"})
	head := "GET /vapi/x HTTP/1.1\r\n" + orgLine + "Authorization: Bearer " + token + "\r\n\r\n"
	if resp := w.raw("tcp", head); resp.StatusCode != 200 {
		t.Fatalf("status %d", resp.StatusCode)
	}
	clear(w.rows.tokens)
	if resp := w.raw("tcp", head); problemCode(resp) != "caller_unauthenticated" {
		t.Errorf("after its revocation: %d", resp.StatusCode)
	}
}

func TestStoreDown(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	w.rows.err = store.ErrUnavailable
	resp := w.raw("unix", "GET /vapi/x HTTP/1.1\r\n"+orgLine+"\r\n")
	if resp.StatusCode != 503 || problemCode(resp) != "store_unavailable" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %q, Retry-After %q", resp.StatusCode, problemCode(resp), resp.Header.Get("Retry-After"))
	}
}

// A connection on which nothing was asked ends without a word: a client that had it ready would take a refusal for its answer. One that began to ask is
// told.
func TestNothingAskedIsNotAnswered(t *testing.T) {
	w := newWorld(t, "", func(o *Options) { o.HeadTimeout = 700 * time.Millisecond })
	for _, at := range [][2]string{{"unix", w.socket}, {"tcp", w.tcp}} {
		for sent, want := range map[string]string{"": "", "P": "HTTP/1.1 400 Bad Request\r\n"} {
			c, err := net.Dial(at[0], at[1])
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, sent)
			_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
			got, err := io.ReadAll(c)
			if err != nil || !strings.HasPrefix(string(got), want) || want == "" && len(got) > 0 {
				t.Errorf("%s, after %q: %q, %v", at[0], sent, got, err)
			}
			_ = c.Close()
		}
	}
	if n := w.p.Stats().Refused.Load(); n != 2 {
		t.Errorf("%d refused, not those 2 that had begun", n)
	}
}
