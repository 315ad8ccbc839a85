package proxy

import (
	"context"
	"crypto/x509"
	"net/url"
	"time"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
	"github.com/keyward/keyward/trace"
	"github.com/rs/zerolog"
)

// Options are what a Proxy needs. Zero durations and sizes mean the defaults of the command line.
type Options struct {
	Store     store.Reader  // a cache in front of the store
	Providers provider.Set  // all that there are; nil: provider.All
	Keys      *seal.Keyring // opens what the store holds
	Rules     *caller.Rules // of the configuration's callers: section
	Log       zerolog.Logger
	Requests  *zerolog.Logger // takes the decision line of each request, and must not block; nil: Log
	Usage     *store.Usage    // is told which tokens and assistants are used; nil: nobody is
	Tracer    *trace.Tracer   // nil: nothing is traced

	Upstreams map[string]*url.URL // overrides: host → where it is dialled instead
	Roots     *x509.CertPool      // trusted for upstreams; nil: the system's
	AnyHost   bool                // listeners are open to other machines: any Host is allowed on TCP
	Isolate   bool                // no connection to a provider is used for two orgs
	Intercept *Interception       // how CONNECT is answered; nil: with a refusal
	Pulse     string              // the target of requests of our own that ask whether listeners answer; empty: there are none

	MaxHead     int           // bytes of a request's head; default 32 KiB
	HeadTimeout time.Duration // from the first byte of a request to the end of its head
	Limits

	// Rotated stores a refresh token that a provider replaced, and returns the credential's new version.
	Rotated func(ctx context.Context, row *store.Credential, field string, value []byte) (int64, error)
	// Audit records that a token was minted. A token that cannot be recorded is not handed out; nil: none ever is.
	Audit func(ctx context.Context, e store.Event) error
	// Suspect is told of each credential that its provider answers 401 to. It must return at once. Nil: nobody is told.
	Suspect func(row *store.Credential)
}

// Limits are what SetLimits can change while the proxy runs.
type Limits struct {
	MaxBody          int64         // bytes of a request's body; 0: no limit
	MaxConns         int           // open at once, per listener; 0: no limit
	IdleTimeout      time.Duration // without progress: between requests, and within a body or stream
	FirstByteTimeout time.Duration // from the whole request sent to the provider's first byte
}
