package torture

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/internal/memdir"
)

// A sidecar is the built program as a process of its own.
type sidecar struct {
	t     testing.TB
	dir   string
	tcp   string // address of --listen
	admin *http.Client
	cmd   *exec.Cmd
	log   lockedBuffer
	ended chan error

	tunnel *tunnel // of the network of that name
}

// startSidecar runs the program with the given overrides (host → address of a stand-in) and waits until it is ready. The stand-ins
// outlive it.
func startSidecar(t testing.TB, upstreams map[string]string, args ...string) *sidecar {
	t.Helper()
	s := &sidecar{t: t, dir: memdir.New(t), tcp: freeport.New(t), ended: make(chan error, 1)}
	all := []string{
		"serve", "--data-dir", filepath.Join(s.dir, "data"), "--run-dir", s.dir, "--listen", s.tcp, "--webhook-listen", "", "--admin-listen", "",
		"--log-level", "error", "--cache-size", "20000",
	}
	for host, address := range upstreams {
		all = append(all, "--upstream", host+"=http://"+address)
	}
	s.cmd = exec.Command(binary, append(all, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	t.Cleanup(s.stop)
	s.admin = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.dir, "admin.sock"))
		},
	}}
	t.Cleanup(s.admin.CloseIdleConnections)
	if out, err := exec.Command(binary, "wait", "--max", "2m", "--run-dir", s.dir).CombinedOutput(); err != nil {
		t.Fatalf("never ready: %s\n%s", out, s.log.String())
	}
	return s
}

func (s *sidecar) stop() {
	if s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	select {
	case <-s.ended:
	case <-time.After(time.Minute):
		s.t.Error("the sidecar did not end")
	}
}

// mustLive fails the test if the process has ended or panicked while serving.
func (s *sidecar) mustLive() {
	s.t.Helper()
	select {
	case err := <-s.ended:
		s.ended <- err
		s.t.Fatalf("the sidecar died: %v\n%s", err, s.log.String())
	default:
	}
	if strings.Contains(s.log.String(), "panic") {
		s.t.Errorf("the sidecar panicked:\n%s", s.log.String())
	}
}

// put stores a credential by the admin API.
func (s *sidecar) put(org, provider string, fields map[string]any) {
	s.t.Helper()
	b, err := json.Marshal(map[string]any{"credentials": fields})
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequest("PUT", "http://keyward/api/orgs/"+org+"/integrations/"+provider, bytes.NewReader(b))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.admin.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode/100 != 2 {
		s.t.Fatalf("storing %s of %s: %s %s", provider, org, resp.Status, b)
	}
}

// token makes a caller token for all orgs and providers.
func (s *sidecar) token() string {
	s.t.Helper()
	out, err := exec.Command(binary, "callers", "add", "--name", "torture", "--org", "*", "--provider", "*", "--run-dir", s.dir).Output()
	if err != nil {
		s.t.Fatalf("adding a caller: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// dial connects as a caller, over the network named.
func (s *sidecar) dial(network string) net.Conn {
	s.t.Helper()
	c, err := s.tryDial(network)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

func (s *sidecar) tryDial(network string) (net.Conn, error) {
	if network == "tunnel" {
		return s.tunnel.dial(s.tcp)
	}
	if network == "unix" {
		return net.DialTimeout("unix", filepath.Join(s.dir, "caller.sock"), 20*time.Second)
	}
	return net.DialTimeout("tcp", s.tcp, 20*time.Second)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// secretOf is the made-up key of an org with a provider: what a provider must see, and nobody else.
func secretOf(org, provider string) string {
	return fmt.Sprintf("ours.%s.%s.0123456789abcdef", provider, org)
}
