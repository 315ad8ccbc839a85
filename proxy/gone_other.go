//go:build !linux

package proxy

import "golang.org/x/sys/unix"

// pollGone: nothing is asked for besides what is always told.
const pollGone = 0

// isGone: a connection that was reset. Whether one was closed, or its sending side alone, cannot be told apart here, and who waits for an
// answer must not lose it; an upstream request whose caller went away then goes on until the answer cannot be written.
func (c *callerConn) isGone() bool { return c.events&(unix.POLLERR|unix.POLLNVAL) != 0 }
