package webhook

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/keyward/keyward/provider"
)

// A sample is a delivery that verifies.
type sample struct {
	name    string
	verify  verifier
	secret  map[string]any
	target  string // path and query
	headers []string
	body    string
	now     int64
	bare    bool // the body is not signed
}

func samples() []sample {
	const now = 1739537297
	form1 := "AccountSid=" + acmeSID + "&Body=a%2Bb+c%26d&From=%2B15550001&MediaUrl=b&MediaUrl=a&Empty=&To=%2B15550002"
	fields, ok := parseForm([]byte(form1))
	if !ok {
		panic("the sample is no form")
	}
	target := "/webhooks/twilio?foo=1&bar=%2Fx%20y"
	sms := string(inBase64(mac(algorithms["sha1"], []byte("12345"), []byte("https://hooks.example"+target), joinParams(fields))))
	key, _ := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	mail := string(inBase64(mac(algorithms["sha256"], key, []byte(`msg_1.1739537297.{"type":"email.sent"}`))))
	call := fmt.Sprintf("%x", mac(algorithms["sha256"], []byte("wsec_test"), []byte(`1739537297.{"data":{"agent_id":"xyz"}}`)))
	vapi1 := fmt.Sprintf("%x", mac(algorithms["sha256"], []byte("vapi_test"), []byte("1739537297000."+vapiBody)))
	sum := sha256.Sum256([]byte(`{"account_sid":"` + acmeSID + `"}`))
	whole := "/webhooks/twilio?bodySHA256=" + hex.EncodeToString(sum[:])
	event := string(inBase64(mac(algorithms["sha1"], []byte("12345"), []byte("https://hooks.example"+whole))))
	vapi2 := string(inBase64(mac(algorithms["sha512"], []byte("vapi_test"), []byte("m1:1739537297:"+vapiBody))))
	return []sample{
		{"twilio", verifyTwilio, map[string]any{"auth_token": "12345"}, target, []string{form, "X-Twilio-Signature: " + sms}, form1, now, false},
		{"twilio JSON", verifyTwilio, map[string]any{"auth_token": "12345"}, whole, []string{"Content-Type: application/json", "X-Twilio-Signature: " + event}, `{"account_sid":"` + acmeSID + `"}`, now, false},
		{
			"resend", verifiers["resend"],
			map[string]any{"webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
			"/webhooks/resend/acme",
			[]string{"svix-id: msg_1", "svix-timestamp: 1739537297", "svix-signature: v1," + mail},
			`{"type":"email.sent"}`, now, false,
		},
		{
			"resend by the standard's names", verifiers["resend"],
			map[string]any{"webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
			"/webhooks/resend/acme",
			[]string{"webhook-id: msg_1", "webhook-timestamp: 1739537297", "webhook-signature: v1," + mail},
			`{"type":"email.sent"}`, now, false,
		},
		{"elevenlabs", verifiers["elevenlabs"], map[string]any{"webhook_secret": "wsec_test"}, "/webhooks/elevenlabs", []string{"ElevenLabs-Signature: t=1739537297,v0=" + call}, `{"data":{"agent_id":"xyz"}}`, now, false},
		{
			"vapi hmac", verifyVapi,
			map[string]any{"webhook_secret": "vapi_test", "webhook_auth": `{"type":"hmac"}`},
			"/webhooks/vapi",
			[]string{"x-timestamp: 1739537297000", "x-signature: " + vapi1},
			vapiBody, now, false,
		},
		{
			"vapi base64", verifyVapi,
			map[string]any{
				"webhook_secret": "vapi_test",
				"webhook_auth":   `{"type":"hmac","algorithm":"sha512","encoding":"base64","prefix":"sha512=","payload_format":"{svix-id}:{timestamp}:{body}","message_id_header":"x-id"}`,
			},
			"/webhooks/vapi",
			[]string{"x-id: m1", "x-timestamp: 1739537297", "x-signature: sha512=" + vapi2},
			vapiBody, now, false,
		},
		{"vapi secret", verifyVapi, map[string]any{"webhook_secret": "vapi_test"}, "/webhooks/vapi", []string{"X-Vapi-Secret: vapi_test"}, vapiBody, now, true},
		{"vapi bearer", verifyVapi, map[string]any{"webhook_secret": "vapi_test", "webhook_auth": `{"type":"bearer"}`}, "/webhooks/vapi", []string{"Authorization: Bearer vapi_test"}, vapiBody, now, true},
		{"stripe", verifiers["stripe"], map[string]any{"webhook_secret": "whsec_test"}, "/webhooks/stripe/acme", []string{"Stripe-Signature: t=1739537297,v1=" + fmt.Sprintf("%x", mac(algorithms["sha256"], []byte("whsec_test"), []byte(`1739537297.{"type":"invoice.paid"}`)))}, `{"type":"invoice.paid"}`, now, false},
		{
			"openai", verifiers["openai"],
			map[string]any{"webhook_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
			"/webhooks/openai/acme",
			[]string{"webhook-id: msg_1", "webhook-timestamp: 1739537297", "webhook-signature: v1," + mail},
			`{"type":"email.sent"}`, now, false,
		},
		{
			"sendgrid", verifiers["sendgrid"],
			map[string]any{"webhook_public_key": sendGridKey},
			"/webhooks/sendgrid/acme",
			[]string{sendGridHeader + sendGridSig, sendGridStamp + "1588788367"},
			sendGridBody, sendGridNow, false,
		},
		{"deepgram", verifiers["deepgram"], map[string]any{"webhook_secret": "callback:long"}, "/webhooks/deepgram/acme", []string{"Authorization: Basic Y2FsbGJhY2s6bG9uZw=="}, `{}`, now, true},
		{"google", verifiers["google_calendar"], map[string]any{"channel_token": "token of the channel"}, "/webhooks/google_calendar/acme", []string{"X-Goog-Channel-Token: token of the channel", googleID, googleNumber}, "", now, true},
	}
}

const (
	googleID     = "X-Goog-Channel-ID: c"
	googleNumber = "X-Goog-Message-Number: 1"
)

func (s sample) check(target, body string, headers []string) (v verdict, ok bool) {
	h := &head{}
	if h.scan([]byte("Host: hooks.example\r\n"+strings.Join(headers, "\r\n")+"\r\n\r\n"), false) != nil {
		return verdict{}, false // no request at all
	}
	m := delivered(s.now, body)
	m.head, m.url = h, "https://hooks.example"+target
	_, m.rawQuery, _ = strings.Cut(target, "?")
	return s.verify(m, secretWith(s.secret)), true
}

// mutants are every change of one byte in s: each byte flipped in every bit, and set, taken away, doubled, and one put in.
func mutants(s string, fn func(string)) {
	for i := range len(s) {
		for bit := range 8 {
			fn(s[:i] + string([]byte{s[i] ^ 1<<bit}) + s[i+1:])
		}
		fn(s[:i] + s[i+1:])
		for _, c := range []byte("0aA&=%+ ,.{}\"\\\x00\xff") {
			if c != s[i] {
				fn(s[:i] + string([]byte{c}) + s[i+1:])
			}
			fn(s[:i] + string([]byte{c}) + s[i:])
		}
	}
}

func TestNoChangeOfOneByteVerifies(t *testing.T) {
	for _, s := range samples() {
		if v, _ := s.check(s.target, s.body, s.headers); !v.ok {
			t.Fatalf("%s: the sample does not verify: %s", s.name, v.reason)
		}
		n := 0
		never := func(what, text string, target, body string, headers []string) {
			n++
			if v, ok := s.check(target, body, headers); ok && v.ok {
				t.Errorf("%s: verified with a changed %s: %q", s.name, what, text)
			}
		}
		if !s.bare {
			mutants(s.body, func(b string) { never("body", b, s.target, b, s.headers) })
		}
		if _, query, ok := strings.Cut(s.target, "?"); ok {
			mutants(query, func(q string) {
				if strings.IndexFunc(q, notInTarget) < 0 && utf8.ValidString(q) { // cannot stand in a request line
					never("query", q, strings.Split(s.target, "?")[0]+"?"+q, s.body, s.headers)
				}
			})
		}
		for i, line := range s.headers {
			if line == form || line == googleID || line == googleNumber || strings.HasPrefix(line, "Content-Type") {
				continue // proves nothing
			}
			name, value, _ := strings.Cut(line, ": ")
			mutants(value, func(v string) {
				if strings.TrimSpace(v) == value {
					return // white space around a value is none of it
				}
				headers := append([]string(nil), s.headers...)
				headers[i] = name + ": " + v
				if strings.HasSuffix(name, "-signature") && (strings.HasPrefix(s.name, "resend") || s.name == "openai") || name == "ElevenLabs-Signature" || name == "Stripe-Signature" {
					if strings.Contains(v, value) { // a whole one is among what stands there
						return
					}
				}
				never(name, v, s.target, s.body, headers)
			})
		}
		if n < 300 {
			t.Errorf("%s: only %d changes were tried", s.name, n)
		}
	}
}

// Random secrets and bodies: what is signed verifies, under no other secret.
func TestGeneratedSvixRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		key := make([]byte, 1+r.IntN(64))
		for i := range key {
			key[i] = byte(r.IntN(256))
		}
		body := make([]byte, r.IntN(200))
		for i := range body {
			body[i] = byte(r.IntN(256))
		}
		sum := inBase64(mac(algorithms["sha256"], key, []byte("m.1739537297."), body))
		m := delivered(1739537297, string(body), "svix-id: m", "svix-timestamp: 1739537297", "svix-signature: v1,"+string(sum))
		secret := "whsec_" + base64.StdEncoding.EncodeToString(key)
		if v := verifiers["resend"](m, secretWith(map[string]any{"webhook_secret": secret})); !v.ok {
			t.Fatal(v.reason)
		}
		key[0]++
		if verifiers["resend"](m, secretWith(map[string]any{"webhook_secret": "whsec_" + base64.StdEncoding.EncodeToString(key)})).ok {
			t.Fatal("verified with another key")
		}
	}
}

func TestEveryProviderHasItsScheme(t *testing.T) {
	for _, p := range provider.All {
		if p.Webhook != nil && verifiers[p.Name] == nil {
			t.Errorf("%s has a scheme that nothing verifies", p.Name)
		}
	}
}

// notInTarget says which characters a request line cannot have in its target.
func notInTarget(r rune) bool { return r == ' ' || r == 0 || r == 0x7f || r == '#' }
