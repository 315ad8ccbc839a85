package provider

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestMintConformance is what every token that can be minted must pass.
func TestMintConformance(t *testing.T) {
	names := map[string]bool{}
	for _, p := range All {
		for _, m := range p.Mints {
			t.Run(m.Name, func(t *testing.T) {
				if !regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(m.Name) || names[m.Name] {
					t.Errorf("no good name, or one that is there twice")
				}
				names[m.Name] = true
				for _, need := range append(m.Needs, m.Key) {
					if p.Field(need) == nil || !slices.Contains(m.Needs, need) {
						t.Errorf("%s is no field, or not needed", need)
					}
				}
				if p.Field("max_token_ttl") == nil || !p.Field(m.Key).Secret || m.Mend == "" || !strings.HasSuffix(m.Help, ".") {
					t.Error("the credential cannot bound it, its key is shown, or it is not said what it is for")
				}
				if m.Longest < UsualLife || m.Longest > 24*time.Hour {
					t.Errorf("it lives %v", m.Longest)
				}
				for i := range m.Grants {
					for j := range m.Grants[i].Members {
						conformMember(t, m, &m.Grants[i], &m.Grants[i].Members[j])
					}
				}
			})
		}
	}
	if len(names) < 2 {
		t.Error("nothing is minted")
	}
}

// conformMember: the example of each member is one that is taken, and an empty or wrong value is refused: none must ever mean "any".
func conformMember(t *testing.T, m *Mint, g *Grant, f *Field) {
	body := func(value string) []byte {
		return fmt.Appendf(nil, `{"identity":"x","grants":{%q:{%q:%s}}}`, g.Name, f.Name, value)
	}
	if !m.Identity {
		whole := body
		body = func(value string) []byte {
			return []byte(strings.Replace(string(whole(value)), `"identity":"x",`, "", 1))
		}
	}
	example := map[Kind]string{Text: "%q", List: "[%q]", Flag: "%s", Object: "%s"}[f.Kind]
	if _, errs := m.Parse(body(fmt.Sprintf(example, f.Example))); len(errs) > 0 {
		t.Errorf("%s.%s: %v", g.Name, f.Name, errs)
	}
	for _, bad := range []string{`""`, `[]`, `[""]`, `[1]`, `1`, `null`, `{"a":1}`, `"\n"`, `["a b","\n"]`} {
		if _, errs := m.Parse(body(bad)); len(errs) == 0 {
			t.Errorf("%s.%s: %s is taken", g.Name, f.Name, bad)
		} else if !strings.HasPrefix(errs[0].Field, "grants."+g.Name+"."+f.Name) {
			t.Errorf("%s.%s: %s: %v", g.Name, f.Name, bad, errs)
		}
	}
}

func TestBadRequestsForTokensAreRefusedClearly(t *testing.T) {
	const secret = "0123456789abcdefghijklmnopqrstuv"
	for body, want := range map[string]string{
		``:              "grants is missing: say what the token is good for, of voice, video, chat, sync; identity is missing: say whose token it is",
		`[]`:            "the body must be a JSON object",
		`{"identity":`:  "the body is not valid JSON",
		`{"ttl":"900"}`: "ttl must be a whole number from 1 to 86400",
		`{"ttl":86401}`: "ttl must be a whole number from 1 to 86400",
		`{"ttl":-1}`:    "ttl must be a whole number from 1 to 86400",
		`{"ttl":1.5}`:   "ttl must be a whole number from 1 to 86400",
		`{"identity":"a","grants":{"voice":{}},"` + secret + `":1}`:                "the body holds a name that is not a member of a request for twilio-access-token",
		`{"identity":"a","grants":{"voice":{"` + secret + `":1}}}`:                 "grants.voice holds a name that is not a member of voice",
		`{"identity":"a","grants":{"admin":{}}}`:                                   "grants.admin is not a grant of twilio-access-token; known are voice, video, chat, sync",
		`{"identity":"a","grants":{"video":{},"video":{"room":"x"}}}`:              "grants.video stands twice",
		`{"identity":"a","identity":"b","grants":{"video":{}}}`:                    "identity stands twice",
		`{"identity":"a","grants":["video"]}`:                                      "grants must be a JSON object",
		`{"identity":"a","grants":{"video":true}}`:                                 "grants.video must be a JSON object",
		`{"identity":"a","grants":{"video":{"Room":"x"}}}`:                         "grants.video.Room is not a member of video: write room",
		`{"identity":"` + secret + `\u0000","grants":{"video":{}}}`:                "identity contains a control character",
		`{"identity":7,"grants":{"video":{}}}`:                                     "identity must be a string",
		`{"identity":"a","grants":{"chat":{"service_sid":"` + secret + `"}}}`:      "grants.chat.service_sid must be IS and 32 hexadecimal digits",
		`{"identity":"a","sub":"AC","iss":"SK","grants":{"video":{"room":"x"}}}`:   "sub is not a member",
		`{"identity":"` + strings.Repeat("a", 257) + `","grants":{"video":{}}}`:    "identity must be at most 256 characters",
		`{"identity":"a","grants":{"voice":{"outgoing_application_params":"` + "`": "the body is not valid JSON",
	} {
		order, errs := twilioAccessToken.Parse([]byte(body))
		var said []string
		for _, e := range errs {
			said = append(said, e.Field+" "+e.Problem)
		}
		got := strings.Join(said, "; ")
		if order != nil || !strings.HasPrefix(got, want) || strings.Contains(got, secret) {
			t.Errorf("%s: %q", body, got)
		}
	}
	if _, errs := vapiJWT.Parse([]byte(`{"grants":{"public":{},"private":{}}}`)); len(errs) != 1 || errs[0].Problem != "has more than one: it must be public or private" {
		t.Error(errs)
	}
	if _, errs := vapiJWT.Parse([]byte(`{"grants":{}}`)); len(errs) == 0 {
		t.Error("no grant at all is taken for the usual one")
	}
}

// What is minted, to the letter: twilio-node's own token has the same claims (examples/), and Vapi's documentation shows these.
func TestMintedClaims(t *testing.T) {
	twilio := `{"account_sid":"AC0123456789abcdef0123456789abcdef","api_key_sid":"SK0123456789abcdef0123456789abcdef","api_key_secret":"` + strings.Repeat("s", 32) + `","region":"ie1"}`
	vapi := `{"api_key":"private-key-of-acme","vapi_org_id":"00112233-4455-4677-8899-aabbccddeeff"}`
	for _, c := range []struct{ mint, order, header, claims string }{
		{
			"twilio-access-token", `{"identity":"alice <é>","grants":{"voice":{"outgoing_application_sid":"AP0123456789abcdef0123456789abcdef","outgoing_application_params":{"a":"b"},"incoming_allow":true},"sync":{"service_sid":"default"},"video":{}}}`,
			`{"alg":"HS256","cty":"twilio-fpa;v=1","twr":"ie1","typ":"JWT"}`,
			`{"exp":1700000900,"grants":{"data_sync":{"service_sid":"default"},"identity":"alice <é>","video":{},` +
				`"voice":{"incoming":{"allow":true},"outgoing":{"application_sid":"AP0123456789abcdef0123456789abcdef","params":{"a":"b"}}}},` +
				`"iat":1700000000,"iss":"SK0123456789abcdef0123456789abcdef","jti":"SK0123456789abcdef0123456789abcdef-0011","sub":"AC0123456789abcdef0123456789abcdef"}`,
		},
		{
			"vapi-jwt", `{"grants":{"public":{"allowed_assistant_ids":["a1"],"allowed_origins":["https://a.example"]}}}`,
			`{"alg":"HS256","typ":"JWT"}`,
			`{"exp":1700000900,"iat":1700000000,"orgId":"00112233-4455-4677-8899-aabbccddeeff","token":{"restrictions":{"allowTransientAssistant":false,` +
				`"allowedAssistantIds":["a1"],"allowedOrigins":["https://a.example"],"enabled":true},"tag":"public"}}`,
		},
		{
			"vapi-jwt", ``, `{"alg":"HS256","typ":"JWT"}`,
			`{"exp":1700000900,"iat":1700000000,"orgId":"00112233-4455-4677-8899-aabbccddeeff","token":{"tag":"public"}}`,
		},
	} {
		m, p, text := &twilioAccessToken, &Twilio, twilio
		if c.mint == "vapi-jwt" {
			m, p, text = &vapiJWT, &Vapi, vapi
		}
		s := opened(t, p, text)
		o, errs := m.Parse([]byte(c.order))
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		token, err := m.Sign([]byte("before"), o, Stamp{ID: "0011", From: 1_700_000_000, Till: 1_700_000_900}, s)
		if err != nil {
			t.Fatal(err)
		}
		parts := strings.Split(strings.TrimPrefix(string(token), "before"), ".")
		if len(parts) != 3 {
			t.Fatalf("%d parts", len(parts))
		}
		mac := hmac.New(sha256.New, s.Field(m.Key))
		mac.Write([]byte(parts[0] + "." + parts[1]))
		if want := base64.RawURLEncoding.EncodeToString(mac.Sum(nil)); parts[2] != want {
			t.Errorf("%s: the signature is not the key's", c.mint)
		}
		for i, want := range []string{c.header, c.claims} {
			raw, err := base64.RawURLEncoding.DecodeString(parts[i])
			if err != nil {
				t.Fatal(err)
			}
			var got, wanted any
			if json.Unmarshal(raw, &got) != nil || json.Unmarshal([]byte(want), &wanted) != nil {
				t.Fatalf("no JSON: %s", raw)
			}
			if diff := cmp.Diff(wanted, got); diff != "" {
				t.Errorf("%s %s: %s", c.mint, c.order, diff)
			}
		}
	}
}

func TestMissingFieldsOfAMintAreNamed(t *testing.T) {
	s := opened(t, &Twilio, `{"account_sid":"AC0123456789abcdef0123456789abcdef","auth_token":"fedcba9876543210fedcba9876543210"}`)
	if got := twilioAccessToken.Missing(s); got != "api_key_sid" {
		t.Errorf("%q", got)
	}
	if got := vapiJWT.Missing(opened(t, &Vapi, `{"api_key":"k"}`)); got != "vapi_org_id" {
		t.Errorf("%q", got)
	}
}

func TestCredentialsBoundTheLifeOfTokens(t *testing.T) {
	for text, want := range map[string]time.Duration{`"15m"`: 15 * time.Minute, `"90s"`: 90 * time.Second, `"2h"`: 2 * time.Hour} {
		if got := opened(t, &Vapi, `{"api_key":"k","max_token_ttl":`+text+`}`).LongestToken(); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if got := opened(t, &Vapi, `{"api_key":"k"}`).LongestToken(); got != 0 {
		t.Errorf("without: %v", got)
	}
	for _, bad := range []string{"0s", "1", "-5m", "1h30m", "1d", "9999999h"} {
		if _, errs := Vapi.Parse(fmt.Appendf(nil, `{"api_key":"k","max_token_ttl":%q}`, bad)); len(errs) == 0 {
			t.Errorf("%s is taken", bad)
		}
	}
	if got := Open(Values{"max_token_ttl": {Text: "99999999999h"}}.Encode(nil)).LongestToken(); got <= 0 || got > time.Second {
		t.Errorf("one that cannot be read: %v", got)
	}
}

// Keys and messages of every length give the HMAC of the standard library.
func TestHS256(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	text := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	for n := range 200 {
		key, message := text(n), text(random.IntN(400))
		mac := hmac.New(sha256.New, key)
		mac.Write(message)
		if got := appendHS256([]byte("x"), key, message); string(got) != "x"+string(mac.Sum(nil)) {
			t.Fatalf("a key of %d bytes, a message of %d", n, len(message))
		}
	}
}
