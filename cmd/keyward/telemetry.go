package main

import (
	"context"
	"time"

	"github.com/keyward/keyward/telemetry"
)

// startTelemetry begins to show what runs. What it reads is there once somebody asks: the admin API, which answers Prometheus, starts last.
func (s *sidecarProcess) startTelemetry(context.Context) error {
	shown, err := telemetry.New(telemetry.Options{
		Endpoint: s.c.OTLPEndpoint, Share: float64(s.c.TraceRatio), Version: version, Store: s.db.Engine(), Started: s.started, Log: s.log, Fill: s.fillMetrics,
	})
	if err != nil {
		return err
	}
	s.shown = shown
	return nil
}

// stopTelemetry sends what is left. A collector that does not take it keeps nobody from ending.
func (s *sidecarProcess) stopTelemetry() {
	const atMost = 2 * time.Second
	if s.shown == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), atMost)
	defer cancel()
	s.shown.Shutdown(ctx)
}

// countBacklog counts the webhooks in the store, so that nobody who asks for metrics waits for it. While the store does not answer, the
// last count stands.
func (s *sidecarProcess) countBacklog(ctx context.Context) {
	const every = 10 * time.Second
	if s.webhooks == nil {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if b, err := s.db.Backlog(ctx); err == nil {
			s.backlog.Store(&b)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
