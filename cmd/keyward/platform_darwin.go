package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// The requests of ioctl(2) that read and set a terminal's mode.
const getTerminal, setTerminal = unix.TIOCGETA, unix.TIOCSETA

// changedAt are when a file's content and when it itself were last changed, in nanoseconds.
func changedAt(s *syscall.Stat_t) (content, file int64) {
	return s.Mtimespec.Nano(), s.Ctimespec.Nano()
}
