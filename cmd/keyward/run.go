package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/admin"
	"github.com/keyward/keyward/ca"
	"github.com/keyward/keyward/cache"
	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/lastgood"
	"github.com/keyward/keyward/proxy"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
	"github.com/keyward/keyward/telemetry"
	"github.com/keyward/keyward/webhook"
)

// A sidecarProcess is everything that runs between the start and the end of serve. Its parts are closed in the reverse order of their
// making.
type sidecarProcess struct {
	c        *Config
	log      zerolog.Logger
	lines    *logBuffer     // that the log goes through; nil: it is for a person's eyes
	requests zerolog.Logger // takes the line of each request
	started  time.Time

	keys   *seal.Keyring
	source *keyWatch
	db     *store.DB
	usage  *store.Usage
	cache  *cache.Cache
	local  *localSwitch // in front of the cache

	leaves     *ca.Leaves       // nil: nothing is intercepted
	lastGood   *lastgood.Keeper // nil: none is kept
	unmigrated bool             // the store could not be reached at the start
	strict     atomic.Pointer[map[string]bool]

	keeper   *credential.Keeper
	proxy    *proxy.Proxy
	shown    *telemetry.Telemetry
	api      *http.Server
	complete atomic.Bool // all parts are there: what is sent to the collector is read in a goroutine that began before them
	recent   *traffic

	verifier   *credential.Verifier
	assistants admin.Assistants

	webhooks   *webhook.Server // nil: off
	queue      *webhook.Queue  // the same
	backlog    atomic.Pointer[store.Backlog]
	webhookAPI admin.Webhooks
	asked      chan struct{} // closed when no app is asked about a webhook any more; nil: none ever was

	weak       []string                // what the kernel did not grant
	inherited  map[string]net.Listener // from the service manager, by what they are for
	listeners  []string                // as the start line names them
	pulse      string                  // target of the watchdog's requests
	beats      []beat                  // what the watchdog asks
	callerTCP  string                  // where callers connect over TCP, as bound
	devToken   atomic.Pointer[string]  // of the open console; nil: it is not open
	adminTCP   string                  // the same of the admin API and the console
	adminCalls atomic.Int64
	owned      sync.WaitGroup
	failed     chan error // a listener that ended by itself
	stops      []func()   // have what runs end
	closers    []func()   // after it has ended
	draining   chan struct{}
}

// Run is the sidecar: it opens the store, listens, serves until ctx ends, drains, and returns. Ready, if not nil, is called once
// callers are served.
func Run(ctx context.Context, c *Config, std stdio, ready func(*sidecarProcess) error) (err error) {
	log, requests, lines := newLogger(c, std)
	defer lines.close()
	s := &sidecarProcess{c: c, log: log, requests: requests, lines: lines, started: time.Now(), pulse: newPulse(), failed: make(chan error, 1), draining: make(chan struct{})}
	defer s.close()
	stopProfile, err := startProfile(c)
	if err != nil {
		return err
	}
	defer stopProfile()
	if s.inherited, err = inheritedListeners(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{s.openKeys, s.openStore, s.openCache, s.startTelemetry, s.startProxy, s.startAssistants, s.startWebhooks, s.startAdmin} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	for _, w := range append(c.Warnings, s.weak...) {
		log.Warn().Msg(w)
	}
	background, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	s.stops = append(s.stops, stopBackground)
	s.owned.Go(func() { s.tidy(background) })
	if s.lastGood != nil {
		s.owned.Go(func() { s.lastGood.Run(background) })
	}
	if s.unmigrated {
		s.owned.Go(func() { s.migrateLater(background, c) })
	}
	s.owned.Go(func() { s.checkRows(background) })
	s.owned.Go(func() { s.recent.run(background) })
	s.owned.Go(func() { s.countBacklog(background) })
	s.owned.Go(func() { s.verifier.Run(background) })
	s.owned.Go(func() { s.countSeals(background) })
	s.owned.Go(func() { s.watchKeys(background) })
	s.owned.Go(func() { s.watchCA(background) })
	s.owned.Go(func() { s.attendKeys(background, c.RunDir) })
	s.announce()
	if ready != nil {
		if err := ready(s); err != nil {
			return err
		}
	}
	s.owned.Go(func() { s.watchdog(background) })
	notify(daemonReady)
	s.serveUntil(ctx)
	return s.drain()
}

func (s *sidecarProcess) startProxy(context.Context) error {
	c := s.c
	rules, err := c.compileRules(c.known(), nil)
	if err != nil {
		return usagef("%w", err)
	}
	roots, err := c.roots()
	if err != nil {
		return usagef("%w", err)
	}
	if len(c.Callers) == 0 {
		s.log.Info().Uint32("uid", ownUID()).Msg("no callers: in the configuration: only this uid is let in over the unix socket, for every org; over TCP a token is needed")
	}
	s.makeVerifier()
	intercept, err := s.openCA()
	if err != nil {
		return err
	}
	s.proxy, err = proxy.New(proxy.Options{
		Intercept: intercept, Store: s.local, Providers: c.providers(), Keys: s.keys, Rules: rules, Log: s.log, Requests: &s.requests, Usage: s.usage, Tracer: s.shown.Tracer(), Upstreams: c.Upstreams, Roots: roots, AnyHost: c.AllowRemote, Isolate: c.IsolateUpstreams,
		MaxHead: int(c.MaxHead), HeadTimeout: c.HeadTimeout, Limits: s.limits(c), Rotated: s.rotated, Suspect: s.verifier.Suspect, Audit: s.db.AddEvent, Pulse: s.pulse,
	})
	if err != nil {
		return usagef("%w", err)
	}
	s.closers = append(s.closers, s.proxy.Close)
	if c.Socket != "" {
		if err := s.makeWay(); err != nil {
			return err
		}
		l, err := s.listenUnix("caller", c.Socket, os.FileMode(c.SocketMode), c.SocketGID)
		if err != nil {
			return err
		}
		s.serveProxy(&proxy.Listener{Listener: l}, "callers unix:"+c.Socket)
	}
	if c.Listen != "" {
		l, err := s.listenTCP("listen", c.Listen)
		if err != nil {
			return err
		}
		s.callerTCP = l.Addr().String()
		s.serveProxy(&proxy.Listener{Listener: l}, "callers "+s.callerTCP)
	}
	for i, spec := range c.Listeners {
		l, err := s.listenTCP(fmt.Sprintf("listeners[%d]", i), spec.Address)
		if err != nil {
			return err
		}
		pl := &proxy.Listener{Listener: l, Org: spec.Org, Upstream: spec.Upstream}
		if err := s.proxy.Check(pl); err != nil {
			_ = l.Close()
			return usagef("%w", err)
		}
		s.serveProxy(pl, "callers "+l.Addr().String())
	}
	return nil
}

func (s *sidecarProcess) limits(c *Config) proxy.Limits {
	return proxy.Limits{MaxBody: int64(c.MaxBody), MaxConns: c.MaxConns, IdleTimeout: c.IdleTimeout, FirstByteTimeout: c.FirstByteTimeout}
}

// rotated stores a refresh token that a provider replaced.
func (s *sidecarProcess) rotated(ctx context.Context, row *store.Credential, field string, value []byte) (int64, error) {
	next, err := s.keeper.ReplaceField(ctx, store.Actor{Name: "sidecar", From: "process"}, row.Ref, field, value, row.SealedVersion)
	if err != nil {
		return 0, err
	}
	return next.Version, nil
}

func (s *sidecarProcess) serveProxy(l *proxy.Listener, name string) {
	s.listeners = append(s.listeners, name)
	s.beats = append(s.beats, beat{name, l.Addr(), func() bool { return s.proxy.Full(l) }})
	s.stops = append(s.stops, func() { _ = l.Close() })
	s.owned.Go(func() {
		if err := s.proxy.Serve(l); err != nil {
			s.fail(fmt.Errorf("serving %s: %w", name, err))
		}
	})
}

// announce is the one line that says what runs where.
func (s *sidecarProcess) announce() {
	s.log.Info().Str("version", version).Strs("listeners", s.listeners).Str("store", s.c.Store.String()).Str("key", s.c.Key).
		Str("key_id", s.keys.PrimaryID()).Msg("keyward is ready")
}

// serveUntil waits for the end: a signal, or a listener that broke. SIGHUP re-reads the configuration.
func (s *sidecarProcess) serveUntil(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case err := <-s.failed:
			s.log.Error().Err(err).Msg("a listener ended; stopping")
			s.failed <- err
			return
		case <-hangups:
			s.reload()
			s.source.lookAgain()
		}
	}
}

// drain lets what is in flight finish: readiness goes first, then new connections, then the rest.
func (s *sidecarProcess) drain() error {
	notify(daemonStopping)
	close(s.draining)
	s.proxy.Drain()
	s.log.Info().Dur("at_most_ms", s.c.DrainTimeout).Msg("draining")
	if s.c.MinDrain > 0 {
		time.Sleep(s.c.MinDrain)
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.c.DrainTimeout)
	defer cancel()
	s.awaitApps(s.c.DrainTimeout / 2)
	err := s.proxy.Shutdown(ctx)
	if err != nil {
		s.log.Warn().Msg("requests were still in flight at the end of --drain-timeout and are cut off")
	}
	select {
	case err := <-s.failed:
		return err
	default:
		s.log.Info().Msg("stopped")
		return nil
	}
}

// close ends what still runs, waits for it, and only then takes away what it works with.
func (s *sidecarProcess) close() {
	for i := len(s.stops) - 1; i >= 0; i-- {
		s.stops[i]()
	}
	s.owned.Wait()
	s.stopTelemetry()
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
}

// fail reports a listener that ended by itself; the first is enough.
func (s *sidecarProcess) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

// roots are the certificates that upstreams are verified with.
func (c *Config) roots() (*x509.CertPool, error) {
	if c.UpstreamCA == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pem, err := os.ReadFile(c.UpstreamCA)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", c.flags.at("upstream-ca"), c.UpstreamCA, plainError(err))
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s %q: no PEM certificate in it", c.flags.at("upstream-ca"), c.UpstreamCA)
	}
	return pool, nil
}
