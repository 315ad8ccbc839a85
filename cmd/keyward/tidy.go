package main

import (
	"context"
	"runtime"
	"time"
)

// tidy collects garbage soon after work has ended, so that the copies of secrets which passed through libraries are overwritten while
// the process is idle too: an idle process would otherwise collect every two minutes.
func (s *sidecarProcess) tidy(ctx context.Context) {
	const every, apart = 250 * time.Millisecond, time.Second
	t := time.NewTicker(every)
	defer t.Stop()
	seen, done := s.work(), s.work()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := s.work()
		if now == seen && now != done && time.Since(last) > apart {
			runtime.GC()
			runtime.GC() // the second sweeps what sync.Pool gave up in the first
			done, last = now, time.Now()
		}
		seen = now
	}
}

// work grows with what leaves such copies: calls of the admin API, and what the proxy says of itself. Callers' ordinary requests do
// not: their secrets lie in memory of ours, which is overwritten.
func (s *sidecarProcess) work() int64 {
	st := s.proxy.Stats()
	return st.Exchanges.Load() + st.Echoes.Load() + st.Minted.Load() + s.adminCalls.Load()
}
