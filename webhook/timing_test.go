package webhook

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/provider"
)

// least is the shortest of the times: what the work takes when nothing else runs beside it.
func least(all []time.Duration) float64 { return float64(slices.Min(all)) }

// What a verifier does takes the same time for a secret that nobody has: with a body for which an HMAC left out would show.
func TestUnknownOrgCostsTheSameWork(t *testing.T) {
	big := strings.Repeat("x", 2<<20)
	for name, m := range map[string]*message{
		"vapi":            delivered(1739537297, big, "X-Vapi-Secret: nope"),
		"resend":          delivered(1739537297, big, "svix-id: m", "svix-timestamp: 1739537297", "svix-signature: v1,nope"),
		"elevenlabs":      delivered(1739537297, big, "ElevenLabs-Signature: t=1739537297,v0=nope"),
		"twilio":          delivered(1739537297, "A="+big, form, "X-Twilio-Signature: nope"),
		"sendgrid":        delivered(sendGridNow, big, sendGridHeader+sendGridSig, sendGridStamp+"1588788367"),
		"deepgram":        delivered(1739537297, big, "Authorization: Basic bm9wZTpub3Bl"),
		"openai":          delivered(1739537297, big, "webhook-id: m", "webhook-timestamp: 1739537297", "webhook-signature: v1,nope"),
		"stripe":          delivered(1739537297, big, "Stripe-Signature: t=1739537297,v1=nope"),
		"google_calendar": delivered(1739537297, big, "X-Goog-Channel-Token: nope"),
	} {
		field, value := provider.Named(name).Webhook.Secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
		if name == provider.SendGrid.Name {
			value = sendGridKey
		}
		known := secretWith(map[string]any{field: value})
		none := secretWith(map[string]any{})
		headless := *m
		headless.head = delivered(0, "", form).head
		var times [3][]time.Duration
		for range 12 {
			for i, run := range []func(){
				func() { verifiers[name](m, known) },
				func() { verifiers[name](m, none) },
				func() { verifiers[name](&headless, known) },
			} {
				began := time.Now()
				run()
				times[i] = append(times[i], time.Since(began))
			}
		}
		a, b, c := least(times[0]), least(times[1]), least(times[2])
		for what, other := range map[string]float64{"no secret": b, "no header": c} {
			if ratio := a / other; ratio > 3 || ratio < 1.0/3 {
				t.Errorf("%s: %s takes %.2f times as long as a wrong signature", name, what, 1/ratio)
			}
		}
	}
}

// Over the wire: the time of a refusal does not say why. Coarse, since other tests run beside it: the shortest times are compared.
func TestRefusalsTakeTheSameTime(t *testing.T) {
	w := newWorld(t)
	const rounds = 60
	body := request("tool-calls", `,"call":{"orgId":"`+vapiOrg+`"},"pad":"`+strings.Repeat("x", 20000)+`"`)
	stranger := strings.Replace(body, vapiOrg, "44444444-4444-4444-8444-444444444444", 1)
	asks := []func() sent{
		func() sent { return w.post("/webhooks/vapi", body, "X-Vapi-Secret: nope") },
		func() sent { return w.post("/webhooks/vapi", stranger, acmeSecret) },
		func() sent { return w.post("/webhooks/vapi/nobody", body, acmeSecret) },
		func() sent { return w.post("/webhooks/vapi", body) },
		func() sent { return w.post("/webhooks/vapi/globex", body, "X-Vapi-Secret: globex_secret") },
	}
	times := make([][]time.Duration, len(asks))
	for range rounds {
		for i, ask := range asks {
			began := time.Now()
			if s := ask(); s.status != 401 {
				t.Fatalf("answer is %d", s.status)
			}
			times[i] = append(times[i], time.Since(began))
		}
	}
	means := make([]float64, len(asks))
	for i := range times {
		means[i] = least(times[i])
	}
	for i, m := range means {
		if math.Abs(m-means[0]) > float64(1500*time.Microsecond) {
			t.Errorf("refusal %d takes %s, a wrong secret %s", i, time.Duration(m), time.Duration(means[0]))
		}
	}
	t.Log(fmt.Sprint("shortest times in ms: ", func() (ms []string) {
		for _, m := range means {
			ms = append(ms, fmt.Sprintf("%.3f", m/1e6))
		}
		return ms
	}()))
}
