package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const twilioToken = "9f8e7d6c5b4a39281706f5e4d3c2cdef"

// A person logs in, with the keyboard alone, and out again; what is behind the log-in is not shown to who is not.
func TestPersonLogsInWithTheKeyboard(t *testing.T) {
	s := startSidecar(t)
	b := s.open()
	b.visit("/audit")
	b.sees("Admin token")
	b.focused("token")
	b.do(chromedp.KeyEvent("kwa-not-a-token"), chromedp.KeyEvent(kb.Enter))
	b.sees("unknown or revoked")
	b.focused("token")
	b.do(chromedp.KeyEvent(s.operator), chromedp.KeyEvent(kb.Enter))
	b.sees("Log out")
	if at := b.at(); at != "/audit" {
		t.Errorf("after the log-in: %s, not the page that was asked for", at)
	}
	// The first stop is the way past the navigation.
	b.do(chromedp.KeyEvent(kb.Tab))
	if first := eval[string](b, `document.activeElement.textContent`); first != "Skip to the content" {
		t.Errorf("the first stop is %q", first)
	}
	for range 20 {
		if strings.TrimSpace(eval[string](b, `document.activeElement.textContent`)) == "Webhooks" {
			break
		}
		b.do(chromedp.KeyEvent(kb.Tab))
	}
	b.do(chromedp.KeyEvent(kb.Enter))
	b.sees("No deliveries")
	if strings.Contains(eval[string](b, `document.cookie`), "keyward") {
		t.Error("a script can read the session's cookie")
	}
	b.click("Log out")
	b.sees("You are logged out.")
	b.visit("/")
	b.sees("Admin token")
}

func TestOverviewIsLive(t *testing.T) {
	s := startSidecar(t)
	b := s.open()
	b.login(s.operator)
	b.sees("Requests a second")
	b.sees("demo")
	if got := eval[string](b, `document.querySelector("[data-key=requests]").textContent`); got != "0.0" {
		t.Fatalf("requests a second before any: %s", got)
	}
	b.until("the numbers stand still", func() bool {
		s.call("resend", "/domains") // the numbers are those of the last ten seconds
		return eval[string](b, `document.querySelector("[data-key=requests]").textContent`) != "0.0" &&
			eval[string](b, `document.querySelector('[data-key="resend.p99"]').textContent`) != "–" &&
			eval[int](b, `(document.querySelector(".spark polyline").getAttribute("points") || "").split(" ").length`) > 1
	})
	if shift := eval[float64](b, `new Promise((done) => { let sum = 0; new PerformanceObserver((l) => { for (const e of l.getEntries()) sum += e.value })
		.observe({type: "layout-shift", buffered: true}); setTimeout(() => done(sum), 1500) })`); shift > 0.01 {
		t.Errorf("the layout shifts by %v", shift)
	}
}

// An operator adds, changes, verifies, disables, enables and deletes an org's credential, and never sees it again.
func TestOperatorKeepsACredential(t *testing.T) {
	s := startSidecar(t)
	b := s.open()
	b.login(s.operator)
	b.fill("Org id", "acme")
	b.click("Open or add")
	b.sees("Not connected")
	b.click("Add Twilio")
	b.sees("Add Twilio of acme")
	b.fill("Account SID required", "not-a-sid")
	b.fill("Auth token", twilioToken)
	b.click("Save")
	b.sees("the credential is not valid")
	if eval[string](b, `document.activeElement.id`) != "bad" {
		t.Error("what went wrong is not where a person goes on")
	}
	b.shows(false, twilioToken)
	b.fill("Account SID required", "AC0123456789abcdef0123456789abcdef")
	b.fill("Auth token", twilioToken)
	b.click("Save")
	b.sees("nothing was changed") // the stand-in knows no such credential
	b.fill("Auth token", twilioToken)
	b.do(chromedp.Click(chromedp.CSS("input[name=verify]")))
	b.click("Save")
	b.sees("Saved.")
	b.sees("…cdef")
	b.shows(false, twilioToken)

	b.click("Verify Twilio")
	b.sees("Invalid")
	b.click("Disable Twilio")
	b.sees("Disabled. Requests for it are refused")
	b.click("Enable Twilio")
	b.sees("Enabled.")

	b.click("Change Twilio")
	b.fill("From number", "+15550001111")
	b.do(chromedp.Click(chromedp.CSS("input[name=verify]")))
	b.click("Save")
	b.sees("+15550001111")
	if shown := s.keyward("", "credentials", "show", "--org", "acme", "--provider", "twilio", "--json"); !strings.Contains(shown, "…cdef") {
		t.Errorf("the secret that was not typed anew is gone: %s", shown)
	}

	b.click("Delete Twilio")
	b.sees("gone for good")
	b.click("Delete")
	b.sees("Deleted.")
	b.click("All of them")
	b.sees("credential.delete")
	b.sees("admin token ops")
	b.shows(false, twilioToken)
}

func TestTwoAdminsAtOnceDoNotOverwriteEachOther(t *testing.T) {
	const otherNumber = "+15550002222"
	s := startSidecar(t)
	b := s.open()
	b.login(s.operator)
	b.visit("/orgs/demo/integrations/twilio")
	b.sees("Change Twilio")
	s.keyward("", "credentials", "disable", "--org", "demo", "--provider", "twilio")
	b.fill("From number", otherNumber)
	b.click("Save")
	b.sees("it was changed since it was read")
	if shown := s.keyward("", "credentials", "show", "--org", "demo", "--provider", "twilio", "--json"); strings.Contains(shown, otherNumber) {
		t.Error("the other's change was overwritten")
	}
}

func TestOperatorMapsAssistantsAndEnsuresThem(t *testing.T) {
	s := startSidecar(t)
	b := s.open()
	b.login(s.operator)
	b.visit("/orgs/demo")
	b.click("Map an assistant")
	b.fill("Assistant id", "asst_2")
	b.fill("Name", "Night desk")
	b.click("Map")
	b.sees("belongs to this org now")
	b.sees("Night desk")
	b.click("Remove asst_2")
	b.click("Remove")
	b.sees("belongs to no org")

	b.click("Configure the outbound agent")
	b.fill("Name", "Sales")
	b.fill("Configuration", "{nonsense")
	b.click("Save")
	b.sees("not valid JSON: see line 1")
	b.fill("Configuration", `{"firstMessage":"Hello"}`)
	b.click("Save")
	b.sees("The agent is saved.")
	b.click("Ensure assistant of the outbound agent")
	b.sees("was made at Vapi")
	b.click("Ensure assistant of the outbound agent")
	b.sees("is as configured")
	b.click("Delete the outbound agent")
	b.click("Delete")
	b.sees("Deleted.")
}

func TestOperatorRedeliversADeadWebhook(t *testing.T) {
	s := startSidecar(t)
	s.signed()
	b := s.open()
	b.login(s.operator)
	b.visit("/webhooks")
	b.sees("No deliveries")
	s.app.set(true)
	b.visit("/orgs/demo")
	b.click("Test webhook of Resend")
	b.sees("signed sample was sent")
	b.visit("/webhooks")
	b.until("the delivery never died", func() bool { b.visit("/webhooks?state=dead"); return strings.Contains(b.text(), "503") })
	s.app.set(false)
	b.do(chromedp.Click(chromedp.CSS("td.end button")))
	b.sees("The delivery is due now.")
	b.until("it was never delivered", func() bool {
		time.Sleep(100 * time.Millisecond)
		b.visit(b.at())
		return strings.Contains(b.text(), "delivered")
	})
}

func TestOperatorMakesAndRevokesTokens(t *testing.T) {
	s := startSidecar(t)
	b := s.open()
	b.login(s.operator)
	b.click("Callers and tokens")
	b.click("Make a caller's token")
	b.fill("Name", "sms-worker")
	b.fill("Orgs", "demo")
	b.fill("Rate", "50 a day")
	b.click("Make the token")
	b.sees("the caller is not valid")
	b.fill("Rate", "50/s")
	b.click("Make the token")
	b.sees("shown this once")
	token := eval[string](b, `document.getElementById("made").textContent`)
	if !strings.HasPrefix(token, "kwt") || len(token) != 46 {
		t.Fatalf("a token of %d characters", len(token))
	}
	b.visit("/access")
	b.sees("sms-worker")
	b.shows(false, token)
	b.click("Revoke sms-worker")
	b.click("Revoke")
	b.sees("The token is revoked")

	// Who revokes the own token is out.
	b.click("Revoke ops")
	b.click("Revoke")
	b.sees("Your admin token was revoked")
}

// A token that is bound to an org opens that org's page, and no other org is there.
func TestOrgsTokenSeesItsOrgAlone(t *testing.T) {
	s := startSidecar(t)
	token := s.token("demo-backend", "--org", "demo")
	s.keyward(`{"api_key":"re_0123456789abcdef"}`, "credentials", "set", "--org", "stranger", "--provider", "resend")
	b := s.open()
	b.login(token)
	b.sees("Integrations")
	if at := b.at(); at != "/orgs/demo" {
		t.Errorf("it begins at %s", at)
	}
	b.shows(false, "Callers and tokens")
	for _, path := range []string{"/orgs/stranger", "/orgs/stranger/integrations/resend", "/orgs/stranger/agents/inbound"} {
		b.visit(path)
		b.sees("there is no such org")
	}
	b.visit("/access")
	b.sees("bound to one org")
	b.visit("/audit")
	b.shows(false, `href="/orgs/stranger"`)
}

// focused waits until what a person types goes to the element with the id.
func (b *browser) focused(id string) {
	b.t.Helper()
	b.until("the field is not where a person goes on", func() bool {
		at, err := chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.activeElement ? document.activeElement.id : ""`))
		return err == nil && at == id // an error: the page is being left
	})
}

// shows says whether the page's whole source has the text.
func (b *browser) shows(want bool, text string) {
	b.t.Helper()
	if strings.Contains(eval[string](b, `document.documentElement.outerHTML`), text) != want {
		b.t.Errorf("%s shows %q: %v", b.at(), text, !want)
	}
}

// call makes a request of the org demo to a provider, over the unix socket.
func (s *sidecar) call(provider, path string) {
	s.t.Helper()
	if err := s.get(provider, path); err != nil {
		s.t.Fatal(err)
	}
}
