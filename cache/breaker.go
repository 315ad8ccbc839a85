package cache

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	firstBackoff = 50 * time.Millisecond
	// maxBackoff bounds how long a store that is back goes unnoticed, and with it how long a change made meanwhile could.
	maxBackoff = 500 * time.Millisecond
)

// A breaker keeps a store that is down from being asked by everyone: after a failed load it is open, and loads are refused but for one at
// a time, the probe, after a back-off that doubles. The first success closes it. Nobody probes unless a request asks for something, so it
// needs no goroutine, and a store that comes back meets one query, not a storm.
type breaker struct {
	// Read by every request while the store is down, so without the lock; written under it.
	open    atomic.Bool
	probing atomic.Bool
	until   atomic.Int64 // a time.Duration

	mu      sync.Mutex
	backoff time.Duration
}

func (b *breaker) isOpen() bool { return b.open.Load() }

// refuses says whether a load that began now would be refused.
func (b *breaker) refuses(now time.Duration) bool {
	return b.open.Load() && (b.probing.Load() || int64(now) < b.until.Load())
}

// enter admits a load, perhaps as the probe, or refuses it.
func (b *breaker) enter(now time.Duration) (admitted, probe bool) {
	if !b.open.Load() {
		return true, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuses(now) {
		return false, false
	}
	probe = b.open.Load()
	b.probing.Store(probe)
	return true, probe
}

// leave takes in how an admitted load ended.
func (b *breaker) leave(now time.Duration, probe, reached bool) {
	if reached && !probe && !b.open.Load() {
		return // the usual case takes no lock
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case reached:
		b.open.Store(false)
	case probe:
		b.wait(now, min(2*b.backoff, maxBackoff))
	case !b.open.Load():
		b.wait(now, firstBackoff)
		b.open.Store(true)
	}
	// A load that began before the breaker opened, and has failed too, says nothing new.
	if probe {
		b.probing.Store(false)
	}
}

func (b *breaker) wait(now, backoff time.Duration) {
	b.backoff = backoff
	b.until.Store(int64(now + backoff))
}
