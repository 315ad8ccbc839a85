package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/keyward/keyward/internal/built"
	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/standin"
)

// chromium is the browser's path, or "".
func chromium() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func TestMain(m *testing.M) {
	code := built.Main(m)
	for _, end := range slices.Backward(closing) {
		end()
	}
	os.Exit(code)
}

// A sidecar is the built program with stand-ins in the providers' place and the org demo.
type sidecar struct {
	t        *testing.T
	bin, run string
	url      string
	hooks    string // the webhook listener
	app      *app
	operator string // an admin token
}

// An app gets the webhooks, and refuses them while it is down.
type app struct {
	mu   sync.Mutex
	down bool
	got  int
}

func (a *app) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	a.got++
}

func (a *app) set(down bool) { a.mu.Lock(); a.down = down; a.mu.Unlock() }

func startSidecar(t *testing.T) *sidecar {
	t.Helper()
	dir, err := os.MkdirTemp("", "kw") // short: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &sidecar{t: t, bin: built.Program(t), run: filepath.Join(dir, "run"), app: &app{}}
	target := httptest.NewServer(s.app)
	t.Cleanup(target.Close)
	admin, hooks := freeport.New(t), freeport.New(t)
	s.url, s.hooks = "http://"+admin, "http://"+hooks
	peers := standin.New(standin.Options{})
	upstreams, err := peers.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = peers.Close() })
	args := []string{}
	for host, url := range upstreams {
		args = append(args, "--upstream", host+"="+url)
	}
	p := exec.Command(s.bin, append([]string{"serve"}, append(args, "--data-dir", filepath.Join(dir, "data"), "--run-dir", s.run, "--listen=", "--admin-listen", admin, "--webhook-listen", hooks,
		"--webhook-target", target.URL+"/hooks", "--webhook-attempts", "2", "--webhook-backoff", "50ms", "--log-level", "warn")...)...)
	var out lockedBuffer
	p.Stdout, p.Stderr = &out, &out
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		began := time.Now()
		_ = p.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(time.Minute, func() { _ = p.Process.Kill() })
		defer kill.Stop()
		if err := p.Wait(); err != nil || time.Since(began) > 25*time.Second { // --drain-timeout is 30 s, and nothing may need it
			t.Errorf("keyward serve: %v after %s", err, time.Since(began))
		}
		if t.Failed() {
			t.Logf("keyward serve wrote:\n%s", out.String())
		}
	})
	s.keyward("", "wait", "--max", "2m")
	for _, c := range standin.Sample("demo") {
		peers.Expect(c)
		s.keyward(string(c.JSON()), "credentials", "set", "--org", "demo", "--provider", c.Provider)
	}
	s.keyward("", "assistants", "set", "asst_demo", "--org", "demo", "--role", "inbound", "--name", "Front desk")
	s.operator = s.token("ops", "--role", "operator")
	return s
}

// keyward runs a management command and gives its stdout.
func (s *sidecar) keyward(stdin string, args ...string) string {
	s.t.Helper()
	c := exec.Command(s.bin, append(args, "--run-dir", s.run)...)
	c.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	if err := c.Run(); err != nil {
		s.t.Fatalf("keyward %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String())
}

func (s *sidecar) token(name string, args ...string) string {
	s.t.Helper()
	return s.keyward("", append([]string{"admin-tokens", "add", "--name", name}, args...)...)
}

// A browser is one tab, and everything that went wrong in it.
type browser struct {
	t   *testing.T
	ctx context.Context
	url string

	mu    sync.Mutex
	wrong []string
	hosts map[string]int
}

// open has the browser look at the sidecar, in a tab and with a profile that knows nothing of the other tests'.
func (s *sidecar) open() *browser {
	s.t.Helper()
	t := s.t
	if chromium() == "" {
		if os.Getenv("CI") != "" || os.Getenv("KEYWARD_TEST_NO_BROWSER") != "1" {
			t.Fatal("the console's tests need Chromium: apt-get install chromium (KEYWARD_TEST_NO_BROWSER=1 leaves them out)")
		}
		t.Skip("SKIPPED: no Chromium, and KEYWARD_TEST_NO_BROWSER=1: the console is not tested")
	}
	shared, err := launched()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := chromedp.NewContext(shared, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	ctx, end := context.WithTimeout(ctx, 10*time.Minute)
	t.Cleanup(end)
	b := &browser{t: t, ctx: ctx, url: s.url, hosts: map[string]int{}}
	if err := chromedp.Listen(ctx, b.note); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, audits.Enable, cdp.Empty{}); err != nil {
		t.Fatal(err)
	}
	// Keys go where the focus is, also while another tab has the window.
	focused := emulation.SetFocusEmulationEnabledParams{Enabled: true}
	if _, err := chromedp.Call(ctx, emulation.SetFocusEmulationEnabled, focused); err != nil {
		t.Fatal(err)
	}
	b.size(1280, 900)
	t.Cleanup(b.clean)
	return b
}

// launched is Chromium, started once: close ends it.
var (
	closing  []func() // the last first
	launched = sync.OnceValues(func() (context.Context, error) {
		profile, err := os.MkdirTemp("", "kwbrowser")
		if err != nil {
			return nil, err
		}
		// Its processes may write there for a moment after it has ended.
		closing = append(closing, func() {
			for try := 0; os.RemoveAll(profile) != nil && try < 50; try++ {
				time.Sleep(100 * time.Millisecond)
			}
		})
		options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium()), chromedp.DisableGPU, chromedp.UserDataDir(profile),
			chromedp.WSURLReadTimeout(2*time.Minute), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("hide-scrollbars", false))
		if os.Geteuid() == 0 {
			options = append(options, chromedp.NoSandbox)
		}
		allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
		ctx, cancel := chromedp.NewContext(allocator)
		closing = append(closing, stop, cancel)
		return ctx, chromedp.Do(ctx)
	})
)

// note keeps what must not happen on any page.
func (b *browser) note(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch ev := ev.(type) {
	case *network.EventRequestWillBeSent:
		if strings.HasPrefix(ev.Request.URL, "http") || strings.HasPrefix(ev.Request.URL, "ws") {
			host := strings.Join(strings.SplitN(ev.Request.URL, "/", 4)[:3], "/")
			b.hosts[host]++
		}
	case *audits.EventIssueAdded:
		if d := ev.Issue.Details.ContentSecurityPolicyIssueDetails; d != nil {
			b.wrong = append(b.wrong, "the policy was violated: "+d.ViolatedDirective+" "+d.BlockedURL)
		}
	case *log.EventEntryAdded:
		if ev.Entry.Level == log.EntryLevelError && ev.Entry.Source != log.EntrySourceNetwork { // a 4xx of a page is one of those
			b.wrong = append(b.wrong, "the browser said: "+ev.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		b.wrong = append(b.wrong, "the script failed: "+ev.ExceptionDetails.Text)
	case *page.EventJavascriptDialogOpening:
		b.wrong = append(b.wrong, "a script of somebody else ran: "+ev.Message)
	}
}

// clean is what holds for everything that the browser did.
func (b *browser) clean() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.wrong {
		b.t.Error(w)
	}
	delete(b.hosts, b.url)
	if len(b.hosts) > 0 {
		b.t.Errorf("requests went to other hosts: %v", b.hosts)
	}
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, steps...); err != nil {
		b.t.Fatalf("%v\nat %s:\n%s", err, b.at(), b.text())
	}
}

func eval[T any](b *browser, script string) T {
	b.t.Helper()
	v, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%v in %.200s", err, script)
	}
	return v
}

func (b *browser) text() string {
	text, _ := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body ? document.body.innerText : ""`))
	return text
}

func (b *browser) at() string {
	at, _ := chromedp.Run(b.ctx, chromedp.Location())
	return strings.TrimPrefix(at, b.url)
}

func (b *browser) visit(path string) { b.t.Helper(); b.do(chromedp.Navigate(b.url + path)) }

// sees waits until the page shows the text.
func (b *browser) sees(text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("never saw %q", text), func() bool { return strings.Contains(b.text(), text) })
}

func (b *browser) until(never string, ok func() bool) {
	b.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("%s at %s:\n%s", never, b.at(), b.text())
		}
	}
}

// click clicks the first thing whose whole text, what only screen readers get included, is the given one.
func (b *browser) click(text string) {
	b.t.Helper()
	const script = `(() => { for (const e of document.querySelectorAll("a, button, summary"))
		if (e.textContent.replace(/\s+/g, " ").trim() === %s) { e.scrollIntoView(); e.click(); return true } return false })()`
	b.until(fmt.Sprintf("nothing to click says %q", text), func() bool {
		clicked, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](fmt.Sprintf(script, strconv.Quote(text))))
		return err == nil && clicked // an error: the page is being left
	})
}

// fill types into the field that the label names.
func (b *browser) fill(label, value string) {
	b.t.Helper()
	const script = `(() => { for (const l of document.querySelectorAll("label"))
		if (l.textContent.replace(/\s+/g, " ").trim() === %s) { const e = l.control; e.focus(); if (e.select) e.select(); return "#" + CSS.escape(e.id) } return "" })()`
	at := ""
	b.until(fmt.Sprintf("no field is called %q", label), func() (ok bool) {
		var err error
		at, err = chromedp.Run(b.ctx, chromedp.Evaluate[string](fmt.Sprintf(script, strconv.Quote(label))))
		return err == nil && at != ""
	})
	if value == "" {
		eval[string](b, fmt.Sprintf(`document.querySelector(%q).value = ""`, at))
		return
	}
	b.do(chromedp.KeyEvent(value))
}

// login logs in as a person does.
func (b *browser) login(token string) {
	b.t.Helper()
	b.visit("/login")
	b.fill("Admin token", token)
	b.click("Log in")
	b.sees("Log out")
}

func (b *browser) size(width, height int64) {
	b.t.Helper()
	b.do(chromedp.EmulateViewport(width, height))
}

// scheme makes the browser prefer light or dark.
func (b *browser) scheme(name string) {
	b.t.Helper()
	p := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, p); err != nil {
		b.t.Fatal(err)
	}
}

// A lockedBuffer is written by a process while a test reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// get asks a provider for the org demo, over the unix socket.
func (s *sidecar) get(provider, path string) error {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.run, "caller.sock"))
	}
	transport := &http.Transport{DialContext: dial}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodGet, "http://keyward/"+provider+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Keyward-Org", "demo")
	resp, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// signed gives the org demo a secret that its webhooks from Resend are signed with.
func (s *sidecar) signed() {
	s.t.Helper()
	body := `{"credentials":{"webhook_secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}}`
	req, err := http.NewRequest(http.MethodPatch, s.url+"/api/orgs/demo/integrations/resend", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.operator)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("giving Resend a webhook secret: %s", resp.Status)
	}
}
