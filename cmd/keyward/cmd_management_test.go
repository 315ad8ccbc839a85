package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/admin"
	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/internal/pgtest"
)

func TestAssistants(t *testing.T) {
	b := newRig(t)
	b.ok("", "assistants", "set", "asst_1", "--org", "acme", "--role", "inbound", "--name", "Front desk")
	b.ok("", "assistants", "set", "--org", "globex", "asst_2") // flags may stand in front
	if out := b.ok("", "assistants", "resolve", "asst_1"); out != "acme\n" {
		t.Errorf("resolve: %q", out)
	}
	var one map[string]any
	if err := json.Unmarshal([]byte(b.ok("", "assistants", "resolve", "--json", "asst_1")), &one); err != nil || one["name"] != "Front desk" || one["role"] != "inbound" {
		t.Errorf("%v %v", one, err)
	}
	if got := items(t, b.ok("", "assistants", "list", "--json")); len(got) != 2 {
		t.Errorf("%v", got)
	}
	if got := items(t, b.ok("", "assistants", "list", "--org", "globex", "--json")); len(got) != 1 || got[0]["id"] != "asst_2" {
		t.Errorf("%v", got)
	}
	if out := b.ok("", "assistants", "list"); !strings.Contains(out, "asst_1     acme    inbound  Front desk") {
		t.Errorf("%s", out)
	}
	b.ok("", "assistants", "delete", "asst_1")
	b.fails(exitNotFound, "no org is mapped", "", "assistants", "resolve", "asst_1")
	b.fails(exitNotFound, "no org is mapped", "", "assistants", "delete", "asst_1")
	b.fails(exitUsage, "--org is missing", "", "assistants", "set", "asst_1")
	b.fails(exitUsage, "ASSISTANT_ID", "", "assistants", "set", "--org", "acme")
	b.fails(exitUsage, "malformed", "", "assistants", "set", "a b", "--org", "acme")
}

func TestCallersAddPrintsTheTokenAlone(t *testing.T) {
	b := newRig(t)
	r := b.run("", "callers", "add", "--name", "worker", "--org", "acme", "--provider", "twilio")
	token := strings.TrimSuffix(r.out, "\n")
	if r.code != 0 || !caller.IsToken([]byte(token)) || strings.Contains(r.err, token) {
		t.Fatalf("%+v", r)
	}
	row, err := b.db.Token(t.Context(), caller.HashToken([]byte(token)))
	if err != nil || fmt.Sprintln(row.Name, row.Orgs, row.Providers) != "worker [acme] [twilio]\n" {
		t.Errorf("%+v %v", row, err)
	}
	b.fails(exitRefused, "name", "", "callers", "add", "--name", "worker", "--org", "acme")
	b.ok("", "callers", "add", "--name", "sms", "--org", "acme", "--org", "globex", "--allow", "POST /2010-04-01/Accounts/*/Messages.json", "--rate", "50/s burst 200", "--json")
	got := items(t, b.ok("", "callers", "list", "--json"))
	if len(got) != 2 || strings.Contains(fmt.Sprint(got), token[3:10]) {
		t.Errorf("%v", got)
	}
	b.ok("", "callers", "revoke", "worker")
	b.ok("", "callers", "revoke", idOf(t, got, "sms"))
	b.fails(exitNotFound, "no caller", "", "callers", "revoke", "worker")
	b.fails(exitUsage, "--org is missing", "", "callers", "add", "--name", "x")
	b.fails(exitUsage, "--name is missing", "", "callers", "add", "--org", "acme")
	b.fails(exitUsage, "providers", "", "callers", "add", "--name", "x", "--org", "acme", "--provider", "nosuch")
	b.fails(exitUsage, "rate", "", "callers", "add", "--name", "x", "--org", "acme", "--rate", "fast")
	b.fails(exitUsage, "ID_OR_NAME", "", "callers", "revoke")
	b.fails(exitUsage, "ID_OR_NAME is empty", "", "callers", "revoke", "")
}

// A name is what its maker likes, and no part of the path that it is sent in.
func TestNamesThatReadLikePaths(t *testing.T) {
	b := newRig(t)
	for _, name := range []string{"a/b", "a//b", "a/../b", "..", ".", "//", "%2e", "a?b#c", "ü"} {
		for _, what := range []string{"callers", "admin-tokens"} {
			b.ok("", what, "add", "--name", name, "--org", "acme")
			b.ok("", what, "revoke", name)
			b.fails(exitNotFound, "of that id or name", "", what, "revoke", name)
		}
	}
	for _, org := range []string{"..", ".", "a/b", "a//b"} {
		b.fails(exitUsage, "org is malformed", "", "credentials", "list", "--org", org)
		b.fails(exitUsage, "org is malformed", "", "credentials", "delete", "--org", org, "--provider", "twilio")
	}
	b.fails(exitUsage, "ASSISTANT_ID is empty", "", "assistants", "resolve", "")
	b.fails(exitUsage, "DELIVERY_ID is empty", "", "webhooks", "redeliver", "")
}

// A script's variable that is not set is no wish to retire them all.
func TestRetiringNoKeyInParticular(t *testing.T) {
	isFailure(t, runCommand("", "keys", "retire", "--data-dir", t.TempDir(), ""), exitUsage, "KEY_ID is empty")
}

func idOf(t *testing.T, rows []map[string]any, name string) string {
	t.Helper()
	for _, r := range rows {
		if r["name"] == name {
			return r["id"].(string)
		}
	}
	t.Fatalf("no %s in %v", name, rows)
	return ""
}

func TestAuditIsNewestLast(t *testing.T) {
	b := newRig(t)
	for _, id := range []string{"asst_1", "asst_2", "asst_3"} {
		b.ok("", "assistants", "set", id, "--org", "acme")
	}
	b.ok("", "assistants", "set", "asst_4", "--org", "globex")
	lines := strings.Split(strings.TrimSpace(b.ok("", "audit", "--org", "acme", "--limit", "2")), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "asst_2") || !strings.Contains(lines[1], "asst_3") || !strings.Contains(lines[1], "uid ") {
		t.Errorf("%q", lines)
	}
	got := items(t, b.ok("", "audit", "--json"))
	if len(got) != 4 || got[3]["target"] != "asst_4" || got[3]["action"] != "assistant.put" || got[3]["from"] != "admin socket" {
		t.Errorf("%v", got)
	}
	b.fails(exitUsage, "--limit", "", "audit", "--limit", "5000")
}

func TestAuditFollows(t *testing.T) {
	b := newRig(t)
	b.ok("", "assistants", "set", "asst_1", "--org", "acme")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var out, errs syncBuffer
	done := make(chan int)
	go func() {
		done <- execute(ctx, []string{"audit", "--follow", "--json", "--org", "acme", "--run-dir", b.dir}, stdio{strings.NewReader(""), &out, &errs})
	}()
	until(t, func() bool { return strings.Contains(out.String(), "asst_1") })
	b.ok("", "assistants", "set", "asst_other", "--org", "globex")
	b.ok("", "assistants", "set", "asst_2", "--org", "acme")
	until(t, func() bool { return strings.Contains(out.String(), "asst_2") })
	stop()
	if code := <-done; code != 0 || errs.String() != "" {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !json.Valid([]byte(lines[0])) || !json.Valid([]byte(lines[1])) || strings.Contains(out.String(), "asst_other") {
		t.Errorf("%q", lines)
	}
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen within a minute")
		}
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	var ready atomic.Bool
	b := newRig(t, admin.Check{Name: "store", Run: func(context.Context) error {
		if !ready.Load() {
			return errors.New("still opening")
		}
		return nil
	}})
	b.fails(exitFailed, "still opening", "", "wait", "--max", "2s")
	b.ok("", "wait", "--alive", "--max", "1m") // ready or not
	isFailure(t, runCommand("", "wait", "--alive", "--run-dir", t.TempDir(), "--max", "2s"), exitFailed, "no sidecar")
	time.AfterFunc(300*time.Millisecond, func() { ready.Store(true) })
	if out := b.ok("", "wait", "--max", "1m"); out != "" {
		t.Errorf("%q", out)
	}
	isFailure(t, runCommand("", "wait", "--run-dir", t.TempDir(), "--max", "2s"), exitFailed, "not ready after 2s: no sidecar")
	b.fails(exitUsage, "--max", "", "wait", "--max", "soon")
	b.fails(exitUsage, "--max 0s: must be more than 0s", "", "wait", "--max", "0")
}

func TestKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	isFailure(t, runCommand("", "keys", "list", "--data-dir", dir), exitNotFound, "keys generate")
	made := runCommand("", "keys", "generate", "--data-dir", dir)
	file := filepath.Join(dir, "keys.json")
	before, err := os.ReadFile(file)
	if made.code != 0 || err != nil {
		t.Fatalf("%+v %v", made, err)
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o", info.Mode().Perm())
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("mode of the folder %04o", info.Mode().Perm())
	}
	isFailure(t, runCommand("", "keys", "generate", "--data-dir", dir), exitRefused, "it exists")
	if after, _ := os.ReadFile(file); string(after) != string(before) {
		t.Error("the key was overwritten")
	}
	got := items(t, runCommand("", "keys", "list", "--json", "--key", "file:"+file).out)
	if len(got) != 1 || got[0]["state"] != "primary" || !strings.Contains(made.out, got[0]["id"].(string)) {
		t.Errorf("%v, made %q", got, made.out)
	}
	isFailure(t, runCommand("", "keys", "generate", "--key", "env:KEYWARD_TEST_KEY"), exitUsage, "into a file only")
	isFailure(t, runCommand("", "keys", "list", "--key", "0123456789abcdef"), exitUsage, "never the key itself")
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	isFailure(t, runCommand("", "keys", "list", "--data-dir", dir), exitFailed, "chmod 600")
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		testMigrate(t, "--data-dir", filepath.Join(t.TempDir(), "data"))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		testMigrate(t, "--store", pgtest.New(t))
	})
}

func testMigrate(t *testing.T, where ...string) {
	run := func(args ...string) string {
		t.Helper()
		r := runCommand("", append(args, where...)...)
		if r.code != 0 {
			t.Fatalf("%v: %+v", args, r)
		}
		return r.out
	}
	if out := run("migrate", "status"); !strings.Contains(out, "migrate up brings it up to date") {
		t.Errorf("%s", out)
	}
	if out := run("migrate"); !strings.Contains(out, "is now at version") {
		t.Errorf("%s", out)
	}
	if out := run("migrate", "up"); !strings.Contains(out, "is up to date") {
		t.Errorf("%s", out)
	}
	var status struct {
		Items           []map[string]any
		Current, Latest int64
	}
	if err := json.Unmarshal([]byte(run("migrate", "status", "--json")), &status); err != nil || status.Current != status.Latest || len(status.Items) == 0 || status.Items[0]["applied_at"] == nil {
		t.Errorf("%+v %v", status, err)
	}
	isFailure(t, runCommand("", append([]string{"migrate", "down"}, where...)...), exitUsage, "--yes")
	for range status.Items {
		run("migrate", "down", "--yes")
	}
	if out := run("migrate", "down", "--yes"); !strings.Contains(out, "no schema") {
		t.Errorf("%s", out)
	}
	if out := run("migrate", "up"); !strings.Contains(out, "is now at version") {
		t.Errorf("%s", out)
	}
}

func TestMigrateRefuses(t *testing.T) {
	isFailure(t, runCommand("", "migrate", "up", "--store", "mysql://x"), exitUsage, "--store")
	isFailure(t, runCommand("", "migrate", "sideways"), exitUsage, "migrate --help")
}

func TestVersion(t *testing.T) {
	if r := runCommand("", "version"); r.code != 0 || !strings.HasPrefix(r.out, "keyward ") || !strings.Contains(r.out, "go1.") {
		t.Errorf("%+v", r)
	}
	var b build
	if err := json.Unmarshal([]byte(runCommand("", "version", "--json").out), &b); err != nil || b.Version == "" || b.Go == "" {
		t.Errorf("%+v %v", b, err)
	}
	if r := runCommand("", "--version"); r.code != 0 || !strings.HasPrefix(r.out, "keyward ") {
		t.Errorf("%+v", r)
	}
}

// The table of exit codes, for what the tests above cannot bring about.
func TestExitCodes(t *testing.T) {
	is := func(want int, err error) {
		t.Helper()
		if got := exitCode(err); got != want {
			t.Errorf("%v: exit code %d, want %d", err, got, want)
		}
	}
	is(exitFailed, errors.New("disk full"))
	is(exitUsage, fmt.Errorf("wrapped: %w", usagef("bad flag")))
	is(exitRefused, &admin.Problem{Status: 403})
	is(exitRefused, &admin.Problem{Status: 401})
	is(exitRefused, &admin.Problem{Status: 412})
	is(exitNotFound, &admin.Problem{Status: 404})
	is(exitUsage, &admin.Problem{Status: 413})
	is(exitFailed, &admin.Problem{Status: 503})
	is(exitFailed, &admin.Problem{Status: 501})
}
