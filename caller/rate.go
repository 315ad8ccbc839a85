package caller

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// A bucket is a token bucket kept as one number, the time at which it would be full again (the generic cell rate algorithm): taking
// from it is a compare-and-swap, without a lock and without a goroutine that refills it.
type bucket struct {
	every time.Duration // one token's time
	slack time.Duration // how far ahead of the clock fullAt may run: (burst-1) tokens
	// fullAt in nanoseconds after epoch; in the past: the bucket is full.
	fullAt atomic.Int64
}

// epoch carries a monotonic reading, so that setting the wall clock neither blocks callers nor lets them through.
var epoch = time.Now()

func newBucket(every time.Duration, burst int) *bucket {
	b := &bucket{every: every, slack: time.Duration(burst-1) * every}
	b.fullAt.Store(math.MinInt64 / 2)
	return b
}

func (b *bucket) sameAs(o *bucket) bool { return b.every == o.every && b.slack == o.slack }

func (b *bucket) take(now time.Time) (bool, time.Duration) {
	at := int64(now.Sub(epoch))
	for {
		full := b.fullAt.Load()
		from := max(full, at)
		if wait := time.Duration(from-at) - b.slack; wait > 0 {
			return false, wait
		}
		if b.fullAt.CompareAndSwap(full, from+int64(b.every)) {
			return true, 0
		}
	}
}

// maxTokens bounds rate and burst: a million hours fit into a Duration.
const maxTokens = 1_000_000

var errRate = errors.New(`must be like "50/s" or "50/s burst 200" (also /m, /h), numbers from 1 to 1000000`)

// parseRate reads "50/s" and "50/s burst 200".
func parseRate(s string) (*bucket, error) {
	words := strings.Fields(s)
	if len(words) != 1 && (len(words) != 3 || words[1] != "burst") {
		return nil, errRate
	}
	count, unit, _ := strings.Cut(words[0], "/")
	per, ok := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	if !ok {
		return nil, errRate
	}
	n, ok := tokens(count)
	if !ok {
		return nil, errRate
	}
	burst := n
	if len(words) == 3 {
		if burst, ok = tokens(words[2]); !ok {
			return nil, errRate
		}
	}
	return newBucket(per/time.Duration(n), burst), nil
}

func tokens(s string) (int, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return int(n), err == nil && n >= 1 && n <= maxTokens
}
