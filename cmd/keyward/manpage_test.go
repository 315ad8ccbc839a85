package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func manualPage(t *testing.T) string {
	t.Helper()
	r := runCommand("", "help", "--man")
	if r.code != exitDone || r.err != "" {
		t.Fatalf("%+v", r)
	}
	return r.out
}

func hasFlag(page, name string) bool {
	return strings.Contains(page, "\n.B --"+name+"\n") || strings.Contains(page, "\n.BI \"--"+name+" \" ")
}

func TestManualNamesEveryCommandAndFlag(t *testing.T) {
	page := strings.ReplaceAll(manualPage(t), `\-`, "-")
	for _, c := range commands() {
		if !strings.Contains(page, "\n.SS keyward "+c.name) {
			t.Errorf("no %s", c.name)
		}
	}
	newServeFlags(&Config{}).VisitAll(func(f *pflag.Flag) {
		if !hasFlag(page, f.Name) {
			t.Errorf("no --%s", f.Name)
		}
	})
	for _, f := range []string{"secret-routes", "retire-after", "skip-upstreams", "legacy-key", "force", "type"} { // of other commands
		if !hasFlag(page, f) {
			t.Errorf("no --%s", f)
		}
	}
	for _, word := range []string{"callers[].allow", "webhooks[].target", "KEYWARD_FOO_BAR", ".SH EXIT STATUS", "SIGHUP"} {
		if !strings.Contains(page, word) {
			t.Errorf("nothing of %s", word)
		}
	}
	if page != strings.ReplaceAll(manualPage(t), `\-`, "-") {
		t.Error("two pages differ")
	}
}

// The contract's commands and main flags of serve are there by these names; one that goes must be missed here.
func TestManualHoldsTheContract(t *testing.T) {
	page := strings.ReplaceAll(manualPage(t), `\-`, "-")
	for command, words := range map[string]string{
		"migrate": "up down status", "keys": "generate list add rotate retire", "credentials": "set list show verify disable delete",
		"assistants": "set list resolve ensure delete", "callers": "add list revoke", "admin-tokens": "add list revoke",
		"webhooks": "list show redeliver test", "ca": "print show env rotate", "": "serve import audit top doctor wait completion version",
	} {
		for _, word := range strings.Fields(words) {
			if name := strings.TrimSpace(command + " " + word); !strings.Contains(page, "\n.SS keyward "+name) {
				t.Errorf("no %s", name)
			}
		}
	}
	for _, f := range strings.Fields("dev config config-test data-dir run-dir socket socket-mode socket-group listen webhook-listen public-url webhook-target " +
		"admin-socket admin-listen store key cache-size cache-ttl max-stale upstream upstream-ca intercept log-level log-format otlp-endpoint drain-timeout " +
		"min-drain auto-migrate migrate-url allow-remote max-head max-body head-timeout idle-timeout first-byte-timeout max-conns webhook-max-body " +
		"webhook-attempts webhook-backoff webhook-backoff-max") {
		if !hasFlag(page, f) {
			t.Errorf("no --%s", f)
		}
	}
}

// What reads manuals finds nothing to say about the page.
func TestManualIsWellFormed(t *testing.T) {
	page := writeFile(t, "keyward.1", manualPage(t))
	for _, tc := range [][]string{
		{"mandoc", "-T", "lint", "-W", "warning", page},
		{"groff", "-man", "-ww", "-z", "-T", "utf8", page},
	} {
		if _, err := exec.LookPath(tc[0]); err != nil {
			if os.Getenv("CI") != "" && tc[0] == "mandoc" {
				t.Fatal("mandoc is not installed: tools/testdeps.sh installs it")
			}
			t.Logf("%s IS NOT INSTALLED: it did not read the manual", tc[0])
			continue
		}
		if out, err := exec.Command(tc[0], tc[1:]...).CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%v: %v\n%.3000s", tc[0], err, out)
		}
	}
}
