package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/provider"
)

// How long each step towards a provider may take, and how many idle connections are kept to each host.
const (
	dialTimeout    = 2 * time.Second
	tlsTimeout     = 3 * time.Second
	userTimeout    = 20 * time.Second // TCP_USER_TIMEOUT: sent data that nobody acknowledges ends the connection
	idleUpstream   = 50 * time.Second // shorter than the providers' own idle time-outs (60 s and more)
	maxIdlePerHost = 256
	readBuffer     = 16 << 10 // the longest head of an answer
)

// An upstream is one host of a provider: where it is dialled and the idle connections to it. Upstreams are made at the start, one for
// each host in the providers' tables, and nothing else is ever dialled.
type upstream struct {
	provider *provider.Provider
	measure  *measure // of the provider; nil: nobody counts
	host     string   // as sent in Host
	own      bool     // only Keyward itself calls it
	public   bool     // only public addresses are connected to

	address string      // dialled: "host:port"
	tls     *tls.Config // nil: plain HTTP, which only an override to loopback can be
	connect func(ctx context.Context, network, address string) (net.Conn, error)

	mu      sync.Mutex
	idle    []*upstreamConn // most recently used last
	dials   dials
	retired bool // another upstream has taken its place: nothing is kept
}

// An upstreamConn is one connection to a provider, used by one request at a time.
type upstreamConn struct {
	net.Conn // TLS, or the guard itself
	guard    *guardedConn
	br       *bufio.Reader
	to       *upstream
	whose    string    // the org that it is kept for; empty: any
	since    time.Time // when it became idle
	reused   bool
	more     bool      // the last read filled its buffer: see Read
	renewed  time.Time // when the write deadline was last moved
	one      [1]byte
	closed   atomic.Bool
}

// newUpstreams makes an upstream for each host that any provider has. overrides send what is meant for a host elsewhere; roots are
// trusted for all of them (nil: the system's).
func newUpstreams(providers []*provider.Provider, overrides map[string]*url.URL, roots *x509.CertPool) (map[string]*upstream, error) {
	all := map[string]*upstream{}
	d := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	public := *d
	public.Control = PublicOnly
	add := func(p *provider.Provider, host string, own bool) {
		all[host] = &upstream{provider: p, host: host, own: own, address: host + ":443", tls: clientTLS(host, roots), connect: d.DialContext}
		if p.Custom {
			all[host].public, all[host].connect = true, public.DialContext
		}
	}
	for _, p := range providers {
		for _, h := range p.Hosts {
			add(p, h, false)
		}
		for _, h := range p.OwnHosts {
			if all[h] == nil {
				add(p, h, true)
			}
		}
	}
	for host, to := range overrides {
		u := all[host]
		if u == nil {
			return nil, fmt.Errorf("upstream %q: no provider has this host", host)
		}
		u.address, u.public, u.connect = to.Host, false, d.DialContext // the operator's own word
		port := to.Port()
		switch to.Scheme {
		case "https":
			u.tls = clientTLS(to.Hostname(), roots)
			if port == "" {
				u.address = net.JoinHostPort(to.Hostname(), "443")
			}
		case "http":
			if !isLoopback(to.Hostname()) {
				return nil, fmt.Errorf("upstream %q: plain http is for loopback only; use https", host)
			}
			u.tls = nil
			if port == "" {
				u.address = net.JoinHostPort(to.Hostname(), "80")
			}
		default:
			return nil, fmt.Errorf("upstream %q: scheme %q is neither https nor http", host, to.Scheme)
		}
	}
	return all, nil
}

func clientTLS(name string, roots *x509.CertPool) *tls.Config {
	return &tls.Config{
		ServerName:         name,
		RootCAs:            roots,
		MinVersion:         tls.VersionTLS12,
		ClientSessionCache: tls.NewLRUClientSessionCache(8),
	}
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && a.IsLoopback()
}

// take gives an idle connection of the org ("": of no org in particular) that is known to be clean, or nil. The last used is taken first.
func (u *upstream) take(whose string, now time.Time) *upstreamConn {
	for {
		u.mu.Lock()
		i := len(u.idle) - 1
		for i >= 0 && u.idle[i].whose != whose {
			i--
		}
		if i < 0 {
			u.mu.Unlock()
			return nil
		}
		c := u.idle[i]
		u.idle = slices.Delete(u.idle, i, i+1)
		u.mu.Unlock()
		if now.Sub(c.since) > idleUpstream || !c.use() {
			_ = c.Close()
			continue
		}
		return c
	}
}

// use makes an idle connection ready for the next request, unless it cannot be used again.
func (c *upstreamConn) use() bool {
	if c.dirty() {
		return false
	}
	c.reused = true
	c.guard.wrote = false
	return true
}

// put keeps a connection for the next request. The caller has read its answer to the end.
func (u *upstream) put(c *upstreamConn, now time.Time) {
	if c.br.Buffered() > 0 {
		_ = c.Close() // more than the answer has arrived
		return
	}
	c.since = now
	u.mu.Lock()
	switch {
	case u.handOver(c):
		c = nil
	case u.retired:
	case len(u.idle) < maxIdlePerHost:
		u.idle = append(u.idle, c)
		c = nil
	case c.whose != "": // orgs that are busy do not wait for those that are not
		u.idle, c = append(slices.Delete(u.idle, 0, 1), c), u.idle[0]
	}
	u.mu.Unlock()
	if c != nil {
		_ = c.Close()
	}
}

// sweep closes connections that were idle for too long. The list is ordered by when they became idle only roughly, so all are looked at.
func (u *upstream) sweep(now time.Time) {
	u.mu.Lock()
	kept := u.idle[:0]
	var old []*upstreamConn
	for _, c := range u.idle {
		if now.Sub(c.since) > idleUpstream {
			old = append(old, c)
		} else {
			kept = append(kept, c)
		}
	}
	clear(u.idle[len(kept):])
	u.idle = kept
	u.mu.Unlock()
	for _, c := range old {
		_ = c.Close()
	}
}

// retire closes the idle connections and keeps no more.
func (u *upstream) retire() {
	u.mu.Lock()
	u.retired = true
	u.mu.Unlock()
	u.sweep(time.Now().Add(2 * idleUpstream))
}

// dial opens a connection, over IPv4 or IPv6, whichever answers first (RFC 8305).
func (u *upstream) dial(ctx context.Context) (*upstreamConn, error) {
	tcp, err := u.connect(ctx, "tcp", u.address)
	if err != nil {
		return nil, err
	}
	made := false
	defer func() {
		if !made {
			_ = quietly(tcp)
		}
	}()
	setUserTimeout(tcp)
	c := &upstreamConn{to: u, guard: newGuardedConn(tcp, u.tls != nil)}
	c.Conn = c.guard
	if u.tls != nil {
		t := tls.Client(c.guard, u.tls)
		_ = c.guard.SetDeadline(time.Now().Add(tlsTimeout)) // of the guard: it takes one set below it for a timer left behind
		if err := t.Handshake(); err != nil {
			return nil, &tlsError{err}
		}
		_ = c.guard.SetDeadline(time.Time{})
		c.Conn = t
	}
	c.guard.wrote = false
	c.br = bufio.NewReaderSize(c, readBuffer)
	made = true
	if u.measure != nil {
		u.measure.open.Add(1)
	}
	return c, nil
}

// writesUntil renews the write deadline, at most once a second.
func (c *upstreamConn) writesUntil(now time.Time, idle time.Duration) {
	if now.Sub(c.renewed) >= time.Second {
		c.renewed = now
		_ = c.SetWriteDeadline(now.Add(idle))
	}
}

// Close closes without a TLS farewell: it could block, and the connection is done with.
func (c *upstreamConn) Close() error {
	if !c.closed.Swap(true) && c.to.measure != nil {
		c.to.measure.open.Add(-1)
	}
	return quietly(c.guard.Conn)
}

// A tlsError is a handshake that failed: the certificate, or TLS itself.
type tlsError struct{ error }

func (e *tlsError) Unwrap() error { return e.error }

func setUserTimeout(c net.Conn) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			limitUnacknowledged(int(fd), userTimeout)
		})
	}
}
