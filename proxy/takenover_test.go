package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// The limit on writes holds for a connection that is taken over from the server library, too.
func TestTakenOverCallerThatReadsNothingIsCutOff(t *testing.T) {
	p := newPeer(t, false)
	n := 0
	p.handler = func(c net.Conn, br *bufio.Reader, head string) {
		n++
		if n == 1 {
			_, _ = io.WriteString(c, okAnswer)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nTransfer-Encoding: chunked\r\n\r\n")
		b := make([]byte, 0x4000)
		for {
			if _, err := io.WriteString(c, "4000\r\n"+string(b)+"\r\n"); err != nil {
				return
			}
		}
	}
	w := newWorld(t, p.url, func(o *Options) { o.IdleTimeout = 2 * time.Second })
	c := w.dial("unix")
	_, _ = io.WriteString(c, "GET /resend/domains HTTP/1.1\r\nHost: x\r\nKeyward-Org: acme\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = bodyOf(resp)
	_, _ = io.WriteString(c, "GET /resend/domains HTTP/1.0\r\nHost: x\r\nKeyward-Org: acme\r\n\r\n")
	waitFor(t, func() bool { // nothing is read
		w.p.conns.mu.Lock()
		defer w.p.conns.mu.Unlock()
		return len(w.p.conns.open) == 0
	})
}
