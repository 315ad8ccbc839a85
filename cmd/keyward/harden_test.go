package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestHardened asks the kernel what the running process gives away.
func TestHardened(t *testing.T) {
	key := hex.EncodeToString(bytes.Repeat([]byte{0xc5}, 32))
	t.Setenv("HARDEN_TEST_KEY", key)
	s := serve(t, shortDir(t), "--key", "env:HARDEN_TEST_KEY")
	proc := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	for file, want := range map[string]string{
		"status":          "NoNewPrivs:\t1",
		"limits":          "Max core file size        0                    0",
		"coredump_filter": "00000000",
		"environ":         "clobberfree=1",
	} {
		b, err := os.ReadFile(proc + file)
		if err != nil || !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s lacks %q: %v", file, want, err)
		}
		if bytes.Contains(b, []byte(key[:16])) {
			t.Errorf("%s holds the key", file)
		}
	}
	for path, mode := range map[string]os.FileMode{
		"": 0o700, "caller.sock": 0o660, "admin.sock": 0o600, "data": 0o700, "data/keyward.db": 0o600,
	} {
		if st, err := os.Stat(filepath.Join(s.dir, path)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%q: mode %v, %v; want %v", path, st.Mode().Perm(), err, mode)
		}
	}
}

// TestSocketActivation hands the listening sockets over from one process to the next: who connects meanwhile waits, and nobody fails.
func TestSocketActivation(t *testing.T) {
	dir := shortDir(t)
	up := "api.resend.com=" + echo(t)
	listen := func(name string) *os.File {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unix"})
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
		return f
	}
	files := []*os.File{listen("caller.sock"), listen("admin.sock")}
	run := func() *served {
		s := &served{t: t, dir: dir, log: &syncBuffer{}, done: make(chan error, 1)}
		// The shell becomes the program, so that LISTEN_PID is the program's own.
		args := []string{
			"-c", `export LISTEN_PID=$$; exec "$@"`, "sh", "keyward", "serve", "--data-dir", filepath.Join(dir, "data"), "--run-dir", dir,
			"--listen", "", "--webhook-listen", "", "--admin-listen", "", "--upstream", up,
		}
		s.cmd = exec.Command("sh", args...)
		s.cmd.Env = append(os.Environ(), "LISTEN_FDS=2", "LISTEN_FDNAMES=caller:admin")
		s.cmd.ExtraFiles = files
		s.cmd.Stderr = s.log
		if err := s.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { s.done <- s.cmd.Wait() }()
		t.Cleanup(func() { _ = s.cmd.Process.Kill() })
		eventually(t, "ready", func() bool { return strings.Contains(s.log.String(), "keyward is ready") })
		return s
	}
	s := run()
	s.must(`{"api_key":"re_1"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	stopCalls, failed := make(chan bool), make(chan string, 1)
	calls := make(chan int, 1)
	go func() {
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
	}()
	for range 5 {
		next := run()
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		if err := <-s.done; err != nil {
			t.Errorf("it ended with %v", err)
		}
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
	if _, err := os.Stat(filepath.Join(dir, "caller.sock")); err != nil {
		t.Errorf("the service manager's socket was taken away: %v", err)
	}
}
