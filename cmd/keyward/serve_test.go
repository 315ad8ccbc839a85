package main

import (
	"bytes"
	"encoding/json"
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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/internal/pgtest"
)

// TestReplacedOrDeletedTakesEffectAtOnce changes one org's credential through the admin API a thousand times (KEYWARD_TORTURE=1: 10,000) while others load it: the next
// request after each acknowledgement uses the new one, or is refused when there is none. No request ever goes back in time.
func TestReplacedOrDeletedTakesEffectAtOnce(t *testing.T) {
	t.Parallel()
	rounds := 500 // each a replacement and a deletion
	if os.Getenv("KEYWARD_TORTURE") == "1" {
		rounds = 5000
	}
	if testing.Short() {
		rounds = 250
	}
	s := serve(t, memdir.New(t), "--upstream", "api.resend.com="+echo(t), "--log-level", "error")
	api, app := s.client("admin.sock"), s.client("caller.sock")
	var acknowledged atomic.Int64
	stop := make(chan bool)
	var loads sync.WaitGroup
	for range 4 {
		c := s.client("caller.sock")
		loads.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				least := acknowledged.Load()
				got, err := s.call(c, "acme")
				if err != nil {
					t.Error(err)
					return
				}
				var n int64
				if _, err := fmt.Sscanf(got, "Bearer re_version_%d", &n); err == nil && n < least {
					t.Errorf("version %d was used after %d had been acknowledged", n, least)
					return
				}
			}
		})
	}
	write := func(method, body string, want int) {
		req, _ := http.NewRequest(method, "http://keyward/api/orgs/acme/integrations/resend", strings.NewReader(body))
		resp, err := api.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != want && !(want == 200 && resp.StatusCode == 201) {
			t.Fatalf("%s: %d %s", method, resp.StatusCode, b)
		}
	}
	for i := range rounds {
		n := int64(i + 1)
		write("PUT", fmt.Sprintf(`{"credentials":{"api_key":"re_version_%d"}}`, n), 200)
		acknowledged.Store(n)
		if got, err := s.call(app, "acme"); err != nil || got != fmt.Sprintf("Bearer re_version_%d", n) {
			t.Fatalf("after version %d was acknowledged: %q, %v", n, got, err)
		}
		write("DELETE", "", 204)
		acknowledged.Store(n + 1)
		if got, err := s.call(app, "acme"); err != nil || got != "424 credential_missing" {
			t.Fatalf("after version %d was deleted: %q, %v", n, got, err)
		}
	}
	close(stop)
	loads.Wait()
}

func TestStartRefused(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for name, tc := range map[string]struct {
		args    []string
		prepare func(dir string)
		code    int
		want    []string
	}{
		"unknown flag":          {[]string{"--lisen", "x"}, nil, 2, []string{"--lisen"}},
		"bad value":             {[]string{"--cache-size", "many"}, nil, 2, []string{"--cache-size", "many"}},
		"unknown host":          {[]string{"--upstream", "example.com=http://127.0.0.1:1"}, nil, 2, []string{"example.com"}},
		"plain http to outside": {[]string{"--upstream", "api.resend.com=http://192.0.2.1"}, nil, 2, []string{"loopback"}},
		"open address":          {[]string{"--listen", "0.0.0.0:0"}, nil, 2, []string{"--listen", "--allow-remote"}},
		"no such file":          {[]string{"--upstream-ca", "/nonexistent.pem"}, nil, 2, []string{"--upstream-ca", "no such file"}},
		"port in use":           {[]string{"--listen", taken.Addr().String()}, nil, 1, []string{taken.Addr().String(), "in use"}},
		"socket path too long":  {[]string{"--socket", "/" + strings.Repeat("x", 120)}, nil, 2, []string{"107"}},
		"socket is a file": {
			nil, func(dir string) { write(t, filepath.Join(dir, "caller.sock"), "precious") }, 1,
			[]string{"caller.sock", "not a socket"},
		},
		"folder open to all": {nil, func(dir string) { chmod(t, dir, 0o777) }, 1, []string{"writable by everyone"}},
		"key file open to others": {nil, func(dir string) {
			mkdir(t, filepath.Join(dir, "data"))
			write(t, filepath.Join(dir, "data", "keys.json"), "{}")
			chmod(t, filepath.Join(dir, "data", "keys.json"), 0o644)
		}, 1, []string{"chmod 600"}},
		"store is no database": {nil, func(dir string) {
			mkdir(t, filepath.Join(dir, "data"))
			write(t, filepath.Join(dir, "data", "keyward.db"), strings.Repeat("not a database ", 100))
		}, 1, []string{"keyward.db"}},
		"bad rule": {[]string{"--config", "CONFIG"}, func(dir string) {
			write(t, filepath.Join(dir, "c.yaml"), "callers:\n- name: a\n  unix: {uid: 1}\n  orgs: [acme]\n  rate: fast\n")
		}, 2, []string{"callers[0]", "rate"}},
		"unknown key in the file": {
			[]string{"--config", "CONFIG"},
			func(dir string) { write(t, filepath.Join(dir, "c.yaml"), "lisen: x\n") }, 2,
			[]string{"lisen"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := memdir.New(t)
			if tc.prepare != nil {
				tc.prepare(dir)
			}
			args := append([]string(nil), tc.args...)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "CONFIG", filepath.Join(dir, "c.yaml"))
			}
			s := start(t, dir, args...)
			select {
			case err := <-s.done:
				s.done <- err
			case <-time.After(time.Minute):
				t.Fatalf("it started:\n%s", s.log)
			}
			out := s.log.String()
			if code := s.cmd.ProcessState.ExitCode(); code != tc.code {
				t.Errorf("exit code %d, want %d: %s", code, tc.code, out)
			}
			lines := strings.Split(strings.TrimSpace(out), "\n")
			for _, want := range tc.want {
				if !strings.Contains(lines[len(lines)-1], want) {
					t.Errorf("the last line lacks %q: %s", want, out)
				}
			}
			if b, err := os.ReadFile(filepath.Join(dir, "caller.sock")); err == nil && string(b) != "precious" {
				t.Error("the file in the socket's place was touched")
			}
		})
	}
}

func TestSecondInstanceIsKeptOut(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	first := serve(t, dir)
	second := start(t, dir, "--data-dir", filepath.Join(dir, "other"))
	err := <-second.done
	second.done <- err
	if out := second.log.String(); second.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out, "another instance is listening on it (its lock is held): end it, or give this one another --run-dir") {
		t.Errorf("exit code %d: %s", second.cmd.ProcessState.ExitCode(), out)
	}
	first.must("", "wait", "--max", "1m")
}

func TestRestartAfterKill(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	up := "api.resend.com=" + echo(t)
	s := serve(t, dir, "--upstream", up)
	s.must(`{"api_key":"re_before_the_kill"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	_ = s.cmd.Process.Kill()
	s.done <- <-s.done
	s = serve(t, dir, "--upstream", up) // the stale sockets are taken over
	if got, err := s.call(s.client("caller.sock"), "acme"); got != "Bearer re_before_the_kill" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestKeyThatOpensNoRows: it is said at the start, requests of those orgs get 424, and all others are served.
func TestKeyThatOpensNoRows(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	up := "api.resend.com=" + echo(t)
	s := serve(t, dir, "--upstream", up)
	s.must(`{"api_key":"re_sealed_by_the_old_key"}`, "credentials", "set", "--org", "old", "--provider", "resend")
	stop(t, s)
	if err := os.Remove(filepath.Join(dir, "data", "keys.json")); err != nil {
		t.Fatal(err)
	}
	s = serve(t, dir, "--upstream", up)
	s.must(`{"api_key":"re_sealed_by_the_new_key"}`, "credentials", "set", "--org", "new", "--provider", "resend")
	c := s.client("caller.sock")
	if got, _ := s.call(c, "old"); got != "424 credential_unreadable" {
		t.Errorf("the old org got %q", got)
	}
	if got, _ := s.call(c, "new"); got != "Bearer re_sealed_by_the_new_key" {
		t.Errorf("the new org got %q", got)
	}
	s.says(`"unreadable":1`)
}

func TestSIGHUP(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	file := filepath.Join(dir, "c.yaml")
	rule := func(org string) string {
		return fmt.Sprintf("callers:\n- name: me\n  unix: {uid: %d}\n  orgs: [%s]\n", os.Getuid(), org)
	}
	write(t, file, rule("acme"))
	s := serve(t, dir, "--config", file, "--upstream", "api.resend.com="+echo(t))
	for _, org := range []string{"acme", "globex"} {
		s.must(`{"api_key":"re_of_`+org+`"}`, "credentials", "set", "--org", org, "--provider", "resend")
	}
	c := s.client("caller.sock") // its connection stays open over the reloads
	expect := func(when, org, want string) {
		t.Helper()
		eventually(t, when+": "+org+" gets "+want, func() bool { got, _ := s.call(c, org); return got == want })
	}
	expect("at first", "acme", "Bearer re_of_acme")
	expect("at first", "globex", "403 org_forbidden")
	write(t, file, rule("globex"))
	_ = s.cmd.Process.Signal(syscall.SIGHUP)
	expect("after a reload", "acme", "403 org_forbidden")
	expect("after a reload", "globex", "Bearer re_of_globex")
	for i, bad := range []string{
		"callers: nonsense\n",
		rule("acme") + "webhooks:\n- target: ftp://127.0.0.1/hooks\n",
	} {
		write(t, file, bad)
		_ = s.cmd.Process.Signal(syscall.SIGHUP)
		eventually(t, "the bad file is reported: "+bad, func() bool { return strings.Count(s.log.String(), "the old one stays") == i+1 })
		expect("after a bad file", "globex", "Bearer re_of_globex")
		expect("after a bad file", "acme", "403 org_forbidden")
	}
}

// TestDrain: on SIGTERM what is in flight finishes, readiness goes, and the process ends with 0.
func TestDrain(t *testing.T) {
	t.Parallel()
	arrived, release := make(chan bool), make(chan bool)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived <- true
		<-release
		_, _ = io.WriteString(w, "BEARER FINISHED")
	}))
	defer srv.Close()
	s := serve(t, memdir.New(t), "--upstream", "api.resend.com="+srv.URL, "--min-drain", "500ms")
	s.must(`{"api_key":"re_1"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	got := make(chan string, 1)
	go func() {
		b, err := s.call(s.client("caller.sock"), "acme")
		got <- fmt.Sprint(b, err)
	}()
	<-arrived
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	admin := s.client("admin.sock")
	eventually(t, "not ready while draining", func() bool {
		resp, err := admin.Get("http://keyward/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusServiceUnavailable
	})
	close(release)
	if b := <-got; b != "Bearer finished<nil>" {
		t.Errorf("the request in flight got %s", b)
	}
	if err := <-s.done; err != nil {
		t.Errorf("it ended with %v", err)
	}
	s.done <- nil
	if _, err := os.Stat(filepath.Join(s.dir, "caller.sock")); !os.IsNotExist(err) {
		t.Error("the socket is still there")
	}
}

func TestConfigTest(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	for file, code := range map[string]int{"log_level: debug\n": 0, "log_level: loud\n": 2, "callers:\n- name: a\n": 2} {
		path := filepath.Join(dir, "c.yaml")
		write(t, path, file)
		err := program("serve", "--config-test", "--config", path).Run()
		var exit *exec.ExitError
		if errors.As(err, &exit); (exit == nil) != (code == 0) || exit != nil && exit.ExitCode() != code {
			t.Errorf("%q: %v, want %d", file, err, code)
		}
	}
	// What would be a warning at the start is one here, by the source that it is in.
	cmd := program("serve", "--config-test")
	cmd.Env = append(cmd.Env, "KEYWARD_LISSTEN=s3cret", "KEYWARD_CONFIG="+filepath.Join(dir, "c.yaml"))
	write(t, filepath.Join(dir, "c.yaml"), "log_level: debug\n")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "KEYWARD_LISSTEN: no such flag") || strings.Contains(string(out), "s3cret") {
		t.Errorf("%v: %s", err, out)
	}
	write(t, filepath.Join(dir, "c.yaml"), "upstream_ca: /nonexistent.pem\n")
	if out, err := program("serve", "--config-test", "--config", filepath.Join(dir, "c.yaml")).CombinedOutput(); err == nil || !strings.Contains(string(out), `c.yaml:1: upstream_ca "/nonexistent.pem": no such file`) {
		t.Errorf("%v: %s", err, out)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("a test of the configuration made %v", left)
	}
}

// TestTwoSidecarsOneStore: a change made at one is in force at the other within a second. It runs beside no other test.
func TestTwoSidecarsOneStore(t *testing.T) {
	args := append(sharedStore(t), "--upstream", "api.resend.com="+echo(t))
	a, b := serve(t, memdir.New(t), args...), serve(t, memdir.New(t), args...)
	c := b.client("caller.sock")
	var late []time.Duration
	for i := range 5 {
		secret := fmt.Sprintf("re_shared_%d", i)
		a.must(`{"api_key":"`+secret+`"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
		acknowledged := time.Now()
		for {
			got, err := b.call(c, "acme")
			if err != nil {
				t.Fatal(err)
			}
			took := time.Since(acknowledged)
			if got == "Bearer "+secret {
				if took > time.Second {
					late = append(late, took)
				}
				break
			}
			if took > time.Minute {
				t.Fatalf("a minute after change %d the other sidecar still uses %q", i, got)
			}
		}
	}
	if len(late) > 2 { // one may fall into a moment at which the machine stands still
		t.Errorf("changes that were in force at the other sidecar after more than a second: %v", late)
	}
}

func TestPostgresWithoutAKeyIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t, memdir.New(t), "KEYWARD_STORE="+pgtest.New(t))
	err := <-s.done
	s.done <- err
	if out := s.log.String(); s.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out, "keys generate") {
		t.Errorf("exit code %d: %s", s.cmd.ProcessState.ExitCode(), out)
	}
}

// TestAsTyped runs the commands of the reference as they stand there, over the unix socket and over TCP.
func TestAsTyped(t *testing.T) {
	typed(t)
	t.Parallel()
	listen := freeport.New(t)
	seen := make(chan *http.Request, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		seen <- r
	}))
	defer srv.Close()
	s := serve(t, memdir.New(t), "--listen", listen, "--upstream", "api.twilio.com="+srv.URL, "--webhook-target", "http://127.0.0.1:3000/hooks")
	const sid, token = "AC0123456789abcdef0123456789abcdef", "fedcba98765432100123456789abcdef"
	s.must(`{"account_sid":"`+sid+`","auth_token":"`+token+`"}`, "credentials", "set", "--org", "acme", "--provider", "twilio")
	var list struct {
		Items []struct {
			Provider string         `json:"provider"`
			Fields   map[string]any `json:"fields"`
		} `json:"items"`
		NextCursor *string `json:"next_cursor"`
	}
	out := s.must("", "credentials", "list", "--org", "acme", "--json")
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Items) != 1 || list.NextCursor == nil || strings.Contains(out, token[:8]) {
		t.Errorf("list: %s, %v", out, err)
	}
	s.must("", "assistants", "set", "asst_1", "--org", "acme", "--role", "inbound", "--name", "Front desk")
	caller := program("callers", "add", "--run-dir", s.dir, "--name", "worker", "--org", "acme", "--provider", "twilio")
	kwt, err := caller.Output()
	if err != nil || len(bytes.TrimSpace(kwt)) != 46 || !bytes.HasPrefix(kwt, []byte("kwt")) {
		t.Fatalf("callers add printed %q, %v", kwt, err)
	}
	check := func(curl ...string) {
		t.Helper()
		b, err := exec.Command("curl", append([]string{"-sS", "--fail"}, curl...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("curl %v: %v %s", curl, err, b)
		}
		r := <-seen
		if user, password, _ := r.BasicAuth(); r.URL.Path != "/2010-04-01/Accounts/"+sid+"/Messages.json" || user != sid || password != token || r.Form.Get("Body") != "hi" || r.Host != "api.twilio.com" {
			t.Errorf("the provider got %s %s as %s: %v", r.Host, r.URL, user, r.Form)
		}
		for name := range r.Header {
			if strings.HasPrefix(name, "Keyward") {
				t.Errorf("%s went to the provider", name)
			}
		}
	}
	form := []string{"-d", "To=+15550001", "-d", "From=+15550002", "-d", "Body=hi"}
	check(append(form, "--unix-socket", filepath.Join(s.dir, "caller.sock"), "-H", "Keyward-Org: acme", "http://api.twilio.com/2010-04-01/Accounts/AC00000000000000000000000000000000/Messages.json")...)
	check(append(form, "-H", "Keyward-Token: "+string(bytes.TrimSpace(kwt)), "http://"+listen+"/twilio/2010-04-01/Accounts/ACkeyward/Messages.json")...)
	if b, err := exec.Command("curl", "-sS", "--fail", "--unix-socket", filepath.Join(s.dir, "admin.sock"), "http://keyward/api/orgs/acme/integrations").CombinedOutput(); err != nil || !strings.Contains(string(b), `"twilio"`) || strings.Contains(string(b), token[:8]) {
		t.Errorf("integrations: %s, %v", b, err)
	}
}
