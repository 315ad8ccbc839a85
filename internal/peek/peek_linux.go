// Package peek looks at what has arrived on a socket, or at a listener, without taking it.
package peek

import (
	"syscall"
	"unsafe"
)

// Socket looks whether a byte has arrived, without taking it. Raw, because it never waits: the scheduler need not know.
func Socket(fd uintptr, b *[1]byte) syscall.Errno {
	_, _, err := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(b)), 1, syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return err
}
