package admin

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSocketLetsInTheSidecarsOwnUserAlone(t *testing.T) {
	const stranger = 15011
	s := newServer(t, sqliteURL(t), func(o *Options) {
		if os.Geteuid() != 0 {
			o.UID = stranger // then we are the stranger ourselves
		}
	})
	if os.Geteuid() != 0 {
		s.refuse(403, "peer_forbidden", "GET", "/api/orgs", "")
		s.refuse(403, "peer_forbidden", "GET", "/healthz", "")
		return
	}
	s.must(200, "GET", "/api/orgs", "")
	for _, path := range []string{s.socket, filepath.Dir(s.socket)} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for _, uid := range []int{stranger, overflowUID} {
		a := getAs(t, uid, s.socket, "/api/orgs")
		if a.StatusCode != 403 || a.Header.Get("Keyward-Error") != "peer_forbidden" {
			t.Errorf("uid %d got %d", uid, a.StatusCode)
		}
	}
	if log := s.log.String(); !strings.Contains(log, "uid 15011") {
		t.Errorf("the log does not say who was refused: %s", log)
	}
}

// getAs asks over the socket from a thread that has another user id: the kernel notes the id of whoever connects.
func getAs(t *testing.T, uid int, socket, path string) *http.Response {
	t.Helper()
	type result struct {
		fd  int
		err error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and its user id with it
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); e != 0 {
			done <- result{0, e}
			return
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: socket})
		}
		done <- result{fd, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	f := os.NewFile(uintptr(r.fd), socket)
	defer f.Close()
	if _, err := f.WriteString("GET " + path + " HTTP/1.1\r\nHost: keyward\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(f), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp
}

func TestOverTCPOnlyTheProbesAnswerWithoutAToken(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	tcp := "http://" + s.tcp
	for _, path := range []string{"/healthz", "/readyz", "/readyz?verbose"} {
		if a := s.askAt(tcp, "GET", path, ""); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for _, path := range []string{"/api/orgs", "/api/audit", "/api/openapi.json", acmeTwilio, "/no/such/path", "/"} {
		a := s.askAt(tcp, "GET", path, "")
		if p := s.isProblem(a, 401, "unauthenticated"); !strings.Contains(p.Detail, "socket") || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("does not say what is needed: %s", p.Detail)
		}
	}
}

func TestOverTCPWebPagesAreRefused(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	tcp := "http://" + s.tcp
	refuse := func(code, header string) {
		t.Helper()
		s.isProblem(s.askAt(tcp, "GET", "/readyz", "", header), 403, code)
		s.isProblem(s.askAt(tcp, "GET", "/api/orgs", "", header), 403, code)
	}
	refuse("host_forbidden", "Host: evil.example")
	refuse("host_forbidden", "Host: evil.example:7452")
	refuse("host_forbidden", "Host: 192.0.2.7")
	refuse("host_forbidden", "Host: localhost.evil.example")
	refuse("browser_request", "Origin: http://evil.example")
	refuse("browser_request", "Origin: null")
	refuse("browser_request", "Sec-Fetch-Site: cross-site")
	refuse("browser_request", "Sec-Fetch-Site: same-site")
	for _, header := range []string{"Host: localhost:7452", "Host: [::1]:7452", "Host: keyward.localhost", "Origin: http://" + s.tcp, "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"} {
		if a := s.askAt(tcp, "GET", "/readyz", "", header); a.status != 200 {
			t.Errorf("%s: %d %s", header, a.status, a.body)
		}
	}
}

func TestReadyzSaysWhatIsWrong(t *testing.T) {
	var feed, keys error
	s := newServer(t, sqliteURL(t), func(o *Options) {
		o.Checks = []Check{
			{Name: "store", Run: func(context.Context) error { return nil }},
			{Name: "feed", Run: func(context.Context) error { return feed }, Degrades: true},
			{Name: "keys", Run: func(context.Context) error { return keys }},
		}
	})
	tell := func(status int, short, long string) {
		t.Helper()
		if a := s.ask("GET", "/readyz", ""); a.status != status || a.body != short {
			t.Errorf("%d %q", a.status, a.body)
		}
		if a := s.ask("GET", "/readyz?verbose", ""); a.status != status || a.body != long+short {
			t.Errorf("%d %q", a.status, a.body)
		}
	}
	tell(200, "ok\n", "[+]store ok\n[+]feed ok\n[+]keys ok\n")
	feed = errors.New("cable cut")
	tell(200, "degraded\n", "[+]store ok\n[!]feed failed: cable cut\n[+]keys ok\n")
	keys = errors.New("none")
	tell(503, "not ready\n", "[+]store ok\n[!]feed failed: cable cut\n[-]keys failed: none\n")
	if a := s.askAt("http://"+s.tcp, "GET", "/readyz?verbose", ""); strings.Contains(a.body, "cable") {
		t.Errorf("TCP tells the reason: %q", a.body)
	}
	if a := s.ask("GET", "/healthz", ""); a.status != 200 || a.body != "ok\n" {
		t.Errorf("alive is not ready: %d %q", a.status, a.body)
	}
}

func TestReadyzDoesNotHang(t *testing.T) {
	s := newServer(t, sqliteURL(t), func(o *Options) {
		o.Checks = []Check{{Name: "stuck", Run: func(ctx context.Context) error { time.Sleep(checkTimeout + 2*time.Second); return nil }}}
	})
	start := time.Now()
	if a := s.ask("GET", "/readyz?verbose", ""); a.status != 503 || !strings.Contains(a.body, "[-]stuck failed: no answer in time") {
		t.Errorf("%d %q", a.status, a.body)
	}
	if took := time.Since(start); took > checkTimeout+time.Second {
		t.Errorf("took %s", took)
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	for _, path := range []string{"/", "/api", "/api/", "/api/orgs/", "/api/orgs//integrations", "/api/../api/orgs", "/api/orgs/acme/integrations/twilio/", "/api/orgs/a%2F..%2Fb/integrations"} {
		s.refuse(404, "not_found", "GET", path, "")
	}
	a := s.ask("POST", acmeTwilio, "{}")
	s.isProblem(a, 405, "method_not_allowed")
	if a.header.Get("Allow") != "DELETE, GET, HEAD, PATCH, PUT" {
		t.Errorf("Allow: %s", a.header.Get("Allow"))
	}
	if a := s.must(200, "HEAD", "/api/orgs", ""); a.body != "" {
		t.Errorf("HEAD with a body")
	}
}

func TestPanicIsA500WithoutItsValue(t *testing.T) {
	s := newServer(t, sqliteURL(t), func(o *Options) { o.Stats = func() map[string]any { panic("s3cret value") } })
	s.refuse(500, "internal_error", "GET", "/api/stats", "")
	if log := s.log.String(); strings.Contains(log, "s3cret") || !strings.Contains(log, "peer_test.go") {
		t.Errorf("the log should hold the stack and not the value: %s", log)
	}
	s.must(200, "GET", "/api/orgs", "")
}
