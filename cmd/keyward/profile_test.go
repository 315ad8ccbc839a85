package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/internal/memdir"
)

func TestProfilesAreOnTheAdminSocketWithDebug(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	serve(t, dir, "--debug")
	if status, body := adminGet(t, dir, "/debug/pprof/heap?debug=1"); status != 200 || !strings.Contains(body, "# Mallocs") {
		t.Errorf("heap: %d %.200s", status, body)
	}
	if status, _ := adminGet(t, dir, "/debug/pprof/"); status != 200 {
		t.Errorf("index: %d", status)
	}
	if status, _ := adminGet(t, dir, "/debug/pprof/cmdline"); status != 404 {
		t.Errorf("the command line is no profile: %d", status)
	}
}

func TestProfilesAreRefusedWithoutDebugAndOverTCP(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	serve(t, dir)
	if status, _ := adminGet(t, dir, "/debug/pprof/heap"); status != 404 {
		t.Errorf("without --debug: %d", status)
	}
	dir = memdir.New(t)
	address := freeport.New(t)
	serve(t, dir, "--debug", "--admin-listen", address)
	resp, err := (&http.Client{Timeout: 30 * time.Second}).Get("http://" + address + "/debug/pprof/heap")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 401 {
		t.Errorf("over TCP: %s", resp.Status)
	}
}

func TestCPUProfileIsWrittenAtTheEnd(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	file := filepath.Join(dir, "cpu.prof")
	s := serve(t, dir, "--cpuprofile", file)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := <-s.done
	s.done <- err
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log)
	}
	if st, err := os.Stat(file); err != nil || st.Size() == 0 || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
}

func TestUnwritableCPUProfileStopsTheStart(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	s := start(t, dir, "--cpuprofile", filepath.Join(dir, "no", "such", "folder"))
	err := <-s.done
	s.done <- err
	if err == nil || !strings.Contains(s.log.String(), "--cpuprofile") {
		t.Errorf("%v\n%s", err, s.log)
	}
}

func adminGet(t *testing.T, dir, path string) (int, string) {
	t.Helper()
	c := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
	}}}
	resp, err := c.Get("http://keyward" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}
