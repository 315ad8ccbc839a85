package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/keyward/keyward/store"
)

// panics is a store that breaks for one org.
type panics struct{ *rows }

func (p panics) Credential(ctx context.Context, ref store.Ref) (*store.Credential, bool, error) {
	if ref.Org == "boom" {
		panic("secret-in-panic")
	}
	return p.rows.Credential(ctx, ref)
}

// TestWebSocket talks through the proxy with a real WebSocket library on both ends.
func TestWebSocket(t *testing.T) {
	seen := make(chan http.Header, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	}))
	defer srv.Close()
	w := newWorld(t, srv.URL)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "ws://api.elevenlabs.io/v1/speech-to-text/realtime?model_id=m", &websocket.DialOptions{
		HTTPClient: w.client("unix"), HTTPHeader: http.Header{"Keyward-Org": {"acme"}, "Xi-Api-Key": {"placeholder"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.CloseNow() }()
	h := <-seen
	if got := h.Values("Xi-Api-Key"); len(got) != 1 || got[0] != "sk_acme_0123456789abcdef" || h.Get("Keyward-Org") != "" {
		t.Errorf("the provider's upgrade had %v", h)
	}
	big := strings.Repeat("0123456789", 2000)
	c.SetReadLimit(1 << 20)
	for _, msg := range []string{"a", big, "", "end"} {
		if err := c.Write(ctx, websocket.MessageBinary, []byte(msg)); err != nil {
			t.Fatal(err)
		}
		if _, b, err := c.Read(ctx); err != nil || string(b) != msg {
			t.Fatalf("echo of %d bytes: %d bytes, %v", len(msg), len(b), err)
		}
	}
	if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Errorf("closing: %v", err)
	}
}

const upgradeHead = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// TestNoByteBeforeThe101: what a caller sends on after an upgrade request reaches the provider only once the provider has agreed.
func TestNoByteBeforeThe101(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	early := make(chan string, 1)
	peer.handler = func(c net.Conn, br *bufio.Reader, _ string) {
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		b := make([]byte, 100)
		n, _ := br.Read(b)
		early <- string(b[:n])
		_, _ = io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
	}
	resp := w.raw("unix", "GET /elevenlabs/x HTTP/1.1\r\n"+orgLine+upgradeHead+"GET /smuggled HTTP/1.1\r\n\r\n")
	if b := <-early; b != "" {
		t.Errorf("the provider got %q before it had agreed", b)
	}
	if resp.StatusCode != 403 || bodyOf(resp) != "no" {
		t.Errorf("the provider's refusal came as %d", resp.StatusCode)
	}
}

// TestTunnelHalfClose: one side may finish while the other still speaks.
func TestTunnelHalfClose(t *testing.T) {
	for _, secure := range []bool{false, true} {
		peer := newPeer(t, secure)
		w := newWorld(t, peer.url)
		peer.handler = func(c net.Conn, br *bufio.Reader, _ string) {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nfirst,")
			b, _ := io.ReadAll(br) // until the caller has finished
			_, _ = io.WriteString(c, "then "+string(b))
		}
		conn := w.dial("unix")
		_, _ = io.WriteString(conn, "GET /elevenlabs/x HTTP/1.1\r\n"+orgLine+upgradeHead+"hello")
		_ = conn.(*net.UnixConn).CloseWrite()
		b, err := io.ReadAll(conn)
		if _, rest, _ := strings.Cut(string(b), "\r\n\r\n"); err != nil || rest != "first,then hello" {
			t.Errorf("tls=%v: got %q, %v", secure, b, err)
		}
	}
}

func TestNoTunnelBeginsWhileDraining(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	w.p.Drain()
	resp := w.raw("unix", "GET /elevenlabs/x HTTP/1.1\r\n"+orgLine+upgradeHead)
	if resp.StatusCode != 503 || problemCode(resp) != "draining" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %q", resp.StatusCode, problemCode(resp))
	}
	if resp := w.raw("unix", "GET /elevenlabs/x HTTP/1.1\r\n"+orgLine+"\r\n"); resp.StatusCode != 200 || !resp.Close {
		t.Errorf("an ordinary request: %d, Connection: close %v", resp.StatusCode, resp.Close)
	}
}

func TestUpgradeWithABodyIsRefused(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	if resp := w.raw("unix", "GET /elevenlabs/x HTTP/1.1\r\n"+orgLine+"Content-Length: 1\r\n"+upgradeHead+"x"); problemCode(resp) != "bad_request" {
		t.Errorf("got %d", resp.StatusCode)
	}
}
