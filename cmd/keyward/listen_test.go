package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/memdir"
)

// TestSocketActivation hands the listening sockets over from one process to the next: who connects meanwhile waits, and nobody fails.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	h := holdSockets(t)
	s := h.run()
	s.must(`{"api_key":"re_1"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	stopCalls, failed, calls := make(chan bool), make(chan string, 1), make(chan int, 1)
	go func(s *served) {
		c, n := s.client("caller.sock"), 0
		for {
			select {
			case <-stopCalls:
				calls <- n
				return
			default:
			}
			if got, err := s.call(c, "acme"); err != nil || got != "Bearer re_1" {
				select {
				case failed <- fmt.Sprintf("%q, %v", got, err):
				default:
				}
			}
			n++
			time.Sleep(5 * time.Millisecond)
		}
	}(s)
	for range 5 {
		next := h.run()
		s.stopsWithin(40 * time.Second)
		s = next
	}
	time.Sleep(50 * time.Millisecond)
	close(stopCalls)
	n := <-calls
	select {
	case f := <-failed:
		t.Errorf("a call failed during a restart: %s", f)
	default:
	}
	if n < 50 {
		t.Errorf("only %d calls were made", n)
	}
	if _, err := os.Stat(filepath.Join(h.dir, "caller.sock")); err != nil {
		t.Errorf("the service manager's socket was taken away: %v", err)
	}
}

// TestStopsOnASocketMadeBlocking: whoever holds the socket may take O_NONBLOCK from it, as Go's os.File.Fd does when it hands the
// socket to the next process.
func TestStopsOnASocketMadeBlocking(t *testing.T) {
	t.Parallel()
	h := holdSockets(t)
	s := h.run()
	for range 20 {
		if err := syscall.SetNonblock(int(h.files[0].Fd()), false); err != nil {
			t.Fatal(err)
		}
		// One more accept, so that the next one begins on the blocking socket.
		c, err := net.Dial("unix", filepath.Join(h.dir, "caller.sock"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	time.Sleep(50 * time.Millisecond)
	s.stopsWithin(30 * time.Second)
}

// heldSockets is a service manager that holds the sockets of callers and of the admin API.
type heldSockets struct {
	t        *testing.T
	dir      string
	upstream string
	files    []*os.File
}

func holdSockets(t *testing.T) *heldSockets {
	h := &heldSockets{t: t, dir: memdir.New(t), upstream: "api.resend.com=" + echo(t)}
	for _, name := range []string{"caller.sock", "admin.sock"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(h.dir, name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		t.Cleanup(func() { _ = f.Close() })
		h.files = append(h.files, f)
	}
	return h
}

// run starts a sidecar with the sockets. The shell becomes the program, so that LISTEN_PID is the program's own.
func (h *heldSockets) run() *served {
	t := h.t
	t.Helper()
	s := &served{t: t, dir: h.dir, log: &syncBuffer{}, done: make(chan error, 1)}
	s.cmd = exec.Command("sh", "-c", `export LISTEN_PID=$$; exec "$@"`, "sh", "keyward", "serve", "--data-dir", filepath.Join(h.dir, "data"),
		"--run-dir", h.dir, "--listen", "", "--webhook-listen", "", "--admin-listen", "", "--upstream", h.upstream)
	s.cmd.Env = append(os.Environ(), "LISTEN_FDS=2", "LISTEN_FDNAMES=caller:admin")
	s.cmd.ExtraFiles = h.files
	s.cmd.Stderr = s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- s.cmd.Wait() }()
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	s.says("keyward is ready")
	return s
}

// stopsWithin asks the sidecar to stop. One that does not is asked where it hangs.
func (s *served) stopsWithin(most time.Duration) {
	s.t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.done:
		if err != nil {
			s.t.Errorf("it ended with %v", err)
		}
	case <-time.After(most):
		_ = s.cmd.Process.Signal(syscall.SIGQUIT)
		<-s.done
		s.t.Fatalf("it did not stop within %v:\n%s", most, s.log.String())
	}
}
