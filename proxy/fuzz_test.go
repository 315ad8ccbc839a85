package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// FuzzHeadAsNetHTTP: what the head check accepts, net/http accepts too, and reads the same host, length, coding and number of headers
// in it. Two readers that disagree are how requests are smuggled.
func FuzzHeadAsNetHTTP(f *testing.F) {
	for _, s := range []string{
		"Host: a\r\n\r\n", "Host: a\r\nContent-Length: 3\r\n\r\n", "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n", "Host: a\r\nX: 1\r\nX: 2\r\n\r\n",
		"Host: a:80\r\nConnection: close, x\r\nX:\t1 \r\n\r\n", "Host: [::1]\r\nExpect: 100-continue\r\n\r\n", "Host: a\r\nmy_header: 1\r\n\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		h := &head{}
		if h.scan([]byte("POST"), []byte("/x"), []byte(raw), false) != nil {
			return
		}
		end := strings.Index(raw, "\r\n\r\n")
		if strings.HasPrefix(raw, "\r\n") || end < 0 {
			return // the server library hands over whole blocks only
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("POST /x HTTP/1.1\r\n" + raw[:end+4])))
		if err != nil {
			// net/http is stricter about the form of a host, and about what an expectation may be.
			if strings.Contains(err.Error(), "Host") {
				return
			}
			t.Fatalf("accepted here and not there: %v\n%q", err, raw)
		}
		n := 0
		for _, v := range r.Header {
			n += len(v)
		}
		if r.Host != string(h.host) || (len(r.TransferEncoding) > 0) != h.chunked || !h.chunked && max(h.length, 0) != r.ContentLength {
			t.Fatalf("host %q %q, chunked %v %v, length %d %d in %q", h.host, r.Host, h.chunked, r.TransferEncoding, h.length, r.ContentLength, raw)
		}
		if own := countOwn(h); own != n {
			t.Fatalf("%d headers here, %d there in %q", own, n, raw)
		}
	})
}

// countOwn leaves out what net/http moves from the header map to fields of the request.
func countOwn(h *head) (n int) {
	for _, f := range h.fields[:h.n] {
		if !equalFold(f.name, "host") && !equalFold(f.name, "transfer-encoding") {
			n++
		}
	}
	return n
}

// FuzzProblemsHoldNoInput: whatever a client sends, an answer of Keyward's own does not repeat it, nor does the log but for the path.
func FuzzProblemsHoldNoInput(f *testing.F) {
	peer := newPeer(f, true)
	w := newWorld(f, peer.url)
	f.Add("Keyward-Org", "/vapi/x")
	f.Add("Authorization", "/nowhere")
	f.Add("Host", "/vapi/x")
	f.Add("bad name", "/vapi/x")
	const mark = "m4rk3dInput"
	f.Fuzz(func(t *testing.T, name, path string) {
		if len(name) > 100 || len(path) > 200 || strings.ContainsAny(name+path, "\r\n") || strings.Contains(path, " ") {
			return
		}
		c, err := net.Dial("tcp", w.tcp)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "GET /"+path+" HTTP/1.1\r\nHost: localhost\r\n"+name+": "+mark+"\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return // closed without a word
		}
		b, _ := io.ReadAll(resp.Body)
		if resp.StatusCode < 400 || resp.Header.Get("Keyward-Error") == "" {
			t.Fatalf("status %d without a token", resp.StatusCode)
		}
		if strings.Contains(string(b), mark) || strings.Contains(w.logs.String(), mark) {
			t.Fatalf("header %q: its value stands in the answer or in the log", name)
		}
	})
}
