package main

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/provider"
)

const (
	canaryPassword = "pw-canary-0123456789"
	canarySecret   = "re_canary_0123456789abcdef"
)

// A patientCase is a set-up for the doctor: everything well, until a test breaks something.
type patientCase struct {
	t    *testing.T
	dir  string
	args []string // what serve and doctor take alike
}

// newPatient has a TLS stand-in for every host that is asked, an app that takes webhooks, and free ports.
func newPatient(t *testing.T) *patientCase {
	t.Helper()
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	upstream.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that the doctor breaks off
	upstream.StartTLS()
	t.Cleanup(upstream.Close)
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(app.Close)
	ca := writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: upstream.Certificate().Raw})))
	dir := memdir.New(t)
	p := &patientCase{t: t, dir: dir, args: []string{
		"--data-dir", filepath.Join(dir, "data"), "--run-dir", dir, "--max-conns", "100", "--upstream-ca", ca,
		"--listen", freeport.New(t), "--webhook-listen", freeport.New(t), "--admin-listen", freeport.New(t), "--webhook-target", app.URL + "/hooks",
	}}
	for _, pr := range provider.All {
		for _, host := range (&doctor{c: &Config{}}).hostsOf(pr) {
			p.args = append(p.args, "--upstream", host+"="+upstream.URL)
		}
	}
	return p
}

// set replaces the value of a flag.
func (p *patientCase) set(flag, value string) {
	if i := slices.Index(p.args, flag); i >= 0 {
		p.args[i+1] = value
		return
	}
	p.args = append(p.args, flag, value)
}

// serve starts a sidecar of this set-up, with a credential in it.
func (p *patientCase) serve() *served {
	p.t.Helper()
	s := serve(p.t, p.dir, p.args...)
	s.must(`{"api_key":"`+canarySecret+`"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	return s
}

// doctor asks for findings as JSON, and looks for the canaries in both forms of the output.
func (p *patientCase) doctor(env ...string) (findings []finding, code int) {
	p.t.Helper()
	var out, errs strings.Builder
	cmd := program(append(append(env, "doctor", "--json"), p.args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	begun := time.Now()
	code = exitOf(p.t, cmd.Run())
	if took := time.Since(begun); took > time.Minute {
		p.t.Errorf("took %s", took)
	}
	var answer struct{ Checks []finding }
	if err := json.Unmarshal([]byte(out.String()), &answer); err != nil || len(answer.Checks) == 0 {
		p.t.Fatalf("%v: %s%s", err, out.String(), errs.String())
	}
	for _, f := range answer.Checks {
		if f.Name == "" || f.Saw == "" || !slices.Contains([]string{isOK, isWarn, isFail}, f.Status) || (f.Mend == "") != (f.Status == isOK) || strings.Contains(f.Saw+f.Mend, "\n") {
			p.t.Errorf("half a finding: %+v", f)
		}
	}
	for _, secret := range append(p.keys(), canaryPassword, canarySecret) {
		if strings.Contains(out.String()+errs.String(), secret) {
			p.t.Errorf("prints a secret:\n%s%s", out.String(), errs.String())
		}
	}
	failed := slices.ContainsFunc(answer.Checks, func(f finding) bool { return f.Status == isFail })
	if want := map[bool]int{true: exitFailed, false: exitDone}[failed]; code != want {
		p.t.Errorf("exit code %d, want %d: %+v", code, want, answer.Checks)
	}
	return answer.Checks, code
}

// keys are the keys in the key file.
func (p *patientCase) keys() []string {
	b, _ := os.ReadFile(filepath.Join(p.dir, "data", "keys.json"))
	var file struct{ Keys []struct{ Key string } }
	_ = json.Unmarshal(b, &file)
	var all []string
	for _, k := range file.Keys {
		if k.Key != "" {
			all = append(all, k.Key)
		}
	}
	return all
}

// names fails the test unless one check of that name has that status, saw the one and says the other.
func (p *patientCase) names(name, status, saw, mend string, env ...string) {
	p.t.Helper()
	contains(p.t, func() []finding { findings, _ := p.doctor(env...); return findings }, name, status, saw, mend)
}

// contains asks up to three times: of a busy machine the doctor may hear nothing in time.
func contains(t *testing.T, ask func() []finding, name, status, saw, mend string) {
	t.Helper()
	var findings []finding
	for range 3 {
		findings = ask()
		if slices.ContainsFunc(findings, func(f finding) bool {
			return f.Name == name && f.Status == status && strings.Contains(f.Saw, saw) && strings.Contains(f.Mend, mend)
		}) {
			return
		}
	}
	t.Errorf("no %s %q with %q and %q in %+v", status, name, saw, mend, findings)
}

func exitOf(t *testing.T, err error) int {
	t.Helper()
	if err == nil {
		return 0
	}
	exit, is := err.(*exec.ExitError) //nolint:errorlint // Run returns it as it is
	if !is {
		t.Fatal(err)
	}
	return exit.ExitCode()
}

// blackHole is an address that takes connections and never says a word.
func blackHole(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
		}
	}()
	return l.Addr().String()
}

// finds asks the doctor about a set-up of any test's: flags, and variables as start takes them.
func finds(t *testing.T, args []string, name, status, saw, mend string) {
	t.Helper()
	contains(t, func() []finding { return looksAt(t, args) }, name, status, saw, mend)
}

// looksAt are the doctor's findings about such a set-up.
func looksAt(t *testing.T, args []string) []finding {
	t.Helper()
	var out, errs strings.Builder
	cmd := program(append([]string{"doctor", "--json", "--skip-upstreams", "--listen", "", "--webhook-listen", "", "--admin-listen", ""}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // its code is about all findings
	var answer struct{ Checks []finding }
	if err := json.Unmarshal([]byte(out.String()), &answer); err != nil {
		t.Fatalf("%v: %s%s", err, out.String(), errs.String())
	}
	return answer.Checks
}
