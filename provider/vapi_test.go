package provider

import (
	"slices"
	"testing"
)

func TestVapiKeys(t *testing.T) {
	const both = `{"api_key":"private","public_key":"public"}`
	is := func(credential, method, path, want string) {
		t.Helper()
		if got := inject(t, &Vapi, credential, method, path); got != want {
			t.Errorf("%s %s: got %s, want %s", method, path, got, want)
		}
	}
	is(both, "GET", "/assistant", "/assistant Authorization: Bearer private")
	is(both, "POST", "/call", "/call Authorization: Bearer private")
	is(both, "POST", "/call/web", "/call/web Authorization: Bearer public")
	is(both, "POST", "/call/web/", "/call/web/ Authorization: Bearer public")
	is(both, "POST", "/call/%77eb", "/call/%77eb Authorization: Bearer public")
	is(both, "GET", "/call/web", "/call/web Authorization: Bearer private")
	is(both, "POST", "/call/website", "/call/website Authorization: Bearer private")
	is(both, "POST", "/call/web/x", "/call/web/x Authorization: Bearer private")
	is(`{"api_key":"private"}`, "POST", "/call/web", "credential has no public_key")
	is(`{"api_key":"private"}`, "POST", "/call", "/call Authorization: Bearer private")
}

func TestVapiRegion(t *testing.T) {
	is := func(credential, want string) {
		t.Helper()
		if got := Vapi.DefaultHost(opened(t, &Vapi, credential)); got != want {
			t.Errorf("%s: got %s, want %s", credential, got, want)
		}
	}
	is(`{"api_key":"k"}`, "api.vapi.ai")
	is(`{"api_key":"k","region":"us"}`, "api.vapi.ai")
	is(`{"api_key":"k","region":"eu"}`, "api.eu.vapi.ai")
}

func TestVapiAccounts(t *testing.T) {
	v := values(t, &Vapi, `{"api_key":"k","vapi_org_id":"00112233-AABB-4677-8899-aabbccddeeff","phone_number_ids":["P1","p2","p1"]}`)
	want := []Account{{"vapi_org_id", "00112233-aabb-4677-8899-aabbccddeeff"}, {"phone_number_ids", "p1"}, {"phone_number_ids", "p2"}}
	if got := Vapi.Accounts(v); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestVapiWebhookAuth(t *testing.T) {
	is := func(auth, want string) {
		t.Helper()
		if got := refused(&Vapi, `{"api_key":"k","webhook_secret":"s e c r e t","webhook_auth":`+auth+`}`); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", auth, got, want)
		}
	}
	good := func(auth string) { t.Helper(); is(auth, "") }

	good(`{}`)
	good(`{"type":"secret","header":"X-Vapi-Secret"}`)
	good(`{"type":"bearer","header":"Authorization"}`)
	good(`{"type":"hmac","algorithm":"sha256","signature_header":"x-signature","timestamp_header":"x-timestamp","include_timestamp":true,"payload_format":"{timestamp}.{body}","encoding":"hex","prefix":"","secret_is_base64":false,"message_id_header":"","tolerance_seconds":300}`)
	good(`{"type":"hmac","algorithm":"sha1","encoding":"base64","prefix":"sha1= ","tolerance_seconds":1}`)
	good(`{"type":"hmac","payload_format":"{svix-id}.{timestamp}.{method} {url} {\"b\":{body}}","message_id_header":"svix-id"}`)
	good(`{"type":"hmac","include_timestamp":false}`)

	is(`{"type":"basic"}`, "webhook_auth.type must be secret, bearer or hmac")
	is(`{"type":"hmac","algorithm":"md5"}`, "webhook_auth.algorithm must be sha256, sha512 or sha1")
	is(`{"type":"hmac","encoding":"base32"}`, "webhook_auth.encoding must be hex or base64")
	is(`{"header":"a b"}`, "webhook_auth.header must be the name of a header")
	is(`{"header":""}`, "webhook_auth.header is empty: leave it out or give a value")
	is(`{"type":"hmac","signature_header":"x:y","timestamp_header":"","message_id_header":"("}`,
		"webhook_auth.signature_header must be the name of a header\nwebhook_auth.timestamp_header is empty: leave it out or give a value\nwebhook_auth.message_id_header must be the name of a header")
	is(`{"type":"hmac","include_timestamp":"yes","secret_is_base64":1}`,
		"webhook_auth.include_timestamp must be true or false\nwebhook_auth.secret_is_base64 must be true or false")
	is(`{"type":"hmac","tolerance_seconds":0}`, "webhook_auth.tolerance_seconds must be a whole number from 1 to 86400")
	is(`{"type":"hmac","tolerance_seconds":1.5}`, "webhook_auth.tolerance_seconds must be a whole number from 1 to 86400")
	is(`{"type":"hmac","prefix":7}`, "webhook_auth.prefix must be a string")
	is(`{"type":"hmac","payload_format":"{timestamp}"}`, "webhook_auth.payload_format must be a text with {body} in it, or nothing would protect the body")
	is(`{"type":"hmac","payload_format":"{body}{nonce}"}`, "webhook_auth.payload_format has an unknown placeholder in it; known are {body}, {timestamp}, {method}, {url} and {svix-id}")
	is(`{"type":"hmac","payload_format":"{svix-id}.{body}"}`, "webhook_auth.payload_format has {svix-id} in it: message_id_header must say which header that is")
	is(`{"type":"hmac","payload_format":"{timestamp}{body}","include_timestamp":false}`, "webhook_auth.payload_format has {timestamp} in it although include_timestamp is false")
	is(`{"type":"secret","algorithm":"sha256"}`, `webhook_auth.algorithm belongs to type hmac: set "type": "hmac" or remove it`)
	is(`{"type":"hmac","header":"x"}`, "webhook_auth.header does not belong to type hmac: use signature_header")
	is(`{"type":"hmac","secret_is_base64":true}`, "webhook_secret must be base64, since webhook_auth.secret_is_base64 is true")
	is(`{"Type":"hmac"}`, "webhook_auth.Type is not a member of webhook_auth: write type")
	is(`{"type":"hmac","type":"secret"}`, "webhook_auth.type stands twice: keep one of them")
	is(`"hmac"`, `webhook_auth must be a JSON object, like {"type":"hmac","algorithm":"sha256"}`)
	is(`[]`, `webhook_auth must be a JSON object, like {"type":"hmac","algorithm":"sha256"}`)
}

func TestVapiBase64Secret(t *testing.T) {
	const auth = `{"api_key":"k","webhook_auth":{"type":"hmac","secret_is_base64":true},"webhook_secret":`
	for secret, ok := range map[string]bool{
		`"c2VjcmV0"`: true, `"c2VjcmV0LQ=="`: true, `"c2VjcmV0LQ"`: true, `"_-_-"`: true, `["c2VjcmV0","c2Vj"]`: true,
		`"c2VjcmV0L"`: false, `"a b"`: false, `["c2VjcmV0","?"]`: false,
	} {
		if got := refused(&Vapi, auth+secret+"}"); (got == "") != ok {
			t.Errorf("%s: %q", secret, got)
		}
	}
}

func TestParseWebhookAuth(t *testing.T) {
	is := func(object string, want WebhookAuth) {
		t.Helper()
		var b []byte
		if object != "" {
			b = []byte(object)
		}
		got, err := ParseWebhookAuth(b)
		want.Algorithm, want.SignatureHeader, want.TimestampHeader, want.Encoding = "sha256", "x-signature", "x-timestamp", "hex"
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v", object, got, err)
		}
	}
	is(``, WebhookAuth{Type: "secret", Header: "X-Vapi-Secret", IncludeTimestamp: true, PayloadFormat: "{timestamp}.{body}", ToleranceSeconds: 300})
	is(`{"type":"bearer"}`, WebhookAuth{Type: "bearer", Header: "Authorization", IncludeTimestamp: true, PayloadFormat: "{timestamp}.{body}", ToleranceSeconds: 300})
	is(`{"type":"hmac","include_timestamp":false,"tolerance_seconds":60,"prefix":"v1="}`,
		WebhookAuth{Type: "hmac", PayloadFormat: "{body}", ToleranceSeconds: 60, Prefix: "v1="})
	if _, err := ParseWebhookAuth([]byte(`{"type":1}`)); err == nil {
		t.Error("a malformed one is read")
	}
}
