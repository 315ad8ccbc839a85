package torture

import "fmt"

// requestLines: the method, the version, and what stands between.
func (v *vectors) requestLines() {
	for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "PURGE"} {
		v.accept("request line: "+m, head(m+" /v HTTP/1.1"), m, "/v", "")
	}
	v.accept("request line: HTTP/1.0", head("GET /v HTTP/1.0"), "GET", "/v", "")
	v.accept("request line: HTTP/1.0 with keep-alive", head("GET /v HTTP/1.0", "Connection: keep-alive"), "GET", "/v", "")
	for _, version := range []string{
		"HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/2", "HTTP/3", "HTTP/0.9", "HTTP/9.9", "HTTP/11.1", "HTTP/1.10", "HTTP/1.01", "HTTP/01.1", "HTTP/1", "HTTP/1.", "HTTP/.1", "HTTP/", "HTTP", "http/1.1", "Http/1.1",
		"HTTPS/1.1", "ICY/1.1", "RTSP/1.1", "SIP/2.0", "HTTP/1.1x", "xHTTP/1.1", "HTTP/1,1", "HTTP-1.1", "HTTP\\1.1", "HTTP/1.-1", "HTTP/+1.1", "HTTP/1.1\x00", "HTTP/1 .1", "HTTP /1.1", "1.1", "HTTP/a.b", "HTTP/1.1 HTTP/1.1", "HTTP/１.1",
	} {
		v.refuseAs(fmt.Sprintf("request line: version %q", version), head("GET /v "+version), 400, 505)
	}
	v.refuse("request line: no version", head("GET /v"))
	v.refuse("request line: no version but a space", head("GET /v "))
	v.refuse("request line: HTTP/0.9", "GET /v\r\n")
	v.refuse("request line: only a method", head("GET"))
	v.refuse("request line: no method", head("/v HTTP/1.1"))
	v.refuse("request line: no method but a space", head(" /v HTTP/1.1"))
	v.refuse("request line: no target", head("GET HTTP/1.1"))
	v.refuse("request line: empty target", head("GET  HTTP/1.1"))
	v.refuse("request line: two spaces before the target", head("GET  /v HTTP/1.1"))
	v.refuse("request line: two spaces behind the target", head("GET /v  HTTP/1.1"))
	v.refuse("request line: tab before the target", head("GET\t/v HTTP/1.1"))
	v.refuse("request line: tab behind the target", head("GET /v\tHTTP/1.1"))
	v.refuse("request line: space at the end", head("GET /v HTTP/1.1 "))
	v.refuse("request line: tab at the end", head("GET /v HTTP/1.1\t"))
	v.refuse("request line: vertical tab", head("GET\v/v HTTP/1.1"))
	v.refuse("request line: form feed", head("GET\f/v HTTP/1.1"))
	v.refuse("request line: CR within", head("GET\r/v HTTP/1.1"))
	v.refuse("request line: LF within", head("GET\n/v HTTP/1.1"))
	v.refuse("request line: NUL in the method", head("GE\x00T /v HTTP/1.1"))
	v.refuse("request line: space in the target", head("GET /v /w HTTP/1.1"))
	v.refuse("request line: a request in the target", head("GET /v HTTP/1.1/../smuggled HTTP/1.1"))
	for _, m := range []string{"GE T", "G(T", "GET:", "GET,", "G/T", "\"GET\"", "GÉT", "GET\x7f", "[GET]", "GE{T}", "G=T", "G@T", "G;T", "G\\T", "G<T", "G?T"} {
		v.refuse(fmt.Sprintf("request line: method %q", m), head(m+" /v HTTP/1.1"))
	}
	v.accept("request line: a method in lower case is another one", head("gett /v HTTP/1.1"), "gett", "/v", "")
	v.refuse("request line: method in front of a method", "Extra lineGET /v HTTP/1.1\r\n"+hostLine+orgLine+"\r\n")
}

// targets: the forms of a request target, and what stands in a path.
func (v *vectors) targets() {
	v.accept("targets: root", head("GET / HTTP/1.1"), "GET", "/", "")
	v.accept("targets: query", head("GET /v?a=b&c=d%20e HTTP/1.1"), "GET", "/v?a=b&c=d%20e", "")
	v.accept("targets: empty query", head("GET /v? HTTP/1.1"), "GET", "/v?", "")
	v.accept("targets: question marks", head("GET /v?a?b?c HTTP/1.1"), "GET", "/v?a?b?c", "")
	v.accept("targets: percent-encoded slash", head("GET /v%2Fw HTTP/1.1"), "GET", "/v%2Fw", "")
	v.accept("targets: percent-encoded letter", head("GET /%76 HTTP/1.1"), "GET", "/%76", "")
	v.accept("targets: percent-encoded line break", head("GET /v%0d%0aX:%20y HTTP/1.1"), "GET", "/v%0d%0aX:%20y", "")
	v.accept("targets: percent-encoded space", head("GET /v%20HTTP/1.1 HTTP/1.1"), "GET", "/v%20HTTP/1.1", "")
	v.accept("targets: semicolon", head("GET /v;a=b HTTP/1.1"), "GET", "/v;a=b", "")
	v.accept("targets: colon and at", head("GET /a:b@c HTTP/1.1"), "GET", "/a:b@c", "")
	v.accept("targets: trailing slash", head("GET /v/ HTTP/1.1"), "GET", "/v/", "")
	v.accept("targets: the provider's name in front", head("GET /resend/v HTTP/1.1"), "GET", "/v", "")
	v.accept("targets: the provider's host in front", head("GET /api.resend.com/v HTTP/1.1"), "GET", "/v", "")
	v.accept("targets: org and provider in front", head("GET /org/acme/resend/v HTTP/1.1"), "GET", "/v", "")
	v.accept("targets: org in front of no provider is a path", head("GET /org/acme/v HTTP/1.1"), "GET", "/org/acme/v", "")
	v.accept("targets: absolute", head("GET http://api.resend.com/v HTTP/1.1"), "GET", "/v", "")
	v.accept("targets: absolute with port", head("GET http://api.resend.com:80/v HTTP/1.1"), "GET", "/v", "")
	v.accept("targets: absolute with query", head("GET http://api.resend.com/v?a=b HTTP/1.1"), "GET", "/v?a=b", "")
	v.accept("targets: absolute without path", head("GET http://api.resend.com HTTP/1.1"), "GET", "/", "")
	v.accept("targets: absolute in upper case", head("GET HTTP://API.RESEND.COM/v HTTP/1.1"), "GET", "/v", "")
	v.accept("targets: absolute with userinfo", head("GET http://user:mine@api.resend.com/v HTTP/1.1"), "GET", "/v", "")
	v.accept("targets: absolute against Host", "GET http://api.resend.com/v HTTP/1.1\r\nHost: localhost\r\n"+orgLine+"\r\n", "GET", "/v", "")
	v.deny("targets: absolute, foreign", head("GET http://evil.example/v HTTP/1.1"), 400, 403, 404)
	v.deny("targets: absolute, foreign userinfo", head("GET http://api.resend.com@evil.example/v HTTP/1.1"), 400, 403, 404)
	v.deny("targets: absolute, host as userinfo twice", head("GET http://api.resend.com@evil.example@api.resend.com:x/v HTTP/1.1"), 400, 403, 404)
	v.deny("targets: absolute, suffix", head("GET http://api.resend.com.evil.example/v HTTP/1.1"), 400, 403, 404)
	v.deny("targets: absolute, backslash", head("GET http://api.resend.com\\@evil.example/v HTTP/1.1"), 400, 403, 404)
	v.deny("targets: absolute, metadata service", head("GET http://169.254.169.254/latest HTTP/1.1"), 400, 403, 404)
	v.deny("targets: absolute, no host", head("GET http:///v HTTP/1.1"), 400, 403, 404)
	v.deny("targets: absolute, ftp", head("GET ftp://api.resend.com/v HTTP/1.1"), 400)
	v.deny("targets: absolute, file", head("GET file:///etc/passwd HTTP/1.1"), 400)
	v.deny("targets: absolute, one slash", head("GET http:/api.resend.com/v HTTP/1.1"), 400)
	v.deny("targets: absolute with fragment", head("GET http://api.resend.com/v#f HTTP/1.1"), 400)
	v.deny("targets: authority", head("GET api.resend.com:443 HTTP/1.1"), 400)
	v.deny("targets: CONNECT to a provider", head("CONNECT api.resend.com:443 HTTP/1.1"), 400, 403, 404, 405, 501)
	v.deny("targets: CONNECT to another", head("CONNECT evil.example:443 HTTP/1.1"), 400, 403, 404, 405, 501)
	v.deny("targets: CONNECT with a path", head("CONNECT /v HTTP/1.1"), 400, 403, 404, 405, 501)
	v.deny("targets: asterisk on GET", head("GET * HTTP/1.1"), 400)
	v.deny("targets: asterisk on POST", head("POST * HTTP/1.1"), 400)
	v.deny("targets: relative", head("GET v HTTP/1.1"), 400)
	v.deny("targets: dots only", head("GET .. HTTP/1.1"), 400)
	v.deny("targets: query only", head("GET ?a=b HTTP/1.1"), 400)
	v.deny("targets: fragment", head("GET /v#f HTTP/1.1"), 400)
	v.deny("targets: fragment only", head("GET # HTTP/1.1"), 400)
	v.deny("targets: foreign host by header", get("Keyward-Upstream: evil.example"), 400, 404)
	v.deny("targets: another provider's host in front of ours", head("GET /resend/api.vapi.ai/v HTTP/1.1"), 400, 404)
	v.deny("targets: orgs that disagree", head("GET /org/globex/resend/v HTTP/1.1"), 400, 403)
	for c := range 256 {
		if b := byte(c); (b < 0x20 || b == 0x7f) && b != '\n' {
			v.refuse(fmt.Sprintf("targets: %q within", b), head("GET /v"+string([]byte{b})+"w HTTP/1.1"))
		}
	}
	for _, b := range "\"<>\\^`{|}" {
		raw := fmt.Sprintf("/v%cw", b)
		v.either(fmt.Sprintf("targets: %q within", b), head("GET "+raw+" HTTP/1.1"), "GET", raw, "")
	}
	v.either("targets: byte over 127", head("GET /v\xc3\xa4 HTTP/1.1"), "GET", "/v\xc3\xa4", "")
	v.either("targets: bad percent encoding", head("GET /v%zz HTTP/1.1"), "GET", "/v%zz", "")
	v.either("targets: percent-encoded NUL", head("GET /v%00 HTTP/1.1"), "GET", "/v%00", "")
	// Resend has secret routes, so that a path with two readings is refused there; a provider without such may get it as it came.
	for _, p := range []string{
		"/a/../v", "/../v", "/v/..", "/./v", "/v/.", "//v", "/a//v", "/v//", "/a/%2e%2e/v", "/a/%2E%2e/v", "/a/.%2e/v", "/%2e/v", "/v/%2e", "/a/..%2fv", "/a/%2e%2e%2fv", "/..%5cv", "/a/..;/v", "/a/..;x=y/v",
		"//api-keys", "/./api-keys", "/x/../api-keys", "/%61pi-keys/..", "///", "/resend//v", "/resend/../v",
	} {
		v.either("targets: "+p, head("GET "+p+" HTTP/1.1"), "GET", stripped(p), "")
	}
}

// stripped is a path without Keyward's own first segment.
func stripped(path string) string {
	if len(path) > 7 && path[:8] == "/resend/" {
		return path[7:]
	}
	return path
}
