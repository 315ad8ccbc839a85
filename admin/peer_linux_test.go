package admin

import (
	"bufio"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSocketLetsInTheSidecarsOwnUserAlone(t *testing.T) {
	const stranger = 15011
	s := newServer(t, sqliteURL(t), func(o *Options) {
		if os.Geteuid() != 0 {
			o.UID = stranger // then we are the stranger ourselves
		}
	})
	if os.Geteuid() != 0 {
		s.refuse(403, "peer_forbidden", "GET", "/api/orgs", "")
		s.refuse(403, "peer_forbidden", "GET", "/healthz", "")
		return
	}
	s.must(200, "GET", "/api/orgs", "")
	for _, path := range []string{s.socket, filepath.Dir(s.socket)} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for _, uid := range []int{stranger, overflowUID} {
		a := getAs(t, uid, s.socket, "/api/orgs")
		if a.StatusCode != 403 || a.Header.Get("Keyward-Error") != "peer_forbidden" {
			t.Errorf("uid %d got %d", uid, a.StatusCode)
		}
	}
	if log := s.log.String(); !strings.Contains(log, "uid 15011") {
		t.Errorf("the log does not say who was refused: %s", log)
	}
}

// getAs asks over the socket from a thread that has another user id: the kernel notes the id of whoever connects.
func getAs(t *testing.T, uid int, socket, path string) *http.Response {
	t.Helper()
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and its user id with it
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			done <- result{0, e}
			return
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
		}
		done <- result{fd, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	f := os.NewFile(uintptr(r.fd), socket)
	defer f.Close()
	if _, err := f.WriteString("GET " + path + " HTTP/1.1\r\nHost: keyward\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(f), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp
}
