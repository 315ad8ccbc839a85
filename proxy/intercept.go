package proxy

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"strings"
	"time"
)

// An Interception has CONNECT answered, for apps that know a proxy and no base URL: a provider's host with a certificate of our own, behind
// which requests are served as all others are; hosts that the operator names with a tunnel that nobody looks into; any other with a refusal.
type Interception struct {
	// Certificate is the leaf for a provider's host. It is called at each CONNECT, and must not take long.
	Certificate func(host string) (*tls.Certificate, error)
	// Passthrough are the hosts of untouched tunnels, as HOST:PORT, or *.DOMAIN:PORT for all that is below a domain.
	Passthrough []string
}

// A via is what CONNECT has settled for the requests within it. Whose connection it is and what the caller may is asked anew by each request,
// so that what is revoked is revoked here too.
type via struct {
	host      string // as in the certificate and in Host
	authority string // the same with its port
	org       string // that CONNECT named; empty: none
	assistant string // the same; whose it is, each request asks anew
	token     [32]byte
	byToken   bool
	kind      string // of tunnel that it is; empty: none
	cert      *tls.Certificate
	sni       bool   // TLS was begun for the same host
	pass      string // dialled and left alone, instead of all of this
	requests  int    // so far; the goroutine that serves the connection owns it
}

const httpsPort = "443"

// decideConnect settles where a CONNECT request leads, before anything is dialled or signed.
func (p *Proxy) decideConnect(c *call) *refusal {
	h := &c.head
	if p.intercept == nil || string(h.method) != "CONNECT" {
		return refuseConnect
	}
	if h.body() || h.expect {
		return refuseConnectBody
	}
	host, port, ok := authority(h.target)
	if !ok {
		return refuseAuthority
	}
	c.route.path = h.target // for the log
	v := &via{host: host, authority: host + ":" + port, token: c.hash, byToken: c.hashed}
	c.connect = v
	u := p.at(bytesOf(host))
	switch {
	case u != nil && !u.own && port != httpsPort:
		return refuseConnectPort
	case u != nil && !u.own:
		v.kind = intercepted
	case p.passes(v.authority):
		v.kind = passedThrough
		if p.draining.Load() {
			return refuseDraining
		}
		v.pass = v.authority
		return c.takeRate() // where others are served, each request within is counted
	case u != nil:
		return refuseConnectOwn
	default:
		return refuseConnectHost
	}
	if bad := p.orgOfConnect(c, v); bad != nil {
		return bad
	}
	for _, rule := range c.rules() {
		switch {
		case rule == nil:
		case len(c.org) > 0 && !rule.AllowsOrg(c.org):
			return refuseOrg
		case !rule.AllowsProvider(u.provider.Name):
			return refuseProvider
		}
	}
	var err error
	if v.cert, err = p.intercept.Certificate(host); err != nil {
		p.log.Warn().Err(err).Str("upstream", host).Msg("CONNECT is refused: there is no certificate for the host")
		return refuseCA
	}
	return nil
}

// authority reads what CONNECT names: a host and a port (RFC 9110, section 7.1).
func authority(target []byte) (host, port string, ok bool) {
	i := bytes.LastIndexByte(target, ':')
	if i < 1 || i > maxHost || i == len(target)-1 || len(target)-i > len(":65535") || checkHost(target) != nil {
		return "", "", false
	}
	for _, c := range target[i+1:] {
		if c < '0' || c > '9' {
			return "", "", false
		}
	}
	return strings.ToLower(string(target[:i])), string(target[i+1:]), true
}

// orgOfConnect is the org that CONNECT names: the password beside a token, or a header as in any request. It may name none: then each request
// does, or the caller has only one.
func (p *Proxy) orgOfConnect(c *call, v *via) *refusal {
	h := &c.head
	if password := basicPassword(h.proxyAuth, &c.basic); len(password) > 0 && !bytes.HasPrefix(password, tokenPrefix) {
		c.route.org = password
	}
	if c.route.org == nil && h.org == nil && h.assistant == nil {
		return nil
	}
	bad := p.orgOf(c)
	v.assistant = string(h.assistant)
	if c.route.org != nil || h.org != nil {
		v.org = string(c.org)
	}
	return bad
}

// basicPassword is the password of a Basic credential, in buf.
func basicPassword(v []byte, buf *[]byte) []byte {
	scheme, rest, _ := bytes.Cut(v, []byte(" "))
	if !equalFold(scheme, "basic") {
		return nil
	}
	b, err := base64.StdEncoding.AppendDecode((*buf)[:0], trimSpace(rest))
	if err != nil {
		b, _ = base64.RawStdEncoding.AppendDecode((*buf)[:0], trimSpace(rest))
	}
	*buf = b
	_, password, _ := bytes.Cut(b, []byte(":"))
	return password
}

// misdirected says whether a request within CONNECT is for another host than CONNECT and TLS were: then it is not known whom the app thinks
// it talks to (RFC 9110, section 15.5.20).
func (v *via) misdirected(h *head) bool {
	return !v.sni || !equalFold(h.host, v.host) && !equalFold(h.host, v.authority) || h.upstream != nil && !equalFold(h.upstream, v.host)
}

// answerConnect opens the tunnel.
func (p *Proxy) answerConnect(c *call) *refusal {
	v, ctx, conn := c.connect, c.ctx, c.conn
	if v.pass != "" {
		return p.passThrough(c)
	}
	id := string(c.id[:])
	who := c.rule.Name()
	c.status = 200
	ctx.HijackSetNoResponse(true) // it would have a Content-Length, which such an answer must not (RFC 9110, section 9.3.6)
	ctx.Hijack(func(in net.Conn) {
		defer p.guardTunnel([]byte(id), conn)
		p.serveWithin(v, conn, in, id, who)
	})
	c.end()
	return nil
}

var established = []byte("HTTP/1.1 200 Connection established\r\n\r\n")

// serveWithin has the requests within CONNECT served by the same server, from a connection that knows what CONNECT has settled.
func (p *Proxy) serveWithin(v *via, outer *callerConn, in net.Conn, id, who string) {
	outer.head = headWatch{} // what follows is TLS
	if _, err := outer.Write(established); err != nil {
		p.tunnels.add(Tunnel{intercepted, failed})
		return
	}
	t := tls.Server(&tunnelEnd{in, outer, v}, p.within)
	_ = outer.SetReadDeadline(time.Now().Add(p.server.ReadTimeout))
	if err := t.Handshake(); err != nil {
		p.tunnels.add(Tunnel{intercepted, failed})
		p.explainHandshake(err, v, id, who)
		return
	}
	p.tunnels.add(Tunnel{intercepted, opened})
	_ = outer.SetReadDeadline(time.Time{})
	v.sni = strings.EqualFold(t.ConnectionState().ServerName, v.host) // also of a session that was taken up again
	inner := newCallerConn(t, outer.at)
	inner.raw, inner.peer, inner.via, inner.outer, inner.over = outer.raw, outer.peer, v, outer, make(chan struct{})
	outer.inner.Store(inner)
	if p.server.ServeConn(inner) != nil {
		_ = inner.Close()
	}
	<-inner.over // a WebSocket within goes on without the server
	if v.requests == 0 {
		p.log.Warn().Str("request_id", id).Str("caller", who).Str("upstream", v.host).
			Msg("the app began TLS and left without a request: if it reports an unknown certificate, give it the variables of keyward ca env and start it again")
	}
}

// A tunnelEnd is a caller's connection as TLS sees it: what the server library has read already, then the rest.
type tunnelEnd struct {
	net.Conn
	outer *callerConn
	via   *via
}

func (e *tunnelEnd) Write(b []byte) (int, error) { return e.outer.Write(b) }
func (e *tunnelEnd) Close() error                { return e.outer.Close() }

// newWithin is how TLS is spoken within CONNECT.
func newWithin() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return h.Conn.(*tunnelEnd).via.cert, nil
		},
		CurvePreferences:            []tls.CurveID{tls.X25519, tls.CurveP256}, // it stays on this machine: nobody stores it for a later day
		DynamicRecordSizingDisabled: true,                                     // small records are for networks that lose packets
	}
}

// explainHandshake says why TLS within CONNECT did not come about, and what to do. Alerts have no types of their own outside of crypto/tls.
func (p *Proxy) explainHandshake(err error, v *via, id, who string) {
	text := err.Error()
	says := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	why := "TLS within CONNECT failed"
	switch {
	case says("application protocol"): // first: it quotes what the app sent, which could be the words of another case
		why = "the app wants to speak something else than HTTP/1.1 within CONNECT: have it offer http/1.1"
	case says("unknown certificate authority", "bad certificate", "unknown certificate", "bad record MAC"): // OpenSSL sends its alert in clear
		why = "the app does not trust Keyward's CA: give it the variables of keyward ca env and start it again"
	case says("expired certificate"):
		why = "the app takes the certificate for expired: compare the clocks, and start the app again if it was given another CA"
	case says("unsupported versions", "protocol version"):
		why = "the app offers no TLS from version 1.2 on, which is needed: bring its TLS library up to date"
	case says("does not look like a TLS handshake"):
		why = "the app sent something else than TLS within CONNECT: requests without TLS go to this address as they are"
	case errors.Is(err, io.EOF):
		why = "the app left before TLS had begun: if it reports an unknown certificate, give it the variables of keyward ca env and start it again"
	}
	text = strings.ToValidUTF8(text[:min(len(text), maxLoggedError)], "") // the protocols are quoted, and a rune may be cut
	p.log.Warn().Str("request_id", id).Str("caller", who).Str("upstream", v.host).Str("error", text).Msg(why)
}

var (
	refuseProxyAuth   = &refusal{status: 407, code: "caller_unauthenticated", detail: "CONNECT needs a caller token: HTTPS_PROXY=http://TOKEN:ORG@HOST:PORT", challenge: true}
	refuseConnectBody = &refusal{status: 400, code: "bad_request", detail: "CONNECT has a body, or expects one to be asked for", close: true}
	refuseAuthority   = &refusal{status: 400, code: "bad_request", detail: "CONNECT does not name a host and a port", close: true}
	refuseConnectPort = &refusal{status: 403, code: "host_forbidden", detail: "CONNECT to a provider is answered for port 443 alone"}
	refuseConnectOwn  = &refusal{status: 403, code: "host_forbidden", detail: "this host gives out tokens, and Keyward itself asks it: the app needs no OAuth client of its own"}
	refuseConnectHost = &refusal{status: 403, code: "host_forbidden", detail: "CONNECT is answered for the providers' hosts; --intercept-passthrough HOST lets a named one through"}
	refuseCA          = &refusal{status: 503, code: "ca_unavailable", detail: "the local CA cannot vouch for this host; the log says why, and keyward ca rotate makes one that can", retryAfter: 30}
	refuseMisdirected = &refusal{status: 421, code: "misdirected_request", detail: "CONNECT, TLS (SNI) and Host, or Keyward-Upstream, name different hosts", close: true}
	refuseWithinForm  = &refusal{status: 400, code: "bad_request", detail: "within CONNECT the request target is a path", close: true}
	refuseWithin      = &refusal{status: 403, code: "route_forbidden", detail: "CONNECT within CONNECT is not answered", close: true}
)
