package main

import (
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// The requests of ioctl(2) that read and set a terminal's mode.
const getTerminal, setTerminal = unix.TCGETS, unix.TCSETS

// changedAt are when a file's content and when it itself were last changed, in nanoseconds.
func changedAt(s *syscall.Stat_t) (content, file int64) { return s.Mtim.Nano(), s.Ctim.Nano() }

// giveWay lets the calls of other processes come first, for work that has time. On Linux a thread has a niceness of its own, which new ones
// take from the one that makes them: so each thread there is gets it.
func giveWay() {
	runtime.GOMAXPROCS(1)
	threads, _ := os.ReadDir("/proc/self/task")
	for _, t := range threads {
		if id, err := strconv.Atoi(t.Name()); err == nil {
			_ = unix.Setpriority(unix.PRIO_PROCESS, id, 10)
		}
	}
}
