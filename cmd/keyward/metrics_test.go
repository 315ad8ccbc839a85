package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyward/keyward/internal/memdir"
)

// The names under callers: show in the metrics, with what their requests were answered, and go on counting when the file is read anew.
func TestCallersOfTheFileAreCounted(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	file := filepath.Join(dir, "c.yaml")
	rules := fmt.Sprintf("callers:\n- {name: 'the \"api\"', unix: {uid: %d}, orgs: [acme]}\n- {name: never, unix: {uid: 1}, orgs: [acme]}\n", os.Getuid())
	write(t, file, rules)
	s := serve(t, dir, "--config", file, "--upstream", "api.resend.com="+echo(t))
	s.must(`{"api_key":"re_of_acme"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	c := s.client("caller.sock")
	counts := func(when, want string) {
		t.Helper()
		eventually(t, when+": "+want, func() bool {
			resp, err := s.client("admin.sock").Get("http://keyward/metrics")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			text, _ := io.ReadAll(resp.Body)
			return strings.Contains(string(text), "\nkeyward_caller_requests_total{caller="+want+"\n")
		})
	}
	_, _ = s.call(c, "acme")
	_, _ = s.call(c, "globex") // 403
	counts("at first", `"the \"api\"",status_class="2xx"} 1`)
	counts("at first", `"the \"api\"",status_class="4xx"} 1`)
	counts("at first", `"never",status_class="2xx"} 0`)
	write(t, file, strings.Replace(rules, "orgs: [acme]}", "orgs: [acme, globex]}", 1))
	_ = s.cmd.Process.Signal(syscall.SIGHUP)
	s.says("configuration read anew")
	_, _ = s.call(c, "acme")
	counts("after a reload", `"the \"api\"",status_class="2xx"} 2`)
}
