package torture

import (
	"bufio"
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
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/memdir"
)

// The sockets belong to someone else, as with systemd, and one sidecar after the other is given them. Callers that keep their connections
// and never try a request twice see none of it.
func TestRollingRestarts(t *testing.T) {
	const (
		callers, perSecond, streams = 50, 500, 20
	)
	h := newHeldSockets(t)
	h.start()
	h.last.put("acme", "resend", map[string]any{"api_key": secretOf("acme", "resend")})
	load := newKeepers(h.last.tcp, filepath.Join(h.dir, "caller.sock"), regexp.MustCompile(`kwt[0-9A-Za-z]{43}`).FindString(h.last.token()))
	load.run(callers, perSecond, streams)
	restarts, start := many(4, 100), time.Now()
	for i := range restarts {
		old := h.last
		h.start()
		_ = old.cmd.Process.Signal(syscall.SIGTERM)
		if err := ended(old, time.Minute); err != nil {
			t.Errorf("restart %d: the old sidecar: %v\n%s", i+1, err, old.log.String())
		}
		if t.Failed() {
			break
		}
	}
	took := time.Since(start)
	load.end()
	if load.failed() > 0 {
		t.Errorf("%d requests and %d streams failed: %s", load.badCalls.Load(), load.badStreams.Load(), worst(load.errors))
	}
	row(t, "rolling restarts with held sockets, keep-alive callers without retries: 0 failed",
		"%d restarts in %s, %d requests (%.0f/s, slowest %s) by %d callers, %d streams, %d at a time: %d failed; %d connections ended by Connection: close",
		restarts, took.Round(time.Second), load.calls.Load(), float64(load.calls.Load())/took.Seconds(), time.Duration(load.slowest.Load()).Round(time.Millisecond), callers,
		load.streams.Load(), streams, load.failed(), load.closes.Load())
}

// heldSockets are listening sockets that outlive the sidecars they are given to.
type heldSockets struct {
	t      *testing.T
	dir    string
	tcp    string
	files  []*os.File
	notify *net.UnixConn
	args   []string
	last   *sidecar
	admin  *http.Client
}

func newHeldSockets(t *testing.T) *heldSockets {
	h := &heldSockets{t: t, dir: memdir.New(t)}
	for _, name := range []string{"caller.sock", "", "admin.sock"} {
		h.files = append(h.files, h.hold(name))
	}
	var err error
	if h.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(h.dir, "notify"), Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.notify.Close() })
	h.admin = &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(h.dir, "admin.sock"))
	}}}
	h.args = []string{
		"serve", "--data-dir", filepath.Join(h.dir, "data"), "--run-dir", h.dir, "--listen", h.tcp, "--webhook-listen", "", "--admin-listen", "",
		"--log-level", "warn", "--min-drain", "500ms", "--upstream", "api.resend.com=" + streamingProvider(t),
	}
	return h
}

// hold listens by system calls, blocking, as systemd does: Go's own listeners would change the mode of a socket that is shared with a
// running sidecar each time it is handed on.
func (h *heldSockets) hold(name string) *os.File {
	h.t.Helper()
	family, address := syscall.AF_INET, syscall.Sockaddr(&syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	if name != "" {
		family, address = syscall.AF_UNIX, &syscall.SockaddrUnix{Name: filepath.Join(h.dir, name)}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err == nil {
		err = syscall.Bind(fd, address)
	}
	if err == nil {
		err = syscall.Listen(fd, 1024)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	h.t.Cleanup(func() { _ = f.Close() })
	if name == "" {
		bound, err := syscall.Getsockname(fd)
		if err != nil {
			h.t.Fatal(err)
		}
		h.tcp = fmt.Sprintf("127.0.0.1:%d", bound.(*syscall.SockaddrInet4).Port)
	}
	return f
}

// start starts the next sidecar (sd_listen_fds(3): the sockets from descriptor 3 on) and waits until it says that it is ready.
func (h *heldSockets) start() {
	h.t.Helper()
	s := &sidecar{t: h.t, dir: h.dir, tcp: h.tcp, admin: h.admin, ended: make(chan error, 1)}
	s.cmd = exec.Command("/bin/sh", append([]string{"-c", `export LISTEN_PID=$$; exec "$0" "$@"`, binary}, h.args...)...)
	s.cmd.Env = append(os.Environ(), "LISTEN_FDS=3", "LISTEN_FDNAMES=caller:listen:admin", "NOTIFY_SOCKET="+filepath.Join(h.dir, "notify"))
	s.cmd.ExtraFiles = h.files
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	h.t.Cleanup(s.stop)
	until := time.Now().Add(2 * time.Minute)
	for b := make([]byte, 4096); ; {
		select {
		case err := <-s.ended:
			s.ended <- err
			h.t.Fatalf("a sidecar that was given its sockets ended: %v\n%s", err, s.log.String())
		default:
		}
		_ = h.notify.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, _, err := h.notify.ReadFromUnix(b)
		if err == nil && strings.Contains(string(b[:n]), "READY=1") {
			break
		}
		if time.Now().After(until) {
			h.t.Fatalf("a sidecar that was given its sockets never said READY=1\n%s", s.log.String())
		}
	}
	h.last = s
}

// ended waits for the end of a sidecar that was asked to end; anything but exit status 0 is an error.
func ended(s *sidecar, within time.Duration) error {
	select {
	case err := <-s.ended:
		s.ended <- err
		return err
	case <-time.After(within):
		return fmt.Errorf("still running after %s", within)
	}
}

const streamParts = 10

// streamingProvider answers at once, or at /stream in parts for a second.
func streamingProvider(t *testing.T) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/stream":
			for i := range streamParts {
				_, _ = fmt.Fprintf(w, "part %d\n", i)
				_ = http.NewResponseController(w).Flush()
				time.Sleep(100 * time.Millisecond)
			}
		case "/forever":
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, "more\n")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(50 * time.Millisecond)
			}
		default:
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, "ok")
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	return srv.URL
}

var wholeStream = func() string {
	var b strings.Builder
	for i := range streamParts {
		fmt.Fprintf(&b, "part %d\n", i)
	}
	return b.String()
}()

// keepers are callers that keep their connections, leave one only when told to by Connection: close, and try nothing twice.
type keepers struct {
	tcp, unix, token     string
	stop                 chan struct{}
	wait                 sync.WaitGroup
	calls, streams       atomic.Int64
	badCalls, badStreams atomic.Int64
	closes               atomic.Int64
	slowest              atomic.Int64 // call, in nanoseconds
	mu                   sync.Mutex
	errors               []string

	// judge, if not nil, decides about what came of each request instead; false ends the caller.
	judge func(begun time.Time, resp *http.Response, err error) bool
}

func newKeepers(tcp, unix, token string) *keepers {
	return &keepers{tcp: tcp, unix: unix, token: token, stop: make(chan struct{})}
}

func (k *keepers) failed() int64 { return k.badCalls.Load() + k.badStreams.Load() }

func (k *keepers) run(callers, perSecond, streams int) {
	for i := range callers {
		k.wait.Go(func() {
			k.keep(i, "/emails", "ok", time.Second*time.Duration(callers)/time.Duration(perSecond), &k.calls, &k.badCalls)
		})
	}
	for i := range streams {
		k.wait.Go(func() { k.keep(i, "/stream", wholeStream, time.Millisecond, &k.streams, &k.badStreams) })
	}
}

func (k *keepers) end() {
	close(k.stop)
	k.wait.Wait()
}

// silent is when a caller that was held up itself leaves its connection: a sidecar that ends closes those that nothing came on for a second.
const silent = 700 * time.Millisecond

// keep sends requests at a pace. Every second caller comes over TCP, if there is a token.
func (k *keepers) keep(i int, path, want string, pace time.Duration, done, bad *atomic.Int64) {
	time.Sleep(pace * time.Duration(i%10) / 10)
	tick := time.NewTicker(pace)
	defer tick.Stop()
	var c *kept
	var answered time.Time
	defer func() { c.close() }()
	for {
		select {
		case <-k.stop:
			return
		case <-tick.C:
		}
		var err error
		start := time.Now()
		if c != nil && start.Sub(answered) > silent {
			c.close()
			c = nil
		}
		if c == nil {
			c, err = k.dial(i%2 == 1 && k.token != "")
		}
		var resp *http.Response
		if err == nil {
			resp, err = c.ask(path, k.token, want)
			answered = time.Now()
		}
		done.Add(1)
		if n := time.Since(start).Nanoseconds(); path == "/emails" && n > k.slowest.Load() {
			k.slowest.Store(n) // of two at once either will do
		}
		if k.judge != nil && !k.judge(start, resp, err) {
			return
		}
		if err != nil && k.judge == nil {
			bad.Add(1)
			k.mu.Lock()
			k.errors = append(k.errors, path+": "+withoutPorts(err))
			k.mu.Unlock()
		}
		if err != nil || resp.Close {
			c.close()
			c = nil
			if err == nil {
				k.closes.Add(1)
			}
		}
	}
}

// withoutPorts makes errors of different connections the same.
func withoutPorts(err error) string {
	return regexp.MustCompile(`127\.0\.0\.1:\d+->`).ReplaceAllString(err.Error(), "")
}

// kept is one connection.
type kept struct {
	net.Conn
	r *bufio.Reader
}

func (k *keepers) dial(tcp bool) (*kept, error) {
	network, address := "unix", k.unix
	if tcp {
		network, address = "tcp", k.tcp
	}
	c, err := net.DialTimeout(network, address, 20*time.Second)
	if err != nil {
		return nil, err
	}
	return &kept{c, bufio.NewReader(c)}, nil
}

func (c *kept) close() {
	if c != nil {
		_ = c.Close()
	}
}

var errAnswer = errors.New("wrong answer")

// ask sends one request and reads the whole answer.
func (c *kept) ask(path, token, want string) (*http.Response, error) {
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	request := "POST " + path + " HTTP/1.1\r\nHost: api.resend.com\r\nKeyward-Org: acme\r\nContent-Length: 2\r\n"
	if token != "" {
		request += "Keyward-Token: " + token + "\r\n"
	}
	if _, err := io.WriteString(c, request+"\r\nhi"); err != nil {
		return nil, fmt.Errorf("sending: %w", err)
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return nil, fmt.Errorf("reading the head: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return resp, fmt.Errorf("reading the body after %d bytes: %w", len(body), err)
	case resp.StatusCode != 200 || string(body) != want:
		return resp, fmt.Errorf("%w: %s %.100q", errAnswer, resp.Status, body)
	}
	return resp, nil
}

// Without held sockets, --min-drain is the time in which callers are told to go elsewhere: each answer is whole and says Connection:
// close, and new connections are served until the socket is gone.
func TestDrain(t *testing.T) {
	const minDrain = 3 * time.Second
	begun, release := make(chan struct{}), make(chan struct{})
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			_, _ = io.WriteString(w, "begun")
			_ = http.NewResponseController(w).Flush()
			close(begun)
			<-release
			_, _ = io.WriteString(w, ", ended")
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ok")
	}))
	t.Cleanup(provider.Close)
	letGo := sync.OnceFunc(func() { close(release) })
	t.Cleanup(letGo)
	s := startSidecar(t, map[string]string{"api.resend.com": strings.TrimPrefix(provider.URL, "http://")}, "--min-drain", minDrain.String(), "--log-level", "info")
	s.put("acme", "resend", map[string]any{"api_key": secretOf("acme", "resend")})
	load := newKeepers(s.tcp, filepath.Join(s.dir, "caller.sock"), "")
	var signalled, unready atomic.Pointer[time.Time]
	var draining, unmarked, gone atomic.Int64
	load.judge = func(begun time.Time, resp *http.Response, err error) bool {
		if err != nil {
			if at := signalled.Load(); at != nil && time.Since(*at) >= minDrain {
				gone.Add(1)
				return false
			}
			load.badCalls.Add(1)
			load.mu.Lock()
			load.errors = append(load.errors, err.Error())
			load.mu.Unlock()
			return true
		}
		if at := unready.Load(); at != nil && begun.Sub(*at) > 100*time.Millisecond {
			draining.Add(1)
			if !resp.Close {
				unmarked.Add(1)
			}
		}
		return true
	}
	load.run(20, 200, 0)
	inFlight := make(chan error, 1)
	go func() { // a stream that ends long after the listener
		c, err := load.dial(false)
		if err == nil {
			defer c.close()
			_, err = c.ask("/held", "", "begun, ended")
		}
		inFlight <- err
	}()
	select {
	case <-begun:
	case err := <-inFlight:
		t.Fatalf("a stream before the signal: %v", err)
	}
	soon(t, time.Minute, "the callers are at work", func() bool { return load.calls.Load() > 100 })
	told := time.Now()
	signalled.Store(&told)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	soon(t, time.Minute, "/readyz is 503 while draining", func() bool { return s.ready() == 503 })
	heard := time.Now()
	unready.Store(&heard)
	soon(t, time.Minute, "no caller can connect any more", func() bool { return gone.Load() > 0 })
	letGo()
	if err := <-inFlight; err != nil {
		t.Errorf("a stream in flight at the end of --min-drain: %v", err)
	}
	if err := ended(s, time.Minute); err != nil {
		t.Errorf("draining: %v\n%s", err, s.log.String())
	}
	load.end()
	switch {
	case load.badCalls.Load() > 0:
		t.Errorf("%d calls failed before the socket was gone: %s", load.badCalls.Load(), worst(load.errors))
	case unmarked.Load() > 0:
		t.Errorf("%d of %d answers while draining lack Connection: close", unmarked.Load(), draining.Load())
	case draining.Load() < 20: // of some 500; that it served to the end is what no call failed for
		t.Errorf("only %d answers while draining", draining.Load())
	}
	row(t, "SIGTERM: --min-drain answers everything with Connection: close, then a stream in flight ends whole, exit 0",
		"%d calls, %d while draining, %d of them unmarked, %d failed", load.calls.Load(), draining.Load(), unmarked.Load(), load.badCalls.Load())
}

// ready is the status of /readyz.
func (s *sidecar) ready() int {
	resp, err := s.admin.Get("http://keyward/readyz")
	if err != nil {
		s.t.Errorf("/readyz: %v", err)
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	provider := streamingProvider(t)
	s := startSidecar(t, map[string]string{"api.resend.com": strings.TrimPrefix(provider, "http://")})
	s.put("acme", "resend", map[string]any{"api_key": secretOf("acme", "resend")})
	c := s.dial("unix")
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, "GET /forever HTTP/1.1\r\nHost: api.resend.com\r\nKeyward-Org: acme\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
		t.Fatalf("a stream: %v %v", resp, err)
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	// Two signals that come before either is taken are one.
	soon(t, time.Minute, "the first signal is taken", func() bool { return s.ready() == 503 })
	select {
	case err := <-s.ended:
		s.ended <- err
		t.Fatalf("the first signal ended it with a stream open: %v\n%s", err, s.log.String())
	case <-time.After(700 * time.Millisecond):
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	start := time.Now()
	select {
	case err := <-s.ended:
		s.ended <- err
	case <-time.After(15 * time.Second): // half of --drain-timeout
		t.Error("a second signal does not end it")
	}
	took := time.Since(start)
	if long && took > 500*time.Millisecond {
		t.Errorf("it took %s to end", took)
	}
	row(t, "a second SIGTERM ends at once", "%s", took.Round(time.Millisecond))
}
