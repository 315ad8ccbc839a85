package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/admin"
	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/internal/storetest"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// A rig is a run folder with the admin API of a sidecar in it, over a real store, for the management commands.
type rig struct {
	t   *testing.T
	dir string // the run folder
	db  *store.DB

	answer *provider.Reply // of every provider; nil: none
}

func newRig(t *testing.T, checks ...admin.Check) *rig {
	t.Helper()
	dir, err := os.MkdirTemp("", "kw") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	db, err := store.Open(t.Context(), storetest.SQLite(t), store.Options{Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	b := &rig{t: t, dir: dir, db: db}
	keeper := &credential.Keeper{DB: db, Keys: seal.Generate()}
	api := admin.New(admin.Options{
		DB: db, Keeper: keeper, Log: zerolog.Nop(), UID: ownUID(), Checks: checks,
		Verifier: credential.NewVerifier(credential.VerifierOptions{Keeper: keeper, Ask: b.ask}),
	}).Server()
	go func() { _ = api.Serve(l) }()
	t.Cleanup(func() { _ = api.Close() })
	return b
}

// ask answers in the place of the providers, as the test says.
func (b *rig) ask(_ context.Context, q *provider.Question) (provider.Reply, error) {
	q.Wipe()
	if b.answer == nil {
		return provider.Reply{}, &provider.NoAnswerError{Code: "upstream_unreachable", Detail: "nobody is there"}
	}
	return provider.Reply{Status: b.answer.Status, Body: bytes.Clone(b.answer.Body)}, nil // the asker overwrites it
}

// syncBuffer can be read while a command writes.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}
func (s *syncBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

// A result is what a command did.
type result struct {
	code     int
	out, err string
}

// run runs a command as typed, without the program's name; --run-dir is added for those that need it.
func (b *rig) run(stdin string, args ...string) result {
	b.t.Helper()
	sent.Learn(stdin)
	r := runCommand(stdin, append(args, "--run-dir", b.dir)...)
	printsNoSecret(b.t, args, r.out+r.err)
	return r
}

func runCommand(stdin string, args ...string) result {
	var out, errs syncBuffer
	code := execute(context.Background(), args, stdio{strings.NewReader(stdin), &out, &errs})
	return result{code, out.String(), errs.String()}
}

// ok runs and fails the test unless the exit code is 0; it returns stdout.
func (b *rig) ok(stdin string, args ...string) string {
	b.t.Helper()
	r := b.run(stdin, args...)
	if r.code != exitDone {
		b.t.Fatalf("%v: exit code %d: %s", args, r.code, r.err)
	}
	return r.out
}

// fails runs and fails the test unless the command ends with the code, one line on stderr that holds the words, and nothing on stdout.
func (b *rig) fails(code int, words, stdin string, args ...string) {
	b.t.Helper()
	isFailure(b.t, b.run(stdin, args...), code, words)
}

func isFailure(t *testing.T, r result, code int, words string) {
	t.Helper()
	if r.code != code || !strings.Contains(r.err, words) || strings.Count(r.err, "\n") != 1 || r.out != "" {
		t.Errorf("exit code %d, stdout %q, stderr %q; want %d and %q", r.code, r.out, r.err, code, words)
	}
}

// items reads a listing printed with --json.
func items(t *testing.T, out string) []map[string]any {
	t.Helper()
	var l struct {
		Items      []map[string]any `json:"items"`
		NextCursor *string          `json:"next_cursor"`
	}
	if err := json.Unmarshal([]byte(out), &l); err != nil || l.Items == nil || l.NextCursor == nil || *l.NextCursor != "" {
		t.Fatalf("not a listing: %v: %s", err, out)
	}
	return l.Items
}

func TestEveryCommandsHelpShowsAnExample(t *testing.T) {
	for _, c := range commands() {
		if c.name == "serve" {
			continue // it prints its own; a script looks at it
		}
		r := runCommand("", append(strings.Fields(c.name), "--help")...)
		if r.code != 0 || r.err != "" || !strings.Contains(r.out, "Example:\n") || !strings.Contains(r.out, "keyward "+c.name) {
			t.Errorf("%s --help: exit code %d, stderr %q, stdout %s", c.name, r.code, r.err, r.out)
		}
	}
}

func TestUnknownCommands(t *testing.T) {
	isFailure(t, runCommand("", "kredentials", "list"), exitUsage, `"kredentials" is no command; did you mean keyward credentials?`)
	isFailure(t, runCommand("", "stats"), exitUsage, `"stats" is no command; keyward --help lists them`)
	isFailure(t, runCommand("", "credentials", "lsit"), exitUsage, "keyward credentials --help")
	for _, args := range [][]string{{}, {"credentials"}} {
		if r := runCommand("", args...); r.code != exitUsage || !strings.Contains(r.err, "credentials list") || r.out != "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	for _, args := range [][]string{{"--help"}, {"help"}, {"credentials", "--help"}} {
		if r := runCommand("", args...); r.code != exitDone || !strings.Contains(r.out, "credentials list") || r.err != "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

func TestNoSidecarIsSaidPlainly(t *testing.T) {
	dir, err := os.MkdirTemp("", "kw") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	isFailure(t, runCommand("", "callers", "list", "--run-dir", dir), exitFailed, "no sidecar at "+filepath.Join(dir, "admin.sock"))
	isFailure(t, runCommand("", "callers", "list", "--admin-socket", filepath.Join(dir, strings.Repeat("x", 120))), exitUsage, "too long")
	dead := filepath.Join(dir, "dead.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	isFailure(t, runCommand("", "callers", "list", "--admin-socket", dead), exitFailed, "is gone")
}
