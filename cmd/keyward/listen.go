package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// inheritedListeners are the sockets that a service manager holds for us (sd_listen_fds(3)), by the name of what they are for:
// "caller", "listen", "webhook-listen", "admin" or "admin-listen" (FileDescriptorName= of the socket unit). One without such a name is where callers
// connect. A restart loses no connection this way: the socket stays open, and who connects meanwhile waits in its queue.
func inheritedListeners() (map[string]net.Listener, error) {
	named, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("taking over the service manager's sockets: %w", err)
	}
	out := map[string]net.Listener{}
	for name, listeners := range named {
		for _, l := range listeners {
			if l == nil {
				return nil, fmt.Errorf("the service manager's socket %q is not one to listen on", name)
			}
			if err := boundAccept(l); err != nil {
				return nil, fmt.Errorf("the service manager's socket %q: %w", name, err)
			}
			use := name
			switch name {
			case "caller", "listen", "webhook-listen", "admin", "admin-listen":
			default:
				use = map[bool]string{true: "caller", false: "listen"}[l.Addr().Network() == "unix"]
			}
			if out[use] != nil {
				return nil, fmt.Errorf("the service manager gave two sockets for %q; name them by FileDescriptorName=", use)
			}
			out[use] = l
		}
	}
	return out, nil
}

// boundAccept has no accept(2) on l last longer than a moment. O_NONBLOCK belongs to what all holders of a socket share, so that whoever
// hands it to our successor may take it from us, and a thread of ours that waits in the kernel hears of no deadline: the drain would
// last until another caller happens to connect. SO_RCVTIMEO holds for a blocking accept only (socket(7)).
func boundAccept(l net.Listener) error {
	s, ok := l.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	moment := unix.NsecToTimeval(int64(50 * time.Millisecond))
	var optErr error
	if err := raw.Control(func(fd uintptr) {
		optErr = unix.SetsockoptTimeval(int(fd), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &moment)
	}); err != nil {
		return err
	}
	return optErr
}

// listenUnix is the service manager's socket of that name, else one of our own at path.
func (s *sidecarProcess) listenUnix(name, path string, mode os.FileMode, gid int) (net.Listener, error) {
	if l := s.inherited[name]; l != nil {
		return l, nil
	}
	return listenUnix(path, mode, gid)
}

// listenTCP is the service manager's socket of that name, else one of our own.
func (s *sidecarProcess) listenTCP(name, address string) (net.Listener, error) {
	if l := s.inherited[name]; l != nil {
		return l, nil
	}
	l, err := net.Listen("tcp", address)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--%s %s: the port is in use by another process; choose another one", name, address)
	case err != nil:
		return nil, fmt.Errorf("--%s %s: %w", name, address, err)
	}
	return l, nil
}
