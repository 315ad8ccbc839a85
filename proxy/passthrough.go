package proxy

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
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
	if bad := p.stillKnown(p.ctx, c); bad != nil { // the host may have been slow to connect to
		_ = up.Close()
		return bad
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
		p.joinWhileKnown(c, from, in, up)
	})
	return nil
}

// joinWhileKnown joins the two for as long as the caller would be let in with a request: whoever is revoked keeps no tunnel, in which nothing else
// would ask for them again.
func (p *Proxy) joinWhileKnown(c *call, from *callerConn, in, up net.Conn) {
	ctx, end := context.WithCancelCause(p.ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		defer p.guardTunnel(c.id[:], from)
		t := time.NewTicker(askAgainEvery)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			if bad := p.stillKnown(ctx, c); bad != nil {
				end(bad)
				return
			}
		}
	})
	p.join(ctx, c.id[:], from, in, up, up, &c.sent, &c.received)
	end(nil)
	watch.Wait()
	var bad *refusal
	if errors.As(context.Cause(ctx), &bad) {
		c.code = bad.code // for the log
	}
}

// askAgainEvery is how often it is asked whether who opened a tunnel is still known. Who is revoked is to be out within a second.
const askAgainEvery = 500 * time.Millisecond

var refuseAddress = &refusal{status: 403, code: "host_forbidden", detail: "the host's address is not on the public internet, and nothing else is let through; NO_PROXY has the app go there itself"}

// newDialer dials for passthrough.
func newDialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second, Control: PublicOnly}).DialContext
}
