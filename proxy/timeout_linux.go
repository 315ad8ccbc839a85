package proxy

import (
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged ends a connection on which what was sent has not been acknowledged for so long (TCP_USER_TIMEOUT, tcp(7)).
func limitUnacknowledged(fd int, most time.Duration) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(most/time.Millisecond))
}
