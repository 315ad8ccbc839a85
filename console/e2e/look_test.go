package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// pages are all pages, with something on them.
var pages = []struct{ name, path string }{
	{"overview", "/"},
	{"org", "/orgs/demo"},
	{"empty-org", "/orgs/nobody"},
	{"integration", "/orgs/demo/integrations/twilio"},
	{"vapi", "/orgs/demo/integrations/vapi"},
	{"google", "/orgs/demo/integrations/google_calendar"},
	{"agent", "/orgs/demo/agents/inbound"},
	{"confirm", "/orgs/demo/integrations/resend/delete"},
	{"webhooks", "/webhooks"},
	{"no-webhooks", "/webhooks?org=nobody"},
	{"access", "/access"},
	{"audit", "/audit"},
	{"nothing", "/nothing"},
}

// furnish puts something on every page.
func (s *sidecar) furnish() {
	s.t.Helper()
	s.keyward("", "callers", "add", "--name", "sms-worker", "--org", "demo", "--provider", "twilio")
	s.token("demo-backend", "--org", "demo")
	for _, org := range []string{"acme", "globex", "initech", "umbrella"} {
		s.keyward(`{"api_key":"re_0123456789abcdef"}`, "credentials", "set", "--org", org, "--provider", "resend")
	}
	s.keyward("", "credentials", "verify", "--org", "demo", "--provider", "twilio")
	s.keyward("", "credentials", "verify", "--org", "demo", "--provider", "resend")
	s.keyward("", "credentials", "disable", "--org", "demo", "--provider", "elevenlabs")
	s.signed()
	s.app.set(true)
	s.keyward("", "webhooks", "test", "--org", "demo", "--provider", "resend")
	for until := time.Now().Add(time.Minute); !strings.Contains(s.keyward("", "webhooks", "list", "--json"), `"dead"`); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(until) {
			s.t.Fatal("a webhook that the app refused twice is not dead")
		}
	}
	s.app.set(false)
	s.keyward("", "webhooks", "test", "--org", "demo", "--provider", "resend")
}

// Every page, at a phone's width and on a large screen, light and dark: nothing is cut off at the side, and axe-core finds nothing serious.
// With -update the pictures in docs/ are made anew.
func TestEveryPageIsAccessibleAndFits(t *testing.T) {
	axe := axeCore(t)
	s := startSidecar(t)
	s.furnish()
	b := s.open()
	b.visit("/login")
	b.audit(axe, "login")
	b.login(s.operator)
	for range 40 {
		s.call("resend", "/domains")
		s.call("twilio", "/2010-04-01/Accounts/ACkeyward/Messages.json")
	}
	for _, p := range pages {
		b.visit(p.path)
		for _, width := range []int64{400, 1600} {
			b.size(width, 900)
			if over := eval[int](b, `document.documentElement.scrollWidth - document.documentElement.clientWidth`); over > 0 {
				t.Errorf("%s at %d pixels goes on for %d to the side: %s", p.path, width, over, eval[string](b, tooWide))
			}
			for _, scheme := range []string{"light", "dark"} {
				b.scheme(scheme)
				if (width == 400) == (scheme == "light") { // each width and each scheme once: the checker takes a second
					b.audit(axe, fmt.Sprintf("%s at %d, %s", p.path, width, scheme))
				}
				b.picture(fmt.Sprintf("%s-%d-%s", p.name, width, scheme))
			}
		}
	}
}

const tooWide = `[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
	.slice(0, 4).map((e) => e.outerHTML.slice(0, 120)).join("\n")`

// A name that a person can set is a text on every page, whatever it is made of.
func TestNamesAreNeverMarkup(t *testing.T) {
	s := startSidecar(t)
	b := s.open()
	b.login(s.operator)
	for i, name := range []string{
		`<img src=x onerror=alert(1)>`, `"><script>alert(1)</script>`, `'onfocus='alert(1)' autofocus='`, `</textarea></title><svg/onload=alert(1)>`,
		`javascript:alert(1)`, `{{.Who}}`, "\u202egnp.exe",
	} {
		s.keyward("", "assistants", "set", fmt.Sprintf("asst_x%d", i), "--org", "demo", "--name", name, "--role", "r"+name[:min(len(name), 40)])
		s.token(name, "--role", "operator")
	}
	b.visit("/orgs/demo/agents/inbound")
	b.fill("Name", `"><img src=x onerror=alert(1)>`)
	b.fill("Configuration", `{"firstMessage":"</textarea><script>alert(1)</script>"}`)
	b.click("Save")
	b.sees("The agent is saved.")
	for _, path := range append([]string{"/?cursor=%3Cscript%3Ealert(1)%3C/script%3E", "/orgs/%3Cscript%3Ealert(1)%3C%2Fscript%3E", "/login?to=javascript:alert(1)", "/?done=%3Cscript%3E"},
		"/orgs/demo", "/orgs/demo/agents/inbound", "/access", "/audit", `/audit?actor="><script>alert(1)</script>`, `/webhooks?org="><script>alert(1)</script>`) {
		b.visit(path)
		b.do(chromedp.Sleep(100 * time.Millisecond))
		if n := eval[int](b, `document.querySelectorAll("img[onerror], [onload], [onfocus], main script, a[href^='javascript']").length`); n > 0 {
			t.Errorf("%s: a name became %d elements", path, n)
		}
	}
	b.visit("/orgs/demo")
	b.sees(`<img src=x onerror=alert(1)>`)
}

// axeCore is the checker's script, as npm has it.
func axeCore(t *testing.T) string {
	t.Helper()
	if os.Getenv("KEYWARD_TEST_NO_NODE") == "1" && os.Getenv("CI") == "" {
		t.Skip("SKIPPED: no npm, which brings the checker, and KEYWARD_TEST_NO_NODE=1: whether the console is accessible is not tested")
	}
	const script = "axe/node_modules/axe-core/axe.min.js"
	if _, err := os.Stat(script); err != nil {
		c := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
		c.Dir = "axe"
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("npm ci: %v\n%s", err, out)
		}
	}
	b, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// audit runs axe-core on the page. The browser's debugger brings it in: the page's own policy would not let it.
func (b *browser) audit(axe, what string) {
	b.t.Helper()
	if !eval[bool](b, `typeof axe === "object"`) {
		eval[bool](b, axe+"\n;true")
	}
	found := eval[string](b, `axe.run({resultTypes: ["violations"]}).then((r) => JSON.stringify(r.violations.map((v) =>
		({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160) + " " + n.failureSummary)}))))`)
	var violations []struct {
		ID, Impact, Help string
		Nodes            []string
	}
	if err := json.Unmarshal([]byte(found), &violations); err != nil {
		b.t.Fatal(err)
	}
	for _, v := range violations {
		report := b.t.Errorf
		if v.Impact == "minor" || v.Impact == "moderate" {
			report = b.t.Logf
		}
		report("%s: %s (%s): %s\n%s", what, v.ID, v.Impact, v.Help, strings.Join(v.Nodes, "\n"))
	}
}
