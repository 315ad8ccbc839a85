package proxy

import (
	"bytes"
	"net/netip"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// A route is where a request goes and whose it is, as far as the request itself says. The slices refer to the request.
type route struct {
	provider *provider.Provider
	to       *upstream // nil: the provider's default host, which the credential names
	path     []byte    // as sent, without prefixes of Keyward's own and without the query
	query    []byte    // without "?"; nil: none
	hasQuery bool
	mint     *mintRoute // nil: it goes to a provider

	org       []byte // from the path prefix
	assistant []byte // from the path prefix
}

// find reads the request target and decides the upstream; contract: header, path segment, absolute form, Host, PROVIDER.localhost,
// the listener's own, in this order.
func (p *Proxy) find(r *route, h *head, at *Listener, v *via) *refusal {
	*r = route{}
	target := h.target
	var named []byte // the host of an absolute-form target
	absolute := false
	switch {
	case equalFold(h.method, "connect"):
		return refuseWithin
	case len(target) == 0:
		return refuseTargetForm
	case target[0] == '/':
	case v != nil && string(target) != "*":
		return refuseWithinForm
	case string(target) == "*":
		return refuseUpstream // asks about this server, which is nobody's provider
	case len(target) > 7 && equalFold(target[:7], "http://"):
		absolute = true
		named = target[7:]
		end := bytes.IndexAny(named, "/?")
		if end < 0 {
			target = slash
		} else {
			named, target = named[:end], named[end:]
		}
		if at := bytes.LastIndexByte(named, '@'); at >= 0 {
			named = named[at+1:] // userinfo is a credential: it goes no further
		}
		if checkHost(named) != nil {
			return refuseTargetForm
		}
		if target[0] == '?' {
			return refuseTargetForm
		}
	default:
		return refuseTargetForm
	}
	if i := bytes.IndexByte(target, '#'); i >= 0 {
		return refuseTargetForm
	}
	r.path = target
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		r.path, r.query, r.hasQuery = target[:i], target[i+1:], true
	}
	if absolute && !at.unix && !p.hostAllowed(named) {
		return refuseHost
	}
	if v != nil { // the path is the provider's own, whatever it begins with
		return p.byHost(r, bytesOf(v.host), at)
	}

	path, bad := p.cutPrefix(r, r.path)
	if bad != nil {
		return bad
	}
	if r.mint != nil {
		r.path = path
		return nil
	}
	if h.upstream != nil {
		u := p.upstreamAt(h.upstream)
		if u == nil {
			return refuseUpstream
		}
		if r.org != nil || r.assistant != nil {
			r.path = path
		}
		r.to, r.provider = u, u.provider
		return nil
	}
	if r.provider != nil {
		r.path = path
		return nil
	}
	if absolute {
		return p.byHost(r, named, at)
	}
	return p.byHost(r, h.host, at)
}

var slash = []byte("/")

// cutPrefix takes Keyward's own segments off the path: /org/ORG or /assistant/ID, only when a provider's name or host follows (or what is
// Keyward's own), then that name or host. It returns the rest and sets the route's provider, host and org.
func (p *Proxy) cutPrefix(r *route, path []byte) ([]byte, *refusal) {
	first, rest := segment(path)
	kind := 0
	switch string(first) {
	case "org":
		kind = 1
	case "assistant":
		kind = 2
	}
	if kind != 0 {
		id, after := segment(rest)
		next, _ := segment(after)
		if len(id) > 0 && p.isUpstreamName(next) {
			if kind == 1 {
				r.org = id
			} else {
				r.assistant = id
			}
			first, rest = segment(after)
		}
	}
	if prov := p.names[string(first)]; prov != nil {
		r.provider = prov
		if host, after := segment(rest); len(host) > 0 {
			if u := p.upstreamAt(host); u != nil {
				if u.provider != prov {
					return nil, refuseUpstream
				}
				r.to, rest = u, after
			}
		}
	} else if u := p.upstreamAt(first); u != nil {
		r.provider, r.to = u.provider, u
	} else if string(first) == ownSegment {
		return p.findMint(r, rest)
	} else {
		return path, nil
	}
	if len(rest) == 0 {
		rest = slash
	}
	return rest, nil
}

func (p *Proxy) isUpstreamName(b []byte) bool {
	return len(b) > 0 && (p.names[string(b)] != nil || string(b) == ownSegment || p.upstreamAt(b) != nil)
}

// byHost routes by a host: a provider's, PROVIDER.localhost, else the listener's own upstream.
func (p *Proxy) byHost(r *route, host []byte, at *Listener) *refusal {
	var buf [maxHost]byte
	name, ok := hostName(buf[:0], host)
	if ok {
		if u := p.at(name); u != nil && !u.own {
			r.to, r.provider = u, u.provider
			return nil
		}
		if label, found := bytes.CutSuffix(name, dotLocalhost); found {
			if prov := p.names[string(label)]; prov != nil {
				r.provider = prov
				return nil
			}
			return refuseUpstream
		}
	}
	if at.Upstream != "" {
		u := p.at(bytesOf(at.Upstream))
		r.to, r.provider = u, u.provider
		return nil
	}
	return refuseUpstream
}

var dotLocalhost = []byte(".localhost")

const maxHost = 255

// upstreamAt is the upstream of a host as a header or path segment names it: exact but for case; nil if there is none.
func (p *Proxy) upstreamAt(host []byte) *upstream {
	if len(host) < 4 || len(host) > maxHost {
		return nil
	}
	var buf [maxHost]byte
	for i, c := range host {
		buf[i] = lower(c)
	}
	if u := p.at(buf[:len(host)]); u != nil && !u.own {
		return u
	}
	return nil
}

// hostName appends the lower-case name of a Host value, without its port.
func hostName(dst, host []byte) ([]byte, bool) {
	if i := bytes.LastIndexByte(host, ':'); i >= 0 && bytes.IndexByte(host[i:], ']') < 0 {
		for _, c := range host[i+1:] {
			if c < '0' || c > '9' {
				return nil, false
			}
		}
		host = host[:i]
	}
	if len(host) == 0 || len(host) > maxHost {
		return nil, false
	}
	for _, c := range host {
		dst = append(dst, lower(c))
	}
	return dst, true
}

// hostAllowed says whether Host is one that a caller on loopback has reason to send: loopback's own names and the providers'.
func (p *Proxy) hostAllowed(host []byte) bool {
	if host == nil || p.anyHost {
		return true // HTTP/1.0, or a listener that is open to other machines by the operator's wish
	}
	var buf [maxHost]byte
	name, ok := hostName(buf[:0], host)
	if !ok {
		return false
	}
	if string(name) == "localhost" || bytes.HasSuffix(name, dotLocalhost) || p.at(name) != nil {
		return true
	}
	if name[0] == '[' && name[len(name)-1] == ']' {
		name = name[1 : len(name)-1]
	}
	if len(name) == 0 || name[0] != ':' && (name[0] < '0' || name[0] > '9') {
		return false
	}
	a, err := netip.ParseAddr(string(name))
	return err == nil && a.IsLoopback()
}

// fromBrowser refuses what a web page could send to a loopback port: an Origin, a foreign Sec-Fetch-Site, or, when the page's own name
// was made to resolve to loopback (DNS rebinding), a Host of its own.
func (p *Proxy) fromBrowser(h *head, connects bool) *refusal {
	if h.origin != nil || h.fetchSite != nil && !equalFold(h.fetchSite, "none") && !equalFold(h.fetchSite, "same-origin") {
		return refuseBrowser
	}
	if !p.hostAllowed(h.host) && (!connects || p.intercept == nil) { // no page can send CONNECT, and its Host says where to
		return refuseHost
	}
	return nil
}

// segment splits the first segment off a path that starts with a slash; the rest starts with a slash or is empty.
func segment(path []byte) (first, rest []byte) {
	if len(path) == 0 || path[0] != '/' {
		return nil, nil
	}
	path = path[1:]
	if i := bytes.IndexByte(path, '/'); i >= 0 {
		return path[:i], path[i:]
	}
	return path, nil
}

// orgOf settles whose the request is, from everything that names an org. rule may bind the caller to one.
func (p *Proxy) orgOf(c *call) *refusal {
	h := &c.head
	var org []byte
	agree := func(o []byte) bool {
		if org == nil {
			org = o
			return true
		}
		return bytes.Equal(org, o)
	}
	if h.org != nil {
		if !store.IsOrg(h.org) {
			return refuseOrgName
		}
		org = h.org
	}
	if c.route.org != nil {
		if !store.IsOrg(c.route.org) {
			return refuseOrgName
		}
		if !agree(c.route.org) {
			return refuseOrgConflict
		}
	}
	if v := c.conn.via; v != nil && v.org != "" && !agree(bytesOf(v.org)) {
		return refuseOrgConflict
	}
	if c.at.Org != "" && !agree(bytesOf(c.at.Org)) {
		return refuseOrgConflict
	}
	ids := [...][]byte{h.assistant, c.route.assistant, nil}
	if v := c.conn.via; v != nil && v.assistant != "" {
		ids[2] = bytesOf(v.assistant)
	}
	for _, id := range ids {
		if id == nil {
			continue
		}
		if !isAssistantID(id) {
			return refuseAssistantID
		}
		a, err := p.store.Assistant(p.ctx, stringOf(id))
		if err != nil {
			return refusalOfStore(err, refuseAssistant)
		}
		if !agree(bytesOf(a.Org)) {
			return refuseOrgConflict
		}
		if c.assistant == "" {
			c.assistant = a.ID
		}
	}
	if org == nil {
		only := c.rule.OnlyOrg()
		if only == "" && c.narrow != nil {
			only = c.narrow.OnlyOrg()
		}
		if only == "" {
			return refuseOrgRequired
		}
		org = bytesOf(only)
	}
	c.org = append(c.org[:0], org...)
	return nil
}

func isAssistantID(id []byte) bool {
	if len(id) == 0 || len(id) > 128 {
		return false
	}
	for _, c := range id {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}
