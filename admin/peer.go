package admin

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/netip"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/store"
)

// overflowUID is what the kernel shows for a user of another user namespace; on most systems it is also "nobody".
const overflowUID = 65534

// A peer is who is at the other end of a connection, found out once when it is accepted.
type peer struct {
	unix bool
	uid  uint32
	name string // "uid 1000 (app)"
	from string // "admin socket" or the TCP address
}

type peerKey struct{}

func peerOf(ctx context.Context) *peer {
	p, _ := ctx.Value(peerKey{}).(*peer)
	return p
}

// ConnContext is for http.Server: it asks the kernel who connected. A connection about which it cannot find out anything is let in
// nowhere.
func (a *API) ConnContext(ctx context.Context, c net.Conn) context.Context {
	ctx = withWiping(ctx, c)
	if c.RemoteAddr().Network() != "unix" {
		return context.WithValue(ctx, peerKey{}, &peer{from: c.RemoteAddr().String()})
	}
	uid, err := peerUID(c)
	if err != nil {
		a.o.Log.Error().Err(err).Msg("reading the peer's credentials on the admin socket")
		return ctx
	}
	p := &peer{unix: true, uid: uid, name: "uid " + strconv.FormatUint(uint64(uid), 10), from: "admin socket"}
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		p.name += " (" + u.Username + ")"
	}
	return context.WithValue(ctx, peerKey{}, p)
}

func peerUID(c net.Conn) (uint32, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0, net.UnknownNetworkError(c.RemoteAddr().Network())
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var p caller.Peer
	var perr error
	if err := raw.Control(func(fd uintptr) { p, perr = caller.PeerOf(fd) }); err != nil {
		return 0, err
	}
	return p.UID, perr
}

// admit decides who it is, and whether anybody at all may go on, before anything else is looked at. An admin token that comes over the
// socket narrows what its peer may do.
func (a *API) admit(c *call, pattern string) error {
	p := c.peer
	if p == nil {
		return problemPeer
	}
	c.by = store.Actor{Name: p.name, From: p.from}
	if p.unix {
		if p.uid == overflowUID || p.uid != 0 && p.uid != a.o.UID {
			return problemPeer
		}
		c.who = identity{Actor: c.by}
	}
	if pattern == callbackPath {
		return nil // from another site, by whatever name the operator gave it: see finishConsent
	}
	if !p.unix {
		if err := a.fromBrowser(c.r); err != nil {
			return err
		}
	}
	if isProbe(pattern) {
		return nil
	}
	token, given, err := bearer(c.r)
	switch {
	case !given && p.unix:
		return nil
	case !given:
		err = problemUnauthenticated
	case err == nil:
		c.who, err = a.identify(c.r.Context(), token, p.from)
	}
	if err != nil {
		c.who = identity{}
		if problemFor(err).Status == http.StatusUnauthorized {
			c.w.Header().Set("WWW-Authenticate", `Bearer realm="keyward"`)
		}
		return err
	}
	c.by = c.who.Actor
	return nil
}

// fromBrowser refuses what a web page could have made its visitor's browser send to a loopback address: a name that resolves here (DNS
// rebinding), or a request from another origin.
func (a *API) fromBrowser(r *http.Request) error {
	if !a.o.AnyHost && !ownHost(r) {
		return problemHost
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host && origin != "https://"+r.Host { // TLS may end in front of us
		return problemBrowser
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return nil
	}
	return problemBrowser
}

// ownHost says whether Host is loopback, or the very address that was dialled: probes in a cluster use the pod's own.
func ownHost(r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if ip, err := netip.ParseAddr(host); err == nil {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		if ip.IsLoopback() || local == nil {
			return ip.IsLoopback()
		}
		at, err := netip.ParseAddrPort(local.String())
		return err == nil && at.Addr().Unmap() == ip.Unmap()
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// A serverLog is net/http's own log: only that accepting fails is worth a line, and the rest may quote what clients send.
type serverLog struct{ log zerolog.Logger }

func (l serverLog) Write(line []byte) (int, error) {
	if bytes.HasPrefix(line, []byte("http: Accept error")) {
		l.log.Warn().Msg("accepting connections of the admin API failed; trying again")
	}
	return len(line), nil
}
