package proxy

import (
	"errors"
	"net/netip"
	"syscall"
)

// errPrivate: a name that a configuration gave resolves to where only this machine, its network or its cloud is.
var errPrivate = errors.New("the host resolves to an address of this machine or of a private network")

// IsPrivate says whether an error of a dial with PublicOnly is that refusal.
func IsPrivate(err error) bool { return errors.Is(err, errPrivate) }

// PublicOnly is a net.Dialer's Control that lets it connect to public addresses alone. It sees the address that is connected to, after the
// name was looked up, so that no answer of a name server gets around it (DNS rebinding).
func PublicOnly(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !isPublic(at.Addr()) {
		return errPrivate
	}
	return nil
}

// notPublic are the IANA special-purpose registries' blocks that no provider is reached at, besides those that net/netip knows. Those that
// hold an IPv4 address within them (NAT64, 6to4, Teredo) could lead anywhere. Of IPv6, what lies outside of global never is: nobody was given
// any of it, and some of it holds IPv4 addresses too (RFC 2765's ::ffff:0:0:0/96).
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("3fff::/20"),
	netip.MustParsePrefix("168.63.129.16/32"), // Azure serves metadata at it
}

// global is all of IPv6 that addresses of the public internet are given out of (IANA's IPv6 address space registry).
var global = netip.MustParsePrefix("2000::/3")

func isPublic(a netip.Addr) bool {
	if a.Zone() != "" {
		return false
	}
	a = a.Unmap()
	if a.Is6() && !global.Contains(a) {
		return false
	}
	if !a.IsGlobalUnicast() || a.IsPrivate() { // not loopback, link-local (metadata services), multicast, unspecified
		return false
	}
	for _, block := range notPublic {
		if block.Contains(a) {
			return false
		}
	}
	return true
}
