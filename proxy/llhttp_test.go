package proxy

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// llhttpServer is Node's server, whose parser is llhttp, in its strict mode. It says of each request what it read.
const llhttpServer = `
const http = require('http');
const server = http.createServer({insecureHTTPParser: false, maxHeaderSize: 65536, keepAliveTimeout: 120000, requestTimeout: 0});
const take = (req, res) => {
  let body = 0;
  req.on('data', (d) => { body += d.length; });
  req.on('end', () => {
    const read = {Method: req.method, Target: req.url, Lines: req.rawHeaders, Body: body, Trailers: req.rawTrailers.length};
    res.setHeader('X-Read', Buffer.from(JSON.stringify(read)).toString('base64'));
    res.end();
  });
};
server.on('request', take);
server.on('checkContinue', take);
server.maxHeadersCount = 0;
server.maxRequestsPerSocket = 0;
server.listen(process.argv[2], () => process.stdout.write('llhttp ' + process.versions.llhttp + '\n'));
`

// A reading is what a parser made of a request.
type reading struct {
	Method, Target string
	Lines          []string // names and values in turn
	Body, Trailers int
}

func (r reading) String() string {
	return fmt.Sprintf("%s %q %q, body of %d", r.Method, r.Target, r.Lines, r.Body)
}

func startLLHTTP(t *testing.T) (socket, version string) {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("node is not installed, and nothing is left out in CI")
		}
		t.Skip("NOT RUN: what llhttp reads is not compared: node is not installed (Debian: apt-get install nodejs)")
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "llhttp.js")
	if err := os.WriteFile(script, []byte(llhttpServer), 0o600); err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	cmd := exec.Command(path, script, socket)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	version, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("node never listened: %v", err)
	}
	return socket, strings.TrimSpace(version)
}

// TestHeadAsLLHTTP: what the head check accepts, llhttp and net/http read in the same way, or refuse: the same method, target and headers, a
// body that ends at the same byte, and the next request behind it.
func TestHeadAsLLHTTP(t *testing.T) {
	n := 20_000
	if os.Getenv("KEYWARD_TORTURE") == "1" {
		n = 500_000
	}
	if testing.Short() {
		n = 3000
	}
	socket, version := startLLHTTP(t)
	var accepted, byLLHTTP, byNetHTTP, wrong atomic.Int64
	var all sync.WaitGroup
	const workers = 8
	for w := range workers {
		all.Go(func() {
			g := &headGenerator{rand.New(rand.NewPCG(11, uint64(w)))}
			peer := &llhttpPeer{socket: socket}
			defer peer.close()
			h := &head{}
			for range n / workers {
				raw, ok := g.next(h)
				if !ok || h.upgrade != nil && h.body() {
					continue // such a request is refused, or goes on without its Upgrade, which has llhttp ignore the body
				}
				accepted.Add(1)
				want := readingOf(h)
				// What follows a request to upgrade is no request, until the provider has declined.
				last := h.upgrade != nil
				for name, ask := range map[string]func([]byte, bool) (*reading, string){"llhttp": peer.ask, "net/http": netHTTPReading} {
					got, problem := ask(raw, last)
					switch {
					case problem != "":
						t.Errorf("%s: %s\n\t%q", name, problem, raw)
						wrong.Add(1)
					case got == nil && name == "llhttp":
						byLLHTTP.Add(1)
					case got == nil:
						byNetHTTP.Add(1)
					case name == "llhttp" && got.String() != want.String(), name != "llhttp" && !sameButForOrder(got, want):
						t.Errorf("DESYNC: %s read %v\n\tand Keyward %v\n\tin %q", name, got, want, raw)
						wrong.Add(1)
					}
				}
				if wrong.Load() > 10 {
					return
				}
			}
		})
	}
	all.Wait()
	if min(accepted.Load()-byLLHTTP.Load(), accepted.Load()-byNetHTTP.Load()) < int64(n/10) {
		t.Errorf("of %d heads, %d were accepted, of which llhttp refused %d and net/http %d: too little was compared", n, accepted.Load(), byLLHTTP.Load(), byNetHTTP.Load())
	}
	t.Logf("figure: %d generated heads, %d accepted: %d read otherwise by %s or net/http; llhttp itself refused %d of them, net/http %d",
		n, accepted.Load(), wrong.Load(), version, byLLHTTP.Load(), byNetHTTP.Load())
}

// readingOf is the head check's own reading.
func readingOf(h *head) reading {
	r := reading{Method: string(h.method), Target: string(h.target), Body: max(int(h.length), 0)}
	if h.chunked {
		r.Body = chunkedLength
	}
	for _, f := range h.fields[:h.n] {
		r.Lines = append(r.Lines, latin1(f.name), latin1(f.value))
	}
	return r
}

func latin1(b []byte) string {
	r := make([]rune, len(b))
	for i, c := range b {
		r[i] = rune(c)
	}
	return string(r)
}

const (
	chunkedBody   = "5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
	chunkedLength = 11
	nextRequest   = "GET /next HTTP/1.1\r\nHost: next\r\n\r\n"
)

// An llhttpPeer is a kept connection to Node.
type llhttpPeer struct {
	socket string
	c      net.Conn
	in     *bufio.Reader
}

func (p *llhttpPeer) close() {
	if p.c != nil {
		_ = p.c.Close()
		p.c = nil
	}
}

// ask sends a request and, unless it is the last, one behind it. No reading and no problem: it was refused.
func (p *llhttpPeer) ask(raw []byte, last bool) (*reading, string) {
	if p.c == nil {
		c, err := net.Dial("unix", p.socket)
		if err != nil {
			return nil, err.Error()
		}
		p.c, p.in = c, bufio.NewReader(c)
	}
	_ = p.c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := p.c.Write(append(raw[:len(raw):len(raw)], nextRequest...)); err != nil {
		p.close()
		return nil, "writing: " + err.Error()
	}
	first, closed, err := p.read()
	switch {
	case err != nil:
		p.close()
		return nil, "no answer: " + err.Error()
	case first == nil || closed || last:
		p.close()
		return first, ""
	}
	next, _, err := p.read()
	if err != nil || next == nil || next.Target != "/next" || next.Method != "GET" {
		p.close()
		return nil, fmt.Sprintf("the request behind it was read as %v (%v)", next, err)
	}
	return first, ""
}

func (p *llhttpPeer) read() (r *reading, closed bool, err error) {
	resp, err := http.ReadResponse(p.in, &http.Request{Method: "HEAD"})
	if err != nil {
		return nil, true, err
	}
	text := resp.Header.Get("X-Read")
	if text == "" {
		return nil, true, nil
	}
	if resp.ContentLength > 0 || len(resp.TransferEncoding) > 0 {
		_, _ = p.in.Discard(len("0\r\n\r\n"))
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, true, err
	}
	r = &reading{}
	return r, resp.Close, json.Unmarshal(b, r)
}

// netHTTPReading is that of Go's server.
func netHTTPReading(raw []byte, _ bool) (*reading, string) {
	in := bufio.NewReader(io.MultiReader(bytes.NewReader(raw), strings.NewReader(nextRequest)))
	r, err := http.ReadRequest(in)
	if err != nil {
		return nil, ""
	}
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return nil, "its body: " + err.Error()
	}
	got := &reading{Method: r.Method, Target: r.RequestURI, Body: int(n), Trailers: len(r.Trailer)}
	for name, values := range r.Header {
		for _, v := range values {
			got.Lines = append(got.Lines, name, latin1([]byte(v)))
		}
	}
	next, err := http.ReadRequest(in)
	if err != nil || next.RequestURI != "/next" {
		return nil, fmt.Sprintf("the request behind it could not be read: %v", err)
	}
	return got, ""
}

// sameButForOrder compares with what net/http keeps: names in its own spelling, without the lines that it moves elsewhere.
func sameButForOrder(got *reading, want reading) bool {
	count := map[string]int{}
	for i := 0; i < len(want.Lines); i += 2 {
		if name := want.Lines[i]; !strings.EqualFold(name, "Host") && !strings.EqualFold(name, "Transfer-Encoding") {
			count[http.CanonicalHeaderKey(name)+": "+want.Lines[i+1]]++
		}
	}
	for i := 0; i < len(got.Lines); i += 2 {
		count[got.Lines[i]+": "+got.Lines[i+1]]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return got.Method == want.Method && got.Target == want.Target && got.Body == want.Body && got.Trailers == 0
}
