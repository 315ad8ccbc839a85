package proxy

import (
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged ends a connection on which what was sent has not been acknowledged for so long (TCP_RXT_CONNDROPTIME, tcp(4)).
func limitUnacknowledged(fd int, most time.Duration) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_RXT_CONNDROPTIME, int(most/time.Second))
}
