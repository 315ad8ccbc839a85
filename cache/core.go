package cache

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/store"
)

// confirmWithin is how long a row may be used after the store confirmed it when nothing else says that it still holds: the bound within
// which a revoked credential must be out of use everywhere.
const confirmWithin = time.Second

var errClosed = fmt.Errorf("%w: the cache is closed", store.ErrUnavailable)

// A core is what the tables of one cache share.
type core struct {
	Options
	breaker breaker
	base    time.Time // ages count from here

	// Loads run on the cache's own account, not on a caller's: others may be waiting for them.
	ctx     context.Context
	cancel  context.CancelFunc
	loads   sync.WaitGroup
	mu      sync.RWMutex // between a load that begins and shut
	closed  atomic.Bool
	closing sync.Once
}

func newCore(o Options) *core {
	c := &core{Options: o}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.base = time.Now()
	if o.Now != nil {
		c.base = o.Now()
	}
	return c
}

// clock is the time since the cache was made. time.Since reads only the monotonic clock, at half the price of time.Now.
func (c *core) clock() time.Duration {
	if c.Now == nil {
		return time.Since(c.base)
	}
	return c.Now().Sub(c.base)
}

// begin says whether a load may begin; if so, end must follow.
func (c *core) begin() bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed.Load() {
		return false
	}
	c.loads.Add(1)
	return true
}

func (c *core) end() { c.loads.Done() }

// shut lets no further load begin, cancels those under way and waits for them.
func (c *core) shut() {
	c.mu.Lock()
	c.closed.Store(true)
	c.mu.Unlock()
	c.cancel()
	c.loads.Wait()
}
