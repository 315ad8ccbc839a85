package proxy

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"
)

// passes says whether CONNECT to the host and port is let through untouched.
func (p *Proxy) passes(authority string) bool {
	return slices.ContainsFunc(p.intercept.Passthrough, func(named string) bool {
		below, wild := strings.CutPrefix(named, "*")
		if wild {
			return strings.HasSuffix(authority, below) && len(authority) > len(below) && authority[0] != '.'
		}
		return authority == named
	})
}

// passThrough dials the host and joins it with the caller, whatever they say to each other.
func (p *Proxy) passThrough(c *call) *refusal {
	ctx, cancel := context.WithTimeout(p.ctx, 2*dialTimeout) // names are looked up, too
	defer cancel()
	up, err := p.dialOut(ctx, "tcp", c.connect.pass)
	switch {
	case IsPrivate(err):
		return refuseAddress
	case err != nil:
		return refusalFor(err)
	}
	c.status = 200
	server, from := c.ctx, c.conn // a call that is parked may be ended, and another request's, at any time
	c.park()
	server.HijackSetNoResponse(true)
	server.Hijack(func(in net.Conn) {
		if from.waiting.Swap(nil) != c {
			p.tunnels.add(Tunnel{passedThrough, failed})
			_ = up.Close()
			return
		}
		defer p.drop(c)
		defer c.end()
		defer p.guard(c)
		defer func() { _ = up.Close() }()
		from.head = headWatch{}
		if _, err := from.Write(established); err != nil {
			p.tunnels.add(Tunnel{passedThrough, failed})
			return
		}
		p.tunnels.add(Tunnel{passedThrough, opened})
		p.join(c.id[:], from, in, up, up, &c.sent, &c.received)
	})
	return nil
}

var refuseAddress = &refusal{status: 403, code: "host_forbidden", detail: "the host's address is not on the public internet, and nothing else is let through; NO_PROXY has the app go there itself"}

// newDialer dials for passthrough.
func newDialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second, Control: PublicOnly}).DialContext
}
