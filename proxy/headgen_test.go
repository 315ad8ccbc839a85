package proxy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
)

// A headGenerator makes heads of which about half are valid, and the others nearly.
type headGenerator struct{ *rand.Rand }

func (g *headGenerator) one(of ...string) string { return of[g.IntN(len(of))] }

// next makes a request, its body included, as the head check reads it; ok says whether the check accepts it. h is its reading.
func (g *headGenerator) next(h *head) (raw []byte, ok bool) {
	method := g.one("GET", "GET", "HEAD", "POST", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH", "get", "FOO")
	target := g.one("/", "/v1/x?a=b&c", "/%2e%2e/x", "//x", "/a;b=c/d", "/\xc3\xa4", "/x?q=%00", "/x#y", "*", "http://api.resend.com/x", "/x y", "/{}|\\^`", "/"+strings.Repeat("x", g.IntN(300)))
	version := "HTTP/1.1"
	if g.IntN(10) == 0 {
		version = "HTTP/1.0"
	}
	lines := []string{"Host: api.resend.com"}
	for range g.IntN(6) {
		lines = append(lines, g.line())
	}
	g.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	block := []byte(strings.Join(lines, "\r\n") + "\r\n\r\n")
	for g.IntN(3) == 0 {
		block = g.mutate(block)
	}
	end := bytes.Index(block, []byte("\r\n\r\n"))
	if end < 0 || bytes.HasPrefix(block, []byte("\r\n")) {
		return nil, false // the server library hands over whole blocks only
	}
	block = block[:end+4]
	if h.scan([]byte(method), []byte(target), block, version == "HTTP/1.0") != nil || h.length > 1<<16 {
		return nil, false
	}
	raw = fmt.Appendf(nil, "%s %s %s\r\n%s", method, target, version, block)
	h.method, h.target = []byte(method), []byte(target)
	if h.chunked {
		return append(raw, chunkedBody...), true
	}
	return append(raw, bytes.Repeat([]byte("b"), max(int(h.length), 0))...), true
}

func (g *headGenerator) line() string {
	colon := g.one(": ", ": ", ": ", ":", ":  ", ":\t", " : ", "")
	if colon == " : " || colon == "" {
		if g.IntN(8) > 0 {
			colon = ": "
		}
	}
	end := g.one("", "", "", " ", "\t", " \t ")
	switch g.IntN(8) {
	case 0:
		return g.cased("Content-Length") + colon + g.one("0", "5", "17", "005", "+5", "-1", "5 ", "0x5", "5,5", "5, 5", "", "5a", "18446744073709551616", "5\x00", "\v5", "1_0") + end
	case 1:
		return g.cased("Transfer-Encoding") + colon + g.one("chunked", "chunked", "Chunked", "chunked, chunked", "gzip, chunked", "identity", "chunked;q=1", "\vchunked", "chunked\x00", "xchunked", "", "chunke\x64") + end
	case 2:
		return g.cased("Connection") + colon + g.one("close", "keep-alive", "close, X-A", "Content-Length", "transfer-encoding", "Upgrade", "close,,x", "") + end
	case 3:
		return g.one("Host", "host", "HOST") + colon + g.one("api.resend.com", "other", "a, b", "", "[::1]", "a:80", "a b", "a@b") + end
	case 4:
		return g.one("Expect: 100-continue", "Upgrade: websocket", "TE: trailers", "Trailer: X-A", "Content-Encoding: gzip", "Keyward-Org: acme", "Authorization: Bearer x", "Content_Length: 5", "Transfer_Encoding: chunked",
			"Content-Length\x00: 5", "Content-Length\xa0: 5", "Transfer-Encoding\v: chunked", "X-Content-Length: 5", "Content-Lengt\xe8: 5") + end
	}
	const odd = "!#$%&'*+-.^_`|~()<>@,;\\\"/[]?={} \x00\x01\x7f\x80\xff"
	name := g.one("X-A", "x-b", "Accept", "User-Agent", "Cookie", "Set-Cookie", "Proxy-Connection", "Keep-Alive")
	if g.IntN(4) == 0 {
		name += string(odd[g.IntN(len(odd))])
	}
	value := g.one("", "a", "b c", "a,b", "a:b", "\xc3\xa4\xff", "\"q\"", "x\ty", strings.Repeat("v", g.IntN(200)))
	if g.IntN(8) == 0 {
		value += string([]byte{byte(g.IntN(256))}) + "z"
	}
	return name + colon + value + end
}

func (g *headGenerator) cased(s string) string {
	return g.one(s, s, strings.ToLower(s), strings.ToUpper(s))
}

// mutate changes a few bytes, or doubles, drops or cuts a stretch.
func (g *headGenerator) mutate(b []byte) []byte {
	const telling = "\r\n\t :,;\x00\v\f\x7f\x85\xa0"
	at := g.IntN(len(b))
	switch g.IntN(6) {
	case 0:
		b[at] = telling[g.IntN(len(telling))]
		return b
	case 1:
		return append(b[:at:at], append([]byte{telling[g.IntN(len(telling))]}, b[at:]...)...)
	case 2:
		return append(b[:at:at], b[min(len(b), at+1+g.IntN(3)):]...)
	case 3:
		to := min(len(b), at+g.IntN(40))
		return append(b[:to:to], b[at:]...)
	case 4:
		b[at] ^= 1 << g.IntN(8)
		return b
	}
	return append(b[:at:at], append([]byte(g.one("\r\n", "\n", "\r", "\r\n ", "\r\nX: y\r\n", "\n\n", "\r\r\n")), b[at:]...)...)
}
