// Package peer holds what Keyward is measured against: the same requests without it, and through the proxies that people would otherwise
// put there. Each gets what its own documentation recommends: connections kept open on both sides, no log, one worker per core used.
package peer

import (
	"context"
	"crypto/tls"
)

// An Upstream is the stand-in provider that a peer forwards to, over TLS, verified.
type Upstream struct {
	Address string // HOST:PORT
	Host    string // the provider's name: server name of the certificate, and the Host header
	CAFile  string // PEM
	CA      []byte // the same
	Name    string // of the injected header
	Value   string // of the injected header
	Dir     string // an existing private folder for the peer's files; its name leaves room for a socket's path
}

// An Endpoint is where the load generator sends requests to.
type Endpoint struct {
	Network string // "unix" or "tcp"
	Address string
	TLS     *tls.Config // nil: plain
	// Header is a line to add to each request, ended by CRLF: what the peer does not inject itself. Empty: none.
	Header string
}

// A Peer is started, measured and stopped by the harness. It is ready when Start returns. Start is called once.
type Peer interface {
	Name() string
	Start(ctx context.Context, u Upstream) (Endpoint, error)
	// PIDs are the processes whose CPU and memory count; none for direct.
	PIDs() []int
	Stop() error
}
