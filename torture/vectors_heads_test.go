package torture

import (
	"fmt"
	"strings"
)

// lines: how the lines of a head end and begin.
func (v *vectors) lines() {
	crlf := get("X-A: b")
	v.accept("lines: plain", crlf, "GET", "/v", "", "X-A=b")
	v.cut("lines: all end in LF", strings.ReplaceAll(crlf, "\r\n", "\n"))
	v.refuse("lines: the request line ends in LF", strings.Replace(crlf, "\r\n", "\n", 1))
	v.refuse("lines: one header ends in LF", strings.Replace(crlf, "acme\r\n", "acme\n", 1))
	v.cut("lines: the last header ends in LF", strings.Replace(crlf, "b\r\n\r\n", "b\n\r\n", 1))
	v.cut("lines: the empty line is LF", strings.Replace(crlf, "b\r\n\r\n", "b\r\n\n", 1))
	v.cut("lines: both ends are LF", strings.Replace(crlf, "b\r\n\r\n", "b\n\n", 1))
	v.refuse("lines: the request line ends in CR", strings.Replace(crlf, "\r\n", "\r", 1))
	v.refuse("lines: a header ends in CR", strings.Replace(crlf, "acme\r\n", "acme\r", 1))
	v.refuse("lines: CR CR LF", strings.Replace(crlf, "acme\r\n", "acme\r\r\n", 1))
	v.refuse("lines: CR CR LF behind the request line", strings.Replace(crlf, "\r\n", "\r\r\n", 1))
	v.refuse("lines: LF CR", strings.Replace(crlf, "acme\r\n", "acme\n\r", 1))
	v.refuse("lines: CR behind the empty line's CR", strings.Replace(crlf, "b\r\n\r\n", "b\r\n\r\r\n", 1))
	v.refuse("lines: CR in front of a name", get("\rX-A: b"))
	v.refuse("lines: LF in a value", get("X-A: b\nKeyward-Org: globex"))
	v.refuse("lines: CR in a value", get("X-A: b\rKeyward-Org: globex"))
	v.refuse("lines: LF in a name", get("X\n-A: b"))
	v.refuse("lines: folded with a space", get("X-A: b", " c"))
	v.refuse("lines: folded with a tab", get("X-A: b", "\tc"))
	v.refuse("lines: folded, empty first", get("X-A:", " c"))
	v.refuse("lines: folded with spaces only", get("X-A: b", "   "))
	v.refuse("lines: folded header of ours", get("Keyward-Request-Id:", " c"))
	v.refuse("lines: folded in place of an end", get("X-A: b", " ")+smuggled)
	v.refuse("lines: first line folded", strings.Replace(crlf, hostLine, " "+hostLine, 1))
	v.refuse("lines: first line starts with a tab", strings.Replace(crlf, hostLine, "\t"+hostLine, 1))
	v.refuse("lines: request line continued", "GET /v HTTP/1.1\r\n folded\r\n"+hostLine+orgLine+"\r\n")
	v.refuse("lines: no colon", get("No colon here"))
	v.refuse("lines: no colon, one word", get("Nocolon"))
	v.refuse("lines: only a colon", get(":"))
	v.refuse("lines: no name", get(": value"))
	v.refuse("lines: two colons and no name", get(":: value"))
	v.refuse("lines: a second request line", get("GET /smuggled HTTP/1.1"))
	v.either("lines: CRLF in front", "\r\n"+crlf, "GET", "/v", "")
	v.either("lines: two CRLF in front", "\r\n\r\n"+crlf, "GET", "/v", "")
	v.refuse("lines: LF in front", "\n"+crlf)
	v.refuse("lines: CR in front", "\r"+crlf)
	v.refuse("lines: space in front", " "+crlf)
	v.refuse("lines: NUL in front", "\x00"+crlf)
	v.refuse("lines: byte order mark in front", "\ufeff"+crlf)
	v.cut("lines: cut in the request line", "GET /v HT")
	v.cut("lines: cut in a name", "GET /v HTTP/1.1\r\nHos")
	v.cut("lines: cut before the empty line", strings.TrimSuffix(crlf, "\r\n"))
	v.cut("lines: cut in the empty line", strings.TrimSuffix(crlf, "\n"))
	v.cut("lines: a TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
	v.refuseAs("lines: HTTP/2's preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 505)
	v.refuse("lines: rubbish", "\xff\xfe\xfd\r\n\r\n")
	v.refuse("lines: a PROXY line", "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"+crlf)
}

// names: every byte that no header name may have.
func (v *vectors) names() {
	for c := range 256 {
		b := byte(c)
		if b == ':' || b == '\n' || b == '\r' || b >= 0x84 && b < 0xfd || isTokenByte(b) {
			continue
		}
		v.refuse(fmt.Sprintf("names: %q within", b), get("X"+string([]byte{b})+"A: b"))
	}
	for _, b := range "!#$%&'*+-.^`|~" {
		v.accept(fmt.Sprintf("names: %q within", b), get("X"+string(b)+"A: b"), "GET", "/v", "", fmt.Sprintf("X%cA=b", b))
	}
	v.refuse("names: space behind", get("X-A : b"))
	v.refuse("names: spaces behind", get("X-A   : b"))
	v.refuse("names: tab behind", get("X-A\t: b"))
	v.refuse("names: NUL behind", get("X-A\x00: b"))
	v.refuse("names: space before the Host's colon", "GET /v HTTP/1.1\r\nHost : api.resend.com\r\n"+orgLine+"\r\n")
	v.refuse("names: space before our colon", get("Keyward-Request-Id : b"))
	for _, n := range []string{
		"Keyward_Org", "keyward_org", "KEYWARD_ORG", "Keyward-Org_", "Keyward_Assistant", "Keyward_Upstream", "Keyward_Token", "X_Org_Id", "X_Org", "X_Tenant_Id", "Proxy_Authorization",
		"Content_Type", "Xi_Api_Key", "xi_api_key", "X_Api_Key", "X_Goog_Api_Key", "X_Forwarded_For", "Content_Encoding", "Keep_Alive",
	} {
		if n == "Keyward-Org_" {
			v.either("names: "+n, get(n+": globex"), "GET", "/v", "")
			continue
		}
		v.refuse("names: "+n, get(n+": globex"))
	}
	v.accept("names: harmless underscore", get("x_trace: 1"), "GET", "/v", "")
	v.accept("names: of one letter", get("A: b"), "GET", "/v", "", "A=b")
	v.accept("names: digits", get("42: b"), "GET", "/v", "", "42=b")
}

func isTokenByte(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0
}

// values: every control character, and what only looks dangerous.
func (v *vectors) values() {
	for c := range 33 {
		b := byte(c)
		if c == 32 {
			b = 0x7f
		}
		if b == '\t' {
			continue
		}
		v.refuse(fmt.Sprintf("values: %q within", b), get("X-A: b"+string([]byte{b})+"c"))
	}
	v.refuse("values: NUL at the start", get("X-A: \x00b"))
	v.refuse("values: NUL at the end", get("X-A: b\x00"))
	v.refuse("values: bell in ours", get("Keyward-Request-Id: \x07"))
	v.accept("values: tab within", get("X-A: b\tc"), "GET", "/v", "")
	v.accept("values: empty", get("X-A:"), "GET", "/v", "", "X-A=")
	v.accept("values: spaces only", get("X-A:    "), "GET", "/v", "", "X-A=")
	v.accept("values: colons", get("X-A: b: c"), "GET", "/v", "", "X-A=b: c")
	v.accept("values: bytes over 127", get("X-A: \xc3\xa4"), "GET", "/v", "")
	v.accept("values: percent-encoded line break", get("X-A: b%0d%0aKeyward-Org: globex"), "GET", "/v", "", "X-A=b%0d%0aKeyward-Org: globex")
	v.accept("values: twice", get("X-A: b", "X-A: c"), "GET", "/v", "", "X-A=b|c")
	v.accept("values: 8,000 bytes", get("X-A: "+strings.Repeat("y", 8000)), "GET", "/v", "", "X-A="+strings.Repeat("y", 8000))
	v.accept("values: cookie is a credential", get("Cookie: session=1"), "GET", "/v", "", "!Cookie")
}

// limits: 32 KiB and 100 headers.
func (v *vectors) limits() {
	more := func(n int) []string {
		lines := make([]string, n)
		for i := range lines {
			lines[i] = fmt.Sprintf("X-%d: y", i)
		}
		return lines
	}
	v.accept("limits: 90 headers", get(more(88)...), "GET", "/v", "", "X-87=y")
	v.accept("limits: 100 headers", get(more(98)...), "GET", "/v", "", "X-97=y")
	v.onUnix()
	v.refuseAs("limits: 101 headers", get(more(99)...), 431)
	v.refuseAs("limits: 101 headers and a body", post("hello"+smuggled, append(more(99), "Content-Length: 5")...), 431)
	v.refuseAs("limits: 1,000 headers", get(more(1000)...), 431)
	v.refuseAs("limits: 3,000 headers", get(more(3000)...), 431)
	v.refuseAs("limits: the same header 200 times", get(strings.Split(strings.Repeat("X: y\n", 199)+"X: y", "\n")...), 431)
	exactly := func(n int) string {
		return get("X-A: " + strings.Repeat("y", n-len(get("X-A: "))))
	}
	v.accept("limits: 30,000 bytes", exactly(30000), "GET", "/v", "")
	v.accept("limits: 32,768 bytes", exactly(32768), "GET", "/v", "")
	v.onUnix()
	v.refuseAs("limits: 32,769 bytes", exactly(32769), 431)
	v.refuseAs("limits: 36,000 bytes", exactly(36000), 431)
	v.refuseAs("limits: 40,000 bytes", exactly(40000), 431)
	v.refuseAs("limits: 1 MB", exactly(1<<20), 431)
	v.refuseAs("limits: a name of 40,000 bytes", get(strings.Repeat("X", 40000)+": y"), 431)
	v.refuseAs("limits: a path of 40,000 bytes", head("GET /"+strings.Repeat("v", 40000)+" HTTP/1.1"), 414, 431)
	v.refuseAs("limits: a method of 40,000 bytes", head(strings.Repeat("M", 40000)+" /v HTTP/1.1"), 400, 414, 431, 501)
	v.refuseAs("limits: a head without end", "GET /v HTTP/1.1\r\n"+strings.Repeat("X: y\r\n", 8000), 431)
	v.refuseAs("limits: a line without end", "GET /"+strings.Repeat("v", 70000), 414, 431)
	v.refuseAs("limits: spaces without end", get("X-A:"+strings.Repeat(" ", 40000)+"b"), 431)
	v.accept("limits: a path of 8,000 bytes", head("GET /"+strings.Repeat("v", 8000)+" HTTP/1.1"), "GET", "/"+strings.Repeat("v", 8000), "")
}
