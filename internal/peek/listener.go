package peek

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// Queued says whether somebody has connected to a listener and is not accepted yet.
func Queued(l net.Listener) bool {
	c, ok := l.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	n := 0
	if err == nil {
		_ = raw.Control(func(fd uintptr) { n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) })
	}
	return n > 0
}
