package torture

import (
	"fmt"
	"strings"
)

const codingLine = "Transfer-Encoding: chunked"

// chunked is a POST with a chunked body as it stands.
func chunked(body string) string { return post(body, codingLine) }

// chunks: the sizes, extensions, ends and trailers of chunked bodies.
func (v *vectors) chunks() {
	v.accept("chunks: empty body", chunked("0\r\n\r\n"), "POST", "/v", "")
	v.accept("chunks: two", chunked("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), "POST", "/v", "hello world")
	v.accept("chunks: upper-case size", chunked("A\r\n0123456789\r\n0\r\n\r\n"), "POST", "/v", "0123456789")
	v.accept("chunks: lower-case size", chunked("a\r\n0123456789\r\n0\r\n\r\n"), "POST", "/v", "0123456789")
	v.accept("chunks: CRLF in the data", chunked("4\r\n\r\n\r\n\r\n0\r\n\r\n"), "POST", "/v", "\r\n\r\n")
	v.accept("chunks: data looks like the end", chunked("5\r\n0\r\n\r\n\r\n0\r\n\r\n"), "POST", "/v", "0\r\n\r\n")
	v.accept("chunks: of one byte each", chunked(strings.Repeat("1\r\nx\r\n", 300)+"0\r\n\r\n"), "POST", "/v", strings.Repeat("x", 300))
	big := strings.Repeat("x", 40000)
	v.accept("chunks: long", chunked(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(big), big)), "POST", "/v", big)
	v.either("chunks: leading zeros", chunked("005\r\nhello\r\n0\r\n\r\n"), "POST", "/v", "hello")
	v.either("chunks: many zeros at the end", chunked("5\r\nhello\r\n000\r\n\r\n"), "POST", "/v", "hello")
	v.either("chunks: extension", chunked("5;name=value\r\nhello\r\n0\r\n\r\n"), "POST", "/v", "hello")
	v.either("chunks: extension without value", chunked("5;name\r\nhello\r\n0\r\n\r\n"), "POST", "/v", "hello")
	v.either("chunks: extension in quotes", chunked("5;name=\"a b\"\r\nhello\r\n0\r\n\r\n"), "POST", "/v", "hello")
	v.either("chunks: extension on the last", chunked("5\r\nhello\r\n0;end\r\n\r\n"), "POST", "/v", "hello")
	v.either("chunks: space before the extension", chunked("5 ;name\r\nhello\r\n0\r\n\r\n"), "POST", "/v", "hello")

	for _, size := range []string{
		"+5", "-5", "-1", "0x5", "0X5", "5h", "Z", "g", "", " ", " 5", "\t5", "5 ", "5\t", "5 5", "5,5", "5.0", "\"5\"", "5_", "_5", "٥", "\x005", "5\x00", "5\v", "5\x7f", "five",
		"10000000000000005", "ffffffffffffffff", "fffffffffffffffff", "8000000000000000", "7fffffffffffffffff", "100000000000000000005", "0000000000000000000000000000000000000000000000005g",
	} {
		v.refuse(fmt.Sprintf("chunks: size %q", size), chunked(size+"\r\nhello\r\n0\r\n\r\n"+smuggled))
	}
	for _, size := range []string{"5\n", "5\r", "5\r\r\n", "5;\n", "5;a=\n", "5;a\rb\r\n", "5;a=b\n\r\n"} {
		v.refuse(fmt.Sprintf("chunks: size line %q", size), chunked(size+"hello\r\n0\r\n\r\n"+smuggled))
	}
	v.refuse("chunks: extension hides a request behind a bare LF", chunked("2;\nxx\r\n4c\r\nhello\r\n0\r\n\r\n"+smuggled))
	v.refuse("chunks: extension with NUL", chunked("5;a=\x00\r\nhello\r\n0\r\n\r\n"+smuggled))
	v.refuse("chunks: extension of 64 kB", chunked("5;"+strings.Repeat("x", 64<<10)+"\r\nhello\r\n0\r\n\r\n"+smuggled))

	for _, end := range []string{"", "\n", "\r", "XX", "\r\r", "\n\n", " \r\n", "x\r\n", "\r\nx", "\n\r"} {
		v.refuse(fmt.Sprintf("chunks: data ends in %q", end), chunked("5\r\nhello"+end+"0\r\n\r\n"+smuggled))
	}
	v.refuse("chunks: data longer than said", chunked("3\r\nhello\r\n0\r\n\r\n"+smuggled))
	v.refuse("chunks: data shorter than said", chunked("6\r\nhello\r\n0\r\n\r\n"+smuggled))
	v.refuse("chunks: last ends in LF", chunked("5\r\nhello\r\n0\n\n"+smuggled))
	v.refuse("chunks: last ends in CRLF, LF", chunked("5\r\nhello\r\n0\r\n\n"+smuggled))
	v.refuse("chunks: last ends in CR CR", chunked("5\r\nhello\r\n0\r\r"+smuggled))
	v.cut("chunks: last is followed by rubbish", chunked("5\r\nhello\r\n0\r\nXX"))
	v.cut("chunks: no last", chunked("5\r\nhello\r\n"))
	v.cut("chunks: nothing at all", chunked(""))
	v.cut("chunks: cut in a size", chunked("5\r\nhello\r\n5"))
	v.cut("chunks: cut in the data", chunked("5\r\nhel"))
	v.cut("chunks: cut in the last", chunked("5\r\nhello\r\n0\r\n"))
	v.refuse("chunks: blank line first", chunked("\r\n5\r\nhello\r\n0\r\n\r\n"))
	v.refuse("chunks: not chunked at all", chunked("hello"))

	// A long body streams: what is wrong with it shows when the provider has a part of it, which must not become a whole request.
	long := fmt.Sprintf("%x\r\n%s\r\n", len(big), big)
	v.refuse("chunks: long, then a bad size", chunked(long+"Z\r\nhello\r\n0\r\n\r\n"+smuggled))
	v.refuse("chunks: long, then no CRLF", chunked(long+"5\r\nhelloXX0\r\n\r\n"+smuggled))
	v.cut("chunks: long, then cut", chunked(long))
	v.refuse("chunks: long, then a trailer", chunked(long+"0\r\nKeyward-Org: globex\r\n\r\n"))
	v.cut("length: long, then cut", post(big, fmt.Sprintf("Content-Length: %d", len(big)+1)))

	for _, trailer := range []string{
		"Keyward-Org: globex", "keyward-org: globex", "Keyward-Org: acme", "Keyward-Assistant: x", "Keyward-Upstream: api.vapi.ai", "Authorization: Bearer mine", "xi-api-key: mine",
		"Content-Length: 5", "Transfer-Encoding: chunked", "Host: api.vapi.ai", "Connection: close", "X-Checksum: 1", "X-Empty:", "Bad Name: x", "No colon", ": no name", " folded", "X: a\nY: b", "X: \x00",
	} {
		v.refuse(fmt.Sprintf("trailer: %q", trailer), chunked("5\r\nhello\r\n0\r\n"+trailer+"\r\n\r\n"))
		v.refuse(fmt.Sprintf("trailer: behind no data, %q", trailer), chunked("0\r\n"+trailer+"\r\n\r\n"))
	}
	v.refuse("trailer: declared", post("5\r\nhello\r\n0\r\nKeyward-Org: globex\r\n\r\n", codingLine, "Trailer: Keyward-Org"))
	v.refuse("trailer: declared and harmless", post("5\r\nhello\r\n0\r\nX-Checksum: 1\r\n\r\n", codingLine, "Trailer: X-Checksum"))
	v.refuse("trailer: declared and never sent", post("5\r\nhello\r\n0\r\n\r\n", codingLine, "Trailer: X-Checksum"))
	v.deny("trailer: the only one that names an org", "POST /v HTTP/1.1\r\n"+hostLine+codingLine+"\r\n\r\n5\r\nhello\r\n0\r\nKeyward-Org: globex\r\n\r\n", 400)
	v.refuse("trailer: 200 of them", chunked("0\r\n"+strings.Repeat("X: y\r\n", 200)+"\r\n"))
	v.refuse("trailer: of 64 kB", chunked("0\r\nX: "+strings.Repeat("y", 64<<10)+"\r\n\r\n"))
}

// pipelines: several requests in one write, and what stands between them.
func (v *vectors) pipelines() {
	second := head("GET /second HTTP/1.1")
	first := seen{Method: "GET", Target: "/v"}
	posted := seen{Method: "POST", Target: "/v", Body: "hello"}
	next := seen{Method: "GET", Target: "/second"}
	v.several("pipeline: two", get()+second, first, next)
	v.several("pipeline: behind a body", post("hello", "Content-Length: 5")+second, posted, next)
	v.several("pipeline: behind chunks", chunked("5\r\nhello\r\n0\r\n\r\n")+second, posted, next)
	v.several("pipeline: five", strings.Repeat(get(), 4)+second, first, first, first, first, next)
	v.several("pipeline: HEAD first", head("HEAD /v HTTP/1.1")+second, seen{Method: "HEAD", Target: "/v"}, next)
	v.several("pipeline: behind an Expect", post("hello", "Content-Length: 5", "Expect: 100-continue")+second, posted, next)
	v.several("pipeline: nothing behind Connection: close", get("Connection: close")+second, first)
	v.several("pipeline: nothing behind HTTP/1.0", head("GET /v HTTP/1.0")+second, first)
	v.refuse("pipeline: behind a refused one nothing is read", get("Bad Name: x")+second)
	v.refuse("pipeline: behind CL and TE nothing is read", post("5\r\nhello\r\n0\r\n\r\n", codingLine, "Content-Length: 5")+second)
	v.refuse("pipeline: behind a bad chunk nothing is read", chunked("Z\r\n\r\n")+second)
	v.refuse("pipeline: behind a trailer nothing is read", chunked("0\r\nX: y\r\n\r\n")+second)
	v.refuse("pipeline: behind two lengths nothing is read", post("hello", "Content-Length: 5", "Content-Length: 5")+second)
	v.several("pipeline: an upgrade to h2c is no upgrade", get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")+second, first, next)
}
