package torture

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	sum "hash"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// A hookScheme is one way in which providers prove that a delivery is theirs, written anew after their documentation: nothing of the
// program's own is used.
type hookScheme struct {
	name     string // also of its orgs
	provider string
	fields   func(org int) map[string]any
	// sign makes the nth delivery for /webhooks/PROVIDER/ORG.
	sign func(target string, org, n int) hook
	// proof are the headers that a change of one byte must break; covers says whether the body is signed too.
	proof  []string
	covers bool
}

const hookSecret = "hook-secret-0123456789abcdef"

var svixKey = []byte("0123456789abcdef0123456789abcdef")

func summed(algorithm func() sum.Hash, key []byte, parts ...string) []byte {
	m := hmac.New(algorithm, key)
	for _, p := range parts {
		_, _ = m.Write([]byte(p))
	}
	return m.Sum(nil)
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func unixNow() string { return strconv.FormatInt(time.Now().Unix(), 10) }

func vapiHook(typ string, n int) string {
	return fmt.Sprintf(`{"message":{"type":%q,"timestamp":%d,"call":{"id":"call-%d"}}}`, typ, 1739537297000+n, n)
}

// vapiScheme is one setting of Vapi's webhook_auth; header are the headers that prove the body.
func vapiScheme(name, auth string, covers bool, header func(body string, n int) []string, proof ...string) hookScheme {
	return hookScheme{
		name: name, provider: "vapi", proof: proof, covers: covers,
		fields: func(int) map[string]any {
			f := map[string]any{"api_key": "vapi-key-0123456789", "webhook_secret": hookSecret}
			if auth != "" {
				f["webhook_auth"] = json.RawMessage(auth)
			}
			return f
		},
		sign: func(target string, org, n int) hook {
			body := vapiHook("tool-calls", n)
			return hook{target, append([]string{"Content-Type: application/json"}, header(body, n)...), body}
		},
	}
}

var hookSchemes = []hookScheme{
	vapiScheme("vapi-secret", "", false, func(string, int) []string { return []string{"X-Vapi-Secret: " + hookSecret} }, "X-Vapi-Secret"),
	vapiScheme("vapi-bearer", `{"type":"bearer"}`, false, func(string, int) []string { return []string{"Authorization: Bearer " + hookSecret} }, "Authorization"),
	vapiScheme("vapi-hmac", `{"type":"hmac"}`, true, func(body string, _ int) []string {
		stamp := strconv.FormatInt(time.Now().UnixMilli(), 10)
		return []string{"x-timestamp: " + stamp, "x-signature: " + hex.EncodeToString(summed(sha256.New, []byte(hookSecret), stamp, ".", body))}
	}, "x-timestamp", "x-signature"),
	vapiScheme("vapi-hmac-bare", `{"type":"hmac","include_timestamp":false,"signature_header":"x-sum","prefix":"sha256="}`, true, func(body string, _ int) []string {
		return []string{"x-sum: sha256=" + hex.EncodeToString(summed(sha256.New, []byte(hookSecret), body))}
	}, "x-sum"),
	vapiScheme("vapi-hmac-id", `{"type":"hmac","algorithm":"sha512","encoding":"base64","payload_format":"{svix-id}.{timestamp}.{body}","message_id_header":"x-id"}`, true, func(body string, n int) []string {
		id, stamp := fmt.Sprint("m", n), unixNow()
		return []string{"x-id: " + id, "x-timestamp: " + stamp, "x-signature: " + b64(summed(sha512.New, []byte(hookSecret), id, ".", stamp, ".", body))}
	}, "x-id", "x-timestamp", "x-signature"),
	{
		name: "twilio-form", provider: "twilio", proof: []string{"X-Twilio-Signature"}, covers: true, fields: twilioFields,
		sign: func(target string, org, n int) hook {
			form := url.Values{"AccountSid": {twilioSID(org)}, "CallSid": {fmt.Sprintf("CA%032x", n)}, "CallStatus": {"ringing"}, "From": {"+15550001"}, "SpeechResult": {"yes & no"}}
			signed := "https://hooks.example" + target
			names := make([]string, 0, len(form))
			for name := range form {
				names = append(names, name)
			}
			slices.Sort(names)
			for _, name := range names {
				signed += name + form.Get(name)
			}
			return hook{target, []string{"Content-Type: application/x-www-form-urlencoded", "X-Twilio-Signature: " + b64(summed(sha1.New, []byte(hookSecret), signed))}, form.Encode()}
		},
	},
	{
		name: "twilio-json", provider: "twilio", proof: []string{"X-Twilio-Signature"}, covers: true, fields: twilioFields,
		sign: func(target string, org, n int) hook {
			body := fmt.Sprintf(`{"account_sid":%q,"event":%d}`, twilioSID(org), n)
			whole := sha256.Sum256([]byte(body))
			target += "?bodySHA256=" + hex.EncodeToString(whole[:])
			return hook{target, []string{"Content-Type: application/json", "X-Twilio-Signature: " + b64(summed(sha1.New, []byte(hookSecret), "https://hooks.example"+target))}, body}
		},
	},
	svixScheme("resend-svix", "svix-"),
	svixScheme("resend-standard", "webhook-"),
	{
		name: "elevenlabs", provider: "elevenlabs", proof: []string{"ElevenLabs-Signature"}, covers: true,
		fields: func(int) map[string]any {
			return map[string]any{"api_key": "sk_0123456789abcdef", "webhook_secret": hookSecret}
		},
		sign: func(target string, org, n int) hook {
			body, stamp := fmt.Sprintf(`{"type":"post_call_transcription","data":{"conversation_id":"conv_%d"}}`, n), unixNow()
			return hook{target, []string{"Content-Type: application/json", "ElevenLabs-Signature: t=" + stamp + ",v0=" + hex.EncodeToString(summed(sha256.New, []byte(hookSecret), stamp, ".", body))}, body}
		},
	},
	{
		name: "google", provider: "google_calendar", proof: []string{"X-Goog-Channel-Token"},
		fields: func(int) map[string]any {
			return map[string]any{"client_id": "id", "client_secret": "client-secret-0123", "refresh_token": "refresh-token-0123", "channel_token": hookSecret}
		},
		sign: func(target string, org, n int) hook {
			return hook{target, []string{"X-Goog-Channel-ID: channel", "X-Goog-Channel-Token: " + hookSecret, fmt.Sprint("X-Goog-Message-Number: ", n), "X-Goog-Resource-State: exists"}, ""}
		},
	},
}

func svixScheme(name, prefix string) hookScheme {
	return hookScheme{
		name: name, provider: "resend", proof: []string{prefix + "id", prefix + "timestamp", prefix + "signature"}, covers: true,
		fields: func(int) map[string]any {
			return map[string]any{"api_key": "re_0123456789abcdef", "webhook_secret": "whsec_" + b64(svixKey)}
		},
		sign: func(target string, org, n int) hook {
			id, stamp, body := fmt.Sprint("msg_", n), unixNow(), fmt.Sprintf(`{"type":"email.bounced","data":{"email_id":"%d"}}`, n)
			return hook{target, []string{
				"Content-Type: application/json", prefix + "id: " + id, prefix + "timestamp: " + stamp,
				prefix + "signature: v1," + b64(summed(sha256.New, svixKey, id, ".", stamp, ".", body)),
			}, body}
		},
	}
}

func twilioSID(org int) string { return fmt.Sprintf("AC%032x", 0xabc000+org) }

func twilioFields(org int) map[string]any {
	return map[string]any{"account_sid": twilioSID(org), "auth_token": hookSecret}
}

// A hookOrg is an org for one scheme, whose deliveries are all answered at once or all stored.
type hookOrg struct {
	hookScheme
	org    string
	number int
	sync   bool
	target string
}

// hookOrgs are an org for each scheme and mode, and the routes that make them so.
func hookOrgs(target string) (all []hookOrg, config string) {
	config = "webhooks:\n"
	for i, s := range hookSchemes {
		for _, mode := range []string{"sync", "durable"} {
			o := hookOrg{hookScheme: s, org: s.name + "." + mode, number: 2*i + len(mode), sync: mode == "sync"}
			o.target = "/webhooks/" + s.provider + "/" + o.org
			config += fmt.Sprintf("  - {org: %s, target: %q, mode: %s}\n", o.org, target, mode)
			all = append(all, o)
		}
	}
	return all, config
}

// next is the org's nth delivery.
func (o hookOrg) next(n int) hook { return o.sign(o.target, o.number, n) }

// put stores the org's credential.
func (o hookOrg) put(s *sidecar) { s.put(o.org, o.provider, o.fields(o.number)) }

// taken wants that the app has it, or will.
func (o hookOrg) taken(r reply) bool { return r.err == nil && r.status == 200 && !r.duplicate() }

// refused wants that a copy is known as one.
func (o hookOrg) refused(r reply) bool {
	if o.sync {
		return r.status == 409 && r.header.Get("Keyward-Error") == "replayed"
	}
	return r.status == 200 && r.duplicate()
}
