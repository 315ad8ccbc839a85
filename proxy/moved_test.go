package proxy

import (
	"context"
	"net"
	"net/url"
	"testing"
)

// A SIGHUP moves a host while a request of it is dialling: whose pool does the connection get into?
func TestAConnectionStaysWithItsAddress(t *testing.T) {
	old := newPeer(t, false)
	old.answer = func(int, string) string {
		return "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nold"
	}
	next := newPeer(t, false)
	next.answer = func(int, string) string {
		return "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nnew"
	}
	w := newWorld(t, old.url)
	u := w.p.at([]byte("api.resend.com"))
	in, out := make(chan bool), make(chan bool)
	real := u.connect
	u.connect = func(ctx context.Context, n, a string) (net.Conn, error) {
		close(in)
		<-out
		return real(ctx, n, a)
	}
	res := make(chan string, 1)
	go func() {
		resp := w.raw("unix", "GET /resend/domains HTTP/1.1\r\nHost: x\r\nKeyward-Org: acme\r\nConnection: close\r\n\r\n")
		res <- bodyOf(resp)
	}()
	<-in
	to, _ := url.Parse(next.url)
	if err := w.p.SetUpstreams(map[string]*url.URL{"api.resend.com": to}); err != nil {
		t.Fatal(err)
	}
	close(out)
	t.Logf("first: %s", <-res)
	for range 3 {
		resp := w.raw("unix", "GET /resend/domains HTTP/1.1\r\nHost: x\r\nKeyward-Org: globex\r\nConnection: close\r\n\r\n")
		if b := bodyOf(resp); b != "new" {
			t.Errorf("a request of another org after the change went to the former address: %q", b)
		}
	}
}
