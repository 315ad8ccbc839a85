package webhook

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The whole way, from the wire to the app, of those whose scheme is data in their files.
func TestMoreProvidersReachTheApp(t *testing.T) {
	w := newWorld(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	w.set("acme", "sendgrid", map[string]any{"api_key": "SG.a.b", "webhook_public_key": []string{unusedKey(t), base64.StdEncoding.EncodeToString(der)}})
	w.set("acme", "openai", map[string]any{"api_key": "sk-1", "webhook_secret": "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c="})
	w.set("acme", "stripe", map[string]any{"api_key": "rk_test_1", "webhook_secret": "whsec_stripe"})
	w.set("acme", "deepgram", map[string]any{"api_key": "k", "webhook_secret": "callback:long-and-random"})
	w.set("globex", "deepgram", map[string]any{"api_key": "k", "webhook_secret": "callback:another"})

	s := &Sampler{Store: w.db, Keys: w.keeper.Keys, Address: strings.TrimPrefix(w.url, "http://")}
	for _, name := range []string{"openai", "stripe", "deepgram"} {
		a, err := s.Send(t.Context(), "acme", name, "")
		if err != nil || a.Status != http.StatusOK {
			t.Errorf("%s: %+v, %v\n%s", name, a, err, w.log)
		}
	}
	if _, err := s.Send(t.Context(), "acme", "sendgrid", ""); !errors.Is(err, ErrPrivateKey) {
		t.Errorf("a sample of SendGrid's: %v", err)
	}

	const body = `[{"event":"delivered","sg_event_id":"1"}]`
	stamp := strconv.FormatInt(time.Now().Unix(), 10)
	sign := func() string {
		sum := sha256.Sum256([]byte(stamp + body))
		sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return sendGridHeader + base64.StdEncoding.EncodeToString(sig)
	}
	if a := w.post("/webhooks/sendgrid/acme", body, sign(), sendGridStamp+stamp); a.status != 200 || a.header.Get("Keyward-Duplicate") != "" {
		t.Errorf("%d %s\n%s", a.status, a.body, w.log)
	}
	if a := w.post("/webhooks/sendgrid/acme", body, sign(), sendGridStamp+stamp); a.status != 200 || a.header.Get("Keyward-Duplicate") != "true" {
		t.Errorf("signed once more: %d, duplicate %q", a.status, a.header.Get("Keyward-Duplicate"))
	}
	for name, a := range map[string]sent{
		"an org without a credential": w.post("/webhooks/sendgrid/globex", body, sign(), sendGridStamp+stamp),
		"another org's password":      w.post("/webhooks/deepgram/globex", `{}`, "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte("callback:long-and-random"))),
		"changed":                     w.post("/webhooks/sendgrid/acme", body+" ", sign(), sendGridStamp+stamp),
	} {
		if a.status != 401 || a.header.Get("Keyward-Error") != "webhook_unverified" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := w.post("/webhooks/sendgrid", body, sign(), sendGridStamp+stamp); a.status != 404 {
		t.Errorf("without an org: %d", a.status)
	}
	types := map[string]string{}
	for _, d := range w.deliveries() {
		types[d.Provider] = d.Type
	}
	for name, want := range map[string]string{"sendgrid": "delivered", "openai": "response.completed", "stripe": "payment_intent.succeeded", "deepgram": "Results"} {
		if types[name] != want {
			t.Errorf("%s: stored as %q, want %q", name, types[name], want)
		}
	}
}

// What proves Deepgram to us is a secret, and goes no further.
func TestPasswordOfACallbackStaysHere(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.Routes[0].Mode = Sync })
	w.set("acme", "deepgram", map[string]any{"api_key": "k", "webhook_secret": "callback:long-and-random"})
	basic := base64.StdEncoding.EncodeToString([]byte("callback:long-and-random"))
	if a := w.post("/webhooks/deepgram/acme", `{"metadata":{"request_id":"r"}}`, "Authorization: Basic "+basic); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if head, _ := w.app.last(); strings.Contains(head, basic) || !strings.Contains(head, "Keyward-Provider: deepgram") {
		t.Errorf("%s", head)
	}
}
