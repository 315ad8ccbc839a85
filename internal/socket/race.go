//go:build race || !linux

package socket

import "syscall"

// The race detector takes what is read for later than what was written on any connection; only package syscall's own calls tell it. Elsewhere than on Linux they are the only ones that there are.

func readSocket(fd uintptr, b []byte) (int, syscall.Errno) { return told(syscall.Read(int(fd), b)) }

func writeSocket(fd uintptr, b []byte) (int, syscall.Errno) { return told(syscall.Write(int(fd), b)) }

func told(n int, err error) (int, syscall.Errno) {
	if errno, ok := err.(syscall.Errno); ok {
		return 0, errno
	}
	return n, 0
}
