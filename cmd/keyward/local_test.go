package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/internal/pgtest"
)

// TestLocalSwitchWorksWithTheStoreDown: a credential that leaked is out of use in this sidecar at once, over a restart too, while nobody can
// tell the store.
func TestLocalSwitchWorksWithTheStoreDown(t *testing.T) {
	t.Parallel()
	pg := pgtest.Start(t)
	dir := memdir.New(t)
	args := append(keysFor(t, pg.New(t)), "--upstream", "api.resend.com="+echo(t))
	s := serve(t, dir, args...)
	for _, org := range []string{"acme", "globex"} {
		s.must(`{"api_key":"re_of_`+org+`"}`, "credentials", "set", "--org", org, "--provider", "resend")
	}
	s.heard()
	c := s.client("caller.sock")
	gets := func(org, want string) {
		t.Helper()
		if got, err := s.call(c, org); got != want {
			t.Errorf("%s: %q, %v, want %q", org, got, err, want)
		}
	}
	gets("acme", "Bearer re_of_acme")
	gets("globex", "Bearer re_of_globex")
	if out := s.must("", "credentials", "disable", "--local", "--org", "globex", "--provider", "resend"); strings.Contains(out, "cannot be reached") {
		t.Error(out)
	}
	if out := s.must("", "audit", "--org", "globex", "--json"); !strings.Contains(out, "credential.disable-local") {
		t.Errorf("the audit log: %s", out)
	}
	pg.Stop(t)
	gets("acme", "Bearer re_of_acme")
	if out := s.must("", "credentials", "disable", "--local", "--org", "acme", "--provider", "resend"); !strings.Contains(out, "acme resend is disabled in this sidecar") ||
		!strings.Contains(out, "The store cannot be reached now") {
		t.Error(out)
	}
	gets("acme", "424 credential_inactive")
	gets("globex", "424 credential_inactive")
	if out := s.must("", "credentials", "list", "--local", "--json"); len(items(t, out)) != 2 {
		t.Error(out)
	}
	pg.Start(t)
	stop(t, s)
	s = serve(t, dir, args...)
	c = s.client("caller.sock")
	gets("acme", "424 credential_inactive")
	s.must("", "credentials", "enable", "--local", "--org", "acme", "--provider", "resend")
	gets("acme", "Bearer re_of_acme")
	gets("globex", "424 credential_inactive")
	other := serve(t, memdir.New(t), args...)
	if got, err := other.call(other.client("caller.sock"), "globex"); got != "Bearer re_of_globex" {
		t.Errorf("another sidecar: %q, %v", got, err)
	}
	if out, code := s.run("", "credentials", "disable", "--local", "--org", "acme", "--provider", "nobody"); code != exitNotFound {
		t.Errorf("exit code %d: %s", code, out)
	}

	stop(t, s)
	if err := os.WriteFile(filepath.Join(dir, localName), []byte(`[{"org":"acme"`), 0o600); err != nil {
		t.Fatal(err)
	}
	s = start(t, dir, args...)
	err := <-s.done
	s.done <- err
	if out := s.log.String(); s.cmd.ProcessState.ExitCode() != exitFailed || !strings.Contains(out, "mend the file") {
		t.Errorf("a file that cannot be read: exit code %d: %s", s.cmd.ProcessState.ExitCode(), out)
	}
}
