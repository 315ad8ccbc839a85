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

	"github.com/keyward/keyward/internal/built"
	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/standin"
)

// The commands of the documents work as typed: against the built program, with stand-ins in the providers' place and free ports in the
// place of the usual ones. What they cannot show here is listed beside TestEveryCommandIsRunOrListed.
func TestDocumentsRunAsTyped(t *testing.T) {
	typed(t)
	for _, p := range pages {
		t.Run(filepath.Base(p.doc), func(t *testing.T) {
			t.Parallel()
			p.run(t, folder(t))
		})
	}
}

// typed is for tests that type commands as people do: with curl.
func typed(t *testing.T) {
	t.Helper()
	if os.Getenv("KEYWARD_TEST_NO_CURL") == "1" {
		t.Skip("NOT TESTED AS TYPED: KEYWARD_TEST_NO_CURL=1 is set")
	}
}

// A page is a document with blocks to run, and what it takes for granted: those that come from elsewhere in the documents.
type page struct {
	doc    string
	serve  string // the sidecar that runs already
	before string // what was done already
	config string // keyward.yaml
}

const (
	serving = "bin/keyward serve"
	ready   = "keyward wait --max 30s\n"
	twilio  = `keyward credentials set --org acme --provider twilio <<'END'
{"account_sid": "AC0123456789abcdef0123456789abcdef", "auth_token": "fedcba9876543210fedcba9876543210"}
END
`
	resend = `echo '{"api_key": "re_0123abcd_0123456789abcdefghijklmn"}' | keyward credentials set --org acme --provider resend` + "\n"
	vapi   = `echo '{"api_key": "5f0c9d2e-4b1a-4c7d-8e3f-0123456789ab"}' | keyward credentials set --org acme --provider vapi` + "\n"
	again  = "keyward credentials disable --org acme --provider twilio\nkeyward credentials enable --org acme --provider twilio\n"
)

var pages = []page{
	{doc: "README.md"},
	{doc: "docs/getting-started.md"},
	{doc: "docs/minted-tokens.md"},
	{doc: "docs/admin-api.md", serve: serving, before: twilio + again},
	{doc: "docs/assistants.md", serve: serving, before: vapi},
	{
		doc: "docs/callers.md", serve: serving + " --config keyward.yaml", before: twilio,
		config: fmt.Sprintf(`callers: [{name: app, unix: {uid: %d}, orgs: ["*"], providers: ["*"]}]`, os.Getuid()),
	},
	{doc: "docs/cli.md", serve: serving},
	{doc: "docs/console.md", serve: serving},
	{doc: "docs/operations.md", before: ready},
	{doc: "docs/outages.md", serve: serving, before: twilio},
	{doc: "docs/reference/keys.md", serve: serving, before: twilio},
	{doc: "docs/unchanged-apps.md", serve: serving + " --intercept", before: twilio},
	{doc: "docs/verification.md", serve: serving, before: resend},
}

// So do those that the program itself prints for a first try, in whatever folder the other terminal is.
func TestPrintedCommandsRunAsTyped(t *testing.T) {
	typed(t)
	dir := folder(t)
	temp := filepath.Join(dir, "its place")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	listen, admin := freeport.New(t), freeport.New(t)
	out := background(t, dir, append(os.Environ(), "TMPDIR="+temp), "bin/keyward serve --dev --listen "+listen+" --admin-listen "+admin)
	const last = "Ctrl-C ends it"
	for end := time.Now().Add(time.Minute); !strings.Contains(out.String(), last); time.Sleep(20 * time.Millisecond) {
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
		cmd.Dir = t.TempDir()
		printed, err := cmd.CombinedOutput()
		if err != nil || len(bytes.TrimSpace(printed)) == 0 {
			t.Errorf("%s\n%v\n%s", c, err, printed)
		}
	}
}

// The console of a first try needs no log-in, and shows what was made up.
func TestConsoleOfAFirstTryIsOpen(t *testing.T) {
	typed(t)
	dir := folder(t)
	admin := freeport.New(t)
	out := background(t, dir, os.Environ(), "bin/keyward serve --dev --listen= --webhook-listen= --admin-listen "+admin)
	for end := time.Now().Add(time.Minute); !strings.Contains(out.String(), "http://"+admin+"/\n"); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never printed where the console is")
		}
	}
	page, err := exec.Command("curl", "-sS", "--fail", "--max-time", "60", "http://"+admin+"/").CombinedOutput()
	if err != nil || !bytes.Contains(page, []byte(`href="/orgs/demo"`)) {
		t.Errorf("%v\n%s", err, page)
	}
	if api, err := exec.Command("curl", "-sS", "--fail", "--max-time", "60", "http://"+admin+"/api/orgs").CombinedOutput(); err == nil {
		t.Errorf("the API is open too: %s", api)
	}
}

func TestMain(m *testing.M) { os.Exit(built.Main(m)) }

// folder is an empty one with bin/keyward in it, as after make build. Its name is short: a socket's path has at most 107 bytes.
func folder(t *testing.T) string {
	t.Helper()
	bin := built.Program(t)
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
// Of all programs called keyward on the machine, the page means its own.
const strictShell = "set -euo pipefail\n" + `curl() { command curl -sS --fail-with-body --max-time 60 "$@"; }
pidof() { cat "$1.pid"; }
`

// madeUp are the credentials that the documents give to org acme.
var madeUp = []standin.Credential{
	{Label: "acme", Provider: standin.Twilio, Fields: map[string]string{
		"account_sid": "AC0123456789abcdef0123456789abcdef", "auth_token": "fedcba9876543210fedcba9876543210",
	}},
	{Label: "acme", Provider: standin.Vapi, Fields: map[string]string{"api_key": "5f0c9d2e-4b1a-4c7d-8e3f-0123456789ab"}},
	{Label: "acme", Provider: standin.Resend, Fields: map[string]string{"api_key": "re_0123abcd_0123456789abcdefghijklmn"}},
	{Label: "acme", Provider: standin.Resend, Fields: map[string]string{"api_key": "re_4567cdef_456789abcdefghijklmnopqr"}},
}

func (p page) run(t *testing.T, dir string) {
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
	env := append(os.Environ(), "KEYWARD_UPSTREAM="+strings.Join(upstreams, ","), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	app := freeport.New(t)
	pairs := []string{"127.0.0.1:3000", app, "listen(3000", "listen(" + app[strings.LastIndex(app, ":")+1:]}
	for flag, usual := range map[string]string{"LISTEN": "127.0.0.1:7450", "WEBHOOK_LISTEN": "127.0.0.1:7451", "ADMIN_LISTEN": "127.0.0.1:7452"} {
		free := freeport.New(t)
		env = append(env, "KEYWARD_"+flag+"="+free)
		pairs = append(pairs, usual, free)
	}
	ports := strings.NewReplacer(pairs...)

	all := blocks(t, p.doc)
	if !slices.ContainsFunc(all, func(b block) bool { return strings.HasPrefix(b.kind, "run") }) {
		t.Fatalf("%s has no block to run", p.doc)
	}
	if p.config != "" {
		if err := os.WriteFile(filepath.Join(dir, "keyward.yaml"), []byte(p.config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if p.before != "" {
		all = append([]block{{kind: "run", text: p.before}}, all...)
	}
	if p.serve != "" {
		all = append([]block{{kind: "run in background", text: p.serve}, {kind: "run", text: ready}}, all...)
	}
	for _, b := range all {
		if b.kind == "run in background" {
			background(t, dir, env, ports.Replace(b.text))
			if strings.Contains(b.text, "listen(3000") {
				answers(t, app)
			}
		}
	}
	said := runBlocks(t, p.doc, dir, env, ports, all)
	for i, b := range all {
		if b.kind == "output" && !matches(b.text, said[i-1]) {
			t.Errorf("%s:%d: the block before prints\n%s\nnot\n%s", p.doc, b.line, said[i-1], b.text)
		}
	}
}

// answers waits until somebody listens there.
func answers(t *testing.T, address string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("nobody listens on %s", address)
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

// background runs the block until the test ends, and then wants it to end well on SIGTERM if it is the program. It returns what the block
// prints.
func background(t *testing.T, dir string, env []string, text string) *output {
	t.Helper()
	text = strings.TrimSpace(text)
	ours := strings.Contains(text, "keyward ")
	if ours {
		text = "echo $$ >keyward.pid; exec " + text
	} else {
		text = "exec " + text
	}
	cmd := exec.Command("bash", "-c", text)
	cmd.Dir, cmd.Env = dir, env
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		giveUp := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		defer giveUp.Stop()
		if err := cmd.Wait(); err != nil && ours {
			t.Errorf("%s: %v after SIGTERM", text, err)
		}
		if t.Failed() {
			t.Logf("%s:\n%s", text, out)
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

// matches says whether text is what was printed, "…" standing for anything.
func matches(text, printed string) bool {
	parts := strings.Split(strings.TrimSpace(text), "…")
	for i, p := range parts {
		parts[i] = regexp.QuoteMeta(p)
	}
	return regexp.MustCompile("^(?s:" + strings.Join(parts, ".*") + ")$").MatchString(strings.TrimSpace(printed))
}
