package main

import (
	"context"
	"crypto/x509"
	"errors"
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
	"github.com/keyward/keyward/console"
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

func (s *sidecarProcess) openStore(ctx context.Context) error {
	c := s.c
	db, err := store.Open(ctx, c.Store.Reveal(), store.Options{Log: s.log})
	if err != nil {
		return err
	}
	s.db = db
	s.closers = append(s.closers, func() { _ = db.Close() })
	s.openLastGood()
	err = s.migrate(ctx, c)
	if errors.Is(err, store.ErrUnavailable) && s.lastGood != nil && s.lastGood.Usable() {
		s.log.Warn().Err(err).Interface("last_known_good", s.lastGood.Stats()).Msg("the store cannot be reached: started with the rows that it last confirmed")
		s.unmigrated, err = true, nil
	}
	if err != nil {
		return err
	}
	if !s.unmigrated { // else when the store is there: migrateLater
		if err := s.checkRole(ctx, c); err != nil {
			return err
		}
	}
	s.usage = store.NewUsage(db)
	s.owned.Go(s.usage.Run)
	s.stops = append(s.stops, s.usage.Stop)
	s.closers = append(s.closers, s.writeUsage)
	return nil
}

// writeUsage writes what was used and is not written yet, when nobody uses anything any more.
func (s *sidecarProcess) writeUsage() {
	const atMost = 2 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), atMost)
	defer cancel()
	if err := s.usage.Flush(ctx); err != nil {
		s.log.Warn().Err(err).Msg("when assistants and callers were last used could not be written; the last minute of it is lost")
	}
}

// migrate brings the schema up to date, or refuses one that this version cannot work with.
func (s *sidecarProcess) migrate(ctx context.Context, c *Config) error {
	if !c.AutoMigrate {
		schema, err := s.db.Schema(ctx)
		if err != nil {
			return err
		}
		if schema.Current < schema.Latest {
			return fmt.Errorf("the store's schema is at version %d and this program needs %d; run `keyward migrate up`, or start without --auto-migrate=false", schema.Current, schema.Latest)
		}
		return nil
	}
	db := s.db
	if url := c.MigrateURL.Reveal(); url != "" {
		other, err := store.Open(ctx, url, store.Options{Log: s.log})
		if err != nil {
			return fmt.Errorf("--migrate-url: %w", err)
		}
		defer func() { _ = other.Close() }()
		db = other
	}
	n, err := db.MigrateUp(ctx)
	if err != nil {
		return err
	}
	if n > 0 {
		s.log.Info().Int("steps", n).Msg("brought the store's schema up to date")
	}
	return nil
}

// checkRole refuses a role that row-level security does not hold for, where the store has roles of its own: keyward_app exists, or
// --migrate-url names another. Where one role does everything, which is the short way to a store for one sidecar, that is said and no more.
func (s *sidecarProcess) checkRole(ctx context.Context, c *Config) error {
	apart, err := s.db.CheckRole(ctx)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, store.ErrRole):
		return fmt.Errorf("checking the store's role: %w", err)
	case apart || c.migratesAsAnother():
		return err
	}
	s.log.Warn().Err(err).Msg("one role does everything in the store, so that only the program keeps the orgs apart; docs/reference/store.md has the SQL for two")
	return nil
}

// migratesAsAnother says whether --migrate-url names another role than --store, and not only a direct address for the same.
func (c *Config) migratesAsAnother() bool {
	if c.MigrateURL == "" {
		return false
	}
	return !store.SameRole(c.Store.Reveal(), c.MigrateURL.Reveal())
}

func (s *sidecarProcess) openCache(ctx context.Context) error {
	c := s.c
	s.setStrict(c)
	options := cache.Options{Size: c.CacheSize, TTL: c.CacheTTL, MaxStale: c.MaxStale, FeedLive: s.db.FeedLive, Strict: s.isStrict}
	if s.lastGood != nil {
		options.Fallback = s.lastGood
	}
	ca, err := cache.New(s.db, options)
	if err != nil {
		return err
	}
	apply := ca.Apply
	if s.lastGood != nil {
		apply = func(change store.Change) {
			s.lastGood.Apply(change) // first: what the cache then finds worthless must not come from there
			ca.Apply(change)
		}
	}
	s.cache = ca
	s.closers = append(s.closers, ca.Close)
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.owned.Go(func() {
		if err := s.db.Watch(watch, apply); err != nil && watch.Err() == nil {
			s.log.Error().Err(err).Msg("watching the store for changes ended")
		}
	})
	s.stops = append(s.stops, stop)
	s.keeper = &credential.Keeper{DB: s.db, Keys: s.keys, Providers: s.c.providers()}
	s.local, err = openLocalSwitch(ca, c.RunDir)
	return err
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
		Intercept: intercept,
		Store:     s.local, Providers: c.providers(), Keys: s.keys, Rules: rules, Log: s.log, Requests: &s.requests, Usage: s.usage, Tracer: s.shown.Tracer(), Upstreams: c.Upstreams, Roots: roots, AnyHost: c.AllowRemote, Isolate: c.IsolateUpstreams,
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

// startAdmin serves the admin API on its socket and on TCP, and there the console too.
func (s *sidecarProcess) startAdmin(context.Context) error {
	s.recent = &traffic{take: s.sampleOf}
	api := admin.New(admin.Options{
		DB: s.db, Keeper: s.keeper, Log: s.log, UID: ownUID(), Providers: s.c.providers(), AnyHost: s.c.AllowRemote, Version: version, Started: s.started,
		Stats: s.stats, Traffic: s.recent.now, Metrics: s.shown, Verifier: s.verifier,
		Consents: s.makeConsents(), ConsentReturn: s.c.GoogleReturnURL, Assistants: s.assistants, Webhooks: s.webhookAPI, Profiles: profiles(s.c),
		Local: admin.Local{List: s.local.list, Set: s.local.set},
		Checks: []admin.Check{
			{Name: "draining", Run: s.checkDraining},
			{Name: "store", Run: s.db.Ping, Degrades: true},
			{Name: "change-feed", Run: s.checkFeed, Degrades: true},
			{Name: "keys", Run: s.checkKeys, Degrades: true, Note: s.keyNote},
		},
	})
	api.Mount(console.New(console.Options{API: api.Inside(), Log: s.log, Titles: titles(s.c.providers()), Open: s.consoleOpen, Stop: s.draining}))
	s.api = api.Server()
	s.api.Handler = s.counted(api)
	s.complete.Store(true)
	s.stops = append(s.stops, s.stopAdmin)
	var tcp net.Listener
	if s.c.AdminListen != "" { // bound before the socket is served, which tells browsers to come back there
		var err error
		if tcp, err = s.listenTCP("admin-listen", s.c.AdminListen); err != nil {
			return err
		}
		s.adminTCP = tcp.Addr().String()
	}
	if s.c.AdminSocket != "" {
		l, err := s.listenUnix("admin", s.c.AdminSocket, 0o600, -1)
		if err != nil {
			return err
		}
		s.serveAdmin(l, "admin unix:"+s.c.AdminSocket)
	}
	if tcp != nil {
		s.serveAdmin(admin.Limited(tcp), "admin "+s.adminTCP)
	}
	return nil
}

// consoleOpen is the token of a console that needs no log-in.
func (s *sidecarProcess) consoleOpen() string {
	if t := s.devToken.Load(); t != nil {
		return *t
	}
	return ""
}

// counted counts the requests of the admin API, for tidy.
func (s *sidecarProcess) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(w, r)
		if r.URL.Path != "/metrics" || r.Header.Get("Authorization") != "" { // asked for every few seconds, and no secret takes part
			s.adminCalls.Add(1)
		}
	})
}

func (s *sidecarProcess) serveAdmin(l net.Listener, name string) {
	s.listeners = append(s.listeners, name)
	s.owned.Go(func() {
		if err := s.api.Serve(admin.Wiping(l)); err != nil && !errors.Is(err, http.ErrServerClosed) {
			s.fail(fmt.Errorf("serving %s: %w", name, err))
		}
	})
}

func (s *sidecarProcess) checkDraining(context.Context) error {
	select {
	case <-s.draining:
		return errors.New("the sidecar is stopping")
	default:
		return nil
	}
}

func (s *sidecarProcess) checkFeed(context.Context) error {
	if !s.db.FeedLive() {
		return errors.New("the change feed is down; cached values are confirmed with the store before they are used")
	}
	return nil
}

// feedStats are how fresh what the sidecar knows of others' changes is; age_ms is null while the feed is down.
func (s *sidecarProcess) feedStats() map[string]any {
	f := map[string]any{"live": s.db.FeedLive(), "age_ms": nil}
	if age, ok := s.db.FeedAge(); ok {
		f["age_ms"] = age.Milliseconds()
	}
	return f
}

// stats are the running numbers of /api/stats.
func (s *sidecarProcess) stats() map[string]any {
	st := s.proxy.Stats()
	dialled, reused := s.proxy.Dials()
	all := map[string]any{
		"cache": s.cache.Stats(),
		"feed":  s.feedStats(),
		"usage": s.usage.Stats(),
		"proxy": map[string]any{
			"requests": st.Requests.Load(), "refused": st.Refused.Load(), "failed": st.Failed.Load(), "panics": st.Panics.Load(),
			"dialled": dialled, "reused": reused,
		},
	}
	if s.lastGood != nil {
		all["last_known_good"] = s.lastGood.Stats()
	}
	return all
}

// checkRows tries to open every credential once, in the background: a key that opens no rows is better known at start than by the
// first org's request. One that cannot be opened stops nobody else.
func (s *sidecarProcess) checkRows(ctx context.Context) {
	var scratch []byte
	total, bad := 0, 0
	ids := map[string]int{}
	err := s.db.EachCredential(ctx, func(c *store.Credential) error {
		total++
		secret, buf, err := credential.Open(s.keys, c, scratch[:0])
		scratch = buf
		if err != nil {
			bad++
			ids[c.KeyID]++
			return nil
		}
		secret.Wipe()
		return nil
	})
	switch {
	case err != nil && ctx.Err() == nil:
		s.log.Warn().Err(err).Msg("checking that the keys open the stored credentials could not be finished")
	case bad > 0:
		s.log.Error().Int("credentials", total).Int("unreadable", bad).Interface("sealed_with", ids).Str("key_id", s.keys.PrimaryID()).
			Msg("the keys at hand do not open some stored credentials; their requests get 424 credential_unreadable until the key that sealed them is in the key source")
	}
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

// reload takes over what may change while the sidecar runs. A file that is not good changes nothing.
func (s *sidecarProcess) reload() {
	notify(daemonReloading())
	defer notify(daemonReady)
	next, restart, err := s.c.reload()
	if err == nil {
		err = s.apply(next)
	}
	if err != nil {
		s.log.Error().Err(err).Msg("the new configuration is not good; the old one stays")
		return
	}
	e := s.log.Info()
	if len(restart) > 0 {
		e = s.log.Warn().Strs("needs_restart", restart)
	}
	e.Msg("configuration read anew")
}

func (s *sidecarProcess) apply(next *Config) error {
	rules, err := next.compileRules(next.known(), s.proxy.Rules())
	if err != nil {
		return err
	}
	// What may be refused comes first; the last of it takes the one before back.
	if s.webhooks != nil {
		if err := s.webhooks.SetRoutes(next.webhookRoutes()); err != nil {
			return err
		}
	}
	if err := s.proxy.SetUpstreams(next.Upstreams); err != nil {
		if s.webhooks != nil {
			err = errors.Join(err, s.webhooks.SetRoutes(s.c.webhookRoutes()))
		}
		return err
	}
	s.proxy.SetRules(rules)
	s.proxy.SetLimits(s.limits(next))
	s.setStrict(next)
	setLogLevel(next.LogLevel)
	s.c = next
	return nil
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

// stopAdmin lets answers of the admin API that are being written end.
func (s *sidecarProcess) stopAdmin() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.api.Shutdown(ctx) != nil {
		_ = s.api.Close()
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
		return nil, fmt.Errorf("--upstream-ca %q: %w", c.UpstreamCA, plainError(err))
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--upstream-ca %q: no PEM certificate in it", c.UpstreamCA)
	}
	return pool, nil
}
