package socket

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// socketPair is two ends of a connection, the first with a socket over it.
func socketPair(t *testing.T, network string) (net.Conn, *Socket, net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = other.Close() })
	return c, New(c), other
}

func TestSocketCarriesBothWaysAtOnce(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		_, s, other := socketPair(t, network)
		sent := make([]byte, 16<<20) // more than the kernel's buffers take: it has to wait for the reader
		_, _ = rand.Read(sent)
		go func() { _, _ = io.Copy(other, other) }()
		go func() {
			if n, err := s.Write(sent); n != len(sent) || err != nil {
				t.Errorf("%s: wrote %d: %v", network, n, err)
			}
		}()
		got := make([]byte, len(sent))
		for n := 0; n < len(got); {
			m, err := s.Read(got[n:])
			if err != nil {
				t.Fatalf("%s: after %d bytes: %v", network, n, err)
			}
			n += m
		}
		if !bytes.Equal(sent, got) {
			t.Errorf("%s: what came back is not what was sent", network)
		}
	}
}

func TestSocketEndsAsTheConnectionDoes(t *testing.T) {
	b := make([]byte, 8)
	big := make([]byte, 16<<20)
	soon := func() time.Time { return time.Now().Add(300 * time.Millisecond) } // the write has begun by then

	_, s, other := socketPair(t, "unix")
	_ = other.Close()
	if n, err := s.Read(b); n != 0 || err != io.EOF {
		t.Errorf("closed by the other side: %d, %v", n, err)
	}
	if _, err := s.Write(b); err == nil {
		t.Error("it can still be written to")
	}

	_, s, other = socketPair(t, "tcp")
	_ = other.(*net.TCPConn).SetLinger(0)
	_ = other.Close()
	if _, err := s.Read(b); err == nil || err == io.EOF {
		t.Errorf("reset by the other side: %v", err)
	}

	c, s, _ := socketPair(t, "tcp")
	_ = c.SetReadDeadline(soon())
	if _, err := s.Read(b); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nothing to read until the deadline: %v", err)
	}
	_ = c.SetWriteDeadline(soon())
	if n, err := s.Write(big); n == 0 || n == len(big) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("nobody reads until the deadline: wrote %d, %v", n, err)
	}

	c, s, _ = socketPair(t, "tcp")
	time.AfterFunc(20*time.Millisecond, func() { _ = c.Close() })
	if _, err := s.Read(b); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed while it is read from: %v", err)
	}
}
