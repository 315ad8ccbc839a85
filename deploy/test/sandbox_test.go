package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// sandboxWord has this test's own program become the one that follows, as systemd would start it: sandboxWord, system calls, command.
const sandboxWord = "in-the-sandbox"

const (
	prSetMDWE           = 65 // PR_SET_MDWE, since Linux 6.3
	mdweRefuseExecGain  = 1  // PR_MDWE_REFUSE_EXEC_GAIN
	sandboxedUser       = 61005
	sandboxNotSupported = 77
)

// sandbox puts SystemCallFilter= and MemoryDenyWriteExecute= in force and starts the command.
func sandbox(args []string) {
	fail := func(code int, err error) {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		os.Exit(code)
	}
	if err := unix.Prctl(prSetMDWE, mdweRefuseExecGain, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		fail(1, err)
	}
	if !seccomp.Supported() {
		fail(sandboxNotSupported, errors.New("the kernel has no seccomp"))
	}
	if err := seccomp.LoadFilter(seccomp.Filter{NoNewPrivs: true, Flag: seccomp.FilterFlagTSync, Policy: seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls:      []seccomp.SyscallGroup{{Action: seccomp.ActionAllow, Names: strings.Split(args[0], ",")}},
	}}); err != nil {
		fail(1, err)
	}
	fail(1, syscall.Exec(args[1], args[1:], os.Environ()))
}

// systemCalls are those that the service may make: the lists of SystemCallFilter=, in order, and what systemd always allows.
func systemCalls(t *testing.T) []string {
	t.Helper()
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for _, name := range expand(t, "@default") {
		allowed[name] = true
	}
	for _, list := range readUnit(t, service)["Service.SystemCallFilter"] {
		list, deny := strings.CutPrefix(list, "~")
		for _, word := range strings.Fields(list) {
			for _, name := range expand(t, word) {
				allowed[name] = !deny
			}
		}
	}
	var names []string
	for name := range info.SyscallNames {
		if allowed[name] {
			names = append(names, name)
		}
	}
	if len(names) < 100 || allowed["ptrace"] || allowed["mount"] || allowed["setuid"] {
		t.Fatalf("that is not the service's list: %v", names)
	}
	return names
}

// expand is a system call, or what is in a set of them.
func expand(t *testing.T, word string) []string {
	t.Helper()
	if !strings.HasPrefix(word, "@") {
		return []string{word}
	}
	out, err := exec.Command(needs(t, "systemd-analyze"), "syscall-filter", word).Output()
	if err != nil {
		t.Fatalf("systemd-analyze syscall-filter %s: %v", word, err)
	}
	var names []string
	for _, line := range strings.Split(string(out), "\n")[1:] {
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' {
			names = append(names, expand(t, line)...)
		}
	}
	return names
}

// TestProgramRunsAsTheServiceDoes: with no more system calls, no memory that is both written and executed, and no rights, it serves a call
// with an org's credential, reloads, and drains; and nothing that it wanted was refused.
func TestProgramRunsAsTheServiceDoes(t *testing.T) {
	calls := systemCalls(t)
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer re_sandboxed_0123456789" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer provider.Close()
	dir, err := os.MkdirTemp("", "kw") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()

	bin := program(t)
	cmd := exec.Command(os.Args[0], sandboxWord, strings.Join(calls, ","), bin, "serve", "--data-dir", dir+"/data", "--run-dir", dir,
		"--listen", "127.0.0.1:0", "--webhook-listen", "127.0.0.1:0", "--admin-listen", "", "--upstream", "api.resend.com="+provider.URL)
	uid := os.Geteuid()
	if uid == 0 { // as User= says; the calls below are let in because root's are
		uid = sandboxedUser
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: sandboxedUser, Gid: sandboxedUser}}
		self := filepath.Join(dir, "self")
		copyFile(t, os.Args[0], self)
		cmd.Path = self
		for _, path := range []string{dir, self} {
			if err := os.Chown(path, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	var log logged
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()

	keyward := func(stdin string, args ...string) {
		t.Helper()
		c := exec.Command(bin, append(args, "--run-dir", dir)...)
		c.Stdin = strings.NewReader(stdin)
		if uid != os.Geteuid() {
			c.SysProcAttr = cmd.SysProcAttr
		}
		if out, err := c.CombinedOutput(); err != nil {
			_ = cmd.Process.Kill()
			<-ended
			t.Fatalf("keyward %v: %v\n%s\n%s", args, err, out, log.String())
		}
	}
	keyward("", "wait", "--max", "1m")
	keyward(`{"api_key":"re_sandboxed_0123456789"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	if status := callAs(t, uid, dir+"/caller.sock"); status != "200" {
		t.Errorf("a call is answered %s", status)
	}
	_ = cmd.Process.Signal(syscall.SIGHUP)
	for end := time.Now().Add(time.Minute); !strings.Contains(log.String(), "configuration read anew"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no reload:\n%s", log.String())
		}
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it did not end")
	}
	for _, bad := range []string{"not permitted", "hardening the process", `"level":"error"`, "panic"} {
		if strings.Contains(log.String(), bad) {
			t.Errorf("%q in the log:\n%s", bad, log.String())
		}
	}
}

// A logged is what a process has written so far.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// callAs sends a request as that user, and says the status of the answer.
func callAs(t *testing.T, uid int, socket string) string {
	t.Helper()
	if uid == os.Geteuid() {
		c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}}
		req, err := http.NewRequest("GET", "http://api.resend.com/domains", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Keyward-Org", "acme")
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		return fmt.Sprint(resp.StatusCode)
	}
	curl := exec.Command(needs(t, "curl"), "-s", "-o", os.DevNull, "-w", "%{http_code}", "--max-time", "60", "--unix-socket", socket, "-H", "Keyward-Org: acme", "http://api.resend.com/domains")
	curl.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := curl.Output()
	if err != nil {
		t.Errorf("curl: %v", err)
	}
	return string(out)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
