package examples

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/keyward/keyward/standin"
)

// A scheme is one of the ways in which Vapi proves itself: what is set up for it, and how it signs.
type scheme struct {
	name, auth string
	sign       func(h http.Header, secret string, body []byte)
}

var schemes = []scheme{
	{"secret", `{"type":"secret"}`, func(h http.Header, secret string, _ []byte) { h.Set("X-Vapi-Secret", secret) }},
	{"bearer", `{"type":"bearer"}`, func(h http.Header, secret string, _ []byte) { h.Set("Authorization", "Bearer "+secret) }},
	{"hmac", `{"type":"hmac"}`, func(h http.Header, secret string, body []byte) {
		stamp := strconv.FormatInt(time.Now().UnixMilli(), 10)
		sum := hmac.New(sha256.New, []byte(secret))
		sum.Write([]byte(stamp + "." + string(body)))
		h.Set("x-timestamp", stamp)
		h.Set("x-signature", fmt.Sprintf("%x", sum.Sum(nil)))
	}},
}

// setUp gives both orgs a secret of that scheme, and gives their secrets.
func (v *voiceAgent) setUp(t *testing.T, s scheme) map[string]string {
	t.Helper()
	secrets := map[string]string{}
	for _, org := range orgs {
		secrets[org] = s.name + "-secret-of-" + org
		fields := map[string]any{"webhook_secret": secrets[org], "webhook_auth": json.RawMessage(s.auth)}
		for _, c := range standin.Sample(org) {
			if c.Provider == standin.Vapi {
				for name, value := range c.Fields {
					fields[name] = value
				}
			}
		}
		text, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		v.keyward(t, string(text), "credentials", "set", "--run-dir", v.run, "--org", org, "--provider", "vapi")
	}
	return secrets
}

// message is one of Vapi's, as it sends them: about a call of the org's, on its phone number.
func (v *voiceAgent) message(org, call, kind string, members string) []byte {
	vapiOrg := ""
	for _, c := range standin.Sample(org) {
		if c.Provider == standin.Vapi {
			vapiOrg = c.Fields["vapi_org_id"]
		}
	}
	assistant := quoted(v.assistants[org])
	if kind == "assistant-request" {
		assistant = "null"
	}
	return fmt.Appendf(nil, `{"message":{"timestamp":%d,"type":%q,%s"call":{"id":%q,"orgId":%q,"type":"inboundPhoneCall","status":"in-progress","assistantId":%s,`+
		`"phoneCallProvider":"twilio","customer":{"number":"+15550003"}},"phoneNumber":{"id":"0d5f2a5e-0000-4000-8000-000000000001","orgId":%q,"number":"+15550001000"},`+
		`"customer":{"number":"+15550003"},"artifact":{"messages":[{"role":"user","message":"A table for two at eight, please. Ciào 😀"}]}}}`,
		time.Now().UnixMilli(), kind, members, call, vapiOrg, assistant, vapiOrg)
}

// toolCall has Vapi ask for an SMS.
func toolCall(id, text string) string {
	call := fmt.Sprintf(`{"id":%q,"type":"function","function":{"name":"sendConfirmation","arguments":{"to":"+15550003","text":%q}}}`, id, text)
	return fmt.Sprintf(`"toolCallList":[%s],"toolWithToolCallList":[{"type":"function","name":"sendConfirmation","toolCall":%s}],`, call, call)
}
