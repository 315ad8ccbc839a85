package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestPercentOf(t *testing.T) {
	for live, want := range map[uint64]int{0: 3200, 4 << 20: 800, 32 << 20: 100, 1 << 30: 100} {
		if got := percentOf(live); got != want {
			t.Errorf("with %d bytes in use: %d, want %d", live, got, want)
		}
	}
}

// A heap that grows gets the runtime's own rule back.
func TestRoomy(t *testing.T) {
	if os.Getenv("GOGC") != "" {
		t.Fatal("GOGC is set: unset it for this test")
	}
	defer debug.SetGCPercent(100)
	r := &room{percent: 100}
	r.look()
	r.watch()
	percent := func() int {
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	for _, size := range []int{256 << 20, 0} {
		held := make([]byte, size)
		eventually(t, "the setting follows", func() bool {
			runtime.GC()
			time.Sleep(5 * time.Millisecond)
			if size > 0 {
				return percent() == 100
			}
			return percent() > 100
		})
		runtime.KeepAlive(held)
	}
}
