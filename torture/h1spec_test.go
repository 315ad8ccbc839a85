package torture

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// The rules of the two public HTTP/1.1 suites named h1spec, re-stated here: https://github.com/uNetworking/h1spec and
// https://github.com/dropseed/h1spec. Both test a server at its root; this one needs a token and knows where to send a request only by its
// host. Hence the suites' "Host: example.com" and "Host: localhost" are a provider's host here, and with it come two lines of ours.

const specLines = "Host: api.resend.com\r\nKeyward-Org: acme\r\nKeyward-Token: TOKEN\r\n"

// A rule is one case of a suite: what is sent, and the statuses that may come back first.
type rule struct {
	name, raw string
	statuses  []span
}

type span struct{ from, to int }

var (
	success   = []span{{200, 299}}
	clientErr = []span{{400, 499}}
	anyErr    = []span{{400, 599}}
	only400   = []span{{400, 400}}
	not400    = []span{{100, 399}, {401, 599}}
	anything  = []span{{100, 599}}
	waits     = []span(nil) // nothing comes back: the server waits for the rest
)

func (r rule) allows(status int) bool {
	return slices.ContainsFunc(r.statuses, func(s span) bool { return status >= s.from && status <= s.to })
}

// uNetworking's rules.
func uNetworking() []rule {
	whole := "GET /hello HTTP/1.1\r\nHost: api.resend.com\r\n\r"
	var rules []rule
	for _, part := range []string{
		"G", "GET ", "GET /hello", "GET /hello ", "GET /hello HTTP", "GET /hello HTTP/1.1", "GET /hello HTTP/1.1\r", "GET /hello HTTP/1.1\r\n", "GET /hello HTTP/1.1\r\nHos", "GET /hello HTTP/1.1\r\nHost:",
		"GET /hello HTTP/1.1\r\nHost: ", "GET /hello HTTP/1.1\r\nHost: api.resend.com", "GET /hello HTTP/1.1\r\nHost: api.resend.com\r", "GET /hello HTTP/1.1\r\nHost: api.resend.com\r\n", whole,
	} {
		rules = append(rules, rule{fmt.Sprintf("waits behind %q", part), part, waits})
	}
	return append(rules,
		rule{"no HTTP version", "GET / \r\n\r\n", anyErr},
		rule{"Expect", "GET / HTTP/1.1\r\n" + specLines + "Expect: 100-continue\r\n\r\n", []span{{100, 100}, {200, 299}}},
		rule{"valid GET", "GET / HTTP/1.1\r\n" + specLines + "\r\n", success},
		rule{"valid GET with edge cases", "GET / HTTP/1.1\r\n" + strings.Replace(specLines, "Host: ", "hoSt:\t", 1) + "empty:\r\n\r\n", success},
		rule{"invalid bytes in a name", "GET / HTTP/1.1\r\n" + specLines + "X-Invalid[]: test\r\n\r\n", clientErr},
		rule{"no Host", "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n", clientErr},
		rule{"several Hosts", "GET / HTTP/1.1\r\n" + specLines + "Host: api.vapi.ai\r\n\r\n", clientErr},
		rule{"Content-Length overflows below zero", "GET / HTTP/1.1\r\n" + specLines + "Content-Length: -123456789123456789123456789\r\n\r\n", clientErr},
		rule{"negative Content-Length", "GET / HTTP/1.1\r\n" + specLines + "Content-Length: -1234\r\n\r\n", clientErr},
		rule{"Content-Length is no number", "GET / HTTP/1.1\r\n" + specLines + "Content-Length: abc\r\n\r\n", clientErr},
		rule{"empty value", "GET / HTTP/1.1\r\n" + specLines + "X-Empty-Header: \r\n\r\n", success},
		rule{"control character in a value", "GET / HTTP/1.1\r\n" + specLines + "X-Bad-Control-Char: test\x07\r\n\r\n", clientErr},
		rule{"invalid version", "GET / HTTP/9.9\r\n" + specLines + "\r\n", anyErr},
		rule{"rubbish in front", "Extra lineGET / HTTP/1.1\r\n" + specLines + "\r\n", anyErr},
		rule{"invalid end of a line", "GET / HTTP/1.1\r\n" + specLines + "\rSome-Header: Test\r\n\r\n", clientErr},
		rule{"valid POST", "POST / HTTP/1.1\r\n" + specLines + "Content-Length: 5\r\n\r\nhello", []span{{200, 299}, {404, 404}}},
		rule{"Transfer-Encoding and Content-Length", "GET / HTTP/1.1\r\n" + specLines + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", clientErr},
	)
}

// dropseed's rules of one request and one answer; the others are methods of suite.
func dropseed() []rule {
	chunk := "5\r\nhello\r\n0\r\n\r\n"
	flood := strings.Builder{}
	for i := range 101 {
		fmt.Fprintf(&flood, "X-H-%d: value\r\n", i)
	}
	return []rule{
		{"simple GET", "GET / HTTP/1.1\r\n" + specLines + "\r\n", anything},
		{"POST with Content-Length", "POST / HTTP/1.1\r\n" + specLines + "Content-Length: 5\r\n\r\nhello", not400},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\n" + specLines + "\r\n", not400},
		{"absolute form", "GET http://api.resend.com/ HTTP/1.1\r\n" + specLines + "\r\n", not400},
		{"CONNECT", "CONNECT example.com:443 HTTP/1.1\r\n" + specLines + "\r\n", not400},
		{"HTTP/2.0", "GET / HTTP/2.0\r\n" + specLines + "\r\n", []span{{400, 400}, {505, 505}}},
		{"malformed request line", "GET /\r\n" + specLines + "\r\n", only400},
		{"no Host", "GET / HTTP/1.1\r\n\r\n", only400},
		{"Host twice", "GET / HTTP/1.1\r\n" + specLines + "Host: example.com\r\n\r\n", only400},
		{"space in Host", "GET / HTTP/1.1\r\n" + strings.Replace(specLines, "api.resend.com", "bad host", 1) + "\r\n", only400},
		{"space in a name", "GET / HTTP/1.1\r\n" + specLines + "Bad Header: value\r\n\r\n", only400},
		{"obsolete folding", "GET / HTTP/1.1\r\n" + specLines + "  continued\r\n\r\n", only400},
		{"space before the colon", "GET / HTTP/1.1\r\n" + strings.Replace(specLines, "Host:", "Host :", 1) + "\r\n", only400},
		{"NUL in a value", "GET / HTTP/1.1\r\n" + strings.Replace(specLines, "api.", "api\x00.", 1) + "\r\n", only400},
		{"chunked", "POST / HTTP/1.1\r\n" + specLines + "Transfer-Encoding: chunked\r\n\r\n" + chunk, not400},
		{"chunked in HTTP/1.0", "POST / HTTP/1.0\r\n" + specLines + "Transfer-Encoding: chunked\r\n\r\n" + chunk, only400},
		{"chunked and Content-Length", "POST / HTTP/1.1\r\n" + specLines + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n" + chunk, only400},
		{"unknown coding", "POST / HTTP/1.1\r\n" + specLines + "Transfer-Encoding: nonsense\r\n\r\nhello", []span{{400, 400}, {501, 501}}},
		{"chunked is not the last coding", "POST / HTTP/1.1\r\n" + specLines + "Transfer-Encoding: chunked, gzip\r\n\r\n" + chunk, only400},
		{"Content-Length is no number", "POST / HTTP/1.1\r\n" + specLines + "Content-Length: xyz\r\n\r\nhello", only400},
		{"lengths that disagree", "POST / HTTP/1.1\r\n" + specLines + "Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello!!", only400},
		{"long request line", "GET /" + strings.Repeat("a", 9000) + " HTTP/1.1\r\n" + specLines + "\r\n", anything},
		{"many headers", "GET / HTTP/1.1\r\n" + specLines + flood.String() + "\r\n", anything},
		{"long header", "GET / HTTP/1.1\r\n" + specLines + "X-Big: " + strings.Repeat("x", 9000) + "\r\n\r\n", anything},
	}
}

func TestPublicSuites(t *testing.T) {
	r := netHTTP(t)
	s := startSidecar(t, map[string]string{"api.resend.com": r.address})
	s.put("acme", "resend", map[string]any{"api_key": secretOf("acme", "resend")})
	token := s.token()
	for _, suite := range []struct {
		name  string
		rules []rule
		more  []func(*spec) (name, bad string)
	}{
		{"uNetworking", uNetworking(), nil},
		{"dropseed", dropseed(), []func(*spec) (string, string){
			(*spec).keepsAlive, (*spec).closesWhenAsked, (*spec).closesHTTP10, (*spec).closesBehindBothLengths, (*spec).oneAnswerToBadCoding, (*spec).oneAnswerToBadSize, (*spec).oneAnswerToNoCRLF,
			(*spec).expects, (*spec).headHasNoBody, (*spec).errorsAreDelimited,
		}},
	} {
		t.Run(suite.name, func(t *testing.T) {
			x := &spec{t: t, s: s, token: token}
			passed, all := 0, len(suite.rules)+len(suite.more)
			waiting := make(chan string, all) // those that wait do so together
			pending := 0
			for _, rule := range suite.rules {
				if rule.statuses == nil {
					pending++
					go func() { waiting <- x.waits(rule) }()
					continue
				}
				if bad := x.check(rule); bad != "" {
					t.Errorf("%s: %s", rule.name, bad)
					continue
				}
				passed++
			}
			for range pending {
				if bad := <-waiting; bad != "" {
					t.Error(bad)
					continue
				}
				passed++
			}
			for _, f := range suite.more {
				if name, bad := f(x); bad != "" {
					t.Errorf("%s: %s", name, bad)
					continue
				}
				passed++
			}
			s.mustLive()
			row(t, "h1spec of "+suite.name+": all pass", "%d of %d", passed, all)
		})
	}
}

// spec runs rules over TCP.
type spec struct {
	t     *testing.T
	s     *sidecar
	token string
}

func (x *spec) send(raw string) net.Conn {
	c := x.s.dial("tcp")
	_ = c.SetDeadline(time.Now().Add(unstuck))
	go func() { _, _ = io.WriteString(c, strings.ReplaceAll(raw, "TOKEN", x.token)) }()
	return c
}

// check sends a request and looks at the first status; then the server must still be there.
func (x *spec) check(r rule) string {
	c := x.send(r.raw)
	defer func() { _ = c.Close() }()
	line, err := bufio.NewReader(c).ReadString('\n')
	var status int
	if _, scanErr := fmt.Sscanf(line, "HTTP/1.1 %d ", &status); scanErr != nil {
		return fmt.Sprintf("no answer: %q %v", line, err)
	}
	if !r.allows(status) {
		return fmt.Sprintf("status %d, want one of %v", status, r.statuses)
	}
	return ""
}

func (x *spec) waits(r rule) string {
	c := x.send(r.raw)
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	var b [256]byte
	if n, err := c.Read(b[:]); n > 0 || err == io.EOF {
		return fmt.Sprintf("%s: got %q, %v", r.name, b[:n], err)
	}
	return ""
}

// all sends bytes and reads until the server closes; closed says whether it did.
func (x *spec) all(raw string) (answer []byte, closed bool) {
	c := x.send(raw)
	defer func() { _ = c.Close() }()
	_ = c.SetReadDeadline(time.Now().Add(unstuck))
	b, err := io.ReadAll(c)
	return b, !errors.Is(err, os.ErrDeadlineExceeded)
}

// statuses of all answers in b.
func statuses(b []byte, method string) (all []int) {
	in := bufio.NewReader(bytes.NewReader(b))
	for {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil {
			return all
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		all = append(all, resp.StatusCode)
	}
}

const plainGet = "GET / HTTP/1.1\r\n" + specLines + "\r\n"

func (x *spec) keepsAlive() (string, string) {
	const name = "keep-alive"
	c := x.send(plainGet)
	defer func() { _ = c.Close() }()
	in := bufio.NewReader(c)
	for i := range 2 {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return name, fmt.Sprintf("answer %d: %v", i, err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_, _ = io.WriteString(c, strings.ReplaceAll(plainGet, "TOKEN", x.token))
	}
	return name, ""
}

func (x *spec) closes(name, raw string) (string, string) {
	b, closed := x.all(raw)
	if !closed || len(statuses(b, "GET")) != 1 {
		return name, fmt.Sprintf("closed %v, statuses %v", closed, statuses(b, "GET"))
	}
	return name, ""
}

func (x *spec) closesWhenAsked() (string, string) {
	return x.closes("Connection: close", "GET / HTTP/1.1\r\n"+specLines+"Connection: close\r\n\r\n")
}

func (x *spec) closesHTTP10() (string, string) {
	return x.closes("HTTP/1.0 closes", "GET / HTTP/1.0\r\n"+specLines+"\r\n")
}

func (x *spec) closesBehindBothLengths() (string, string) {
	return x.closes("chunked and Content-Length close", "POST / HTTP/1.1\r\n"+specLines+"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n"+plainGet)
}

func (x *spec) oneAnswerToBadCoding() (string, string) {
	return x.closes("one answer to a bad coding", "POST / HTTP/1.1\r\n"+specLines+"Transfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n"+plainGet)
}

func (x *spec) oneAnswerToBadSize() (string, string) {
	return x.closes("one answer to a bad chunk size", "POST / HTTP/1.1\r\n"+specLines+"Transfer-Encoding: chunked\r\n\r\nZ\r\nhello\r\n0\r\n\r\n"+plainGet)
}

func (x *spec) oneAnswerToNoCRLF() (string, string) {
	return x.closes("one answer to a chunk without its end", "POST / HTTP/1.1\r\n"+specLines+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n"+plainGet)
}

func (x *spec) expects() (string, string) {
	const name = "Expect: 100-continue"
	c := x.send("POST / HTTP/1.1\r\n" + specLines + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	defer func() { _ = c.Close() }()
	in := bufio.NewReader(c)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return name, err.Error()
	}
	if resp.StatusCode != http.StatusContinue {
		if resp.StatusCode/100 == 4 {
			return name, ""
		}
		return name, resp.Status
	}
	_, _ = io.WriteString(c, "hello")
	if resp, err = http.ReadResponse(in, nil); err != nil || resp.StatusCode/100 == 1 {
		return name, fmt.Sprintf("final answer: %v", err)
	}
	return name, ""
}

func (x *spec) headHasNoBody() (string, string) {
	const name = "HEAD has no body"
	b, _ := x.all("HEAD / HTTP/1.1\r\n" + specLines + "Connection: close\r\n\r\n")
	if _, body, ok := bytes.Cut(b, []byte("\r\n\r\n")); !ok || len(body) > 0 {
		return name, fmt.Sprintf("%q", b)
	}
	return name, ""
}

func (x *spec) errorsAreDelimited() (string, string) {
	const name = "errors say where they end"
	c := x.send("get / HTTP/1.1\r\n" + specLines + "\r\n")
	defer func() { _ = c.Close() }()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return name, err.Error()
	}
	if resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 && !resp.Close {
		return name, "neither a length, nor chunks, nor a close"
	}
	return name, ""
}
