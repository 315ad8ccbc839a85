package proxy

import (
	"net"
	"testing"
	"time"
)

// A provider that takes the connection and says nothing to TLS costs one request the handshake's limit, and no more.
func TestSilentHandshakeEnds(t *testing.T) {
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
			defer func() { _ = c.Close() }()
		}
	}()
	w := newWorld(t, "https://"+l.Addr().String())
	began := time.Now()
	resp := w.raw("unix", "GET /user HTTP/1.1\r\nHost: api.elevenlabs.io\r\nKeyward-Org: acme\r\n\r\n")
	if code := problemCode(resp); code != "upstream_timeout" {
		t.Errorf("%d %q", resp.StatusCode, code)
	}
	if took := time.Since(began); took > tlsTimeout+12*time.Second {
		t.Errorf("it took %v", took)
	}
}
