package provider

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// FuzzOrdersAreTokensOrRefused: no body makes the checks panic, and one that is taken becomes a token that is the org's own, lives as long
// as was asked for, and is good for no more than was asked for.
func FuzzOrdersAreTokensOrRefused(f *testing.F) {
	for _, p := range All {
		for _, m := range p.Mints {
			for _, g := range m.Grants {
				for _, member := range g.Members {
					f.Add(`{"identity":"alice","ttl":60,"grants":{"` + g.Name + `":{"` + member.Name + `":"` + member.Example + `"}}}`)
				}
			}
		}
	}
	f.Add(`{"identity":"a","grants":{"voice":{"outgoing_application_params":{"iss":"SK"},"incoming_allow":true},"sync":{"service_sid":"default"}}}`)
	f.Add(`{"grants":{"public":{"allowed_assistant_ids":["a"],"allow_transient_assistant":true}}}`)
	f.Add(`{"grants":{"private":{}}}`)
	const org = "00112233-4455-4677-8899-aabbccddeeff"
	secrets := map[string]Secret{
		"twilio": opened(f, &Twilio, `{"account_sid":"AC0123456789abcdef0123456789abcdef","api_key_sid":"SK0123456789abcdef0123456789abcdef","api_key_secret":"s"}`),
		"vapi":   opened(f, &Vapi, `{"api_key":"k","vapi_org_id":"`+org+`"}`),
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, p := range All {
			for _, m := range p.Mints {
				o, errs := m.Parse([]byte(body))
				if len(errs) > 0 {
					if o != nil {
						t.Fatal("what is refused was read all the same")
					}
					continue
				}
				token, err := m.Sign(nil, o, Stamp{ID: "1", From: 1000, Till: 1000 + int64(o.Life/time.Second)}, secrets[p.Name])
				if err != nil {
					t.Fatalf("%q cannot be signed: %v", body, err)
				}
				claims, err := base64.RawURLEncoding.DecodeString(strings.Split(string(token), ".")[1])
				if err != nil {
					t.Fatal(err)
				}
				var c struct {
					From   int64          `json:"iat"`
					Till   int64          `json:"exp"`
					Issuer string         `json:"iss"`
					Org    string         `json:"orgId"`
					Grants map[string]any `json:"grants"`
					Token  map[string]any `json:"token"`
				}
				if err := json.Unmarshal(claims, &c); err != nil {
					t.Fatal(err)
				}
				if c.Till-c.From != int64(o.Life/time.Second) || o.Life < 0 || o.Life > m.Longest {
					t.Errorf("%q lives %d s of %v", body, c.Till-c.From, o.Life)
				}
				switch p {
				case &Twilio:
					if c.Issuer != "SK0123456789abcdef0123456789abcdef" || len(c.Grants) != len(o.Grants)+1 || c.Grants["identity"] != o.Identity {
						t.Errorf("%q: %s", body, claims)
					}
				case &Vapi:
					_, public := o.Grants["public"]
					if c.Org != org || public != (c.Token["tag"] == "public") || len(o.Grants) != 1 {
						t.Errorf("%q: %s", body, claims)
					}
				}
			}
		}
	})
}
