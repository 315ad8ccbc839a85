package webhook

import (
	"strings"
	"testing"

	"github.com/keyward/keyward/store"
)

// What Vapi put into captured payloads, and what an assistant's configuration in one holds.
const (
	theirSecrets = `"phoneNumber":{"id":"` + phoneID + `","twilioAccountSid":"AC1","twilioAuthToken":"tenant-token-0123456789"},` +
		`"assistant":{"id":"asst_acme","server":{"url":"https://u.example","secret":"tenant-server-secret","headers":{"Authorization":"Bearer tenant-header"}},` +
		`"serverUrlSecret":"tenant-url-secret","credentials":[{"provider":"openai","apiKey":"tenant-openai-key"}],` +
		`"model":{"tools":[{"server":{"secret":"tenant-tool-secret"}}]}},` +
		`"call":{"id":"c1","orgId":"` + vapiOrg + `","transport":{"authToken":"tenant-transport","token":"call-token"}}`
	theirs = "tenant-"
)

func redacting(o *Options) { o.Routes[0].Redact = true }

func redacts(t *testing.T, before, after string) {
	t.Helper()
	if len(after) != len(before) {
		t.Errorf("%d bytes became %d", len(before), len(after))
	}
	if strings.Contains(after, theirs) {
		t.Errorf("a secret stands in %s", after)
	}
	for _, stays := range []string{`"twilioAccountSid":"AC1"`, `"url":"https://u.example"`, `"twilioAuthToken":"***********************"`, `"token":"call-token"`, `"id":"c1"`} {
		if !strings.Contains(after, stays) {
			t.Errorf("%s is missing in %s", stays, after)
		}
	}
}

func TestSecretsAreOverwrittenInAQuestion(t *testing.T) {
	w := newWorld(t, redacting)
	body := request("tool-calls", ","+theirSecrets)
	w.asks(w.post("/webhooks/vapi", body, acmeSecret))
	_, got := w.app.last()
	redacts(t, body, string(got))
	if strings.Contains(w.log.String(), theirs) {
		t.Errorf("a secret stands in the log:\n%s", w.log)
	}
}

func TestSecretsAreOverwrittenBeforeTheyAreStored(t *testing.T) {
	w := newWorld(t, redacting)
	body := request("end-of-call-report", ","+theirSecrets)
	for _, duplicate := range []string{"", "true"} { // what was signed is what a copy is told by, not what is left of it
		s := w.post("/webhooks/vapi", body, acmeSecret)
		if s.status != 200 || s.header.Get("Keyward-Duplicate") != duplicate {
			t.Fatalf("answer is %d, duplicate %q", s.status, s.header.Get("Keyward-Duplicate"))
		}
	}
	all := w.deliveries()
	if len(all) != 1 {
		t.Fatalf("%d deliveries", len(all))
	}
	redacts(t, body, string(all[0].Body))
}

// Two that differ only in a secret are two.
func TestRedactedBodiesAreToldApart(t *testing.T) {
	w := newWorld(t, redacting)
	body := request("end-of-call-report", ","+theirSecrets)
	for _, b := range []string{body, strings.Replace(body, "tenant-token-0", "tenant-token-1", 1)} {
		if s := w.post("/webhooks/vapi", b, acmeSecret); s.status != 200 || s.header.Get("Keyward-Duplicate") != "" {
			t.Errorf("answer is %d, duplicate %q", s.status, s.header.Get("Keyward-Duplicate"))
		}
	}
}

func TestBodyIsUntouchedUnlessAskedFor(t *testing.T) {
	w := newWorld(t)
	body := request("tool-calls", ","+theirSecrets)
	w.asks(w.post("/webhooks/vapi", body, acmeSecret))
	if _, got := w.app.last(); string(got) != body {
		t.Errorf("body changed:\n%s\n%s", got, body)
	}
}

// The route that a delivery goes by decides.
func TestRedactionIsTheRoutes(t *testing.T) {
	w := newWorld(t, func(o *Options) {
		o.Routes = []Route{{Target: o.Routes[0].Target, Redact: true}, {Provider: "vapi", Org: "globex", Target: o.Routes[0].Target}}
	})
	theirOwn := request("tool-calls", `,"phoneNumber":{"twilioAuthToken":"tenant-token"},"call":{"orgId":"`+vapiOrg2+`"}`)
	w.asks(w.post("/webhooks/vapi", theirOwn, "X-Vapi-Secret: globex_secret"))
	if _, got := w.app.last(); string(got) != theirOwn {
		t.Errorf("redacted for globex: %s", got)
	}
	w.asks(w.post("/webhooks/vapi", request("tool-calls", ","+theirSecrets), acmeSecret))
	if _, got := w.app.last(); strings.Contains(string(got), theirs) {
		t.Errorf("not redacted for acme: %s", got)
	}
}

func TestVerifiedAssistantIsUsed(t *testing.T) {
	var usage *store.Usage
	w := newWorld(t, func(o *Options) {
		usage = store.NewUsage(o.Memory.(*memory).DB)
		o.Usage = usage
	})
	call := `,"call":{"orgId":"` + vapiOrg + `","assistantId":"asst_acme","id":"c%d"}`
	w.asks(w.post("/webhooks/vapi", request("assistant-request", strings.Replace(call, "%d", "1", 1)), acmeSecret))
	w.post("/webhooks/vapi", request("end-of-call-report", strings.Replace(call, "%d", "2", 1)), acmeSecret)
	w.post("/webhooks/vapi", request("end-of-call-report", strings.Replace(call, "%d", "3", 1)), "X-Vapi-Secret: a guess")
	if err := usage.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := w.db.Assistant(t.Context(), "asst_acme")
	if err != nil || a.UseCount != 2 || a.LastUsedAt.IsZero() {
		t.Errorf("used %d times, last at %v, %v; want 2", a.UseCount, a.LastUsedAt, err)
	}
}
