package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/keyward/keyward/admin"
	"github.com/keyward/keyward/console"
)

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

// stopAdmin lets answers of the admin API that are being written end.
func (s *sidecarProcess) stopAdmin() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.api.Shutdown(ctx) != nil {
		_ = s.api.Close()
	}
}
