package provider_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/bench/provider"
	"github.com/keyward/keyward/bench/role"
)

func TestMain(m *testing.M) {
	role.Dispatch()
	os.Exit(m.Run())
}

func TestRightCredentialIsAnswered(t *testing.T) {
	p := start(t)
	for _, head := range []string{
		"GET /emails HTTP/1.1\r\nAuthorization: Bearer " + provider.KeyOf("acme") + "\r\n",
		"GET /emails HTTP/1.1\r\nAuthorization: Bearer " + provider.KeyOf("acme") + ".12\r\n",
		"GET /v1/voices HTTP/1.1\r\nxi-api-key: " + provider.KeyOf("acme") + "\r\n",
		"POST /emails HTTP/1.1\r\nX-Bench-Org: globex\r\nauthorization: Bearer " + provider.KeyOf("globex") + "\r\nTransfer-Encoding: chunked\r\n",
	} {
		if got := ask(t, p, head); got != 200 {
			t.Errorf("%d to %q", got, head)
		}
	}
}

func TestWrongCredentialIs401(t *testing.T) {
	p := start(t)
	for _, head := range []string{
		"GET /emails HTTP/1.1\r\n",
		"GET /emails HTTP/1.1\r\nAuthorization: Bearer \r\n",
		"GET /emails HTTP/1.1\r\nAuthorization: Bearer " + provider.KeyOf("globex") + "\r\n",
		"GET /emails HTTP/1.1\r\nX-Bench-Org: globex\r\nAuthorization: Bearer " + provider.KeyOf("acme") + "\r\n",
		"GET /emails HTTP/1.1\r\nAuthorization: Bearer " + provider.KeyOf("acme") + "x\r\n",
		"GET /emails HTTP/1.1\r\nAuthorization: Bearer " + provider.KeyOf("acme")[1:] + "\r\n",
		"GET /v1/voices HTTP/1.1\r\nxi-api-key: kwt0123\r\n",
	} {
		if got := ask(t, p, head); got != 401 {
			t.Errorf("%d to %q", got, head)
		}
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	p := start(t)
	_, err := tls.Dial("tcp", p.Address(), &tls.Config{RootCAs: roots(p), ServerName: "api.resend.com", MaxVersion: tls.VersionTLS12})
	if err == nil {
		t.Error("TLS 1.2 was taken")
	}
}

// TestLinkTakesItsTime: a new connection with TLS 1.3 takes two round trips, each request one more.
func TestLinkTakesItsTime(t *testing.T) {
	const roundTrip = 40 * time.Millisecond
	p := start(t)
	link, err := provider.NewLink(p.Address(), roundTrip)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	var connecting, asking []time.Duration
	prompt := func(all []time.Duration, want time.Duration) bool { return len(all) > 0 && slices.Min(all) <= want*3/2 }
	for try := 0; try < 4 || try < 100 && !(prompt(connecting, 2*roundTrip) && prompt(asking, roundTrip)); try++ {
		begun := time.Now()
		c := connect(t, link.Address(), p)
		connecting = append(connecting, time.Since(begun))
		begun = time.Now()
		if got := askOn(t, c, "GET /emails HTTP/1.1\r\nAuthorization: Bearer "+provider.KeyOf("acme")+"\r\n"); got != 200 {
			t.Fatal(got)
		}
		asking = append(asking, time.Since(begun))
	}
	within(t, "connecting", slices.Min(connecting), 2*roundTrip)
	within(t, "a request", slices.Min(asking), roundTrip)
}

// within: never less. A busy machine adds its own, so the quickest is looked at.
func within(t *testing.T, what string, d, want time.Duration) {
	t.Helper()
	if d < want || d > want*3/2 {
		t.Errorf("%s took %v, not %v", what, d, want)
	}
}

func TestWebSocketEchoes(t *testing.T) {
	p := start(t)
	c := connect(t, p.Address(), p)
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nxi-api-key: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\n\r\n",
		provider.WebSocketPath, provider.KeyOf("acme"), provider.WebSocketKey)
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455's own example
		t.Fatal(resp, err)
	}
	for _, n := range []int{0, 125, 126, 60000} {
		message := bytes.Repeat([]byte("m"), n)
		c.Write(provider.AppendFrame(nil, provider.OpBinary, message, true))
		op, got, err := provider.ReadFrame(r, nil)
		if err != nil || op != provider.OpBinary || !bytes.Equal(got, message) {
			t.Fatalf("%d bytes came back as %d, %v", n, len(got), err)
		}
	}
}

func TestStreamIsAllThere(t *testing.T) {
	p := start(t)
	c := connect(t, p.Address(), p)
	fmt.Fprintf(c, "POST /v1/text-to-speech/v/stream HTTP/1.1\r\nxi-api-key: %s\r\nContent-Length: 0\r\n\r\n", provider.KeyOf("acme"))
	begun := time.Now()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || len(b) != provider.Chunks*provider.ChunkBytes {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if took := time.Since(begun); took < (provider.Chunks-1)*provider.ChunkGap {
		t.Errorf("it took %v only", took)
	}
}

func TestProcessDoesAsItIsTold(t *testing.T) {
	p, err := provider.Launch(provider.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Revoke("acme", 1); err != nil {
		t.Fatal(err)
	}
	c, err := tls.Dial("tcp", p.Address(), &tls.Config{RootCAs: roots(p), ServerName: "api.resend.com"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for generation, want := range []int{401, 401, 200} {
		if got := askOn(t, c, fmt.Sprintf("GET /emails HTTP/1.1\r\nAuthorization: Bearer %s.%d\r\n", provider.KeyOf("acme"), generation)); got != want {
			t.Errorf("generation %d: %d, not %d", generation, got, want)
		}
	}
	if st, err := p.Stats(); err != nil || st != (provider.Stats{Conns: 1, Requests: 3, Unauthorized: 2}) {
		t.Errorf("%+v %v", st, err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func start(t *testing.T) *provider.Provider {
	t.Helper()
	p, err := provider.Start(provider.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func roots(p interface{ CA() []byte }) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(p.CA())
	return pool
}

func connect(t *testing.T, address string, p *provider.Provider) net.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots(p), ServerName: "api.resend.com"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func ask(t *testing.T, p *provider.Provider, head string) int {
	t.Helper()
	return askOn(t, connect(t, p.Address(), p), head)
}

func askOn(t *testing.T, c net.Conn, head string) int {
	t.Helper()
	body := ""
	if strings.Contains(head, "chunked") {
		body = "3\r\nabc\r\n0\r\n\r\n"
	}
	fmt.Fprint(c, head+"Host: x\r\n\r\n"+body)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode
}
