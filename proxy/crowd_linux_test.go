package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/caller"
)

// asUID connects to a unix socket as another user: the thread's effective uid alone is changed, which is what the kernel tells the other end.
func asUID(t *testing.T, socket string, uid int) net.Conn {
	t.Helper()
	made := make(chan net.Conn, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err == nil {
			if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); e != 0 {
				err = e
			}
		}
		if err == nil {
			err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket})
		}
		var c net.Conn
		if err == nil {
			f := os.NewFile(uintptr(fd), "peer")
			c, err = net.FileConn(f)
			_ = f.Close()
		}
		if err != nil {
			t.Errorf("connecting as uid %d: %v", uid, err)
		}
		made <- c
	}()
	c := <-made
	if c == nil {
		t.FailNow()
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// One uid cannot keep the callers of all others away by holding connections.
func TestOneUIDLeavesRoomForOthers(t *testing.T) {
	const most, mine = 16, 14
	peer := newPeer(t, true)
	w := newWorld(t, peer.url, func(o *Options) { o.MaxConns = most })
	me, other := uint32(os.Geteuid()), uint32(4321)
	unix := func(uid uint32) caller.Unix { return caller.Unix{UID: &uid} }
	two := []caller.Spec{{Name: "me", Unix: unix(me), Orgs: []string{"acme"}}, {Name: "other", Unix: unix(other), Orgs: []string{"acme"}}}
	w.callers(two...)
	ask := func(c net.Conn) int {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = io.WriteString(c, "GET /vapi/x HTTP/1.1\r\n"+orgLine+"\r\n") // whoever is turned away may be gone already
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if code := resp.Header.Get("Keyward-Error"); resp.StatusCode == 429 && code != "rate_limited" {
			t.Errorf("429 with %q", code)
		}
		return resp.StatusCode
	}
	var held []net.Conn
	for range mine {
		c := w.dial("unix")
		if got := ask(c); got != 200 {
			t.Fatalf("connection %d: %d", len(held)+1, got)
		}
		held = append(held, c)
	}
	for range 2 * most { // nobody waits in front of others
		if got := ask(w.dial("unix")); got != 429 {
			t.Fatalf("one more of the same uid: %d", got)
		}
	}
	if n := w.p.Numbers().HeldUp; n[uidShare] != 2*most {
		t.Errorf("%d are counted of %d that were turned away", n[uidShare], 2*most)
	}
	if !strings.Contains(w.logs.String(), fmt.Sprintf(`"uid":%d,"message":"a uid has as many`, me)) {
		t.Error("the log does not say whose connections are turned away")
	}
	if me == 0 {
		for dir := filepath.Dir(w.socket); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			_ = os.Chmod(dir, 0o711) // for the other uid to get there
		}
		_ = os.Chmod(w.socket, 0o666)
		if got := ask(asUID(t, w.socket, int(other))); got != 200 {
			t.Errorf("another uid: %d", got)
		}
	} else {
		t.Log("NOT SHOWN: a connection of another uid, which only root can make")
	}
	_ = held[0].Close()
	for until := time.Now().Add(30 * time.Second); ask(w.dial("unix")) != 200; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("no room again after one was closed")
		}
	}
	// A uid that the rules name alone has all of them to itself.
	w.callers(two[0])
	if got := ask(w.dial("unix")); got != 200 {
		t.Errorf("the only uid: %d", got)
	}
}

// Who waited for room and is turned away then counts once: as turned away.
func TestWhoWaitsAndIsTurnedAwayCountsOnce(t *testing.T) {
	const most = 10
	w := newWorld(t, newPeer(t, true).url)
	uid := func(u uint32) caller.Unix { return caller.Unix{UID: &u} }
	w.callers(caller.Spec{Name: "me", Unix: uid(uint32(os.Geteuid())), Orgs: []string{"acme"}}, caller.Spec{Name: "other", Unix: uid(4321), Orgs: []string{"acme"}})
	var held []net.Conn
	for range most {
		c := w.dial("unix")
		_ = bodyOf(ask(t, c, "GET /vapi/x HTTP/1.1\r\n"+orgLine+"\r\n"))
		held = append(held, c)
	}
	w.p.SetLimits(Limits{MaxConns: most})
	_ = w.dial("unix").Close() // is accepted still, by an Accept that found room
	waitFor(t, func() bool { return strings.Contains(w.logs.String(), "connections wait") })
	c := w.dial("unix")
	_ = held[0].Close()
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	if n := w.p.Numbers().HeldUp; n[uidShare] == 0 || n[noRoom] != 0 {
		t.Errorf("counted: %v", n)
	}
}
