package webhook

import (
	"net/http"
	"strings"
	"testing"

	"github.com/keyward/keyward/store"
)

// A sample of every provider, under every scheme, goes the whole way.
func TestSamplesVerify(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.PublicURL = "https://hooks.example" })
	s := &Sampler{Store: w.db, Keys: w.keeper.Keys, Address: strings.TrimPrefix(w.url, "http://"), PublicURL: "https://hooks.example"}
	send := func(provider, typ string, status int) {
		t.Helper()
		a, err := s.Send(t.Context(), "acme", provider, typ)
		if err != nil {
			t.Fatal(provider, err)
		}
		if a.Status != status || a.Type == "" {
			t.Errorf("%s %s: %d %s\n%s", provider, a.Type, a.Status, a.Body, w.log)
		}
	}
	for range 2 { // no two are the same
		for _, provider := range []string{"vapi", "resend", "elevenlabs", "google_calendar", "twilio"} {
			send(provider, "", http.StatusOK)
		}
	}
	send("twilio", "call", http.StatusOK)
	send("twilio", "message.delivered", http.StatusOK)
	send("resend", "email.bounced", http.StatusOK)
	before := w.app.count()
	send("vapi", "tool-calls", http.StatusOK)
	if head, body := w.app.last(); w.app.count() != before+1 || !strings.Contains(head, "Keyward-Org: acme") || !strings.Contains(string(body), "tool-calls") {
		t.Errorf("%s\n%s", head, body)
	}
	n := len(w.deliveries())
	if n == 0 || w.deliveries()[n-1].Type != "email.bounced" {
		t.Errorf("%d deliveries", n)
	}

	w.set("acme", "twilio", map[string]any{"account_sid": acmeSID, "auth_token": "12345", "webhook_url": "https://elsewhere.example/hook"})
	send("twilio", "", http.StatusOK)
	for _, auth := range []map[string]any{
		{"type": "bearer"},
		{"type": "bearer", "header": "X-Token"},
		{"type": "hmac"},
		{"type": "hmac", "algorithm": "sha512", "encoding": "base64", "prefix": "v=", "message_id_header": "X-Id", "payload_format": "{svix-id}:{timestamp}:{method}:{url}:{body}"},
		{"type": "hmac", "include_timestamp": false},
	} {
		w.set("acme", "vapi", map[string]any{"api_key": "vapi-key-acme", "vapi_org_id": vapiOrg, "webhook_secret": []string{"one", "two"}, "webhook_auth": auth})
		send("vapi", "", http.StatusOK)
	}
}

func TestSamplesThatCannotBe(t *testing.T) {
	w := newWorld(t)
	s := &Sampler{Store: w.db, Keys: w.keeper.Keys, Address: "127.0.0.1:1"}
	w.set("initech", "vapi", map[string]any{"api_key": "vapi-key-initech"})
	for _, c := range []struct {
		org, provider, typ string
		want               error
	}{
		{"nobody", "vapi", "", store.ErrNotFound},
		{"initech", "vapi", "", ErrNoSecret},
		{"acme", "twilio", "fax", ErrType},
		{"acme", "vapi", "a\"b", ErrType},
		{"acme", "nosuch", "", ErrType},
		{"acme", "vapi", "", ErrNotSent},
	} {
		if _, err := s.Send(t.Context(), c.org, c.provider, c.typ); err == nil || !strings.Contains(err.Error(), c.want.Error()) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
