package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
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
	case errors.Is(err, errForbiddenAddress):
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
			_ = up.Close()
			return
		}
		defer p.drop(c)
		defer c.end()
		defer p.guard(c)
		defer func() { _ = up.Close() }()
		from.head = headWatch{}
		if _, err := from.Write(established); err != nil {
			return
		}
		p.join(c.id[:], from, in, up, up, &c.sent, &c.received)
	})
	return nil
}

var (
	errForbiddenAddress = errors.New("address is not on the public internet")
	refuseAddress       = &refusal{status: 403, code: "host_forbidden", detail: "the host's address is not on the public internet, and nothing else is let through; NO_PROXY has the app go there itself"}
)

// newDialer dials for passthrough. The address is looked at when it is dialled and not when the name is allowed: names change what they
// stand for (DNS rebinding).
func newDialer() func(ctx context.Context, network, address string) (net.Conn, error) {
	d := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil || !isPublic(a.Addr()) {
			return fmt.Errorf("dialling %s: %w", address, errForbiddenAddress)
		}
		return nil
	}}
	return d.DialContext
}

// isPublic says whether an address is another machine's on the public internet, and not this network's, this machine's or a cloud's metadata
// service.
func isPublic(a netip.Addr) bool {
	if a.Zone() != "" {
		return false
	}
	a = a.Unmap()
	if !a.IsGlobalUnicast() || a.IsPrivate() { // the first leaves out loopback, link-local (169.254.169.254 too), multicast and unspecified
		return false
	}
	return !slices.ContainsFunc(unreachable, func(n netip.Prefix) bool { return n.Contains(a) })
}

// unreachable are the networks of the IANA special-purpose registries that are not global, and addresses by which clouds serve metadata.
var unreachable = func() []netip.Prefix {
	var all []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"168.63.129.16/32", // Azure's
		// An IPv4 address of any kind may hide in these: NAT64, 6to4, Teredo, IPv4-compatible.
		"64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/23", "::/96",
		"100::/64", "2001:db8::/32", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}()
