package keyward_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/standin"
)

// The commands that a newcomer pastes first work as typed: against the built program, with stand-ins in the providers' place and free
// ports in the place of the usual ones.
func TestDocumentsRunAsTyped(t *testing.T) {
	for _, doc := range []string{"README.md", "docs/getting-started.md", "docs/minted-tokens.md"} {
		t.Run(filepath.Base(doc), func(t *testing.T) { runDocument(t, doc, folder(t)) })
	}
}

// So do those that the program itself prints for a first try.
func TestPrintedCommandsRunAsTyped(t *testing.T) {
	dir := folder(t)
	listen, admin := freeAddress(t), freeAddress(t)
	out := background(t, dir, os.Environ(), "bin/keyward serve --dev --listen "+listen+" --admin-listen "+admin)
	const last = "Ctrl-C ends it"
	for end := time.Now().Add(20 * time.Second); !strings.Contains(out.String(), last); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never printed %q", last)
		}
	}
	commands := regexp.MustCompile(`(?m)^(curl|\S*bin/keyward) .*$`).FindAllString(out.String(), -1)
	if len(commands) < 5 {
		t.Fatalf("it printed only %q", commands)
	}
	for _, c := range commands {
		cmd := exec.Command("bash", "-c", strictShell+c)
		cmd.Dir = dir
		printed, err := cmd.CombinedOutput()
		if err != nil || len(bytes.TrimSpace(printed)) == 0 {
			t.Errorf("%s\n%v\n%s", c, err, printed)
		}
	}
}

// The console of a first try needs no log-in, and shows what was made up.
func TestConsoleOfAFirstTryIsOpen(t *testing.T) {
	dir := folder(t)
	admin := freeAddress(t)
	out := background(t, dir, os.Environ(), "bin/keyward serve --dev --listen= --webhook-listen= --admin-listen "+admin)
	for end := time.Now().Add(20 * time.Second); !strings.Contains(out.String(), "http://"+admin+"/\n"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never printed where the console is")
		}
	}
	page, err := exec.Command("curl", "-sS", "--fail", "--max-time", "20", "http://"+admin+"/").CombinedOutput()
	if err != nil || !bytes.Contains(page, []byte(`href="/orgs/demo"`)) {
		t.Errorf("%v\n%s", err, page)
	}
	if api, err := exec.Command("curl", "-sS", "--fail", "--max-time", "20", "http://"+admin+"/api/orgs").CombinedOutput(); err == nil {
		t.Errorf("the API is open too: %s", api)
	}
}

// built is the program, built once for these tests in builtIn.
var (
	builtIn string
	built   = sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "kwbin")
		if err != nil {
			return "", err
		}
		builtIn = dir
		bin := filepath.Join(dir, "keyward")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", bin, "./cmd/keyward")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building the program: %w\n%s", err, out)
		}
		return bin, nil
	})
)

func TestMain(m *testing.M) {
	m.Run()
	if builtIn != "" {
		_ = os.RemoveAll(builtIn)
	}
}

// folder is an empty one with bin/keyward in it, as after make build. Its name is short: a socket's path has at most 107 bytes.
func folder(t *testing.T) string {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(bin, filepath.Join(dir, "bin", "keyward")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// strictShell makes a block fail at its first error, an HTTP answer that is one included; what is typed is plain curl.
const strictShell = "set -euo pipefail\n" + `curl() { command curl -sS --fail-with-body --max-time 20 "$@"; }` + "\n"

// madeUp are the credentials that the documents give to org acme.
var madeUp = []standin.Credential{
	{Label: "acme", Provider: standin.Twilio, Fields: map[string]string{
		"account_sid": "AC0123456789abcdef0123456789abcdef", "auth_token": "fedcba9876543210fedcba9876543210",
	}},
	{Label: "acme", Provider: standin.Vapi, Fields: map[string]string{"api_key": "5f0c9d2e-4b1a-4c7d-8e3f-0123456789ab"}},
}

func runDocument(t *testing.T, doc, dir string) {
	providers := standin.New(standin.Options{})
	providers.Expect(madeUp...)
	hosts, err := providers.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = providers.Close() })
	var upstreams []string
	for host, url := range hosts {
		upstreams = append(upstreams, host+"="+url)
	}
	env := append(os.Environ(), "KEYWARD_UPSTREAM="+strings.Join(upstreams, ","))
	var pairs []string
	for flag, usual := range map[string]string{"LISTEN": "127.0.0.1:7450", "WEBHOOK_LISTEN": "127.0.0.1:7451", "ADMIN_LISTEN": "127.0.0.1:7452"} {
		free := freeAddress(t)
		env = append(env, "KEYWARD_"+flag+"="+free)
		pairs = append(pairs, usual, free)
	}
	ports := strings.NewReplacer(pairs...)

	all := blocks(t, doc)
	if !slices.ContainsFunc(all, func(b block) bool { return b.kind == "run" }) {
		t.Fatalf("%s has no block to run", doc)
	}
	for _, b := range all {
		if b.kind == "run in background" {
			background(t, dir, env, ports.Replace(b.text))
		}
	}
	said := runBlocks(t, doc, dir, env, ports, all)
	for i, b := range all {
		if b.kind == "output" && !matches(b.text, said[i-1]) {
			t.Errorf("%s:%d: the block before prints\n%s\nnot\n%s", doc, b.line, said[i-1], b.text)
		}
	}
}

// runBlocks pastes the blocks into one shell, one after the other, and returns what each printed.
func runBlocks(t *testing.T, doc, dir string, env []string, ports *strings.Replacer, all []block) map[int]string {
	const mark = "\x1e" // printed by the shell before each block, and by nothing else
	script := strictShell
	var order []int
	for i, b := range all {
		text := ports.Replace(b.text)
		switch b.kind {
		case "run":
			script += fmt.Sprintf("printf '%s'\n%s\n", mark, text)
		case "run and be refused":
			script += fmt.Sprintf("printf '%s'\nif (\n%s\n); then echo; echo 'this was not refused' >&2; exit 1; fi\n", mark, text)
		default:
			continue
		}
		order = append(order, i)
	}
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir, cmd.Env = dir, env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	parts := strings.Split(stdout.String(), mark)[1:]
	if err != nil {
		at := 0
		if len(parts) > 0 {
			at = all[order[len(parts)-1]].line
		}
		t.Fatalf("%s:%d: %v\n%s\n%s", doc, at, err, stdout.Bytes(), stderr.Bytes())
	}
	said := map[int]string{}
	for n, i := range order {
		said[i] = parts[n]
	}
	return said
}

// background runs the block until the test ends, and then wants it to end well on SIGTERM. It returns what the block prints.
func background(t *testing.T, dir string, env []string, text string) *output {
	t.Helper()
	cmd := exec.Command("bash", "-c", "exec "+strings.TrimSpace(text))
	cmd.Dir, cmd.Env = dir, env
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		giveUp := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer giveUp.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v after SIGTERM", strings.TrimSpace(text), err)
		}
		if t.Failed() {
			t.Logf("%s:\n%s", strings.TrimSpace(text), out)
		}
	})
	return out
}

// An output may be read while it is written to.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// matches says whether text is what was printed, "…" standing for anything.
func matches(text, printed string) bool {
	parts := strings.Split(strings.TrimSpace(text), "…")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return regexp.MustCompile("^(?s:" + strings.Join(parts, ".*") + ")$").MatchString(strings.TrimSpace(printed))
}

// A block is a fenced one with a comment above it that says what it is for.
type block struct {
	kind string
	line int
	text string
}

var kinds = []string{"run", "run in background", "run and be refused", "output"}

func blocks(t *testing.T, doc string) []block {
	t.Helper()
	var all []block
	var open *block
	kind := ""
	for i, line := range strings.Split(read(t, doc), "\n") {
		switch {
		case open != nil && strings.HasPrefix(line, "```"):
			all = append(all, *open)
			open, kind = nil, ""
		case open != nil:
			open.text += line + "\n"
		case strings.HasPrefix(line, "<!-- ") && strings.HasSuffix(line, " -->"):
			kind = strings.TrimSuffix(strings.TrimPrefix(line, "<!-- "), " -->")
			if !slices.Contains(kinds, kind) {
				t.Fatalf("%s:%d: <!-- %s --> is none of %q", doc, i+1, kind, kinds)
			}
		case kind != "" && strings.HasPrefix(line, "```"):
			open = &block{kind: kind, line: i + 2}
		case kind != "" && line != "":
			t.Fatalf("%s:%d: no block after <!-- %s -->", doc, i+1, kind)
		}
	}
	return all
}

// Every answer that Keyward makes by itself is explained, and nothing is explained that it does not make.
func TestErrorsAreDocumented(t *testing.T) {
	made := map[string]bool{}
	files, err := filepath.Glob("proxy/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no source of proxy found")
	}
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.go") {
			for _, m := range regexp.MustCompile(`status: (\d{3}), code: "([a-z_]+)"`).FindAllStringSubmatch(read(t, f), -1) {
				made[m[1]+" "+m[2]] = true
			}
		}
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| (\\d{3}) \\| `([a-z_]+)` \\|").FindAllStringSubmatch(read(t, "docs/outbound.md"), -1) {
		told[m[1]+" "+m[2]] = true
	}
	if len(made) < 20 {
		t.Fatalf("only %d errors found in proxy", len(made))
	}
	delete(made, "499 caller_gone") // for the log: nobody is there to read it
	for e := range made {
		if !told[e] && !strings.HasSuffix(e, " bad_request") {
			t.Errorf("docs/outbound.md does not explain %s", e)
		}
	}
	for e := range told {
		if !made[e] {
			t.Errorf("docs/outbound.md explains %s, which nothing makes", e)
		}
	}
}

// docs/cli.md lists the commands that there are.
func TestCommandsAreDocumented(t *testing.T) {
	help := exec.Command("bin/keyward", "--help")
	help.Dir = folder(t)
	out, err := help.Output()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+(?: [a-z]+)?)  `).FindAllSubmatch(out, -1) {
		there[string(m[1])] = true
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `keyward ([a-z]+)`(?: `([^`]+)`)? \\|").FindAllStringSubmatch(read(t, "docs/cli.md"), -1) {
		for _, word := range strings.Split(m[2], `\|`) {
			told[strings.TrimSpace(m[1]+" "+word)] = true
		}
	}
	if len(there) < 10 {
		t.Fatalf("only %d commands found in\n%s", len(there), out)
	}
	for c := range there {
		if !told[c] {
			t.Errorf("docs/cli.md does not name keyward %s", c)
		}
	}
	for c := range told {
		if !there[c] {
			t.Errorf("docs/cli.md names keyward %s, which there is not", c)
		}
	}
}

// A link between documents leads somewhere.
func TestLinksLeadSomewhere(t *testing.T) {
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range append(append(docs, more...), "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md", "deploy/README.md") {
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`).FindAllStringSubmatch(read(t, doc), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s: %s leads nowhere", doc, m[1])
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
