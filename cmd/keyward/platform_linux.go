package main

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// The requests of ioctl(2) that read and set a terminal's mode.
const getTerminal, setTerminal = unix.TCGETS, unix.TCSETS

// changedAt are when a file's content and when it itself were last changed, in nanoseconds.
func changedAt(s *syscall.Stat_t) (content, file int64) { return s.Mtim.Nano(), s.Ctim.Nano() }
