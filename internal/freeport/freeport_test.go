package freeport

import (
	"net"
	"testing"
)

func TestAnAddressIsNobodyElses(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		a := New(t)
		if seen[a] {
			t.Fatalf("%s was given twice", a)
		}
		seen[a] = true
		l, err := net.Listen("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
	}
	for range 200 { // what the kernel chooses by itself
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		if seen[l.Addr().String()] {
			t.Errorf("the kernel gave %s away", l.Addr())
		}
	}
}

func TestAnAddressIsLockedUntilItIsReleased(t *testing.T) {
	a, release, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	if lock, err := net.ListenPacket("udp4", a); err == nil {
		_ = lock.Close()
		t.Errorf("%s is not locked", a)
	}
	release()
	lock, err := net.ListenPacket("udp4", a)
	if err != nil {
		t.Fatalf("%s is locked though it was released: %v", a, err)
	}
	_ = lock.Close()
}
