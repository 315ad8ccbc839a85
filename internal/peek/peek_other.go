//go:build !linux

// Package peek looks at what has arrived on a socket, or at a listener, without taking it.
package peek

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Socket looks whether a byte has arrived, without taking it.
func Socket(fd uintptr, b *[1]byte) syscall.Errno {
	_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	errno := syscall.Errno(0)
	if err != nil && !errors.As(err, &errno) {
		return syscall.EIO
	}
	return errno
}
