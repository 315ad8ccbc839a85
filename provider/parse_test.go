package provider

import (
	"strings"
	"testing"
)

func TestParseReportsEverythingAtOnce(t *testing.T) {
	const text = `{"account_sid":"AC1","auth_token":7,"from_number":" +15550001","apiKeySid":"x","region":["us1"],"subaccounts":"AC2","edge":"moon","edge":"x","colour":"red"}`
	const want = `apiKeySid is not a field of twilio: write api_key_sid
edge stands twice: keep one of them
colour is not a field of twilio; known are account_sid, auth_token, api_key_sid, api_key_secret, from_number, whatsapp_number, messaging_service_sid, region, edge, subaccounts, webhook_url, webhook_secret, max_token_ttl
auth_token must be a string
region must be a string
subaccounts must be a list of strings, like ["ACfedcba9876543210fedcba9876543210"]
account_sid must be AC and 32 hexadecimal digits
from_number begins or ends with white space: remove it
edge must be ashburn, dublin, frankfurt, osaka, sao-paulo, singapore, sydney, tokyo or umatilla`
	if got := refused(&Twilio, text); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestParse(t *testing.T) {
	is := func(text, want string) {
		t.Helper()
		if got := refused(&Resend, text); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
	is(" \n{\t\"api_key\" : \"k\" , \"from_email\":null,\"webhook_secret\":[ ] }\n", "")
	is(`{"api\u005fkey":"\u006b\n"}`, "api_key begins or ends with white space: remove it")
	is(`{"api_key":"a\u0000b"}`, "api_key contains a control character, like a line break: remove it")
	is(`{"api_key":""}`, "api_key is empty: leave it out or give a value")
	is(`{"api_key":"kéy"}`, "api_key must be printable ASCII characters without a space")
	is(`{"api_key":"`+strings.Repeat("k", 8193)+`"}`, "api_key is longer than 8192 bytes")
	is(`{"api_key":"k","webhook_secret":["a",5]}`, "webhook_secret must be a string or a list of strings")
	is(`{"api_key":"k","webhook_secret":["a",""]}`, "webhook_secret item 2 is empty: leave it out or give a value")
	is(`{"api_key":"k","webhook_secret":{"a":[{}]}}`, "webhook_secret must be a string or a list of strings")
	is(`{"api_key":"k","webhook_secret":[`+strings.Repeat(`"a",`, 1000)+`"a"]}`, "webhook_secret has more than 1000 items")
	is(`{"api_key":true,"from_email":false}`, "api_key must be a string\nfrom_email must be a string")
	is(`{"api_key":1.5e3,"from_email":[[1],{"a":"]"}]}`, "api_key must be a string\nfrom_email must be a string")

	is(``, "credentials is not valid JSON")
	is(`{"api_key":"sk_hush`, "credentials is not valid JSON: see byte 19")
	is(`{"api_key":hush}`, "credentials is not valid JSON: see byte 12")
	is(`{"api_key":"k"} x`, "credentials is not valid JSON: see byte 17")
	is("{\"api_key\":\"k\xff\"}", "credentials is not UTF-8")
	is(`["hush"]`, `credentials must be a JSON object, like {"api_key": "re_0123abcd_0123456789abcdefghijklmn"}`)
	is(`null`, `credentials must be a JSON object, like {"api_key": "re_0123abcd_0123456789abcdefghijklmn"}`)
	is(`"`+strings.Repeat("k", 64<<10)+`"`, "credentials must not be larger than 64 KiB")
	is(`{"api_key":"k","re_0123hush":"api_key"}`, "credentials holds a name that is not a field of resend; known are api_key, from_email, webhook_secret")
	is(`{"api_key":"k","re_0123hush":1,"re_0123hush":2}`,
		"credentials holds a name that is not a field of resend; known are api_key, from_email, webhook_secret\ncredentials holds a name twice")
}

// TestProblemsQuoteNoValue puts a secret into every wrong place there is.
func TestProblemsQuoteNoValue(t *testing.T) {
	const hush = "hush 4f9"
	for _, p := range All {
		for _, f := range p.Fields {
			for _, raw := range []string{`"` + hush + `"`, `"` + hush + `\n"`, `["` + hush + `","\u0000"]`, `{"` + hush + `":"` + hush + `"}`, `{"type":"` + hush + `"}`} {
				for _, text := range []string{`{"` + f.Name + `":` + raw + `}`, `{"` + f.Name + `":` + raw, `{"` + hush + `":` + raw + `}`} {
					if got := refused(p, text); strings.Contains(got, "hush") || got == "" {
						t.Errorf("%s: %s: %s", p.Name, text, got)
					}
				}
			}
		}
	}
}

func TestParseCopies(t *testing.T) {
	data := []byte(`{"api_key":"private","webhook_secret":["one"],"webhook_auth":{"header":"x"}}`)
	v, errs := Vapi.Parse(data)
	clear(data)
	if len(errs) > 0 || v["api_key"].Text != "private" || v["webhook_secret"].List[0] != "one" || string(v["webhook_auth"].Object) != `{"header":"x"}` {
		t.Error("the values changed with the data")
	}
}

func TestParseCompactsObjects(t *testing.T) {
	v := values(t, &Vapi, `{"api_key":"k","webhook_auth":{ "header" : "x" }}`)
	if got := string(v["webhook_auth"].Object); got != `{"header":"x"}` {
		t.Errorf("got %s", got)
	}
}

func TestValidate(t *testing.T) {
	is := func(v Values, want string) {
		t.Helper()
		var got []string
		for _, e := range Vapi.Validate(v) {
			got = append(got, e.Field+" "+e.Problem)
		}
		if s := strings.Join(got, "\n"); s != want {
			t.Errorf("got  %s\nwant %s", s, want)
		}
	}
	is(Values{"api_key": {Text: "k"}}, "")
	is(Values{"api_key": {List: []string{"k"}}}, "api_key must be a string")
	is(Values{"api_key": {Object: []byte("{}")}}, "api_key must be a string")
	is(Values{"api_key": {Text: "k"}, "webhook_auth": {Text: "x"}}, `webhook_auth must be a JSON object, like {"type":"hmac","algorithm":"sha256"}`)
	is(Values{"api_key": {Text: "k"}, "phone_number_ids": {Text: "x"}}, `phone_number_ids must be a list of strings, like ["ffeeddcc-bbaa-4988-8766-554433221100"]`)
	is(Values{"apikey": {Text: "k"}}, "apikey is not a field of vapi: write api_key\napi_key is missing: Vapi cannot be used without it")
	is(Values{"api_key": {Text: "k\xff"}}, "api_key is not UTF-8")
}
