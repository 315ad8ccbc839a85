package proxy

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/socket"
)

// TestReadDeadline: it is exact, though the timer is not moved with it; and one that is moved back by another goroutine counts at once.
func TestReadDeadline(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = other.Close() })
	var d readDeadline
	d.over(c, socket.New(c))
	b := make([]byte, 8)
	ends := func(at time.Time) { // not before, and long before a deadline that is a minute away
		t.Helper()
		_, err := d.read(b)
		if late := time.Since(at); !errors.Is(err, os.ErrDeadlineExceeded) || late < -time.Millisecond || late > 20*time.Second {
			t.Errorf("ended %v after its deadline: %v", late, err)
		}
	}
	_ = d.move(time.Now().Add(30 * time.Millisecond))
	at := time.Now().Add(100 * time.Millisecond)
	_ = d.move(at)
	ends(at)
	at = time.Now().Add(50 * time.Millisecond) // after one that has come
	_ = d.move(at)
	ends(at)
	_ = d.move(time.Now().Add(time.Minute))
	at = time.Now().Add(20 * time.Millisecond)
	time.AfterFunc(20*time.Millisecond, func() { _ = d.move(time.Unix(1, 0)) })
	ends(at)
	_ = d.move(time.Time{})
	time.AfterFunc(20*time.Millisecond, func() { _, _ = other.Write([]byte("x")) })
	if n, err := d.read(b); n != 1 || err != nil {
		t.Errorf("without a deadline: %d, %v", n, err)
	}
}
