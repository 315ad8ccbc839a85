package caller

import (
	"errors"

	"golang.org/x/sys/unix"
)

// PeerOf asks the kernel who connected to the unix socket of that descriptor (SO_PEERCRED, unix(7)).
func PeerOf(fd uintptr) (Peer, error) {
	c, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	switch {
	case err != nil:
		return Peer{}, err
	case c.Uid == 1<<32-1: // what it says of a socket that is none of these
		return Peer{}, errors.New("the kernel does not know who connected")
	}
	return Peer{UID: c.Uid, GID: c.Gid, PID: c.Pid}, nil
}
