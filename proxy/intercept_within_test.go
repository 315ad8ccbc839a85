package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/ca"
	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/store"
)

// TestAnExpiredLeafIsReplaced: one that has ended is refused by the app and said in the log, and the next CONNECT gets another.
func TestAnExpiredLeafIsReplaced(t *testing.T) {
	var behind atomic.Int64
	i := newInterceptor(t, newPeer(t, true).url)
	i.leaves = ca.NewLeaves(i.leaves.Authority(), func() time.Time { return time.Now().Add(-time.Duration(behind.Load())) })
	i.p.intercept.Certificate = i.leaves.For
	behind.Store(int64(30 * time.Hour))
	_, conn := i.connect("unix", "api.resend.com:443", basic("x", "acme"))
	var invalid x509.CertificateInvalidError
	if _, err := i.tls(conn, "api.resend.com"); !errors.As(err, &invalid) || invalid.Reason != x509.Expired {
		t.Fatalf("a leaf that has ended: %v", err)
	}
	waitFor(t, func() bool {
		return strings.Contains(i.logs.String(), "start") && strings.Contains(i.logs.String(), `"upstream":"api.resend.com"`)
	})
	behind.Store(0)
	if resp := ask(t, i.within("unix", "api.resend.com", basic("x", "acme")), "GET /domains HTTP/1.1\r\nHost: api.resend.com\r\n\r\n"); resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
}

// TestARevokedTokenEndsWithinConnect: a tunnel that is open is no licence.
func TestARevokedTokenEndsWithinConnect(t *testing.T) {
	up := newPeer(t, true)
	i := newInterceptor(t, up.url)
	token := i.token(store.Token{ID: "t1", Name: "worker"})
	c := i.within("tcp", "api.resend.com", basic(token, "acme"))
	const request = "GET /domains HTTP/1.1\r\nHost: api.resend.com\r\n\r\n"
	if resp := ask(t, c, request); resp.StatusCode != 200 || bodyOf(resp) != "ok" {
		t.Fatal(resp.Status)
	}
	i.rows.mu.Lock()
	delete(i.rows.tokens, caller.HashToken([]byte(token)))
	i.rows.mu.Unlock()
	if resp := ask(t, c, request); resp.StatusCode != 401 {
		t.Errorf("revoked: %s", resp.Status)
	}
	if n, _ := up.count(); n != 1 {
		t.Errorf("%d requests arrived", n)
	}
}

// TestAnAssistantWithinConnectIsWhoseItIsNow: one that CONNECT has named is looked up for each request, as it is without a tunnel.
func TestAnAssistantWithinConnectIsWhoseItIsNow(t *testing.T) {
	up := newPeer(t, true)
	i := newInterceptor(t, up.url)
	c := i.within("unix", "api.resend.com", "Keyward-Assistant: asst_1\r\n")
	const request = "GET /domains HTTP/1.1\r\nHost: api.resend.com\r\n\r\n"
	is := func(key string) {
		t.Helper()
		if resp := ask(t, c, request); resp.StatusCode != 200 || bodyOf(resp) != "ok" {
			t.Fatal(resp.Status)
		}
		if a := headerOf(up.last(), "Authorization"); a != "Bearer "+key {
			t.Errorf("went out with %q", a)
		}
	}
	maps := func(a *store.Assistant) {
		i.rows.mu.Lock()
		defer i.rows.mu.Unlock()
		i.rows.assistants["asst_1"] = a
	}
	is("re_acme_0123456789")
	maps(&store.Assistant{ID: "asst_1", Org: "globex"})
	is("re_globex_0123456789")
	if resp := ask(t, c, strings.Replace(request, "\r\n\r\n", "\r\nKeyward-Org: acme\r\n\r\n", 1)); problemCode(resp) != "org_conflict" {
		t.Error(resp.Status)
	} else {
		_ = bodyOf(resp)
	}
	maps(nil)
	if resp := ask(t, c, request); problemCode(resp) != "unknown_assistant" {
		t.Error(resp.Status)
	}
}

// TestRulesHoldWithinConnect: route and rate are asked of each request.
func TestRulesHoldWithinConnect(t *testing.T) {
	i := newInterceptor(t, newPeer(t, true).url)
	token := i.token(store.Token{ID: "t1", Name: "worker", Allow: []string{"GET /domains"}})
	c := i.within("tcp", "api.resend.com", basic(token, "acme"))
	if resp := ask(t, c, "GET /domains HTTP/1.1\r\nHost: api.resend.com\r\n\r\n"); resp.StatusCode != 200 || bodyOf(resp) != "ok" {
		t.Fatal(resp.Status)
	}
	if resp := ask(t, c, "GET /emails HTTP/1.1\r\nHost: api.resend.com\r\n\r\n"); problemCode(resp) != "route_forbidden" {
		t.Error(resp.Status)
	}
}

// TestAWebSocketWithinConnect outlives the server's interest in the connection.
func TestAWebSocketWithinConnect(t *testing.T) {
	up := newPeer(t, true)
	up.handler = func(c net.Conn, _ *bufio.Reader, _ string) {
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(c, c)
	}
	i := newInterceptor(t, up.url)
	c := i.within("unix", "api.elevenlabs.io", basic("x", "acme"))
	resp := ask(t, c, "GET /v1/convai HTTP/1.1\r\nHost: api.elevenlabs.io\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	if resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	for range 3 {
		if _, err := io.WriteString(c, "frame"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != "frame" {
			t.Fatalf("%q %v", b, err)
		}
	}
	_ = c.Close()
	waitFor(t, func() bool { return i.p.Numbers().Connections == 0 })
}

// TestAGoneAppCancelsWithinConnect: who waits within a tunnel and goes away takes the provider's request along.
func TestAGoneAppCancelsWithinConnect(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		up := newPeer(t, true)
		gone := make(chan error, 1)
		asked := make(chan struct{})
		up.handler = func(c net.Conn, br *bufio.Reader, _ string) {
			close(asked)
			_, err := br.ReadByte()
			gone <- err
		}
		i := newInterceptor(t, up.url)
		headers := basic("x", "acme")
		if network == "tcp" {
			headers = basic(i.token(store.Token{ID: "t1", Name: "w"}), "acme")
		}
		c := i.within(network, "api.resend.com", headers)
		_, _ = io.WriteString(c, "POST /emails HTTP/1.1\r\nHost: api.resend.com\r\nContent-Length: 2\r\n\r\nhi")
		<-asked
		_ = c.Close()
		select {
		case <-gone:
		case <-time.After(time.Minute):
			t.Errorf("%s: the provider still works on it", network)
		}
	}
}

// TestACutAnswerIsCutWithinConnect: TLS must not say farewell behind half an answer.
func TestACutAnswerIsCutWithinConnect(t *testing.T) {
	up := newPeer(t, true)
	up.handler = func(c net.Conn, _ *bufio.Reader, _ string) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\nhalf")
	}
	i := newInterceptor(t, up.url)
	c := i.within("tcp", "api.resend.com", basic(i.token(store.Token{ID: "t1", Name: "w"}), "acme"))
	_, _ = io.WriteString(c, "GET /domains HTTP/1.1\r\nHost: api.resend.com\r\n\r\n")
	b, err := io.ReadAll(c)
	if err == nil {
		t.Errorf("ended as if it were whole: %q", b)
	}
}

// TestADrainEndsTunnels: a tunnel between two requests does not hold up the end; one that is asked is told that it is the last.
func TestADrainEndsTunnels(t *testing.T) {
	i := newInterceptor(t, newPeer(t, true).url)
	c := i.within("unix", "api.resend.com", basic("x", "acme"))
	const request = "GET /domains HTTP/1.1\r\nHost: api.resend.com\r\n\r\n"
	if resp := ask(t, c, request); resp.Close {
		t.Fatal("closed too early")
	}
	i.p.Drain()
	if resp := ask(t, c, request); resp.StatusCode != 200 || !resp.Close {
		t.Errorf("%s, close: %v", resp.Status, resp.Close)
	}
	idle := i.within("unix", "api.resend.com", basic("x", "acme"))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := i.p.Shutdown(ctx); err != nil {
		t.Errorf("a silent tunnel holds up the end: %v", err)
	}
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("still open")
	}
}

func TestSlowTLSIsCutOff(t *testing.T) {
	i := newInterceptor(t, "", func(o *Options) { o.HeadTimeout = time.Second })
	_, c := i.connect("unix", "api.resend.com:443", basic("x", "acme"))
	_ = c.SetReadDeadline(time.Now().Add(8 * time.Second))
	if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a client that never begins TLS is waited for")
	}
}

// TestASessionTakenUpAgainIsHeldToItsName: the certificate is not looked at then, the name is.
func TestASessionTakenUpAgainIsHeldToItsName(t *testing.T) {
	i := newInterceptor(t, newPeer(t, true).url)
	cache := tls.NewLRUClientSessionCache(1)
	for n, host := range []string{"api.resend.com", "api.resend.com", "api.twilio.com"} {
		_, conn := i.connect("unix", host+":443", basic("x", "acme"))
		tc, err := i.tls(conn, "api.resend.com", func(o *tls.Config) { o.ClientSessionCache, o.InsecureSkipVerify = cache, true })
		if err != nil {
			t.Fatal(err)
		}
		if tc.ConnectionState().DidResume != (n > 0) {
			t.Errorf("%d: taken up again: %v", n, tc.ConnectionState().DidResume)
		}
		want := 200
		if n == 2 {
			want = 421
		}
		if resp := ask(t, tc, "GET /domains HTTP/1.1\r\nHost: "+host+"\r\n\r\n"); resp.StatusCode != want {
			t.Errorf("%d: %s", n, resp.Status)
		}
	}
}
