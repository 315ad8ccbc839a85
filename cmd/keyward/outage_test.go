package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/internal/pgtest"
)

// An outage is a PostgreSQL that can be stopped, with some orgs in it, and sidecars on it.
type outage struct {
	t    *testing.T
	pg   *pgtest.Server
	args []string
}

func newOutage(t *testing.T) *outage {
	pg := pgtest.Start(t)
	return &outage{t, pg, append(keysFor(t, pg.New(t)), "--upstream", "api.resend.com="+echo(t))}
}

func (o *outage) serve(dir string, args ...string) *served {
	o.t.Helper()
	return serve(o.t, dir, append(append([]string{}, o.args...), args...)...)
}

func (o *outage) set(s *served, org string) {
	o.t.Helper()
	s.must(`{"api_key":"re_of_`+org+`"}`, "credentials", "set", "--org", org, "--provider", "resend")
}

func kill(s *served) {
	_ = s.cmd.Process.Kill()
	s.done <- <-s.done
}

// noted waits until what the sidecar has heard by now is in the files of its last known good rows: it has gone round twice since.
func noted(s *served) {
	s.t.Helper()
	rounds := map[string]bool{}
	eventually(s.t, "the rows are confirmed", func() bool {
		_, stats := s.admin("GET", "/api/stats", "")
		kept, _ := stats["last_known_good"].(map[string]any)
		if at, is := kept["confirmed_at"].(string); is {
			rounds[at] = true
		}
		return len(rounds) > 2 // the first may be from before
	})
}

// TestLastKnownGood: killed and started while PostgreSQL is away, a sidecar serves every org, those too that it never called for; but not
// what it has heard was deleted or disabled.
func TestLastKnownGood(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	dir := memdir.New(t)
	file := filepath.Join(dir, "last.kw")
	s := o.serve(dir, "--last-known-good", file, "--cache-size", "2")
	for i := range 20 {
		o.set(s, fmt.Sprintf("org%d", i))
	}
	s.must("", "assistants", "set", "asst_1", "--org", "org3")
	token := regexp.MustCompile(`kwt[0-9A-Za-z]{43}`).FindString(s.must("", "callers", "add", "--name", "worker", "--org", "org4", "--provider", "resend"))
	s.must("", "credentials", "delete", "--org", "org7", "--provider", "resend")
	eventually(t, "the file is written", func() bool { _, err := os.Stat(file); return err == nil })
	text, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(text), "org3") || strings.Contains(string(text), "resend") {
		t.Errorf("the file tells who has what: %v", err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}

	setUp := func(more ...string) []string {
		return append(append([]string{"--run-dir", dir, "--last-known-good", file}, o.args...), more...)
	}
	finds(t, setUp(), "store", isOK, "answers", "")
	eventually(t, "all of it is in the file", func() bool {
		return slices.ContainsFunc(looksAt(t, setUp()), func(f finding) bool {
			return f.Name == "last known good" && f.Status == isOK && strings.Contains(f.Saw, " 19 credentials, 1 assistants, 1 tokens, as the store said")
		})
	})
	// What is deleted after the file was written, and heard of.
	s.must("", "credentials", "delete", "--org", "org8", "--provider", "resend")
	s.must("", "credentials", "disable", "--org", "org9", "--provider", "resend")
	noted(s)
	finds(t, append(setUp(), "--last-known-good", file+".no"), "last known good", isWarn, "not there yet", "nothing to do")
	o.pg.Stop(t)
	kill(s)
	finds(t, setUp(), "store", isWarn, "serve starts without it", "PostgreSQL runs")
	finds(t, setUp("--max-stale", "10ms"), "last known good", isWarn, "longer than --max-stale", "raise --max-stale")
	finds(t, setUp("--max-stale", "10ms"), "store", isFail, "store unavailable", "PostgreSQL runs")

	s = o.serve(dir, "--last-known-good", file)
	s.says("started with the rows that it last confirmed")
	c := s.client("caller.sock")
	for i := range 20 {
		want := fmt.Sprintf("Bearer re_of_org%d", i)
		got, err := s.call(c, fmt.Sprintf("org%d", i))
		switch i {
		case 7, 8, 9:
			if got != "503 store_unavailable" && got != "424 credential_inactive" {
				t.Errorf("org%d: %q, %v", i, got, err)
			}
		default:
			if got != want {
				t.Errorf("org%d: %q, %v", i, got, err)
			}
		}
	}
	ask := func(header, value string) int {
		req, _ := http.NewRequest("GET", "http://api.resend.com/domains", nil)
		req.Header.Set(header, value)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	if got := ask("Keyward-Assistant", "asst_1"); got != 200 {
		t.Errorf("by its assistant: %d", got)
	}
	if got := ask("Keyward-Token", token); got != 200 {
		t.Errorf("with a token: %d", got)
	}

	o.pg.Start(t)
	s.says("the store can be reached again")
	s.must(`{"api_key":"re_new"}`, "credentials", "set", "--org", "org1", "--provider", "resend")
	for org, want := range map[string]string{"org1": "Bearer re_new", "org8": "424 credential_missing"} {
		eventually(t, org+" is "+want+" after the outage", func() bool {
			got, _ := s.call(c, org)
			return got == want
		})
	}
}

// TestLastKnownGoodIsNotForEver: past --max-stale it is refused, another store's file and a damaged one are of no use.
func TestLastKnownGoodIsNotForEver(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	dir := memdir.New(t)
	file := filepath.Join(dir, "last.kw")
	s := o.serve(dir, "--last-known-good", file)
	o.set(s, "acme")
	eventually(t, "the file is written", func() bool { _, err := os.Stat(file); return err == nil })
	stop(t, s)
	stopped := time.Now() // nothing was confirmed after this
	o.pg.Stop(t)
	refused := func(why string) {
		t.Helper()
		s := start(t, dir, append(append([]string{}, o.args...), "--last-known-good", file)...)
		err := <-s.done
		s.done <- err
		if s.cmd.ProcessState.ExitCode() != exitFailed {
			t.Errorf("%s: exit code %d: %s", why, s.cmd.ProcessState.ExitCode(), s.log)
		}
	}
	confirmed, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte{}, good...)
	damaged[len(damaged)/2] ^= 1
	if err := os.WriteFile(file, damaged, 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a damaged file")
	if err := os.WriteFile(file, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(file, confirmed.ModTime(), confirmed.ModTime()); err != nil { // which says until when it is good
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	refused("a file that others may read")
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	most := time.Since(stopped).Round(time.Second) + 30*time.Second // the starts took their time
	s = serve(t, dir, append(append([]string{}, o.args...), "--last-known-good", file, "--max-stale", most.String())...)
	c := s.client("caller.sock")
	if got, err := s.call(c, "acme"); got != "Bearer re_of_acme" {
		t.Errorf("%q, %v", got, err)
	}
	time.Sleep(time.Until(stopped.Add(most + time.Second)))
	if got, err := s.call(c, "acme"); got != "503 store_unavailable" {
		t.Errorf("past --max-stale: %q, %v", got, err)
	}
}

// TestStrictOrgsFailClosed: with the store down, one org goes on and the strict one is refused, until it is not strict any more.
func TestStrictOrgsFailClosed(t *testing.T) {
	t.Parallel()
	o := newOutage(t)
	dir := memdir.New(t)
	config := filepath.Join(dir, "keyward.yaml")
	write(t, config, "strict_org: [bank]\n")
	s := o.serve(dir, "--config", config, "--last-known-good", filepath.Join(dir, "last.kw"))
	o.set(s, "acme")
	o.set(s, "bank")
	s.heard()
	c := s.client("caller.sock")
	for _, org := range []string{"acme", "bank"} {
		if got, err := s.call(c, org); got != "Bearer re_of_"+org {
			t.Errorf("%s: %q, %v", org, got, err)
		}
	}
	o.pg.Stop(t)
	eventually(t, "the bank is refused", func() bool { // what was confirmed within the last second may be used
		got, _ := s.call(c, "bank")
		return got == "503 store_unavailable"
	})
	if got, err := s.call(c, "acme"); got != "Bearer re_of_acme" {
		t.Errorf("acme: %q, %v", got, err)
	}
	write(t, config, "strict_org: [acme]\n")
	_ = s.cmd.Process.Signal(syscall.SIGHUP)
	eventually(t, "the file is read anew", func() bool {
		got, _ := s.call(c, "acme")
		return got == "503 store_unavailable"
	})
	if got, err := s.call(c, "bank"); got != "Bearer re_of_bank" {
		t.Errorf("bank, not strict any more: %q, %v", got, err)
	}
}
