package main

import (
	"context"
	"fmt"
	"time"

	"github.com/keyward/keyward/admin"
	"github.com/keyward/keyward/webhook"
)

// startWebhooks serves --webhook-listen and delivers what was accepted. Both end with the process: a drain lets what is in flight finish,
// what is stored and not delivered yet waits for the next start or another sidecar.
func (s *sidecarProcess) startWebhooks(ctx context.Context) error {
	c := s.c
	if c.WebhookListen == "" {
		return nil
	}
	if err := s.db.HoldKeys(ctx); err != nil {
		return err
	}
	queue := webhook.NewQueue(webhook.QueueOptions{
		Store: s.db, Keys: s.keys, Log: s.log, Tracer: s.shown.Tracer(), Attempts: c.WebhookAttempts, Backoff: c.WebhookBackoff, BackoffMax: c.WebhookBackoffMax,
	})
	server, err := webhook.New(webhook.Options{
		Store: s.local, Keys: s.keys, Log: s.log, Usage: s.usage, Tracer: s.shown.Tracer(), AccountOwner: s.db.AccountOwner,
		Accept: queue.Accept, Memory: s.db,
		PublicURL: c.PublicURL, Routes: c.webhookRoutes(), Pulse: s.pulse, MaxBody: int64(c.WebhookMaxBody), MaxHead: int(c.MaxHead), MaxConns: c.MaxConns,
		HeadTimeout: c.HeadTimeout, IdleTimeout: c.IdleTimeout,
	})
	if err != nil {
		return usagef("%w", err)
	}
	l, err := s.listenTCP("webhook-listen", c.WebhookListen)
	if err != nil {
		return err
	}
	s.webhooks, s.queue = server, queue
	s.webhookAPI = admin.Webhooks{
		Target: server.Target, Wake: queue.Wake,
		Test: testWebhook(&webhook.Sampler{Store: s.local, Keys: s.keys, Address: l.Addr().String(), PublicURL: c.PublicURL}),
	}
	name := "webhooks " + l.Addr().String()
	s.listeners = append(s.listeners, name)
	s.beats = append(s.beats, beat{name, l.Addr(), server.Full})

	watch, stopWatch := context.WithCancel(context.WithoutCancel(ctx))
	s.owned.Go(func() {
		if err := s.db.Watch(watch, server.Apply); err != nil && watch.Err() == nil {
			s.log.Error().Err(err).Msg("watching the store for account ids that change hands ended")
		}
	})
	s.owned.Go(queue.Run)
	s.owned.Go(func() {
		if err := server.Serve(l); err != nil {
			s.fail(fmt.Errorf("serving %s: %w", name, err))
		}
	})
	stopped, drained := make(chan struct{}), make(chan struct{})
	s.asked = drained
	s.owned.Go(func() {
		defer close(drained)
		select {
		case <-stopped:
		case <-s.draining:
			s.drainWebhooks(server, queue)
		}
	})
	s.stops = append(s.stops, func() {
		select {
		case <-s.draining:
		default:
			close(stopped)
		}
		<-drained
		server.Close()
		over, cancel := context.WithCancel(context.Background())
		cancel()
		_ = queue.Shutdown(over) // what is still under way is cut off: it is stored, and tried again
		stopWatch()
	})
	return nil
}

// drainWebhooks ends both at the pace of the rest of the process.
func (s *sidecarProcess) drainWebhooks(server *webhook.Server, queue *webhook.Queue) {
	server.Drain()
	time.Sleep(s.c.MinDrain)
	ctx, cancel := context.WithTimeout(context.Background(), s.c.DrainTimeout)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		s.log.Warn().Msg("webhooks were still in flight at the end of --drain-timeout and are cut off")
	}
	if queue.Shutdown(ctx) != nil {
		s.log.Warn().Msg("deliveries were still under way at the end of --drain-timeout; they are tried again")
	}
}

// awaitApps waits for the apps that are being asked about webhooks, for no longer than most: what they answer may need a provider, and there is no
// way to one but through the callers' listeners. Those stay open meanwhile.
func (s *sidecarProcess) awaitApps(most time.Duration) {
	if s.asked == nil {
		return
	}
	t := time.NewTimer(most)
	defer t.Stop()
	select {
	case <-s.asked:
	case <-t.C:
	}
}

// webhookRoutes are the file's, and --webhook-target for whatever they do not name.
func (c *Config) webhookRoutes() []webhook.Route {
	var all []webhook.Route
	for _, w := range c.Webhooks {
		redact := c.WebhookRedact
		if w.Redact != nil {
			redact = *w.Redact
		}
		all = append(all, webhook.Route{Provider: w.Provider, Org: w.Org, Target: w.Target, Mode: w.Mode, Redact: redact})
	}
	if c.WebhookTarget != "" {
		all = append(all, webhook.Route{Target: c.WebhookTarget, Redact: c.WebhookRedact})
	}
	return all
}
