package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/store"
)

// TestPassthroughIsUntouched: what is not HTTP, and not TLS, arrives as it is, both ways, and half-closes too.
func TestPassthroughIsUntouched(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				b, _ := io.ReadAll(c)
				_, _ = c.Write(append([]byte("got "), b...))
			}()
		}
	}()
	i := newInterceptor(t, "")
	dialled := make(chan string, 1)
	i.p.dialOut = func(ctx context.Context, network, address string) (net.Conn, error) {
		dialled <- address
		return (&net.Dialer{}).DialContext(ctx, network, l.Addr().String())
	}
	for _, host := range []string{"files.example:443", "a.b.cdn.example:8443"} {
		resp, c := i.connect("unix", host, "")
		if resp.StatusCode != 200 {
			t.Fatalf("%s: %s", host, resp.Status)
		}
		if _, err := io.WriteString(c, "\x00\n\r\n\nbare"); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || string(b) != "got \x00\n\r\n\nbare" {
			t.Errorf("%q %v", b, err)
		}
		if got := <-dialled; got != host {
			t.Errorf("dialled %s for %s", got, host)
		}
	}
	waitFor(t, func() bool { return strings.Contains(i.logs.String(), `"path":"files.example:443"`) })
	if logs := i.logs.String(); !strings.Contains(logs, `"bytes_in":9,"bytes_out":13`) {
		t.Errorf("log:\n%s", logs)
	}
}

// TestPassthroughReachesNothingPrivate: a name that is allowed and stands for an address of this machine or network is not dialled.
func TestPassthroughReachesNothingPrivate(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	i := newInterceptor(t, "", func(o *Options) { o.Intercept.Passthrough = []string{"localhost:" + port} })
	resp, _ := i.connect("unix", "localhost:"+port, "")
	if resp.StatusCode != 403 || problemCode(resp) != "host_forbidden" || !strings.Contains(bodyOf(resp), "public internet") {
		t.Errorf("%s %s", resp.Status, problemCode(resp))
	}
	// As a name resolves that its owner has changed.
	for _, address := range []string{
		"127.0.0.1:443", "[::1]:443", "10.0.0.1:443", "172.16.0.1:443", "192.168.1.1:443", "169.254.169.254:80", "[fe80::1]:443", "[fd00:ec2::254]:80",
		"100.100.100.200:80", "168.63.129.16:80", "192.0.0.192:80", "0.0.0.0:443", "[::]:443", "224.0.0.1:443", "255.255.255.255:443", "[::ffff:10.0.0.1]:443",
		"[64:ff9b::a9fe:a9fe]:80", "[2002:7f00:1::]:443", "[::7f00:1]:443", "[::ffff:0:a9fe:a9fe]:80",
	} {
		c, err := newDialer()(context.Background(), "tcp", address)
		if !IsPrivate(err) {
			t.Errorf("%s: %v", address, err)
		}
		if c != nil {
			_ = c.Close()
		}
	}
	for _, address := range []string{"1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1"} {
		if !isPublic(netip.MustParseAddr(address)) {
			t.Errorf("%s is refused", address)
		}
	}
}

// TestPassthroughIsCountedInTheRate: a tunnel that nobody looks into counts as one request, and what is served within CONNECT is counted there alone.
func TestPassthroughIsCountedInTheRate(t *testing.T) {
	i := newInterceptor(t, newPeer(t, true).url)
	var dialled atomic.Int64
	i.p.dialOut = func(context.Context, string, string) (net.Conn, error) {
		dialled.Add(1)
		c, _ := net.Pipe()
		return c, nil
	}
	token := basic(i.token(store.Token{ID: "t1", Name: "worker", Rate: "2/h"}), "acme")
	for range 3 {
		_ = i.within("tcp", "api.resend.com", token) // without a request
	}
	for n := range 2 {
		if resp, _ := i.connect("tcp", "files.example:443", token); resp.StatusCode != 200 {
			t.Fatalf("tunnel %d: %s %s", n+1, resp.Status, bodyOf(resp))
		}
	}
	resp, _ := i.connect("tcp", "files.example:443", token)
	if resp.StatusCode != 429 || problemCode(resp) != "rate_limited" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %s %s", resp.Status, problemCode(resp))
	}
	if n := dialled.Load(); n != 2 {
		t.Errorf("%d were dialled", n)
	}
	if resp := ask(t, i.within("tcp", "api.resend.com", token), "GET /domains HTTP/1.1\r\nHost: api.resend.com\r\n\r\n"); problemCode(resp) != "rate_limited" {
		t.Errorf("a request after them: %s", resp.Status)
	}
}

// TestAPassthroughTunnelEndsWithItsCaller, however it is that a request of the caller would be refused, and others' tunnels live on.
func TestAPassthroughTunnelEndsWithItsCaller(t *testing.T) {
	self := uint32(os.Geteuid())
	for name, c := range map[string]struct {
		network, code string
		end           func(i *interceptor, hash [32]byte)
	}{
		"a token that is revoked": {"tcp", "caller_unauthenticated", (*interceptor).revoke},
		"a token that nobody can confirm": {"tcp", "store_unavailable", func(i *interceptor, hash [32]byte) {
			i.rows.mu.Lock()
			defer i.rows.mu.Unlock()
			i.rows.says = func(asked [32]byte) error {
				if asked == hash {
					return store.ErrUnavailable
				}
				return nil
			}
		}},
		"a mistake of ours": {"tcp", "", func(i *interceptor, hash [32]byte) {
			i.rows.mu.Lock()
			defer i.rows.mu.Unlock()
			i.rows.says = func(asked [32]byte) error {
				if asked == hash {
					panic("of the test")
				}
				return nil
			}
		}},
		"a token beside a peer's rule": {"unix", "caller_unauthenticated", (*interceptor).revoke},
		"a peer's rule that is gone": {"unix", "caller_unauthenticated", func(i *interceptor, _ [32]byte) {
			other := self + 1
			i.callers(caller.Spec{Name: "other", Unix: caller.Unix{UID: &other}, Orgs: []string{"*"}})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			i := newInterceptor(t, "")
			i.echoes()
			other := i.open("tcp", basic(i.token(store.Token{ID: "t2", Name: "other"}), ""))
			token, headers := i.token(store.Token{ID: "t1", Name: "worker"}), ""
			if !strings.Contains(name, "gone") {
				headers = basic(token, "")
			}
			tunnel := i.open(c.network, headers)
			c.end(i, caller.HashToken([]byte(token)))
			if _, err := tunnel.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("is still open: %v", err)
			}
			time.Sleep(3 * askAgainEvery / 2)
			says(t, other, "after")
			if c.code == "" {
				waitFor(t, func() bool {
					return i.p.Stats().Panics.Load() == 1 && strings.Contains(i.logs.String(), `"status":200`)
				})
				return
			}
			waitFor(t, func() bool { return strings.Contains(i.logs.String(), `"status":200,"code":"`+c.code+`"`) })
			if logs := i.logs.String(); strings.Count(logs, `"code"`) != 1 {
				t.Errorf("log:\n%s", logs)
			}
		})
	}
}

// TestAPassthroughTunnelEndsWithinASecondOfTheRevocation. A machine that is busy may take longer once, and not each time.
func TestAPassthroughTunnelEndsWithinASecondOfTheRevocation(t *testing.T) {
	i := newInterceptor(t, "")
	i.echoes()
	var took time.Duration
	for range 10 {
		token := i.token(store.Token{ID: "t1", Name: "worker"})
		tunnel := i.open("tcp", basic(token, ""))
		began := time.Now()
		i.revoke(caller.HashToken([]byte(token)))
		_, _ = tunnel.Read(make([]byte, 1))
		if took = time.Since(began); took < time.Second {
			return
		}
	}
	t.Errorf("the last of ten took %v", took)
}

// TestWhoIsRevokedWhileTheHostIsDialledGetsNoTunnel: names and hosts may be slow.
func TestWhoIsRevokedWhileTheHostIsDialledGetsNoTunnel(t *testing.T) {
	i := newInterceptor(t, "")
	token := i.token(store.Token{ID: "t1", Name: "worker"})
	near, far := net.Pipe()
	i.p.dialOut = func(context.Context, string, string) (net.Conn, error) {
		i.revoke(caller.HashToken([]byte(token)))
		return near, nil
	}
	if resp, _ := i.connect("tcp", "files.example:443", basic(token, "")); resp.StatusCode != 401 || problemCode(resp) != "caller_unauthenticated" {
		t.Error(resp.Status)
	}
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the host's connection: %v", err)
	}
	if n := i.p.Numbers().Tunnels[Tunnel{"passthrough", "refused"}]; n != 1 {
		t.Errorf("%d are counted", n)
	}
}

// echoes has every host say again what it is told.
func (i *interceptor) echoes() {
	i.p.dialOut = func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			_, _ = io.Copy(far, far)
			_ = far.Close()
		}()
		return near, nil
	}
}

// open is a passthrough tunnel.
func (i *interceptor) open(network, headers string) net.Conn {
	i.t.Helper()
	resp, c := i.connect(network, "files.example:443", headers)
	if resp.StatusCode != 200 {
		i.t.Fatalf("%s: %s", resp.Status, bodyOf(resp))
	}
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	says(i.t, c, "open")
	return c
}

func (i *interceptor) revoke(hash [32]byte) {
	i.rows.mu.Lock()
	defer i.rows.mu.Unlock()
	delete(i.rows.tokens, hash)
}

// says sends words through a tunnel to a host that echoes.
func says(t testing.TB, c net.Conn, words string) {
	t.Helper()
	b := make([]byte, len(words))
	if _, err := io.WriteString(c, words); err != nil {
		t.Fatalf("%s: %v", words, err)
	}
	if _, err := io.ReadFull(c, b); err != nil || string(b) != words {
		t.Fatalf("%s: %q %v", words, b, err)
	}
}

func TestPassthroughIsRefusedWhileDraining(t *testing.T) {
	i := newInterceptor(t, "")
	i.p.Drain()
	if resp, _ := i.connect("unix", "files.example:443", ""); resp.StatusCode != 503 || problemCode(resp) != "draining" {
		t.Error(resp.Status)
	}
}
