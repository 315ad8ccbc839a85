package proxy

import (
	"encoding/binary"
	"net"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pollGone are the events that a callerConn asks for: that the other side has closed its sending side, or the connection.
const pollGone = unix.POLLRDHUP

// isGone reads the answer. On a unix socket the kernel tells a connection that was closed from one whose sending side alone was. On TCP
// both are the same FIN; but a caller on this machine has a socket that the kernel can be asked about: one that a process still holds
// has an inode, one that was closed has none, or is not there any more.
func (c *callerConn) isGone() bool {
	switch {
	case c.events&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0:
		return true
	case c.events&unix.POLLRDHUP == 0 || c.at.unix:
		return false
	}
	local, ok1 := c.LocalAddr().(*net.TCPAddr)
	remote, ok2 := c.RemoteAddr().(*net.TCPAddr)
	return ok1 && ok2 && remote.IP.IsLoopback() && !held(remote, local)
}

// inetDiagRequest is struct inet_diag_req_v2 of linux/inet_diag.h.
type inetDiagRequest struct {
	family, protocol, ext, pad uint8
	states                     uint32
	sport, dport               [2]byte
	src, dst                   [16]byte
	iface                      uint32
	cookie                     [2]uint32
}

const (
	sockDiagByFamily = 20        // SOCK_DIAG_BY_FAMILY
	inodeOffset      = 16 + 68   // of idiag_inode, behind the netlink header
	anyCookie        = 1<<32 - 1 // INET_DIAG_NOCOOKIE
)

// held says whether a process on this machine holds the socket from local to remote (sock_diag(7)). When that cannot be found out, it
// is taken to be.
func held(local, remote *net.TCPAddr) bool {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return true
	}
	defer func() { _ = unix.Close(fd) }()
	r := inetDiagRequest{family: unix.AF_INET, protocol: unix.IPPROTO_TCP, states: 1<<32 - 1, cookie: [2]uint32{anyCookie, anyCookie}}
	binary.BigEndian.PutUint16(r.sport[:], uint16(local.Port))
	binary.BigEndian.PutUint16(r.dport[:], uint16(remote.Port))
	if a, b := local.IP.To4(), remote.IP.To4(); a != nil && b != nil {
		copy(r.src[:], a)
		copy(r.dst[:], b)
	} else {
		r.family = unix.AF_INET6
		copy(r.src[:], local.IP.To16())
		copy(r.dst[:], remote.IP.To16())
	}
	msg := make([]byte, unix.SizeofNlMsghdr+int(unsafe.Sizeof(r)))
	binary.NativeEndian.PutUint32(msg[0:], uint32(len(msg)))
	binary.NativeEndian.PutUint16(msg[4:], sockDiagByFamily)
	binary.NativeEndian.PutUint16(msg[6:], unix.NLM_F_REQUEST)
	copy(msg[unix.SizeofNlMsghdr:], unsafe.Slice((*byte)(unsafe.Pointer(&r)), unsafe.Sizeof(r)))
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return true
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	if err != nil || n < unix.SizeofNlMsghdr+4 {
		return true
	}
	switch binary.NativeEndian.Uint16(buf[4:]) {
	case unix.NLMSG_ERROR:
		return int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:])) != -int32(syscall.ENOENT)
	case sockDiagByFamily:
		return n < inodeOffset+4 || binary.NativeEndian.Uint32(buf[inodeOffset:]) != 0
	}
	return true
}
