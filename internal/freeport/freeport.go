// Package freeport is for tests of programs that must be told where to listen, before they do and each time they are started again.
//
// An address that a listener on port 0 had is free when that is closed, and anybody's: the kernel gives the port to the next connection
// that leaves the machine, or to the next listener on port 0. So these ports lie below those that the kernel chooses from (Linux from
// 32768 on, macOS from 49152), and each is locked against the other tests on the machine.
package freeport

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"net"
	"testing"
)

const first, past = 10_000, 32_768

// New is an address of loopback at which nobody listens but whom the test tells to, until the test ends.
func New(t testing.TB) string {
	t.Helper()
	address, release, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return address
}

// Take is New for what is no test; release gives the port to others.
func Take() (address string, release func(), err error) {
	for range 1000 {
		n, err := rand.Int(rand.Reader, big.NewInt(past-first))
		if err != nil {
			return "", nil, err
		}
		address = fmt.Sprintf("127.0.0.1:%d", first+n.Int64())
		lock, err := (&net.ListenConfig{}).ListenPacket(context.Background(), "udp4", address) // no test uses UDP: who has the port there has it for TCP too
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp4", address)
		if err != nil { // somebody's who asked nobody
			_ = lock.Close()
			continue
		}
		_ = l.Close()
		return address, func() { _ = lock.Close() }, nil
	}
	return "", nil, errors.New("no port is free")
}
