package proxy

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/keyward/keyward/store"
)

// TestWholeRequest compares everything that arrives at the provider: nothing is lost, moved or added but the credential.
func TestWholeRequest(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	request := strings.ReplaceAll(`POST /twilio/2010-04-01/Accounts/ACkeyward/Messages.json?a=%20b HTTP/1.1
Host: localhost
Keyward-Org: acme
accept: application/json
X-CUSTOM: One
User-Agent: twilio-go/1.31.0
Content-Type: application/x-www-form-urlencoded
x-custom: two
Authorization: Basic QUNrZXl3YXJkOmtleXdhcmQ=
Content-Length: 30
Connection: keep-alive, X-Hop
X-Hop: 1
Keep-Alive: timeout=5
Cookie: session=1
TE: trailers
Proxy-Connection: keep-alive

To=%2B15550001&From=%2B1&Body=`, "\n", "\r\n")
	if resp := w.raw("unix", request); resp.StatusCode != 200 {
		t.Fatalf("status %d: %s", resp.StatusCode, bodyOf(resp))
	}
	want := strings.ReplaceAll(`POST /2010-04-01/Accounts/`+acmeSID+`/Messages.json?a=%20b HTTP/1.1
Host: api.twilio.com
accept: application/json
X-CUSTOM: One
User-Agent: twilio-go/1.31.0
Content-Type: application/x-www-form-urlencoded
x-custom: two
Content-Length: 30
Authorization: `+acmeBasic+`

To=%2B15550001&From=%2B1&Body=`, "\n", "\r\n")
	if diff := cmp.Diff(want, peer.last()); diff != "" {
		t.Errorf("what the provider got (-want +got):\n%s", diff)
	}
}

func TestInjection(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	for name, tc := range map[string]struct{ line, header, want string }{
		"Twilio":               {"GET /twilio/2010-04-01/Accounts/" + acmeSID + "/Balance.json", "Authorization", acmeBasic},
		"Twilio, another host": {"GET /verify.twilio.com/v2/Services", "Authorization", acmeBasic},
		"Vapi":                 {"POST /vapi/call", "Authorization", "Bearer vapi-private-acme-0001"},
		"Vapi in the browser":  {"POST /vapi/call/web", "Authorization", "Bearer vapi-public-acme-0001"},
		"Resend":               {"POST /resend/emails", "Authorization", "Bearer re_acme_0123456789"},
		"ElevenLabs":           {"GET /elevenlabs/v1/voices", "xi-api-key", "sk_acme_0123456789abcdef"},
	} {
		t.Run(name, func(t *testing.T) {
			w.raw("unix", tc.line+" HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\n\r\n")
			if got := headerOf(peer.last(), tc.header); got != tc.want {
				t.Errorf("%s: %q, want %q", tc.header, got, tc.want)
			}
		})
	}
}

func TestTwilioSenderIsCompleted(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	for body, want := range map[string]string{
		"To=%2B1&Body=hi":                      "To=%2B1&Body=hi&From=%2B15550009",
		"To=%2B1&Body=hi&From=%2B2":            "To=%2B1&Body=hi&From=%2B2",
		"To=whatsapp%3A%2B1&Body=hi":           "To=whatsapp%3A%2B1&Body=hi&From=whatsapp%3A%2B15550008",
		"To=%2B1&Body=hi&MessagingServiceSid=": "",
	} {
		if want == "" {
			continue
		}
		for _, framing := range []string{"length", "chunked"} {
			head := "POST /twilio/2010-04-01/Accounts/ACkeyward/Messages.json HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\nContent-Type: application/x-www-form-urlencoded; charset=utf-8\r\n"
			if framing == "length" {
				head += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
			} else {
				head += fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
			}
			resp := w.raw("unix", head)
			_, got, _ := strings.Cut(peer.last(), "\r\n\r\n")
			if resp.StatusCode != 200 || got != want || headerOf(peer.last(), "Content-Length") != fmt.Sprint(len(want)) {
				t.Errorf("%s by %s: status %d, provider got %q", body, framing, resp.StatusCode, got)
			}
		}
	}
}

// TestTokenInEveryPlace: an unchanged SDK works when it is given the token as its key, and the token goes no further.
func TestTokenInEveryPlace(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	token := w.token(store.Token{Name: "t", Orgs: []string{"acme"}})
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	for name, header := range map[string]string{
		"Keyward-Token":             "Keyward-Token: " + token,
		"proxy bearer":              "Proxy-Authorization: Bearer " + token,
		"proxy basic, user":         "Proxy-Authorization: " + basic(token, ""),
		"proxy basic, password":     "Proxy-Authorization: " + basic("x", token),
		"bearer":                    "Authorization: Bearer " + token,
		"bearer in small letters":   "authorization: bearer " + token,
		"basic password":            "Authorization: " + basic("ACkeyward", token),
		"xi-api-key":                "xi-api-key: " + token,
		"Keyward-Token beside junk": "Authorization: Bearer placeholder\r\nKeyward-Token: " + token,
	} {
		for _, network := range []string{"tcp", "unix"} {
			t.Run(name+"/"+network, func(t *testing.T) {
				resp := w.raw(network, "GET /vapi/assistant HTTP/1.1\r\nHost: localhost\r\n"+header+"\r\n\r\n")
				if resp.StatusCode != 200 {
					t.Fatalf("status %d: %s", resp.StatusCode, bodyOf(resp))
				}
				got := peer.last()
				if headerOf(got, "Authorization") != "Bearer vapi-private-acme-0001" {
					t.Errorf("Authorization %q", headerOf(got, "Authorization"))
				}
				for _, trace := range []string{token, base64.StdEncoding.EncodeToString([]byte(token)), "placeholder", "kwt", "roxy-"} {
					if strings.Contains(got, trace) {
						t.Errorf("%q went to the provider:\n%s", trace, got)
					}
				}
			})
		}
	}
}

// TestNoCredentialOfTheClientPasses throws generated heads at the proxy: whatever a client puts where any provider would look for a
// credential stays here, and exactly one credential, the org's, arrives.
func TestNoCredentialOfTheClientPasses(t *testing.T) {
	peer := newPeer(t, false)
	w := newWorld(t, peer.url)
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	const rounds = 3000
	conn := w.client("unix")
	_ = conn
	for range rounds {
		mark := fmt.Sprintf("leak%d", r.Uint64())
		var b strings.Builder
		prov := pick("twilio", "vapi", "resend", "elevenlabs")
		query := pick("", "?x=1", "?authorization="+mark, "?a=1&%61uthorization="+mark+"&b=2")
		if prov != "elevenlabs" {
			query = pick("", "?x=1")
		}
		fmt.Fprintf(&b, "GET /%s/x%s HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\n", prov, query)
		for range 1 + r.IntN(4) {
			name := pick("Authorization", "authorization", "AUTHORIZATION", "xi-api-key", "XI-API-KEY", "Xi-Api-Key", "Cookie", "cookie", "X-Goog-Api-Key", "Proxy-Authorization",
				"Keyward-Anything", "keyward-token-x", "X-Api-Key")
			fmt.Fprintf(&b, "%s: %s%s\r\n", name, pick("", "Bearer ", "Basic "), mark)
		}
		b.WriteString(pick("", "Connection: Authorization\r\n", "Connection: close, xi-api-key\r\n", "Connection: host\r\n"))
		b.WriteString("\r\n")
		resp, err := w.tryRaw("unix", b.String())
		if err != nil {
			t.Fatalf("%v after\n%s", err, b.String())
		}
		if resp.StatusCode == 400 {
			continue // two of one kind
		}
		if resp.StatusCode != 200 {
			t.Fatalf("status %d for\n%s", resp.StatusCode, b.String())
		}
		got := peer.last()
		if strings.Contains(got, mark) {
			t.Fatalf("the client's credential went to the provider:\n%s\nfor\n%s", got, b.String())
		}
		name, want := "Authorization", map[string]string{"twilio": acmeBasic, "vapi": "Bearer vapi-private-acme-0001", "resend": "Bearer re_acme_0123456789"}[prov]
		if prov == "elevenlabs" {
			name, want = "xi-api-key", "sk_acme_0123456789abcdef"
		}
		if headerOf(got, name) != want {
			t.Fatalf("%s is %q in\n%s", name, headerOf(got, name), got)
		}
	}
}

// TestAnswerHeaders: what the provider says comes back, less what is the other hop's and what only Keyward may say.
func TestAnswerHeaders(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	peer.answer = func(int, string) string {
		return "HTTP/1.1 201 Made It\r\nX-One: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: a=2; Path=/\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nKeyward-Error: forged\r\nKeyward-Request-Id: forged\r\nServer: them\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nServer-Timing: db;dur=1\r\nLocation: https://elsewhere.example/\r\nContent-Length: 2\r\n\r\nok"
	}
	resp := w.raw("unix", "GET /vapi/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\n\r\n")
	h := resp.Header
	if resp.StatusCode != 201 || resp.Status != "201 Made It" || bodyOf(resp) != "ok" {
		t.Errorf("status %q", resp.Status)
	}
	if h.Get("X-One") != "1" || len(h["Set-Cookie"]) != 2 || h.Get("Server") != "them" || h.Get("Date") != "Mon, 01 Jan 2024 00:00:00 GMT" || h.Get("Location") == "" {
		t.Errorf("the provider's headers did not come back whole: %v", h)
	}
	if h.Get("X-Hop") != "" || h.Get("Keep-Alive") != "" || h.Get("Keyward-Error") != "" || len(h["Keyward-Request-Id"]) != 1 || len(h.Get("Keyward-Request-Id")) != idLength {
		t.Errorf("headers of the other hop, or forged ones, came back: %v", h)
	}
	if st := h["Server-Timing"]; len(st) != 2 || !strings.HasPrefix(st[1], "keyward;dur=") || !strings.Contains(st[1], "upstream;dur=") {
		t.Errorf("Server-Timing %q", st)
	}
}

func TestRedirectIsAnAnswer(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	peer.answer = func(int, string) string {
		return "HTTP/1.1 307 Temporary Redirect\r\nLocation: " + peer.url + "/other\r\nContent-Length: 0\r\n\r\n"
	}
	resp := w.raw("unix", "GET /elevenlabs/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\n\r\n")
	if n, _ := peer.count(); resp.StatusCode != 307 || n != 1 {
		t.Errorf("status %d after %d requests", resp.StatusCode, n)
	}
}

func TestLogHoldsTheDecisionAndNoValue(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	w.raw("unix", "GET /vapi/assistant?secretquery=1 HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\nX-Header: secretvalue\r\nAuthorization: Bearer secretjunk\r\n\r\n")
	log := w.logs.String()
	for _, want := range []string{`"org":"acme"`, `"provider":"vapi"`, `"path":"/assistant"`, `"status":200`, `"cache_hit":true`, `"bytes_out":2`, `"caller"`, `"method":"GET"`, `"request_id"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log line lacks %s: %s", want, log)
		}
	}
	for _, not := range []string{"secret", "vapi-private"} {
		if strings.Contains(log, not) {
			t.Errorf("the log holds %q: %s", not, log)
		}
	}
}
