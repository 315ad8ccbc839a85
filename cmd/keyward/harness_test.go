package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/canary"
)

// A served is a sidecar that runs as a process of its own.
type served struct {
	t    *testing.T
	dir  string // run folder
	cmd  *exec.Cmd
	log  *syncBuffer
	done chan error
}

// serve starts a sidecar in dir and waits until it is ready. TCP listeners are off unless args say otherwise.
func serve(t *testing.T, dir string, args ...string) *served {
	t.Helper()
	s := start(t, dir, args...)
	if out, code := s.run("", "wait", "--max", "1m"); code != 0 {
		t.Fatalf("never ready: %s\n%s", out, s.log)
	}
	return s
}

func start(t *testing.T, dir string, args ...string) *served {
	t.Helper()
	all := append([]string{"serve", "--data-dir", filepath.Join(dir, "data"), "--run-dir", dir, "--listen", "", "--webhook-listen", "", "--admin-listen", ""}, args...)
	return startCommand(t, dir, program(all...))
}

func startCommand(t *testing.T, dir string, cmd *exec.Cmd) *served {
	t.Helper()
	args := cmd.Args
	s := &served{t: t, dir: dir, cmd: cmd, log: &syncBuffer{}, done: make(chan error, 1)}
	s.cmd.Stderr, s.cmd.Stdout = s.log, s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.done <- s.cmd.Wait() }()
	t.Cleanup(func() {
		s.auditedNoSecret()
		_ = s.cmd.Process.Kill()
		select {
		case <-s.done:
		case <-time.After(30 * time.Second):
			t.Error("the sidecar did not end")
		}
		if strings.Contains(s.log.String(), "WARNING: DATA RACE") {
			t.Errorf("the sidecar has a data race:\n%s", s.log)
		}
		if leak := sent.LeakOrToken(s.log.String()); leak != "" && !slices.Contains(args, "--dev") { // which prints a token of a first try
			t.Errorf("the log holds %s", leak)
		}
	})
	return s
}

// sent are the secrets that these tests send to whichever sidecar: none may come out of any.
var sent canary.Set

// auditedNoSecret looks for them in the audit log, if the sidecar is there to be asked.
func (s *served) auditedNoSecret() {
	c := s.client("admin.sock")
	c.Timeout = 5 * time.Second
	resp, err := c.Get("http://keyward/api/audit?tail=1000&format=jsonl")
	if err != nil {
		return
	}
	defer func() { _ = resp.Body.Close() }()
	b, _ := io.ReadAll(resp.Body)
	if leak := sent.LeakOrToken(string(b)); leak != "" {
		s.t.Errorf("the audit log holds %s", leak)
	}
}

// printsNoSecret fails the test when a command prints one. A new token is printed by what makes it.
func printsNoSecret(t *testing.T, args []string, out string) {
	t.Helper()
	leak := sent.LeakOrToken(out)
	if len(args) > 1 && args[1] == "add" {
		leak = sent.Leak(out)
	}
	if leak != "" {
		t.Errorf("keyward %.2q prints %s", args, leak)
	}
}

// run is a management command on this sidecar. It is executed in the tests' own process, as main would: hundreds are, a process of its own takes
// each a fifth of a second under the race detector, and what main adds to execute the scripts show.
func (s *served) run(stdin string, args ...string) (out string, code int) {
	s.t.Helper()
	sent.Learn(stdin)
	if args[0] == "keys" || args[0] == "import" || args[0] == "serve" {
		s.t.Fatalf("keyward %s changes the process that it runs in: give it one of its own", args[0])
	}
	var both syncBuffer
	code = execute(context.Background(), append(slices.Clone(args), "--run-dir", s.dir), stdio{strings.NewReader(stdin), &both, &both})
	printsNoSecret(s.t, args, both.String())
	return both.String(), code
}

func (s *served) must(stdin string, args ...string) string {
	s.t.Helper()
	out, code := s.run(stdin, args...)
	if code != 0 {
		s.t.Fatalf("keyward %v: exit code %d: %s", args, code, out)
	}
	return out
}

// client speaks HTTP over one of the sidecar's sockets.
func (s *served) client(socket string) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.dir, socket))
	}}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// call asks Resend for an org and says what came back: the status, or for a 200 the body.
func (s *served) call(c *http.Client, org string) (string, error) {
	req, err := http.NewRequest("GET", "http://api.resend.com/domains", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Keyward-Org", org)
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Sprintf("%d %s", resp.StatusCode, resp.Header.Get("Keyward-Error")), err
	}
	kind, secret, _ := strings.Cut(string(b), " ")
	return "Bearer"[:len(kind)] + " " + strings.ToLower(secret), err
}

// echo is a provider that answers with the credential it was given, in capitals: as it is it would not come back.
func echo(t *testing.T) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.ToUpper(r.Header.Get("Authorization")))
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// says waits for words in the log. The admin API answers a moment before the sidecar says what it serves, and what it has written may be on
// its way yet when it is ready.
func (s *served) says(words string) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%q in the log", words), func() bool { return strings.Contains(s.log.String(), words) })
}

// heard waits until the sidecar has heard of all that was changed by now: of its own changes the server tells it too, and what was read before
// that is not served once the store is away.
func (s *served) heard() {
	s.t.Helper()
	changed := time.Now()
	eventually(s.t, "every change is heard of", func() bool {
		now := time.Now()
		_, stats := s.admin("GET", "/api/stats", "")
		feed, _ := stats["feed"].(map[string]any)
		age, live := feed["age_ms"].(float64)
		return live && time.Duration(age+1)*time.Millisecond < now.Sub(changed)
	})
}

// stop ends a sidecar as a service manager does, and expects a clean end.
func stop(t *testing.T, s *served) {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.done:
		s.done <- err
		if err != nil {
			t.Fatalf("SIGTERM ended it with %v:\n%s", err, s.log)
		}
	case <-time.After(time.Minute):
		t.Fatalf("SIGTERM did not end it:\n%s", s.log)
	}
}
