package caller

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestKernelSaysWhoConnected(t *testing.T) {
	dir, err := os.MkdirTemp("", "kw") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	out, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	if got, err := peerOf(t, in); err != nil || got != (Peer{UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), PID: int32(os.Getpid())}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestKernelSaysNothingOfTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	out, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.Close() })
	if got, err := peerOf(t, out); err == nil {
		t.Errorf("a TCP connection is said to be of %+v", got)
	}
}

func peerOf(t *testing.T, c net.Conn) (p Peer, err error) {
	t.Helper()
	raw, rawErr := c.(syscall.Conn).SyscallConn()
	if rawErr != nil {
		t.Fatal(rawErr)
	}
	if rawErr := raw.Control(func(fd uintptr) { p, err = PeerOf(fd) }); rawErr != nil {
		t.Fatal(rawErr)
	}
	return p, err
}
