package webhook

import (
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/provider"
)

// secretWith is a credential of the given texts, lists and objects.
func secretWith(fields map[string]any) provider.Secret {
	values := provider.Values{}
	for name, v := range fields {
		switch v := v.(type) {
		case string:
			if name == "webhook_auth" {
				values[name] = provider.Value{Object: []byte(v)}
			} else {
				values[name] = provider.Value{Text: v}
			}
		case []string:
			values[name] = provider.Value{List: v}
		}
	}
	return provider.Open(values.Encode(nil))
}

// delivered is a message with headers "Name: value".
func delivered(now int64, body string, headers ...string) *message {
	h := &head{}
	raw := "Host: hooks.example\r\n"
	for _, line := range headers {
		raw += line + "\r\n"
	}
	if err := h.scan([]byte(raw+"\r\n"), false); err != nil {
		panic(err.detail)
	}
	return &message{method: "POST", url: "https://hooks.example/webhooks/vapi", head: h, body: []byte(body), now: time.Unix(now, 0)}
}

const form = "Content-Type: application/x-www-form-urlencoded"

// The published vectors of Twilio's libraries, and those made with the one for Node.
func TestTwilioVectors(t *testing.T) {
	const (
		u    = "https://mycompany.com/myapp.php?foo=1&bar=2"
		one  = "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212"
		two  = one + "&Reason=Participant&ReasonConferenceEnded=test"
		hash = "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"
		json = `{"property": "value", "boolean": true}`
	)
	for i, v := range []struct{ url, body, signature string }{
		{u, one, "RSOYDt4T1cUTdK1PDd93/VVr8B8="},
		{u, two, "vOEb5UThFn24KEfnOFLQY2AE5FY="},
		{strings.Replace(u, "https", "http", 1), two, "n2xBNyzSW7rfYStDtOFiFMv7qNo="},
		{u, "property=value&boolean=true", "NBdBDr/T/lgjI+tlgpXjKZQZs/k="},
		{u + "&bodySHA256=" + hash, json, "a9nBmqA0ju/hNViExpshrM61xv4="},
		{"https://mycompany.com/myapp.php?bodySHA256=" + hash, json, "y77kIzt2vzLz71DgmJGsen2scGs="},
		{u, two, "nlYDL9HO41xd+GBsch67HROPYMY="}, // signed with :443
		{u, "", "zYQTYrRWXE7LtzbG4PfP7/bkkGo="},
		{u, "MediaUrl=b&MediaUrl=a&MediaUrl=b", "TQyznOS6Od0cpzxzGU0qRoz1ErM="},
		{u, "A=&B=x", "bWeevTHlSTOF+IbXptnJYtBAhiY="},
		{u, "b=1&A=2&a=3&B=4", "adqG1q1n64PLtxwzQph9sr5nHgU="},
		{u, "Body=h%C3%A9llo+%F0%9F%98%80", "Z5gxA7w9YI8RVrXanUnzP9ctqp0="},
		{u, "MediaUrl=%EF%BF%AD&MediaUrl=%F0%9F%98%80", "Qm3t2VOTZyAk+sM+nzr4r8Dldwo="}, // JavaScript's order: surrogates first
	} {
		t.Run(strconv.Itoa(i+1), func(t *testing.T) {
			headers := []string{"X-Twilio-Signature: " + v.signature}
			if v.body != "" && v.body[0] != '{' {
				headers = append(headers, form)
			}
			m := delivered(0, v.body, headers...)
			typed, query, _ := strings.Cut(v.url, "?")
			m.rawQuery = query
			for _, as := range []string{typed, typed + "?" + query, typed + "#rc=2&rp=all", strings.Replace(typed, "mycompany.com", "mycompany.com:8443", 1)} {
				s := secretWith(map[string]any{"auth_token": "12345", "webhook_url": as})
				// A port of its own is signed with or without.
				if got := verifyTwilio(m, s); !got.ok && !(strings.Contains(as, "8443") && i == 6) {
					t.Errorf("webhook_url %q: %s", as, got.reason)
				}
			}
			if verifyTwilio(m, secretWith(map[string]any{"auth_token": "12346", "webhook_url": v.url})).ok {
				t.Error("verified with another token")
			}
			if !verifyTwilio(m, secretWith(map[string]any{"auth_token": "x", "webhook_secret": []string{"y", "12345"}, "webhook_url": v.url})).ok {
				t.Error("the second of several secrets does not verify")
			}
			if verifyTwilio(m, secretWith(map[string]any{"auth_token": "12345", "webhook_secret": "y", "webhook_url": v.url})).ok {
				t.Error("verified with auth_token although there is a webhook_secret")
			}
		})
	}
}

func TestTwilioFormThatIsNotUTF8(t *testing.T) {
	body := "Body=%FF"
	m := delivered(0, body, form)
	m.head.fields = append(m.head.fields, field{[]byte("X-Twilio-Signature"), inBase64(mac(sha1.New, []byte("12345"), []byte(m.url+"Body\xff")))})
	if verifyTwilio(m, secretWith(map[string]any{"auth_token": "12345"})).ok {
		t.Error("verified")
	}
}

func TestTwilioURLWithoutOwnOne(t *testing.T) {
	m := delivered(0, "", "X-Twilio-Signature: zYQTYrRWXE7LtzbG4PfP7/bkkGo=")
	m.url, m.rawQuery = "https://mycompany.com/myapp.php?foo=1&bar=2", "foo=1&bar=2"
	if v := verifyTwilio(m, secretWith(map[string]any{"auth_token": "12345"})); !v.ok {
		t.Error(v.reason)
	}
}

func TestSvixVector(t *testing.T) {
	const (
		secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
		body   = `{"test": 2432232314}`
		now    = 1614265330
		id     = "svix-id: msg_p5jXN8AQM9LWM0D4loKWxJek"
		stamp  = "svix-timestamp: 1614265330"
		sig    = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	)
	verify := func(secret any, now int64, headers ...string) verdict {
		return verifiers["resend"](delivered(now, body, headers...), secretWith(map[string]any{"webhook_secret": secret}))
	}
	for name, v := range map[string]verdict{
		"as published":       verify(secret, now, id, stamp, "svix-signature: "+sig),
		"of several":         verify(secret, now, id, stamp, "svix-signature: v1,AAAA v1a,"+sig[3:]+" "+sig),
		"several secrets":    verify([]string{"whsec_AAAA", secret}, now, id, stamp, "svix-signature: "+sig),
		"standard names":     verify(secret, now, "webhook-id"+id[7:], "webhook-timestamp"+stamp[14:], "webhook-signature: "+sig),
		"five minutes late":  verify(secret, now+300, id, stamp, "svix-signature: "+sig),
		"five minutes early": verify(secret, now-300, id, stamp, "svix-signature: "+sig),
	} {
		if !v.ok {
			t.Errorf("%s: %s", name, v.reason)
		}
	}
	key := decodeBase64([]byte(secret[len("whsec_"):]))
	signed := func(signs string) string {
		return "-signature: v1," + string(inBase64(mac(sha256.New, key, []byte(signs+"."+body))))
	}
	for name, v := range map[string]verdict{
		"leading zero":        verify(secret, now, id, "svix-timestamp: 01614265330", "svix"+signed("msg_p5jXN8AQM9LWM0D4loKWxJek.01614265330")),
		"an id of each kind":  verify(secret, now, id, "webhook-id: m", "webhook-timestamp: 1614265330", "webhook"+signed("m.1614265330")),
		"too late":            verify(secret, now+301, id, stamp, "svix-signature: "+sig),
		"too early":           verify(secret, now-301, id, stamp, "svix-signature: "+sig),
		"another secret":      verify("whsec_AAAA", now, id, stamp, "svix-signature: "+sig),
		"no secret":           verify("", now, id, stamp, "svix-signature: "+sig),
		"secret not base64":   verify("whsec_*", now, id, stamp, "svix-signature: "+sig),
		"signature twice":     verify(secret, now, id, stamp, "svix-signature: "+sig, "Svix-Signature: "+sig),
		"no signature":        verify(secret, now, id, stamp),
		"no id":               verify(secret, now, stamp, "svix-signature: "+sig),
		"id twice":            verify(secret, now, id, id, stamp, "svix-signature: "+sig),
		"no timestamp":        verify(secret, now, id, "svix-signature: "+sig),
		"garbage timestamp":   verify(secret, now, id, "svix-timestamp: soon", "svix-signature: "+sig),
		"timestamp in ms":     verify(secret, now, id, stamp+"000", "svix-signature: "+sig),
		"no version":          verify(secret, now, id, stamp, "svix-signature: "+sig[3:]),
		"another version":     verify(secret, now, id, stamp, "svix-signature: v2"+sig[2:]),
		"mixed kinds of name": verify(secret, now, "webhook-id"+id[7:], stamp, "svix-signature: "+sig),
	} {
		if v.ok {
			t.Errorf("%s: verified", name)
		}
	}
}

func TestElevenLabsVector(t *testing.T) {
	const (
		body = `{"type":"post_call_transcription","event_timestamp":1739537297,"data":{"agent_id":"xyz","conversation_id":"abc"}}`
		sum  = "3c1759532b83d15efcd752edb7579aa6ee8a260d8a5cfc29a3fa93435bcc4d73"
		now  = 1739537297
	)
	verify := func(secret string, now int64, values ...string) verdict {
		for i := range values {
			values[i] = "ElevenLabs-Signature: " + values[i]
		}
		return verifiers["elevenlabs"](delivered(now, body, values...), secretWith(map[string]any{"webhook_secret": secret}))
	}
	for name, v := range map[string]verdict{
		"as made":              verify("wsec_test", now, "t=1739537297,v0="+sum),
		"of several":           verify("wsec_test", now, "t=1739537297,v0="+strings.Repeat("0", 64)+",v0="+sum),
		"half an hour old":     verify("wsec_test", now+1800, "t=1739537297,v0="+sum),
		"five minutes too new": verify("wsec_test", now-300, "t=1739537297,v0="+sum),
	} {
		if !v.ok {
			t.Errorf("%s: %s", name, v.reason)
		}
	}
	for name, v := range map[string]verdict{
		"too old":         verify("wsec_test", now+1801, "t=1739537297,v0="+sum),
		"too new":         verify("wsec_test", now-301, "t=1739537297,v0="+sum),
		"capitals":        verify("wsec_test", now, "t=1739537297,v0="+strings.ToUpper(sum)),
		"two times":       verify("wsec_test", now, "t=1739537297,t=1739537297,v0="+sum),
		"no time":         verify("wsec_test", now, "v0="+sum),
		"no signature":    verify("wsec_test", now, "t=1739537297"),
		"header twice":    verify("wsec_test", now, "t=1739537297,v0="+sum, "t=1739537297,v0="+sum),
		"no header":       verify("wsec_test", now),
		"another secret":  verify("wsec_tesT", now, "t=1739537297,v0="+sum),
		"an empty secret": verify("", now, "t=1739537297,v0="+sum),
	} {
		if v.ok {
			t.Errorf("%s: verified", name)
		}
	}
}

const vapiBody = `{"message":{"type":"status-update","status":"ended","call":{"id":"c1","orgId":"o1","assistantId":"a1"}}}`

func TestVapiHMAC(t *testing.T) {
	const (
		now     = 1739537297
		stamped = "b13942e8cc8e14e5b46c9c25acb30a872b5277e131094f489a6b1efe2aa66313"
		bare    = "12033f0e28295f43c461b3b7904501d9f7794484fead0beef418a7a030a102a0"
		millis  = "x-timestamp: 1739537297000"
	)
	verify := func(auth string, secret any, now int64, headers ...string) verdict {
		return verifyVapi(delivered(now, vapiBody, headers...), secretWith(map[string]any{"webhook_auth": auth, "webhook_secret": secret}))
	}
	hmac := func(more string) string { return `{"type":"hmac"` + more + `}` }
	// signed makes a signature the long way round.
	signed := func(algorithm, key, payload string) []byte {
		return mac(algorithms[algorithm], []byte(key), []byte(payload))
	}
	for name, v := range map[string]verdict{
		"default":          verify(hmac(""), "vapi_test", now, millis, "x-signature: "+stamped),
		"a literal v1":     verify(hmac(""), "vapi_test", now, millis, "x-signature: v1"+stamped),
		"body only":        verify(hmac(`,"include_timestamp":false`), "vapi_test", now, "X-Signature: "+bare),
		"prefix":           verify(hmac(`,"include_timestamp":false,"prefix":"sha256="`), "vapi_test", now, "X-Signature: sha256="+bare),
		"own headers":      verify(hmac(`,"signature_header":"X-Sig","timestamp_header":"X-T"`), "vapi_test", now, "X-T: 1739537297000", "X-Sig: "+stamped),
		"seconds":          verify(hmac(""), "k", now, "x-timestamp: 1739537297", fmt.Sprintf("x-signature: %x", signed("sha256", "k", "1739537297."+vapiBody))),
		"sha512":           verify(hmac(`,"algorithm":"sha512"`), "k", now, "x-timestamp: 1739537297", fmt.Sprintf("x-signature: %x", signed("sha512", "k", "1739537297."+vapiBody))),
		"sha1 in base64":   verify(hmac(`,"algorithm":"sha1","encoding":"base64"`), "k", now, "x-timestamp: 1739537297", "x-signature: "+string(inBase64(signed("sha1", "k", "1739537297."+vapiBody)))),
		"base64 secret":    verify(hmac(`,"include_timestamp":false,"secret_is_base64":true`), "dmFwaV90ZXN0", now, "X-Signature: "+bare),
		"method and url":   verify(hmac(`,"payload_format":"{method} {url} {timestamp} {body}"`), "k", now, "x-timestamp: 1739537297", fmt.Sprintf("x-signature: %x", signed("sha256", "k", "POST https://hooks.example/webhooks/vapi 1739537297 "+vapiBody))),
		"message id":       verify(hmac(`,"payload_format":"{svix-id}.{timestamp}.{body}","message_id_header":"svix-id"`), "k", now, "svix-id: m1", "x-timestamp: 1739537297", fmt.Sprintf("x-signature: %x", signed("sha256", "k", "m1.1739537297."+vapiBody))),
		"second of two":    verify(hmac(""), []string{"new", "vapi_test"}, now, millis, "x-signature: "+stamped),
		"within its bound": verify(hmac(`,"tolerance_seconds":10`), "vapi_test", now+10, millis, "x-signature: "+stamped),
	} {
		if !v.ok {
			t.Errorf("%s: %s", name, v.reason)
		}
	}
	for name, v := range map[string]verdict{
		"another secret":      verify(hmac(""), "vapi_tesT", now, millis, "x-signature: "+stamped),
		"empty secret":        verify(hmac(""), "", now, millis, "x-signature: "+stamped),
		"no timestamp":        verify(hmac(""), "vapi_test", now, "x-signature: "+stamped),
		"timestamp twice":     verify(hmac(""), "vapi_test", now, millis, millis, "x-signature: "+stamped),
		"garbage timestamp":   verify(hmac(""), "vapi_test", now, "x-timestamp: now", "x-signature: "+stamped),
		"old":                 verify(hmac(""), "vapi_test", now+301, millis, "x-signature: "+stamped),
		"from the future":     verify(hmac(""), "vapi_test", now-301, millis, "x-signature: "+stamped),
		"signature twice":     verify(hmac(""), "vapi_test", now, millis, "x-signature: "+stamped, "X-Signature: "+stamped),
		"no signature":        verify(hmac(""), "vapi_test", now, millis),
		"capitals":            verify(hmac(""), "vapi_test", now, millis, "x-signature: "+strings.ToUpper(stamped)),
		"prefix missing":      verify(hmac(`,"include_timestamp":false,"prefix":"sha256="`), "vapi_test", now, "X-Signature: "+bare),
		"v1 beside a prefix":  verify(hmac(`,"include_timestamp":false,"prefix":"sha256="`), "vapi_test", now, "X-Signature: v1"+bare),
		"secret not base64":   verify(hmac(`,"include_timestamp":false,"secret_is_base64":true`), "*", now, "X-Signature: "+bare),
		"the secret's header": verify(hmac(""), "vapi_test", now, "X-Vapi-Secret: vapi_test"),
	} {
		if v.ok {
			t.Errorf("%s: verified", name)
		}
	}
}

func TestVapiSharedSecret(t *testing.T) {
	verify := func(auth string, secret any, headers ...string) verdict {
		fields := map[string]any{"webhook_secret": secret}
		if auth != "" {
			fields["webhook_auth"] = auth
		}
		return verifyVapi(delivered(0, vapiBody, headers...), secretWith(fields))
	}
	for name, v := range map[string]verdict{
		"no setting":       verify("", "s3", "X-Vapi-Secret: s3"),
		"own header":       verify(`{"type":"secret","header":"X-Mine"}`, "s3", "x-mine: s3"),
		"bearer":           verify(`{"type":"bearer"}`, "s3", "Authorization: Bearer s3"),
		"bearer elsewhere": verify(`{"type":"bearer","header":"X-Vapi-Secret"}`, "s3", "X-Vapi-Secret: s3"),
		"second of two":    verify("", []string{"new", "s3"}, "X-Vapi-Secret: s3"),
	} {
		if !v.ok {
			t.Errorf("%s: %s", name, v.reason)
		}
	}
	for name, v := range map[string]verdict{
		"empty":               verify("", "", "X-Vapi-Secret: "),
		"empty of a list":     verify("", []string{"", "s3"}, "X-Vapi-Secret: "),
		"none":                verify("", "s3"),
		"wrong":               verify("", "s3", "X-Vapi-Secret: s4"),
		"a part":              verify("", "s3", "X-Vapi-Secret: s"),
		"more":                verify("", "s3", "X-Vapi-Secret: s33"),
		"twice":               verify("", "s3", "X-Vapi-Secret: s3", "x-vapi-secret: s3"),
		"right and wrong":     verify("", "s3", "X-Vapi-Secret: s4", "X-Vapi-Secret: s3"),
		"bearer without it":   verify(`{"type":"bearer"}`, "s3", "Authorization: s3"),
		"bearer, other case":  verify(`{"type":"bearer"}`, "s3", "Authorization: bearer s3"),
		"in the other header": verify(`{"type":"bearer"}`, "s3", "X-Vapi-Secret: s3"),
	} {
		if v.ok {
			t.Errorf("%s: verified", name)
		}
	}
}
