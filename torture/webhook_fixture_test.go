package torture

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/internal/pgtest"
)

// A hookSidecar takes webhooks, at the same address and with the same store each time it is started again.
type hookSidecar struct {
	*sidecar // that runs now
	t        testing.TB
	dir      string
	address  string // of --webhook-listen
	args     []string
}

// newHookSidecar starts one. Its files are in memory, unless a folder is named.
func newHookSidecar(t testing.TB, dir, target string, args ...string) *hookSidecar {
	t.Helper()
	if dir == "" {
		dir = memdir.New(t)
	}
	h := &hookSidecar{t: t, dir: dir, address: freeport.New(t)}
	h.args = append([]string{
		"serve", "--data-dir", filepath.Join(dir, "data"), "--run-dir", dir, "--listen", "", "--admin-listen", "", "--webhook-listen", h.address,
		"--webhook-target", target, "--log-level", "error",
	}, args...)
	admin := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
	}}}
	h.sidecar = &sidecar{t: t, dir: dir, admin: admin}
	h.start()
	t.Cleanup(func() { h.stop() })
	return h
}

// start runs it and waits until it is ready.
func (h *hookSidecar) start() {
	h.t.Helper()
	if err := h.tryStart(); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hookSidecar) tryStart() error {
	s := &sidecar{t: h.t, dir: h.dir, admin: h.admin, ended: make(chan error, 1)}
	s.cmd = exec.Command(binary, h.args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	go func() { s.ended <- s.cmd.Wait() }()
	h.sidecar = s
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		select {
		case err := <-s.ended:
			s.ended <- err
			return fmt.Errorf("the sidecar ended at its start: %w\n%s", err, s.log.String())
		default:
		}
		if resp, err := h.admin.Get("http://keyward/readyz"); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Now().After(until) {
			return fmt.Errorf("the sidecar was never ready\n%s", s.log.String())
		}
	}
}

// kill ends it as nothing can be prepared for.
func (h *hookSidecar) kill() {
	_ = h.cmd.Process.Kill()
	err := <-h.ended
	h.ended <- err
}

// onPostgres are the arguments of sidecars that share a new database, and the key that they have in common.
func onPostgres(t testing.TB) []string {
	t.Helper()
	key := "file:" + filepath.Join(memdir.New(t), "keys.json")
	if out, err := exec.Command(binary, "keys", "generate", "--key", key).CombinedOutput(); err != nil {
		t.Fatalf("making a key: %v\n%s", err, out)
	}
	return []string{"--store", pgtest.New(t), "--key", key}
}

// A hook is a delivery as its provider sends it.
type hook struct {
	target string // path and query
	header []string
	body   string
}

func (k hook) bytes() []byte {
	var b strings.Builder
	b.WriteString("POST " + k.target + " HTTP/1.1\r\nHost: hooks.example\r\n")
	for _, line := range k.header {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("Content-Length: " + strconv.Itoa(len(k.body)) + "\r\n\r\n" + k.body)
	return []byte(b.String())
}

// sendHook sends one over a connection of its own.
func sendHook(address string, k hook) reply {
	c, err := net.DialTimeout("tcp", address, 20*time.Second)
	if err != nil {
		return reply{err: err}
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, werr := c.Write(k.bytes()) // an answer may come all the same
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return reply{err: errors.Join(werr, err)}
	}
	body, err := io.ReadAll(resp.Body)
	return reply{status: resp.StatusCode, header: resp.Header, body: string(body), err: err}
}

// duplicate says whether the answer is that to a delivery which was accepted before.
func (r reply) duplicate() bool { return r.header.Get("Keyward-Duplicate") == "true" }

// A hookApp is an app in this process that remembers what it is sent.
type hookApp struct {
	url string
	mu  sync.Mutex
	got map[string]map[string]bool // :: org, body and Google's number → ids of the deliveries, or of the requests where there are none
	// answer, if not nil, answers instead of an empty 200.
	answer http.HandlerFunc
}

func newHookApp(t testing.TB) *hookApp {
	a := &hookApp{got: map[string]map[string]bool{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.url = "http://" + l.Addr().String() + "/hooks"
	srv := &http.Server{Handler: a}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return a
}

func (a *hookApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sidecar was killed meanwhile
	}
	key := r.Header.Get("Keyward-Org") + " " + string(body) + r.Header.Get("X-Goog-Message-Number")
	id := r.Header.Get("Keyward-Delivery-Id")
	if id == "" {
		id = r.Header.Get("Keyward-Request-Id")
	}
	a.mu.Lock()
	if a.got[key] == nil {
		a.got[key] = map[string]bool{}
	}
	a.got[key][id] = true
	answer := a.answer
	a.mu.Unlock()
	if answer != nil {
		answer(w, r)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (a *hookApp) answers(h http.HandlerFunc) { a.mu.Lock(); defer a.mu.Unlock(); a.answer = h }

func (a *hookApp) all() map[string]map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make(map[string]map[string]bool, len(a.got))
	for key, ids := range a.got {
		all[key] = maps.Clone(ids)
	}
	return all
}

// soon waits for something that is to come about.
func soon(t testing.TB, within time.Duration, what string, true func() bool) {
	t.Helper()
	for until := time.Now().Add(within); !true(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("it did not come about within %s: %s", within, what)
		}
	}
}

// inFile writes a configuration file.
func inFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(memdir.New(t), "keyward.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
