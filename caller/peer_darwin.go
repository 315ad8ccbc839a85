package caller

import (
	"errors"

	"golang.org/x/sys/unix"
)

// PeerOf asks the kernel who connected to the unix socket of that descriptor (LOCAL_PEERCRED and LOCAL_PEERPID, unix(4)). The first of the
// groups is the primary one.
func PeerOf(fd uintptr) (Peer, error) {
	c, err := unix.GetsockoptXucred(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	switch {
	case err != nil:
		return Peer{}, err
	case c.Version != 0, c.Ngroups < 1: // XUCRED_VERSION
		return Peer{}, errors.New("the kernel's answer has another form than is known")
	}
	p := Peer{UID: c.Uid, GID: c.Groups[0]}
	if pid, err := unix.GetsockoptInt(int(fd), unix.SOL_LOCAL, unix.LOCAL_PEERPID); err == nil {
		p.PID = int32(pid) // for the log alone
	}
	return p, nil
}
