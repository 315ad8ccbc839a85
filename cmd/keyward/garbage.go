package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// leastGarbage is what is let lie before it is collected. The runtime's own rule is as much as is in use, and that is a few megabytes here: at
// 2,000 webhooks a second it would collect seven times a second, each time with a quarter of the machine for some milliseconds, in which
// messages wait. Beyond it the runtime's rule holds, and so do GOMEMLIMIT and an operator's GOGC.
const leastGarbage = 32 << 20

// roomy sees to leastGarbage from now on: after each collection it looks at what is in use.
var roomy = sync.OnceFunc(func() {
	if os.Getenv("GOGC") != "" {
		return
	}
	r := &room{percent: 100}
	r.look()
	r.watch()
})

type room struct{ percent int }

// watch has look called at the end of the next collection, in the runtime's goroutine for finalizers, which nothing else here uses.
func (r *room) watch() {
	type collected struct{ _ [64]byte }
	runtime.SetFinalizer(&collected{}, func(*collected) {
		r.look()
		r.watch()
	})
}

func (r *room) look() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	percent := percentOf(live[0].Value.Uint64())
	if percent > r.percent*5/4 || percent < r.percent*3/4 { // setting it stops the world for a moment
		r.percent = percent
		debug.SetGCPercent(percent)
	}
}

// percentOf is how much garbage to let lie beside so many bytes in use, for GOGC.
func percentOf(live uint64) int {
	return int(max(100, leastGarbage*100/max(live, 1<<20)))
}
