package admin

import (
	"errors"
	"net"
	"testing"
	"time"
)

func TestLimitedListenerHasSoManyConnectionsAndNoMore(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Limited(inner)
	accepted := make(chan net.Conn)
	ended := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- c
		}
	}()
	var open []net.Conn
	for range maxConns + 5 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range maxConns {
		open = append(open, <-accepted)
	}
	select {
	case <-accepted:
		t.Fatal("one too many was accepted")
	case <-time.After(50 * time.Millisecond):
	}
	_ = open[0].Close()
	_ = open[0].Close() // counts once
	<-accepted
	select {
	case <-accepted:
		t.Fatal("one that was closed twice made room for two")
	case <-time.After(50 * time.Millisecond):
	}
	_ = l.Close()
	_ = l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}
