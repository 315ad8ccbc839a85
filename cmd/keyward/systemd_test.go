package main

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/internal/memdir"
)

// A serviceManager is the other end of NOTIFY_SOCKET.
type serviceManager struct {
	t    *testing.T
	told chan string // one datagram each
}

func newServiceManager(t *testing.T, watchdog string) *serviceManager {
	path := filepath.Join(memdir.New(t), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	m := &serviceManager{t: t, told: make(chan string, 1000)}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			m.told <- string(b[:n])
		}
	}()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", watchdog)
	return m
}

// hears waits for a datagram with that line; pings of the watchdog may come before it, and nothing else.
func (m *serviceManager) hears(line string) string {
	m.t.Helper()
	for end := time.After(time.Minute); ; {
		select {
		case got := <-m.told:
			switch {
			case strings.HasPrefix(got, line+"\n") || got == line:
				return got
			case got != "WATCHDOG=1":
				m.t.Fatalf("the service manager was told %q, want %q", got, line)
			}
		case <-end:
			m.t.Fatalf("the service manager was never told %q", line)
		}
	}
}

// silent says whether nothing comes for so long.
func (m *serviceManager) silent(d time.Duration) bool {
	select {
	case <-m.told:
		return false
	case <-time.After(d):
		return true
	}
}

// TestServiceManagerIsToldTheStates: ready when callers can connect and not before, reloading and ready again around a SIGHUP, stopping
// before the drain.
func TestServiceManagerIsToldTheStates(t *testing.T) {
	m := newServiceManager(t, "")
	dir := memdir.New(t)
	s := start(t, dir)
	m.hears("READY=1")
	for _, socket := range []string{"caller.sock", "admin.sock"} {
		c, err := net.Dial("unix", filepath.Join(dir, socket))
		if err != nil {
			t.Fatalf("ready, and %v", err)
		}
		_ = c.Close()
	}
	for range 2 {
		before := monotonic(t)
		_ = s.cmd.Process.Signal(syscall.SIGHUP)
		got := m.hears("RELOADING=1")
		stamp := regexp.MustCompile(`(?m)^MONOTONIC_USEC=([0-9]+)$`).FindStringSubmatch(got)
		if stamp == nil {
			t.Fatalf("%q has no MONOTONIC_USEC", got)
		}
		at, err := time.ParseDuration(stamp[1] + "us")
		if err != nil || at < before || at > monotonic(t) {
			t.Errorf("the reload is said to have begun at %v, %v; it was after %v", at, err, before)
		}
		m.hears("READY=1")
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	m.hears("STOPPING=1")
	if err := <-s.done; err != nil {
		t.Errorf("it ended with %v", err)
	}
	s.done <- nil
	if !m.silent(0) {
		t.Error("it was told something after that")
	}
}

// TestWatchdogPingsAtHalfItsTime, and each ping is an answer over every listener that nobody sees in the log or the numbers.
func TestWatchdogPingsAtHalfItsTime(t *testing.T) {
	const limit = 600 * time.Millisecond
	m := newServiceManager(t, "600000")
	s := start(t, memdir.New(t), "--listen", "127.0.0.1:0", "--webhook-listen", "127.0.0.1:0")
	m.hears("READY=1")
	var gaps []time.Duration
	for try, slow := 0, true; slow; try++ { // a machine that is busy stretches some of them, or all for a while
		gaps = nil
		for last, n := time.Now(), 0; n < 7; n++ {
			m.hears("WATCHDOG=1")
			gaps = append(gaps, time.Since(last))
			last = time.Now()
		}
		slices.Sort(gaps)
		if slow = gaps[len(gaps)/2] > limit*9/10; slow && try == 4 {
			t.Fatalf("the pings came after %v", gaps)
		}
	}
	if log := s.log.String(); strings.Contains(log, "pulse") || strings.Contains(log, `"message":"request"`) {
		t.Errorf("the watchdog shows in the log:\n%s", log)
	}
	resp, err := s.client("admin.sock").Get("http://keyward/api/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var stats struct {
		Proxy *struct{ Requests, Refused int64 }
	}
	if err := json.NewDecoder(resp.Body).Decode(&stats); err != nil || stats.Proxy == nil || stats.Proxy.Requests != 0 || stats.Proxy.Refused != 0 {
		t.Errorf("the watchdog is counted: %+v, %v", stats.Proxy, err)
	}
	s.stopsWithin(time.Minute)
	s.done <- nil
}

// TestWatchdogIsSilentWhileNobodyIsServed: the process runs well, its admin API answers, and callers wait for ever. Here somebody else has
// their socket, who takes connections and says nothing.
func TestWatchdogIsSilentWhileNobodyIsServed(t *testing.T) {
	m := newServiceManager(t, "400000")
	dir := memdir.New(t)
	s := start(t, dir)
	m.hears("READY=1")
	m.hears("WATCHDOG=1")
	complaints := func() int { return strings.Count(s.log.String(), "a listener does not answer") }
	before := complaints() // a busy machine gives reason to some
	path := filepath.Join(dir, "caller.sock")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "in the log, often enough: the first may be about what was asked before", func() bool { return complaints() > before+2 })
	for len(m.told) > 0 { // from before
		<-m.told
	}
	if !m.silent(1500 * time.Millisecond) {
		t.Error("the service manager was told that it lives")
	}
	s.must("", "wait", "--max", "1m")
	_ = l.Close()
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	m.hears("WATCHDOG=1")
}

// monotonic is the clock of MONOTONIC_USEC, in whole microseconds.
func monotonic(t *testing.T) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano()).Truncate(time.Microsecond)
}
