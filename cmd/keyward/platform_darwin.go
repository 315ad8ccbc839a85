package main

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// The requests of ioctl(2) that read and set a terminal's mode.
const getTerminal, setTerminal = unix.TIOCGETA, unix.TIOCSETA

// changedAt are when a file's content and when it itself were last changed, in nanoseconds.
func changedAt(s *syscall.Stat_t) (content, file int64) {
	return s.Mtimespec.Nano(), s.Ctimespec.Nano()
}

// giveWay lets the calls of other processes come first, for work that has time.
func giveWay() {
	runtime.GOMAXPROCS(1)
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 10)
}
