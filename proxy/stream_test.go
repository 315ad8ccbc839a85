package proxy

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

const orgLine = "Host: localhost\r\nKeyward-Org: acme\r\n"

// TestNothingIsHeldBack: each piece of a slow answer reaches the caller before the next is sent, however the answer is framed.
func TestNothingIsHeldBack(t *testing.T) {
	for name, tc := range map[string]struct {
		head  string
		frame func(s string) string
		end   string
	}{
		"chunked":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }, "0\r\n\r\n"},
		"length":       {"HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n", func(s string) string { return s }, ""},
		"until closed": {"HTTP/1.0 200 OK\r\n\r\n", func(s string) string { return s }, "close"},
		"events":       {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", func(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }, "0\r\n\r\n"},
	} {
		for _, network := range []string{"unix", "tcp"} {
			t.Run(name+"/"+network, func(t *testing.T) {
				peer := newPeer(t, true)
				w := newWorld(t, peer.url)
				next := make(chan bool)
				peer.handler = func(c net.Conn, _ *bufio.Reader, _ string) {
					_, _ = io.WriteString(c, tc.head)
					for i := range 3 {
						<-next
						_, _ = io.WriteString(c, tc.frame(fmt.Sprintf("piece %d...", i)[:10]))
					}
					<-next
					if tc.end != "close" {
						_, _ = io.WriteString(c, tc.end)
						<-next
					}
				}
				token := ""
				if network == "tcp" {
					token = "Keyward-Token: " + w.token(anyToken) + "\r\n"
				}
				conn := w.dial(network)
				_, _ = io.WriteString(conn, "GET /elevenlabs/v1/x HTTP/1.1\r\n"+orgLine+token+"\r\n")
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil) // the head alone has come
				if err != nil {
					t.Fatal(err)
				}
				buf := make([]byte, 10)
				for i := range 3 {
					next <- true
					if _, err := io.ReadFull(resp.Body, buf); err != nil || !strings.HasPrefix(string(buf), fmt.Sprintf("piece %d", i)) {
						t.Fatalf("piece %d: %q %v", i, buf, err)
					}
				}
				next <- true
				if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
					t.Errorf("end of the body: %q %v", rest, err)
				}
				close(next)
			})
		}
	}
}

// TestCutAnswerIsNotTakenForWhole: an answer that breaks off ends in an error at the caller too.
func TestCutAnswerIsNotTakenForWhole(t *testing.T) {
	for name, answer := range map[string]string{
		"short of its length":    "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nonly this",
		"within a chunk":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nonly this",
		"before the last chunk":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nthis\r\n",
		"a chunk without a size": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nthis\r\nxyz\r\n",
	} {
		for _, network := range []string{"unix", "tcp"} {
			t.Run(name+"/"+network, func(t *testing.T) {
				peer := newPeer(t, true)
				w := newWorld(t, peer.url)
				peer.handler = func(c net.Conn, _ *bufio.Reader, _ string) { _, _ = io.WriteString(c, answer) }
				token := ""
				if network == "tcp" {
					token = "Keyward-Token: " + w.token(anyToken) + "\r\n"
				}
				if resp, err := w.tryRaw(network, "GET /vapi/x HTTP/1.1\r\n"+orgLine+token+"\r\n"); err == nil && resp.StatusCode == 200 {
					t.Errorf("the caller took it for whole: %q", bodyOf(resp))
				}
			})
		}
	}
}

// TestUpload sends a large body in constant memory and byte for byte.
func TestUpload(t *testing.T) {
	const size = 64 << 20
	for _, chunked := range []bool{false, true} {
		t.Run(fmt.Sprintf("chunked=%v", chunked), func(t *testing.T) {
			peer := newPeer(t, true)
			w := newWorld(t, peer.url)
			sums := make(chan string, 1)
			var peak uint64
			peer.handler = func(c net.Conn, br *bufio.Reader, head string) {
				r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(head), br)))
				if err != nil {
					return
				}
				h := sha256.New()
				half, _ := io.CopyN(h, r.Body, size/2)
				var m runtime.MemStats
				runtime.GC() // garbage of this process is not what the body takes
				runtime.ReadMemStats(&m)
				peak = m.HeapInuse
				n, _ := io.Copy(h, r.Body)
				n += half
				sums <- fmt.Sprintf("%d %x", n, h.Sum(nil))
				_, _ = io.WriteString(c, okAnswer)
			}
			var before runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			h := sha256.New()
			body := io.TeeReader(io.LimitReader(&pattern{}, size), h)
			req, _ := http.NewRequest("POST", "http://api.elevenlabs.io/v1/voices/add", body)
			req.Header.Set("Keyward-Org", "acme")
			req.ContentLength = size
			if chunked {
				req.ContentLength = -1
			}
			resp, err := w.client("unix").Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			if got, want := <-sums, fmt.Sprintf("%d %x", size, h.Sum(nil)); resp.StatusCode != 200 || got != want {
				t.Errorf("status %d, provider got %s, sent %s", resp.StatusCode, got, want)
			}
			if grown := int64(peak) - int64(before.HeapInuse); grown > 16<<20 {
				t.Errorf("the heap grew by %d MiB while the body passed", grown>>20)
			}
		})
	}
}

// pattern is endless bytes that do not repeat within a buffer.
type pattern struct{ n uint64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		p.n = p.n*6364136223846793005 + 1442695040888963407
		b[i] = byte(p.n >> 56)
	}
	return len(b), nil
}

// TestFullDuplex: an answer that begins before the request's body has ended streams back while the body still goes out.
func TestFullDuplex(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	peer.handler = func(c net.Conn, br *bufio.Reader, head string) {
		r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(head), br)))
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			if n > 0 {
				_, _ = fmt.Fprintf(c, "%x\r\n%s\r\n", n, bytes.ToUpper(buf[:n]))
			}
			if err != nil {
				break
			}
		}
		_, _ = io.WriteString(c, "0\r\n\r\n")
		_, _ = br.ReadByte()
	}
	conn := w.dial("unix")
	_, _ = io.WriteString(conn, "POST /elevenlabs/x HTTP/1.1\r\n"+orgLine+"Transfer-Encoding: chunked\r\n\r\n")
	_, _ = io.WriteString(conn, "3\r\nabc\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 3)
	for _, piece := range []string{"ABC", "DEF", "GHI"} {
		if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != piece {
			t.Fatalf("got %q, %v; want %s", buf, err, piece)
		}
		if piece != "GHI" {
			_, _ = fmt.Fprintf(conn, "3\r\n%s\r\n", map[string]string{"ABC": "def", "DEF": "ghi"}[piece])
		}
	}
	_, _ = io.WriteString(conn, "0\r\n\r\n")
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("end: %q %v", rest, err)
	}
}

// TestEarlyAnswer: a provider that refuses an upload before it has read it is heard.
func TestEarlyAnswer(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	heard := make(chan struct{})
	peer.handler = func(c net.Conn, _ *bufio.Reader, _ string) {
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
		<-heard
	}
	defer close(heard)
	conn := w.dial("unix")
	_, _ = io.WriteString(conn, "POST /elevenlabs/x HTTP/1.1\r\n"+orgLine+"Content-Length: 1000000\r\n\r\n"+strings.Repeat("x", 20000))
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); resp.StatusCode != 413 || string(b) != "big" || err != nil {
		t.Errorf("status %d %q %v", resp.StatusCode, b, err)
	}
}

// TestCallerGoesAway: the provider's request ends with the caller, also while its first byte is awaited.
func TestCallerGoesAway(t *testing.T) {
	for name, begun := range map[string]bool{"unix, before the first byte": false, "unix, within a stream": true, "tcp, before the first byte": false, "tcp, within a stream": true} {
		t.Run(name, func(t *testing.T) {
			network, _, _ := strings.Cut(name, ",")
			peer := newPeer(t, true)
			// Neither limit ends it meanwhile.
			w := newWorld(t, peer.url, func(o *Options) { o.Limits = Limits{FirstByteTimeout: time.Minute, IdleTimeout: time.Minute} })
			closed := make(chan bool, 1)
			arrived := make(chan bool, 1)
			peer.handler = func(c net.Conn, br *bufio.Reader, _ string) {
				if begun {
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
				}
				arrived <- true
				_, _ = br.ReadByte()
				closed <- true
			}
			conn := w.dial(network)
			_, _ = io.WriteString(conn, "GET /elevenlabs/x HTTP/1.1\r\n"+orgLine+"Keyward-Token: "+w.token(anyToken)+"\r\n\r\n")
			<-arrived
			time.Sleep(50 * time.Millisecond)
			_ = conn.Close()
			select {
			case <-closed:
			case <-time.After(20 * time.Second):
				t.Error("the provider's request was not cancelled")
			}
		})
	}
}

// TestHalfClose: a caller that has only closed its sending side still gets its answer.
func TestHalfClose(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			peer := newPeer(t, true)
			w := newWorld(t, peer.url)
			peer.answer = func(int, string) string { time.Sleep(400 * time.Millisecond); return okAnswer }
			token := "Keyward-Token: " + w.token(anyToken) + "\r\n"
			conn := w.dial(network)
			_, _ = io.WriteString(conn, "GET /vapi/x HTTP/1.1\r\n"+orgLine+token+"\r\n")
			_ = conn.(interface{ CloseWrite() error }).CloseWrite()
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || resp.StatusCode != 200 {
				t.Fatalf("%v %v", resp, err)
			}
		})
	}
}

// TestOldCallers: an HTTP/1.0 caller gets an answer of unknown length until the connection closes, never chunks.
func TestOldCallers(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	peer.answer = func(int, string) string {
		return "HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
	}
	conn := w.dial("unix")
	_, _ = io.WriteString(conn, "GET /vapi/x HTTP/1.0\r\n"+orgLine+"Connection: keep-alive\r\n\r\n")
	b, err := io.ReadAll(conn)
	head, body, _ := strings.Cut(string(b), "\r\n\r\n")
	if err != nil || body != "hello world" || strings.Contains(head, "chunked") || !strings.Contains(head, "X-A: b") || !strings.Contains(head, "Connection: close") {
		t.Errorf("%v\n%s", err, b)
	}
}

// TestTruncatedUploads: half a body is never sent as a whole one, however it is sent on.
func TestTruncatedUploads(t *testing.T) {
	for name, path := range map[string]string{"small": "/vapi/x", "a form": "/twilio/2010-04-01/Accounts/ACkeyward/Messages.json", "streamed": "/elevenlabs/x"} {
		t.Run(name, func(t *testing.T) {
			peer := newPeer(t, true)
			w := newWorld(t, peer.url)
			length := map[string]int{"small": 100, "a form": 20000, "streamed": 100000}[name]
			conn := w.dial("unix")
			_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\n%sContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", path, orgLine, length, strings.Repeat("a", length/2))
			_ = conn.(*net.UnixConn).CloseWrite()
			b, _ := io.ReadAll(conn)
			if n, _ := peer.count(); n != 0 || !strings.HasPrefix(string(b), "HTTP/1.1 400") {
				t.Errorf("the provider got %d whole requests, the caller %.60q", n, b)
			}
		})
	}
}

// TestAbandonedExpects: bodies that never come after "100 Continue" leave nothing counted, nothing waiting.
func TestAbandonedExpects(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url, func(o *Options) { o.MaxConns = 8 })
	for range 20 {
		conn := w.dial("unix")
		_, _ = io.WriteString(conn, "POST /vapi/x HTTP/1.1\r\n"+orgLine+"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n")
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "100") {
			t.Fatalf("%q %v", line, err)
		}
		_ = conn.Close()
	}
	for range 20 { // upgrades that cannot begin
		conn := w.dial("unix")
		_, _ = io.WriteString(conn, "GET /vapi/x HTTP/1.1\r\n"+orgLine+upgradeHead)
		_ = conn.Close()
	}
	waitFor(t, func() bool { return w.raw("unix", "GET /vapi/x HTTP/1.1\r\n"+orgLine+"\r\n").StatusCode == 200 })
	waitFor(t, func() bool {
		for _, n := range w.p.inflight.providers {
			if n.Load() != 0 {
				return false
			}
		}
		return true
	})
}

func TestAnswersWithoutABody(t *testing.T) {
	for name, tc := range map[string]struct{ method, answer string }{
		"HEAD": {"HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"},
		"204":  {"DELETE", "HTTP/1.1 204 No Content\r\n\r\n"},
		"304":  {"GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"},
		"zero": {"GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"},
		"100":  {"GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			peer := newPeer(t, true)
			w := newWorld(t, peer.url)
			peer.answer = func(int, string) string { return tc.answer }
			conn := w.dial("unix")
			br := bufio.NewReader(conn)
			for range 2 { // the second shows that the connections are still in step
				_, _ = io.WriteString(conn, tc.method+" /vapi/x HTTP/1.1\r\n"+orgLine+"\r\n")
				resp, err := http.ReadResponse(br, &http.Request{Method: tc.method})
				if err != nil {
					t.Fatal(err)
				}
				if b, err := io.ReadAll(resp.Body); err != nil || len(b) != 0 {
					t.Fatalf("body %q %v", b, err)
				}
				if name == "HEAD" && resp.ContentLength != 1234 {
					t.Errorf("Content-Length %d", resp.ContentLength)
				}
			}
			if _, conns := peer.count(); conns != 1 {
				t.Errorf("%d connections to the provider, want 1", conns)
			}
		})
	}
}

func TestExpectContinue(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	send := func(org string) (first string, conn net.Conn, br *bufio.Reader) {
		conn = w.dial("unix")
		_, _ = io.WriteString(conn, "POST /vapi/call HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: "+org+"\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
		br = bufio.NewReader(conn)
		line, err := br.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(line), conn, br
	}
	first, conn, br := send("acme")
	if first != "HTTP/1.1 100 Continue" {
		t.Fatalf("first line %q", first)
	}
	_, _ = br.ReadString('\n')
	_, _ = io.WriteString(conn, "body")
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v %v", resp, err)
	}
	if got := peer.last(); !strings.HasSuffix(got, "\r\n\r\nbody") || headerOf(got, "Expect") != "" {
		t.Errorf("the provider got\n%s", got)
	}
	if first, _, _ = send("nobody"); first != "HTTP/1.1 424 Failed Dependency" {
		t.Errorf("a caller that is refused was told %q", first)
	}
}

func TestResponseTrailers(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	peer.answer = func(int, string) string {
		return "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n"
	}
	conn := w.dial("unix")
	_, _ = io.WriteString(conn, "GET /vapi/x HTTP/1.1\r\n"+orgLine+"\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(resp.Body); string(b) != "ok" || err != nil || resp.Trailer.Get("X-Sum") != "42" {
		t.Errorf("%q %v, trailers %v", b, err, resp.Trailer)
	}
}

func TestRequestTrailersAreRefused(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	for name, path := range map[string]string{"streamed": "/vapi/x", "read whole": "/twilio/2010-04-01/Accounts/ACkeyward/Messages.json"} {
		t.Run(name, func(t *testing.T) {
			before, _ := peer.count()
			resp := w.raw("unix", "POST "+path+" HTTP/1.1\r\n"+orgLine+"Content-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n0\r\nKeyward-Org: globex\r\n\r\n")
			if after, _ := peer.count(); resp.StatusCode != 400 || after != before {
				t.Errorf("status %d, the provider got %d whole requests", resp.StatusCode, after-before)
			}
		})
	}
}
