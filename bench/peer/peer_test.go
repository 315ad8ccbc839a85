package peer

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/bench/role"
	"github.com/keyward/keyward/internal/built"
)

const secret = "Bearer re_bench_acme_0123456789abcdef"

func TestMain(m *testing.M) {
	role.Register("holder", hold)
	role.Dispatch()
	os.Exit(built.Main(m))
}

// here are the peers of this machine; what is missing is said, since a run without it tests less.
func here(t *testing.T) []Peer {
	t.Helper()
	peers, missing := All(built.Program(t))
	for _, m := range missing {
		t.Log("NOT TESTED: ", m)
	}
	return peers
}

func TestEveryPeerForwardsWithTheCredential(t *testing.T) {
	for _, p := range here(t) {
		t.Run(p.Name(), func(t *testing.T) {
			s := newProvider(t)
			at := start(t, p, s.upstream(t))
			c := dial(t, at)
			var conns int64
			for i := range 3 {
				if status, body := c.ask(t, at.Header); status != 200 || body != "POST /emails hello" {
					t.Fatalf("request %d: %d %q", i, status, body)
				}
				if i == 0 {
					conns = s.conns.Load() // some connect for the harness's first look, too
				}
			}
			if n := s.conns.Load() - conns; n != 0 {
				t.Errorf("the provider's connection was not kept: %d more", n)
			}
			if p.Name() != Direct && len(p.PIDs()) == 0 {
				t.Error("no process to measure")
			}
		})
	}
}

// TestEveryPeerSendsWhatItWasGiven: with another credential the stand-in answers 401, so a 200 above is the peer's work.
func TestEveryPeerSendsWhatItWasGiven(t *testing.T) {
	for _, p := range here(t) {
		t.Run(p.Name(), func(t *testing.T) {
			u := newProvider(t).upstream(t)
			u.Value = "Bearer re_of_somebody_else"
			at := start(t, p, u)
			if status, _ := dial(t, at).ask(t, at.Header); status != 401 {
				t.Errorf("answered %d", status)
			}
		})
	}
}

func TestNoPeerTrustsAnotherProvider(t *testing.T) {
	for _, p := range here(t) {
		t.Run(p.Name(), func(t *testing.T) {
			s, other := newProvider(t), newProvider(t)
			u := other.upstream(t)
			u.Address = s.upstream(t).Address
			at, err := p.Start(t.Context(), u)
			defer p.Stop()
			if err != nil {
				return // as good
			}
			c, err := connect(at)
			if err != nil {
				return
			}
			defer c.Close()
			if status, _, err := c.try(at.Header); err == nil && status < 400 {
				t.Errorf("answered %d", status)
			}
			if n := s.asked.Load(); n != 0 {
				t.Errorf("%d requests reached it", n)
			}
		})
	}
}

func TestStopLeavesNothing(t *testing.T) {
	for _, p := range here(t) {
		t.Run(p.Name(), func(t *testing.T) {
			at := start(t, p, newProvider(t).upstream(t))
			dial(t, at).ask(t, at.Header)
			pids := p.PIDs()
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
			gone(t, pids)
			if err := p.Stop(); err != nil {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

// hold starts a peer, says its processes and waits to be killed.
func hold(args []string) error {
	peers, _ := All(args[1])
	for _, p := range peers {
		if p.Name() != args[0] {
			continue
		}
		ca, err := os.ReadFile(args[4])
		if err != nil {
			return err
		}
		if _, err := p.Start(context.Background(), Upstream{Address: args[2], Host: "api.resend.com", CAFile: args[4], CA: ca, Name: "Authorization", Value: secret, Dir: args[3]}); err != nil {
			return err
		}
		fmt.Println(strings.Trim(fmt.Sprint(p.PIDs()), "[]"))
		select {}
	}
	return fmt.Errorf("no peer %q", args[0])
}

func TestKilledHarnessLeavesNothing(t *testing.T) {
	for _, p := range here(t) {
		if p.Name() == Direct {
			continue
		}
		t.Run(p.Name(), func(t *testing.T) {
			u := newProvider(t).upstream(t)
			cmd, err := role.Command("holder", p.Name(), built.Program(t), u.Address, u.Dir, u.CAFile)
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			var pids []int
			for _, f := range strings.Fields(line) {
				pid, err := strconv.Atoi(f)
				if err != nil {
					t.Fatal(err)
				}
				pids = append(pids, pid)
			}
			gone(t, pids)
		})
	}
}

func TestPeerThatDoesNotComeUpSaysWhy(t *testing.T) {
	for _, p := range here(t) {
		if p.Name() == Direct || p.Name() == Keyward {
			continue
		}
		t.Run(p.Name(), func(t *testing.T) {
			u := newProvider(t).upstream(t)
			u.CA, u.CAFile = []byte("none"), filepath.Join(u.Dir, "absent.pem")
			_, err := p.Start(t.Context(), u)
			if err == nil {
				t.Fatal("it came up")
			}
			if s := err.Error(); !strings.Contains(s, p.Name()) || !strings.Contains(s, "certificate") && !strings.Contains(s, "absent.pem") || strings.Contains(s, secret) {
				t.Error(s)
			}
			gone(t, p.PIDs())
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestConfigurationsRefuseWhatTheyCannotQuote(t *testing.T) {
	for _, value := range []string{`Bearer "`, "Bearer $host", "Bearer a\r\nb: c", `Bearer \`, ""} {
		u := Upstream{Address: "127.0.0.1:1", Host: "h", CAFile: "f", Name: "Authorization", Value: value, Dir: "d"}
		_, one := nginxConfig(u, "d")
		_, two := haproxyConfig(u, "d")
		if one == nil || two == nil {
			t.Errorf("%q: nginx %v, HAProxy %v", value, one, two)
		}
	}
}

func TestMissingPeersAreNamed(t *testing.T) {
	t.Setenv("PATH", "")
	_, missing := All(filepath.Join(t.TempDir(), "absent"))
	if !slices.ContainsFunc(missing, func(s string) bool { return strings.HasPrefix(s, "keyward: no program at") }) {
		t.Errorf("%q", missing)
	}
}

// A provider is a small TLS stand-in that answers 401 without the credential.
type provider struct {
	*httptest.Server
	conns, asked atomic.Int64
}

func newProvider(t *testing.T) *provider {
	p := &provider{}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked.Add(1)
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != secret || len(r.Header.Values("Authorization")) != 1 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, body)
	}))
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			p.conns.Add(1)
		}
	}
	p.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t)}, MinVersion: tls.VersionTLS13}
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

func (p *provider) upstream(t *testing.T) Upstream {
	t.Helper()
	dir, err := os.MkdirTemp("", "kwb") // t.TempDir's names are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.TLS.Certificates[0].Certificate[0]})
	file := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(file, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	return Upstream{Address: p.Listener.Addr().String(), Host: "api.resend.com", CAFile: file, CA: ca, Name: "Authorization", Value: secret, Dir: dir}
}

func start(t *testing.T, p Peer, u Upstream) Endpoint {
	t.Helper()
	at, err := p.Start(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Stop() })
	return at
}

type conn struct {
	net.Conn
	r *bufio.Reader
}

func connect(at Endpoint) (*conn, error) {
	c, err := net.Dial(at.Network, at.Address)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if at.TLS != nil {
		c = tls.Client(c, at.TLS)
	}
	return &conn{c, bufio.NewReader(c)}, nil
}

func dial(t *testing.T, at Endpoint) *conn {
	t.Helper()
	c, err := connect(at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (c *conn) try(header string) (int, string, error) {
	if _, err := io.WriteString(c, "POST /emails HTTP/1.1\r\nHost: api.resend.com\r\n"+header+"Content-Length: 5\r\n\r\nhello"); err != nil {
		return 0, "", err
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return 0, "", err
	}
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func (c *conn) ask(t *testing.T, header string) (int, string) {
	t.Helper()
	status, body, err := c.try(header)
	if err != nil {
		t.Fatal(err)
	}
	return status, body
}

// gone waits until no process has one of these ids; one that has ended and that nobody has waited for is gone too.
func gone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
			stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || strings.Contains(string(stat), ") Z ") {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("process %d is still there: %s", pid, stat)
				break
			}
		}
	}
}
