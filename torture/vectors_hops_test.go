package torture

import "fmt"

// hosts: the forms of Host.
func (v *vectors) hosts() {
	with := func(host string) string { return "GET /v HTTP/1.1\r\nHost: " + host + "\r\n" + orgLine + "\r\n" }
	for _, h := range []string{"api.resend.com", "API.Resend.COM", "api.resend.com:80", "api.resend.com:443", "resend.localhost", "resend.localhost:7450"} {
		v.accept("hosts: "+h, with(h), "GET", "/v", "", "Host=api.resend.com")
	}
	v.accept("hosts: no space", "GET /v HTTP/1.1\r\nHost:api.resend.com\r\n"+orgLine+"\r\n", "GET", "/v", "")
	v.accept("hosts: tab", "GET /v HTTP/1.1\r\nhoSt:\tapi.resend.com\r\n"+orgLine+"\r\n", "GET", "/v", "")
	v.accept("hosts: any when another says where to", "GET /v HTTP/1.1\r\nHost: localhost\r\nKeyward-Upstream: api.resend.com\r\n"+orgLine+"\r\n", "GET", "/v", "")
	v.accept("hosts: none in HTTP/1.0", "GET /resend/v HTTP/1.0\r\n"+orgLine+"\r\n", "GET", "/v", "")
	v.refuse("hosts: none", "GET /resend/v HTTP/1.1\r\n"+orgLine+"\r\n")
	v.refuse("hosts: none, absolute target", "GET http://api.resend.com/v HTTP/1.1\r\n"+orgLine+"\r\n")
	v.refuse("hosts: twice the same", get("Host: api.resend.com"))
	v.refuse("hosts: twice", get("Host: evil.example"))
	v.refuse("hosts: twice, other case", get("host: api.vapi.ai"))
	v.refuse("hosts: twice, second empty", get("Host:"))
	for _, h := range []string{
		"user@api.resend.com", "api.resend.com@evil.example", "api.resend.com,evil.example", "api.resend.com, api.vapi.ai", "api.resend.com evil.example", "api.resend.com\tevil.example", "bad host", "api.resend.com/v",
		"http://api.resend.com", "api.resend.com?a", "api.resend.com#a", "api.resend.com\\v", "<api.resend.com>", "\"api.resend.com\"", "api.resend.com;a", "api.resend.com\x00", "api.res\x00end.com", "%61pi.resend.com", "api.resend.com\x7f", "ápi.resend.com", "api.resend.com|", "{api}",
	} {
		v.refuse(fmt.Sprintf("hosts: %q", h), with(h))
	}
	for _, h := range []string{
		"", "evil.example", "api.resend.com.evil.example", "evilapi.resend.com", "resend.com", "api.resend.com.", "api.resend.com:x", "api.resend.com:", "api.resend.com:80:80", "api.resend.com:-1", "[::1", "::1", "[]", "169.254.169.254", "..", "-",
		"api.resend.com:99999999999999999999", "oauth2.googleapis.com", "evil.localhost",
	} {
		if h == "api.resend.com:99999999999999999999" || h == "api.resend.com:" {
			v.either("hosts: "+h, with(h), "GET", "/v", "")
			continue
		}
		v.deny(fmt.Sprintf("hosts: %q goes nowhere", h), with(h), 400, 403, 404)
	}
}

// hopByHop: what is this hop's goes no further, and takes nothing with it that must arrive.
func (v *vectors) hopByHop() {
	for _, listed := range []string{"Authorization", "authorization", "AUTHORIZATION", "close, Authorization", "Authorization, close", "keep-alive,Authorization", " , Authorization , ", "Host", "Host, Authorization", "Content-Length", "content-type, Content-Length", "Keyward-Org", "User-Agent"} {
		v.accept("hops: Connection lists "+listed, post("hello", "Content-Length: 5", "Connection: "+listed, "X-A: b"), "POST", "/v", "hello", "X-A=b")
	}
	v.accept("hops: Connection lists the coding", post("5\r\nhello\r\n0\r\n\r\n", codingLine, "Connection: Transfer-Encoding"), "POST", "/v", "hello")
	v.accept("hops: a listed header is dropped", get("Connection: X-A", "X-A: b", "X-B: c"), "GET", "/v", "", "!X-A", "X-B=c")
	v.accept("hops: a listed header is dropped, Connection last", get("X-A: b", "Connection: x-a"), "GET", "/v", "", "!X-A")
	v.accept("hops: two Connection headers", get("Connection: X-A", "Connection: X-B", "X-A: b", "X-B: c"), "GET", "/v", "", "!X-A", "!X-B")
	v.accept("hops: Keep-Alive", get("Connection: keep-alive", "Keep-Alive: timeout=5"), "GET", "/v", "", "!Keep-Alive")
	v.accept("hops: Proxy-Connection", get("Proxy-Connection: keep-alive"), "GET", "/v", "", "!Proxy-Connection")
	v.accept("hops: TE", get("TE: trailers, deflate"), "GET", "/v", "", "!Te")
	v.accept("hops: Proxy-Authorization", get("Proxy-Authorization: Basic bWluZTptaW5l"), "GET", "/v", "", "!Proxy-Authorization")
	v.accept("hops: Connection: close is the caller's", get("Connection: close"), "GET", "/v", "")
	v.accept("hops: Upgrade h2c", get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"), "GET", "/v", "", "!Upgrade", "!Http2-Settings")
	v.accept("hops: Upgrade h2c without Connection", get("Upgrade: h2c"), "GET", "/v", "", "!Upgrade")
	v.accept("hops: Upgrade h2c with a body", post("hello", "Content-Length: 5", "Connection: Upgrade", "Upgrade: h2c"), "POST", "/v", "hello", "!Upgrade")
	v.accept("hops: Upgrade to TLS", get("Connection: Upgrade", "Upgrade: TLS/1.0"), "GET", "/v", "", "!Upgrade")
	v.accept("hops: Upgrade to WebSocket by POST", post("hello", "Content-Length: 5", "Connection: Upgrade", "Upgrade: websocket"), "POST", "/v", "hello", "!Upgrade")
	v.accept("hops: Upgrade without Connection", get("Upgrade: websocket"), "GET", "/v", "", "!Upgrade")
	v.deny("hops: WebSocket with a body", head("GET /v HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Content-Length: 5")+"hello", 400)
	v.refuse("hops: Trailer", get("Trailer: X-A"))

	v.accept("expect: 100-continue", post("hello", "Content-Length: 5", "Expect: 100-continue"), "POST", "/v", "hello", "!Expect")
	v.accept("expect: in upper case", post("hello", "Content-Length: 5", "Expect: 100-Continue"), "POST", "/v", "hello", "!Expect")
	v.accept("expect: chunked", post("5\r\nhello\r\n0\r\n\r\n", codingLine, "Expect: 100-continue"), "POST", "/v", "hello", "!Expect")
	v.accept("expect: without a body", get("Expect: 100-continue"), "GET", "/v", "", "!Expect")
	for _, e := range []string{"200-ok", "100-continue, 200-ok", "100-continuee", "100", "", "x100-continue", "100-continue;q=1", "y 100-continue"} {
		v.refuseAs(fmt.Sprintf("expect: %q", e), post("hello", "Content-Length: 5", "Expect: "+e), 400, 417)
	}
	v.refuse("expect: and a smuggled length", post("0\r\n\r\n"+smuggled, "Content-Length: 5", codingLine, "Expect: 100-continue"))
	v.refuse("expect: with an unknown coding", post("hello", "Transfer-Encoding: identity", "Expect: 100-continue"))
}

// keyward: its own headers, and credentials that stand twice.
func (v *vectors) keyward() {
	v.accept("keyward: its headers stay here", get("Keyward-Request-Id: 1", "Keyward-Verified: true", "keyward-anything: x"), "GET", "/v", "", "!Keyward-Org", "!Keyward-Verified", "!Keyward-Anything", "!Keyward-Request-Id")
	v.accept("keyward: a name that only begins so", get("Keywardx: 1"), "GET", "/v", "", "Keywardx=1")
	for _, twice := range []string{"Keyward-Org: acme", "Keyward-Org: globex", "keyward-org: globex", "KEYWARD-ORG: globex", "Keyward-Org:"} {
		v.refuse("keyward: org twice, "+twice, get(twice))
	}
	v.refuse("keyward: upstream twice", get("Keyward-Upstream: api.resend.com", "Keyward-Upstream: api.vapi.ai"))
	v.refuse("keyward: assistant twice", get("Keyward-Assistant: a", "Keyward-Assistant: b"))
	v.refuse("keyward: token twice", get("Keyward-Token: kwtx", "Keyward-Token: kwty"))
	v.refuse("keyward: Authorization twice", get("Authorization: Bearer mine", "Authorization: Bearer mine too"))
	v.refuse("keyward: Authorization twice, other case", get("Authorization: Bearer mine", "AUTHORIZATION: Bearer mine"))
	v.refuse("keyward: Authorization twice, empty", get("Authorization:", "Authorization: Bearer mine"))
	v.refuse("keyward: xi-api-key twice", get("xi-api-key: mine", "Xi-Api-Key: mine too"))
	v.refuse("keyward: Proxy-Authorization twice", get("Proxy-Authorization: Bearer mine", "Proxy-Authorization: Bearer mine too"))
	for _, org := range []string{"", ".acme", "-acme", "_acme", "ac me", "ac/me", "../acme", "acme,globex", "acme;", "äcme", "acme%00", "*", "0123456789012345678901234567890123456789012345678901234567890123x"} {
		v.deny(fmt.Sprintf("keyward: org %q", org), "GET /v HTTP/1.1\r\n"+hostLine+"Keyward-Org: "+org+"\r\n\r\n", 400, 403)
	}
	v.deny("keyward: org in another case is another org", "GET /v HTTP/1.1\r\n"+hostLine+"Keyward-Org: ACME\r\n\r\n", 424)
	v.deny("keyward: no org", "GET /v HTTP/1.1\r\n"+hostLine+"\r\n", 400)
	v.deny("keyward: unknown assistant", get("Keyward-Assistant: nobody"), 404)
	v.deny("keyward: unknown token", get("Authorization: Bearer kwt0000000000000000000000000000000000000000000"), 401)
	v.deny("keyward: unknown token in Basic", get("Authorization: Basic eDprd3QwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA="), 401)
	v.accept("keyward: the caller's own credential", get("Authorization: Bearer mine"), "GET", "/v", "")
	v.accept("keyward: the caller's own key", get("xi-api-key: mine"), "GET", "/v", "", "!Xi-Api-Key")
}
