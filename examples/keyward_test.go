package examples

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/built"
	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/standin"
)

// A sidecar is the built program, with stand-ins in the providers' place and the credentials of two orgs.
type sidecar struct {
	bin, run string            // the program, its run folder
	socket   string            // where callers connect
	url      string            // the same over TCP
	tokens   map[string]string // :: org → caller token
	peers    *standin.Set
	log      lockedBuffer
}

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }

var orgs = []string{"acme", "globex"}

// startSidecar does what an operator does, by the commands that an operator has. It takes further flags of keyward serve.
func startSidecar(t *testing.T, flags ...string) *sidecar {
	t.Helper()
	dir, err := os.MkdirTemp("", "kw") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &sidecar{bin: built.Program(t), run: filepath.Join(dir, "run"), tokens: map[string]string{}}
	s.socket = filepath.Join(s.run, "caller.sock")

	s.peers = standin.New(standin.Options{})
	hosts, err := s.peers.StartTLS()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.peers.Close() })
	ca, err := s.peers.CAPEM()
	if err != nil {
		t.Fatal(err)
	}
	caFile := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	listen := freeport.New(t)
	s.url = "http://" + listen
	args := []string{
		"serve", "--data-dir", filepath.Join(dir, "data"), "--run-dir", s.run, "--listen", listen,
		"--webhook-listen=", "--admin-listen=", "--upstream-ca", caFile, "--log-level", "debug", "--log-format", "json",
	}
	for host, url := range hosts {
		args = append(args, "--upstream", host+"="+url)
	}
	args = append(args, flags...)
	s.start(t, args)
	s.keyward(t, "", "wait", "--run-dir", s.run, "--max", "100s")

	for _, org := range orgs {
		for _, c := range standin.Sample(org) {
			s.peers.Expect(c)
			s.keyward(t, string(c.JSON()), "credentials", "set", "--run-dir", s.run, "--org", org, "--provider", c.Provider)
		}
		s.tokens[org] = strings.TrimSpace(s.keyward(t, "", "callers", "add", "--run-dir", s.run, "--name", "examples-"+org, "--org", org))
	}
	return s
}

// start runs the program until the test ends; then it must end well.
func (s *sidecar) start(t *testing.T, args []string) {
	t.Helper()
	p := exec.Command(s.bin, args...)
	p.Stdout, p.Stderr = &s.log, &s.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(time.Minute, func() { _ = p.Process.Kill() })
		defer kill.Stop()
		if err := p.Wait(); err != nil {
			t.Errorf("keyward serve: %v", err)
		}
		if t.Failed() {
			t.Logf("keyward serve wrote:\n%s", s.log.String())
		}
	})
}

// keyward runs a management command and gives its stdout.
func (s *sidecar) keyward(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, s.bin, args...)
	c.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		t.Fatalf("keyward %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// environment is what an app is given to find the sidecar, over one of the two transports.
func (s *sidecar) environment(transport, org string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "NODE_NO_WARNINGS=1", "KEYWARD_ORG=" + org}
	if transport == "tcp" {
		return append(env, "KEYWARD_URL="+s.url, "KEYWARD_TOKEN="+s.tokens[org])
	}
	return append(env, "KEYWARD_SOCKET="+s.socket)
}

// A lockedBuffer is written by a process while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
