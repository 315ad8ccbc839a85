package proxy

import (
	"bytes"
	"strconv"
	"time"

	"github.com/keyward/keyward/provider"
)

// build makes the head that goes to the provider, in the call's own memory: the caller's headers as they came, in their order, less
// what is this hop's, Keyward's own and every place where any provider would look for a credential; then the org's credential. Only
// the guarded connection sees the result, and wipe follows at once.
func (p *Proxy) build(c *call, now time.Time) *refusal {
	prov := c.route.provider
	if bad := p.lookAgain(c, now); bad != nil {
		return bad
	}
	c.makeRoom()
	var token []byte
	if prov.Exchange != nil { // may take long: the credential is not open meanwhile, and is looked at again afterwards
		var bad *refusal
		if token, bad = p.exchanged(c); bad != nil {
			return bad
		}
		if bad := p.lookAgain(c, time.Now()); bad != nil {
			return bad
		}
	}
	s, bad := c.open()
	if bad != nil {
		return bad
	}
	to := c.route.to
	if to == nil {
		to = p.at(bytesOf(prov.DefaultHost(s)))
		if to == nil {
			return refuseUnreadable
		}
	}
	r := &c.request
	*r = provider.Request{Method: c.head.method, Host: to.host, Path: c.route.path, Value: c.value[:0], Scratch: c.rewritten[:0]}
	r.Token = token
	err := prov.Inject(r, s)
	c.value, c.rewritten = r.Value, r.Scratch
	if err != nil {
		return refusalOfInject(err)
	}
	if hasControl(r.Value) || hasControl(r.Path) {
		return refuseUnreadable // a line break in a credential must not become a header of its own
	}
	if c.completes {
		c.completes, c.completed, c.completedAt = false, true, len(c.body)
		c.body = prov.Complete.Append(c.body, c.body, s)
	}
	c.to = to
	c.red.forms.learn(r.Value, c.spare)
	c.out = p.appendHead(room(c.out, c.headRoom(r)), c, r)
	return nil
}

func (p *Proxy) appendHead(b []byte, c *call, r *provider.Request) []byte {
	h := &c.head
	b = append(b, h.method...)
	b = append(b, ' ')
	b = append(b, r.Path...)
	if c.route.hasQuery {
		b = appendQuery(b, c.route.query, c.route.provider.AuthParams)
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, r.Host...)
	b = append(b, "\r\n"...)
	awaitsKey := false // a subprotocol that was left out is followed by its credential, maybe on a further line
	for i := range h.fields[:h.n] {
		f := &h.fields[i]
		if p.stays(h, f.name) || c.traced && c.retraces(f.name) || c.readable && (equalFold(f.name, "accept-encoding") || equalFold(f.name, "range")) {
			continue
		}
		if auth := c.route.provider.AuthSubprotocols; auth != nil && equalFold(f.name, subprotocol) {
			b, awaitsKey = appendSubprotocols(b, f, auth, awaitsKey)
			continue
		}
		b = append(b, f.name...)
		b = append(b, ": "...)
		b = append(b, f.value...)
		b = append(b, "\r\n"...)
	}
	if c.readable {
		b = append(b, "Accept-Encoding: identity\r\n"...)
	}
	if c.traced {
		b = append(b, "traceparent: "...)
		b = c.attempt().Append(b)
		b = append(b, "\r\n"...)
	}
	if c.route.provider.UserAgent && !h.userAgent {
		b = append(b, "User-Agent: keyward\r\n"...)
	}
	switch {
	case c.upgrade:
		b = append(b, "Connection: Upgrade\r\nUpgrade: websocket\r\n"...)
	case c.bodyRead:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(c.body)), 10)
		b = append(b, "\r\n"...)
	case h.chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case h.length >= 0:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, h.length, 10)
		b = append(b, "\r\n"...)
	}
	b = append(b, r.Header...)
	b = append(b, ": "...)
	b = append(b, r.Value...)
	return append(b, "\r\n\r\n"...)
}

const subprotocol = "sec-websocket-protocol"

// appendSubprotocols appends a line with the subprotocols of f in which no provider would read a credential; none if none is left. skip says
// whether the first one is the credential of the line before, and then whether that of the next line is: the lines are one list.
func appendSubprotocols(b []byte, f *field, auth []string, skip bool) ([]byte, bool) {
	start, any := len(b), false
	b = append(append(b, f.name...), ':')
	for rest := f.value; ; {
		item := rest
		i := bytes.IndexByte(rest, ',')
		if i >= 0 {
			item, rest = rest[:i], rest[i+1:]
		}
		item = trimSpace(item)
		switch kind := authSubprotocol(item, auth); {
		case len(item) == 0:
		case skip || kind > 0:
			skip = kind == 2 && !skip
		default:
			if any {
				b = append(b, ',')
			}
			b, any = append(append(b, ' '), item...), true
		}
		if i < 0 {
			break
		}
	}
	if !any {
		return b[:start], skip
	}
	return append(b, "\r\n"...), skip
}

// authSubprotocol is 1 for a subprotocol that holds a credential, 2 for one that is followed by it.
func authSubprotocol(item []byte, auth []string) int {
	for _, a := range auth {
		switch n := len(a); {
		case a[n-1] == '.' && len(item) >= n && equalFold(item[:n], a):
			return 1
		case equalFold(item, a):
			return 2
		}
	}
	return 0
}

// stays says whether a request header goes no further than this sidecar.
func (p *Proxy) stays(h *head, name []byte) bool {
	return p.dropped.has(name) || len(name) > 8 && equalFold(name[:8], "keyward-") || h.nListed > 0 && h.isListed(name)
}

// names is a set of header names. Looking one up allocates nothing and does not depend on case.
type names struct{ byLen [40][]string }

func (n *names) add(name string) {
	l := len(name)
	low := string(bytes.ToLower([]byte(name)))
	n.byLen[l] = append(n.byLen[l], low)
}

func (n *names) has(name []byte) bool {
	if len(name) >= len(n.byLen) {
		return false
	}
	for _, s := range n.byLen[len(name)] {
		if equalFold(name, s) {
			return true
		}
	}
	return false
}

// droppedNames are the request headers that are dropped: hop-by-hop ones (RFC 9110, section 7.6.1), framing, which is written anew, and
// the credential headers of every provider.
func droppedNames(providers []*provider.Provider) *names {
	n := &names{}
	for _, s := range []string{
		"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
		"Host", "Content-Length", "Expect", "HTTP2-Settings", "Authorization", "Cookie", "X-Api-Key",
	} {
		n.add(s)
	}
	for _, p := range providers {
		for _, s := range p.AuthHeaders {
			if !n.has([]byte(s)) {
				n.add(s)
			}
		}
	}
	return n
}

// appendQuery appends the query with its "?", without the parameters in which a provider reads a credential. All else stays byte for
// byte as it came.
func appendQuery(b, query []byte, auth []string) []byte {
	b = append(b, '?')
	if len(auth) == 0 {
		return append(b, query...)
	}
	start := len(b)
	for rest := query; ; {
		part := rest
		i := bytes.IndexByte(rest, '&')
		if i >= 0 {
			part, rest = rest[:i], rest[i+1:]
		}
		if !isAuthParam(part, auth) {
			if len(b) > start {
				b = append(b, '&')
			}
			b = append(b, part...)
		}
		if i < 0 {
			break
		}
	}
	if len(b) == start && len(query) > 0 {
		b = b[:start-1] // nothing is left of it
	}
	return b
}

// isAuthParam says whether a query parameter is one of auth, its name possibly percent-encoded.
func isAuthParam(part []byte, auth []string) bool {
	for _, a := range auth {
		if provider.ParamIs(part, a) {
			return true
		}
	}
	return false
}

// hasParam says whether the query has a parameter of that name.
func hasParam(query []byte, name string) bool {
	for len(query) > 0 {
		part, rest, _ := bytes.Cut(query, ampersand)
		if provider.ParamIs(part, name) {
			return true
		}
		query = rest
	}
	return false
}

var ampersand = []byte("&")

func hasControl(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c == 0x7f {
			return true
		}
	}
	return false
}
