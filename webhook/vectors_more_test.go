package webhook

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/keyward/keyward/provider"
)

// The vector of sendgrid-go's own tests.
const (
	sendGridKey  = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEDr2LjtURuePQzplybdC+u4CwrqDqBaWjcMMsTbhdbcwHBcepxo7yAQGhHPTnlvFYPAZFceEu/1FwCM/QmGUhA=="
	sendGridSig  = "MEUCIQCtIHJeH93Y+qpYeWrySphQgpNGNr/U+UyUlBkU6n7RAwIgJTz2C+8a8xonZGi6BpSzoQsbVRamr2nlxFDWYNH2j/0="
	sendGridBody = `{"category":"example_payload","event":"test_event","message_id":"message_id"}`
	sendGridNow  = 1588788367

	sendGridHeader = "X-Twilio-Email-Event-Webhook-Signature: "
	sendGridStamp  = "X-Twilio-Email-Event-Webhook-Timestamp: "
)

func TestSendGridVector(t *testing.T) {
	secret := secretWith(map[string]any{"webhook_public_key": sendGridKey})
	verify := func(now int64, body string, s provider.Secret, headers ...string) verdict {
		return verifiers["sendgrid"](delivered(now, body, headers...), s)
	}
	good := []string{sendGridHeader + sendGridSig, sendGridStamp + "1588788367"}
	first := verify(sendGridNow, sendGridBody, secret, good...)
	if !first.ok {
		t.Fatal(first.reason)
	}
	if v := verify(sendGridNow, sendGridBody, secretWith(map[string]any{"webhook_public_key": []string{unusedKey(t), sendGridKey}}), good...); !v.ok {
		t.Errorf("the second of two keys: %s", v.reason)
	}
	for name, v := range map[string]verdict{
		"another body":      verify(sendGridNow, sendGridBody+" ", secret, good...),
		"another time":      verify(sendGridNow, sendGridBody, secret, good[0], sendGridStamp+"1588788368"),
		"another key":       verify(sendGridNow, sendGridBody, secretWith(map[string]any{"webhook_public_key": unusedKey(t)}), good...),
		"no key":            verify(sendGridNow, sendGridBody, secretWith(map[string]any{}), good...),
		"a key that is not": verify(sendGridNow, sendGridBody, secretWith(map[string]any{"webhook_public_key": "MFkw"}), good...),
		"no signature":      verify(sendGridNow, sendGridBody, secret, good[1]),
		"no timestamp":      verify(sendGridNow, sendGridBody, secret, good[0]),
		"two signatures":    verify(sendGridNow, sendGridBody, secret, good[0], good[0], good[1]),
		"two timestamps":    verify(sendGridNow, sendGridBody, secret, good[0], good[1], good[1]),
		"too old":           verify(sendGridNow+601, sendGridBody, secret, good...),
		"too new":           verify(sendGridNow-301, sendGridBody, secret, good...),
		"not base64":        verify(sendGridNow, sendGridBody, secret, good[0]+"?", good[1]),
	} {
		if v.ok {
			t.Errorf("%s: verified", name)
		}
	}
}

// Whoever sees a delivery can make another good signature of it. It is the same delivery all the same.
func TestAnotherSignatureOfTheSameIsNoOtherDelivery(t *testing.T) {
	der, _ := base64.StdEncoding.DecodeString(sendGridSig)
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		t.Fatal(err)
	}
	sig.S.Sub(elliptic.P256().Params().N, sig.S)
	der, err := asn1.Marshal(sig)
	if err != nil {
		t.Fatal(err)
	}
	secret := secretWith(map[string]any{"webhook_public_key": sendGridKey})
	one := verifiers["sendgrid"](delivered(sendGridNow, sendGridBody, sendGridHeader+sendGridSig, sendGridStamp+"1588788367"), secret)
	two := verifiers["sendgrid"](delivered(sendGridNow, sendGridBody, sendGridHeader+base64.StdEncoding.EncodeToString(der), sendGridStamp+"1588788367"), secret)
	if !one.ok || !two.ok || string(one.once) != string(two.once) || len(one.once) == 0 {
		t.Errorf("%+v, %+v", one, two)
	}
}

func unusedKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// The vector of openai-node's own tests, taken from a real event.
func TestOpenAIVector(t *testing.T) {
	const (
		secret = "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c="
		body   = `{"id": "evt_685c059ae3a481909bdc86819b066fb6", "object": "event", "created_at": 1750861210, "type": "response.completed", "data": {"id": "resp_123"}}`
		id     = "webhook-id: wh_685c059ae39c8190af8c71ed1022a24d"
		stamp  = "webhook-timestamp: 1750861210"
		sig    = "webhook-signature: v1,gUAg4R2hWouRZqRQG4uJypNS8YK885G838+EHb4nKBY="
	)
	verify := func(now int64, secret, body string, headers ...string) verdict {
		return verifiers["openai"](delivered(now, body, headers...), secretWith(map[string]any{"webhook_secret": secret}))
	}
	if v := verify(1750861210, secret, body, id, stamp, sig); !v.ok || string(v.once) != "wh_685c059ae39c8190af8c71ed1022a24d" {
		t.Errorf("%+v", v)
	}
	for name, v := range map[string]verdict{
		"another secret":    verify(1750861210, "whsec_bm90LXRoZS1jb3JyZWN0LXNlY3JldC1idXQtbG9uZy1lbm91Z2g=", body, id, stamp, sig),
		"another body":      verify(1750861210, secret, body+" ", id, stamp, sig),
		"another id":        verify(1750861210, secret, body, id+"0", stamp, sig),
		"too old":           verify(1750861511, secret, body, id, stamp, sig),
		"too new":           verify(1750860909, secret, body, id, stamp, sig),
		"without id":        verify(1750861210, secret, body, stamp, sig),
		"without timestamp": verify(1750861210, secret, body, id, sig),
		"without signature": verify(1750861210, secret, body, id, stamp),
	} {
		if v.ok {
			t.Errorf("%s: verified", name)
		}
	}
	var said identity
	reader(provider.OpenAI.Webhook)(&said, delivered(0, body))
	if said.typ != "response.completed" || said.group != "resp_123" {
		t.Errorf("%+v", said)
	}
}

// Stripe publishes the construction and no vector: the signature is made here as docs.stripe.com/webhooks/signature says, in other words than
// the verifier's.
func TestStripeScheme(t *testing.T) {
	const body, secret = `{"id":"evt_1","type":"invoice.paid","data":{"object":{"id":"in_1"}}}`, "whsec_test_secret"
	sum := fmt.Sprintf("%x", mac(sha256.New, []byte(secret), []byte("1739537297."+body)))
	verify := func(now int64, secret, body, header string) verdict {
		return verifiers["stripe"](delivered(now, body, "Stripe-Signature: "+header), secretWith(map[string]any{"webhook_secret": secret}))
	}
	const now = 1739537297
	for _, good := range []string{"t=1739537297,v1=" + sum, "t=1739537297,v1=" + strings.Repeat("0", 64) + ",v1=" + sum + ",v0=" + sum} {
		if v := verify(now, secret, body, good); !v.ok {
			t.Errorf("%s: %s", good, v.reason)
		}
	}
	for name, v := range map[string]verdict{
		"another secret":     verify(now, "whsec_other", body, "t=1739537297,v1="+sum),
		"a decoded secret":   verify(now, "test_secret", body, "t=1739537297,v1="+sum),
		"another body":       verify(now, secret, body+" ", "t=1739537297,v1="+sum),
		"another version":    verify(now, secret, body, "t=1739537297,v0="+sum),
		"another time":       verify(now, secret, body, "t=1739537298,v1="+sum),
		"two times":          verify(now, secret, body, "t=1739537297,t=1739537297,v1="+sum),
		"no time":            verify(now, secret, body, "v1="+sum),
		"too old":            verify(now+301, secret, body, "t=1739537297,v1="+sum),
		"too new":            verify(now-301, secret, body, "t=1739537297,v1="+sum),
		"capital letters":    verify(now, secret, body, "t=1739537297,v1="+strings.ToUpper(sum)),
		"nothing":            verify(now, secret, body, ","),
		"an empty signature": verify(now, secret, body, "t=1739537297,v1="),
	} {
		if v.ok {
			t.Errorf("%s: verified", name)
		}
	}
}

func TestDeepgramCallback(t *testing.T) {
	const body = `{"metadata":{"request_id":"r1"},"results":{}}`
	secret := secretWith(map[string]any{"webhook_secret": "callback:long-and-random"})
	verify := func(headers ...string) verdict { return verifiers["deepgram"](delivered(0, body, headers...), secret) }
	basic := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("callback:long-and-random"))
	v := verify(basic)
	if !v.ok || v.hide != "authorization" || len(v.once) == 0 {
		t.Errorf("%+v", v)
	}
	if other := verifiers["deepgram"](delivered(0, body+" ", basic), secret); string(other.once) == string(v.once) {
		t.Error("two bodies are one delivery")
	}
	for name, v := range map[string]verdict{
		"another password": verify("Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("callback:guess"))),
		"bare":             verify("Authorization: callback:long-and-random"),
		"twice":            verify(basic, basic),
		"none":             verify(),
		"dg-token alone":   verify("dg-token: callback:long-and-random"), // proves nothing: see the provider's file
	} {
		if v.ok {
			t.Errorf("%s: verified", name)
		}
	}
}

func TestTypeOfAList(t *testing.T) {
	var said identity
	reader(provider.SendGrid.Webhook)(&said, delivered(0, `[{"event":"delivered","sg_event_id":"1"},{"event":"bounce"}]`))
	if said.typ != "delivered" || said.problem != "" {
		t.Errorf("%+v", said)
	}
}

// While a secret is being replaced, a delivery is signed with both. A copy that lacks one of the signatures is the same delivery.
func TestStampedCopyWithFewerSignaturesIsTheSame(t *testing.T) {
	const body, now = `{"id":"evt_1"}`, 1739537297
	sign := func(secret string) string {
		return fmt.Sprintf(",v1=%x", mac(sha256.New, []byte(secret), []byte("1739537297."+body)))
	}
	secrets := secretWith(map[string]any{"webhook_secret": []string{"whsec_new_0123456789", "whsec_old_0123456789"}})
	var first verdict
	for _, signatures := range []string{
		sign("whsec_new_0123456789") + sign("whsec_old_0123456789"), sign("whsec_new_0123456789"), sign("whsec_old_0123456789"),
	} {
		v := verifiers["stripe"](delivered(now, body, "Stripe-Signature: t=1739537297"+signatures), secrets)
		if !v.ok {
			t.Fatalf("%s: %s", signatures, v.reason)
		}
		if first.once == nil {
			first = v
		}
		if string(v.once) != string(first.once) {
			t.Errorf("with %s it is another delivery", signatures)
		}
	}
	if v := verifiers["stripe"](delivered(now, body+" ", "Stripe-Signature: t=1739537297"+fmt.Sprintf(",v1=%x", mac(sha256.New, []byte("whsec_new_0123456789"), []byte("1739537297."+body+" ")))), secrets); !v.ok || string(v.once) == string(first.once) {
		t.Errorf("another body is the same delivery: %+v", v)
	}
}
