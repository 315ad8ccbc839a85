package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/store"
)

var anyToken = store.Token{Name: "any"}

// TestSurplusIsNobodysAnswer: bytes that a provider sends beyond its answer never become the next org's answer.
func TestSurplusIsNobodysAnswer(t *testing.T) {
	const surplus = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSTOLEN"
	for name, tc := range map[string]struct {
		secure bool
		late   time.Duration
		same   bool
	}{
		"TLS, in one record":    {true, 0, true},
		"TLS, next record":      {true, 0, false},
		"TLS, a little later":   {true, 30 * time.Millisecond, false},
		"plain, in one piece":   {false, 0, true},
		"plain, a little later": {false, 30 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			peer := newPeer(t, tc.secure)
			w := newWorld(t, peer.url)
			written := make(chan bool, 1)
			peer.handler = func(c net.Conn, br *bufio.Reader, _ string) {
				for {
					if tc.same {
						_, _ = io.WriteString(c, okAnswer+surplus)
					} else {
						_, _ = io.WriteString(c, okAnswer)
						time.Sleep(tc.late)
						_, _ = io.WriteString(c, surplus)
					}
					written <- true
					if _, err := readHead(br); err != nil {
						return
					}
				}
			}
			for i := range 20 {
				org := []string{"acme", "globex"}[i%2]
				resp := w.raw("unix", "GET /vapi/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: "+org+"\r\n\r\n")
				if b := bodyOf(resp); b != "ok" {
					t.Fatalf("request %d of %s got %q", i, org, b)
				}
				<-written // what is on its way has arrived; no check can see what has not
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
}

// TestStaleConnectionsLoseNothing: a provider that closes idle connections costs no request, POSTs included, and none runs twice.
func TestStaleConnectionsLoseNothing(t *testing.T) {
	for _, secure := range []bool{true, false} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			peer := newPeer(t, secure)
			w := newWorld(t, peer.url)
			gone := make(chan bool, 1)
			peer.handler = func(c net.Conn, br *bufio.Reader, head string) {
				body, _ := readBodyOf(br, head)
				peer.mu.Lock()
				peer.got = append(peer.got, head+body)
				peer.mu.Unlock()
				_, _ = io.WriteString(c, okAnswer) // promises to stay, and goes
				_ = c.Close()
				gone <- true
			}
			for i := range 20 {
				resp := w.raw("unix", "POST /vapi/call HTTP/1.1\r\n"+orgLine+"Content-Length: 2\r\n\r\nhi")
				if resp.StatusCode != 200 {
					t.Fatalf("request %d: %d %s", i, resp.StatusCode, bodyOf(resp))
				}
				<-gone
				time.Sleep(5 * time.Millisecond)
			}
			if n, _ := peer.count(); n != 20 {
				t.Errorf("20 requests ran %d times", n)
			}
		})
	}
}

// TestOnceOnly keeps a ledger at a provider that breaks in every way: a request that is not safe to repeat never runs twice.
func TestOnceOnly(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	var mu sync.Mutex
	ledger := map[string]int{}
	peer.handler = func(c net.Conn, br *bufio.Reader, head string) {
		for n := 0; ; n++ {
			if n > 0 {
				var err error
				if head, err = readHead(br); err != nil {
					return
				}
			}
			id := headerOf(head, "X-Id")
			mu.Lock()
			ledger[id]++
			k := len(ledger)
			mu.Unlock()
			switch k % 5 {
			case 0:
				return // closes without a word
			case 1:
				_, _ = io.WriteString(c, "HTTP/1.1 2")
				return
			case 2:
				_, _ = io.WriteString(c, okAnswer)
				return
			default:
				_, _ = io.WriteString(c, okAnswer)
			}
		}
	}
	outcomes := map[int]int{}
	for i := range 300 {
		method := []string{"POST", "GET", "DELETE"}[i%3]
		resp := w.raw("unix", fmt.Sprintf("%s /vapi/x HTTP/1.1\r\n%sX-Id: %s-%d\r\n\r\n", method, orgLine, method, i))
		outcomes[resp.StatusCode]++
	}
	for id, n := range ledger {
		if most := map[bool]int{true: 2, false: 1}[strings.HasPrefix(id, "GET")]; n > most {
			t.Errorf("%s ran %d times", id, n)
		}
	}
	if outcomes[200] < 150 || outcomes[502] == 0 || outcomes[200]+outcomes[502] != 300 {
		t.Errorf("outcomes %v", outcomes)
	}
}

// TestOwnCredentialOverSharedConnections: two orgs, 10,000 requests of 64 callers over shared connections, each with its own org's
// credential.
func TestOwnCredentialOverSharedConnections(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	peer.answer = func(_ int, request string) string {
		b := strings.ToUpper(headerOf(request, "Authorization")) + " " + headerOf(request, "X-For") // as it is it would not come back
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
	}
	want := map[string]string{"acme": "BEARER VAPI-PRIVATE-ACME-0001 acme", "globex": "BEARER VAPI-PRIVATE-GLOBEX-01 globex"}
	const callers, each = 64, 157
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			c, err := net.Dial("unix", w.socket)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			br := bufio.NewReader(c)
			for j := range each {
				org := []string{"acme", "globex"}[(i+j)%2]
				_, _ = io.WriteString(c, "GET /vapi/x HTTP/1.1\r\nHost: localhost\r\nX-For: "+org+"\r\nKeyward-Org: "+org+"\r\n\r\n")
				resp, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Error(err)
					return
				}
				if b, _ := io.ReadAll(resp.Body); string(b) != want[org] {
					t.Errorf("%s got %d %q", org, resp.StatusCode, b)
					return
				}
			}
		})
	}
	all.Wait()
	if n, conns := peer.count(); n != callers*each || conns > callers+10 {
		t.Errorf("%d requests over %d connections", n, conns)
	}
}

func TestProviderFailures(t *testing.T) {
	silent := newPeer(t, true)
	silent.handler = func(_ net.Conn, br *bufio.Reader, _ string) { _, _ = br.ReadByte() }
	junk := newPeer(t, true)
	junk.answer = func(int, string) string { return "SSH-2.0-OpenSSH_9.2\r\n\r\n" }
	mute := newPeer(t, true)
	mute.answer = func(int, string) string { return "" }
	answers := func(address string, with func(net.Conn)) string {
		t.Helper()
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				with(c)
				_ = c.Close()
			}
		}()
		return "https://" + l.Addr().String()
	}
	plain := answers("127.0.0.1:0", func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
	hangsUp := answers("127.0.0.1:0", func(net.Conn) {})
	shakes := func(most uint16) func(net.Conn) {
		return func(c net.Conn) {
			_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{testCertificate()}, MinVersion: tls.VersionTLS10, MaxVersion: most}).Handshake()
		}
	}
	other := answers("127.0.0.2:0", shakes(0)) // which is not in the certificate
	old := answers("127.0.0.1:0", shakes(tls.VersionTLS11))
	for name, tc := range map[string]struct {
		url    string
		status int
		code   string
		reason string
		change func(*Options)
	}{
		"nobody listens":           {"https://" + freeport.New(t), 502, "upstream_unreachable", "connection_refused", nil},
		"certificate not trusted":  {silent.url, 502, "upstream_tls", "certificate_issuer", func(o *Options) { o.Roots = nil }},
		"certificate of another":   {other, 502, "upstream_tls", "certificate_name", nil},
		"plain where TLS is due":   {plain, 502, "upstream_tls", "no_tls", nil},
		"closes during TLS":        {hangsUp, 502, "upstream_tls", "handshake_closed", nil},
		"takes no version of ours": {old, 502, "upstream_tls", "handshake_refused", nil},
		"no answer in time":        {silent.url, 504, "upstream_timeout", "answer", func(o *Options) { o.FirstByteTimeout = 300 * time.Millisecond }},
		"not HTTP":                 {junk.url, 502, "upstream_protocol", "", nil},
		"closes without an answer": {mute.url, 502, "upstream_unreachable", "connection_closed", nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.url, func(o *Options) {
				if tc.change != nil {
					tc.change(o)
				}
			})
			resp := w.raw("unix", "POST /vapi/x HTTP/1.1\r\n"+orgLine+"Content-Length: 0\r\n\r\n")
			if resp.StatusCode != tc.status || problemCode(resp) != tc.code {
				t.Errorf("got %d %q", resp.StatusCode, problemCode(resp))
			}
			body := bodyOf(resp)
			if strings.Contains(body, "127.0.0") {
				t.Errorf("an address is in the answer: %s", body)
			}
			i := slices.IndexFunc(reasoned, func(r *refusal) bool { return r.code == tc.code && r.reason == tc.reason })
			if tc.reason == "" {
				return
			}
			if i < 0 || !strings.Contains(body, `"detail":"`+reasoned[i].detail+`"`) {
				t.Errorf("the answer does not say %q: %s", tc.reason, body)
			}
			waitFor(t, func() bool { return strings.Contains(w.logs.String(), `"code":"`+tc.code+`","reason":"`+tc.reason+`"`) })
		})
	}
}

// TestBrokenStatusLines: what is not a status line to the letter is no answer.
func TestBrokenStatusLines(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	for _, line := range []string{"HTTP/1.1 000 no", "HTTP/1.1 099 no", "HTTP/0.9 200 OK", "HTTP/2.0 200 OK", "HTTP/1.1  200 OK", "HTTP/1.1 2x0 OK", "HTTP/1.1 2000 OK", "http/1.1 200 OK"} {
		peer.answer = func(int, string) string { return line + "\r\nContent-Length: 2\r\n\r\nok" }
		if resp := w.raw("unix", "POST /vapi/x HTTP/1.1\r\n"+orgLine+"Content-Length: 0\r\n\r\n"); problemCode(resp) != "upstream_protocol" {
			t.Errorf("%q: %d %q", line, resp.StatusCode, problemCode(resp))
		}
	}
}

func TestPanicEndsOneRequest(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	w.rows.credentials[store.Ref{Org: "boom", Provider: "vapi"}] = nil
	w.p.store = panics{w.rows}
	resp := w.raw("unix", "GET /vapi/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: boom\r\n\r\n")
	if resp.StatusCode != 500 || problemCode(resp) != "internal_error" {
		t.Errorf("got %d %q", resp.StatusCode, problemCode(resp))
	}
	if log := w.logs.String(); !strings.Contains(log, "stack") || strings.Contains(log, "secret-in-panic") {
		t.Errorf("log %s", log)
	}
	if resp := w.raw("unix", "GET /vapi/x HTTP/1.1\r\n"+orgLine+"\r\n"); resp.StatusCode != 200 {
		t.Errorf("the next request: %d", resp.StatusCode)
	}
}

// TestSlowProviderTakesNotAll: while one provider does not answer, its share is all that it takes; requests of others go on.
func TestSlowProviderTakesNotAll(t *testing.T) {
	peer := newPeer(t, true)
	release := make(chan bool)
	peer.handler = func(c net.Conn, br *bufio.Reader, head string) {
		if headerOf(head, "Host") == "api.vapi.ai" {
			<-release
		}
		_, _ = io.WriteString(c, okAnswer)
	}
	w := newWorld(t, peer.url, func(o *Options) { o.MaxConns, o.FirstByteTimeout = 80, time.Minute })
	codes := make(chan string, 100)
	ask := func(path, org string) {
		resp, err := w.tryRaw("unix", "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: "+org+"\r\n\r\n")
		if err != nil {
			codes <- err.Error()
			return
		}
		codes <- problemCode(resp)
	}
	for range 25 {
		go ask("/vapi/x", "acme")
	}
	for range 5 { // a quarter of 80 makes the provider busy, and then an eighth of it is more than an org's share
		if code := <-codes; code != "rate_limited" {
			t.Errorf("beyond the org's share: %q", code)
		}
	}
	for range 3 {
		ask("/vapi/x", "nobody")
		ask("/resend/x", "acme")
	}
	for range 6 {
		if code := <-codes; code != "" && code != "credential_missing" {
			t.Errorf("others got %q", code)
		}
	}
	close(release)
	for range 20 {
		if code := <-codes; code != "" {
			t.Errorf("the slow provider's own: %q", code)
		}
	}
	ask("/vapi/x", "acme")
	if code := <-codes; code != "" {
		t.Errorf("afterwards: %q", code)
	}
}
