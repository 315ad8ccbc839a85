package proxy

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"testing"

	"github.com/keyward/keyward/mask"
	"github.com/keyward/keyward/store"
)

// redacted is what a redactor makes of a body that arrives in the given pieces.
func redacted(value string, fields *mask.Fields, pieces ...string) string {
	r := &redactor{}
	r.forms.learn([]byte(value), make([]byte, 0, 4096))
	r.start(fields)
	var out strings.Builder
	for _, p := range pieces {
		out.Write(r.feed([]byte(p), false))
	}
	out.Write(r.feed(nil, true))
	return out.String()
}

func TestInjectedValueIsOverwritten(t *testing.T) {
	const odd = `ab/+=cd"ef\gh`
	basic := base64.StdEncoding.EncodeToString([]byte("AC1234:pass/word+1"))
	for name, tc := range map[string]struct{ value, body, secret string }{
		"bearer":                  {"Bearer sk_live_12345678", "x sk_live_12345678 y", "sk_live_12345678"},
		"bare header":             {"sk_live_12345678", `{"k":"sk_live_12345678"}`, "sk_live_12345678"},
		"basic, as sent":          {"Basic " + basic, "x " + basic, basic},
		"basic, decoded":          {"Basic " + basic, "user AC1234:pass/word+1", "AC1234:pass/word+1"},
		"basic, password alone":   {"Basic " + basic, "is pass/word+1.", "pass/word+1"},
		"password, in a URL":      {"Basic " + basic, "is pass%2Fword%2B1.", "pass%2Fword%2B1"},
		"password, slash escaped": {"Basic " + basic, `is pass\/word+1.`, `pass\/word+1`},
		"percent-encoded":         {"Bearer " + odd, "u=" + url.PathEscape(odd), "ef"},
		"JSON-escaped":            {"Bearer " + odd, `"ab\/+=cd\"ef\\gh"`, "ef"},
		"twice in a row":          {"Bearer sk_live_12345678", "sk_live_12345678sk_live_12345678", "sk_live_12345678"},
		"after a false start":     {"Bearer aaaabaaaacXY", "aaaaaaaabaaaacXY", "aaaabaaaacXY"},
	} {
		t.Run(name, func(t *testing.T) {
			got := redacted(tc.value, nil, tc.body)
			if strings.Contains(got, tc.secret) || len(got) != len(tc.body) || !strings.Contains(got, "****") {
				t.Errorf("%q became %q", tc.body, got)
			}
		})
	}
}

// TestEveryChunkBorder: wherever the body is cut in two, or into single bytes, the outcome is that of the whole body.
func TestEveryChunkBorder(t *testing.T) {
	const value, body = "Bearer re_abc_re_abd_0123", `{"a":"re_abc_re_abd_0123","b":"re_abc_re_abc_re_abd_0123","c":"re_ab"}`
	want := redacted(value, nil, body)
	if strings.Count(want, "*") != 2*len("re_abc_re_abd_0123") {
		t.Fatalf("the whole body became %q", want)
	}
	for i := range body {
		if got := redacted(value, nil, body[:i], body[i:]); got != want {
			t.Fatalf("cut at %d: %q, want %q", i, got, want)
		}
	}
	if got := redacted(value, nil, strings.Split(body, "")...); got != want {
		t.Errorf("byte by byte: %q", got)
	}
}

// TestNameThatHasTheSecretInIt: an account's id is no secret, also when someone has chosen a secret that is a part of it.
func TestNameThatHasTheSecretInIt(t *testing.T) {
	value := "Basic " + base64.StdEncoding.EncodeToString([]byte("AC0123456789:0123456789"))
	const body, want = `{"sid":"AC0123456789","token":"0123456789"}`, `{"sid":"AC0123456789","token":"**********"}`
	if got := redacted(value, nil, body); got != want {
		t.Errorf("got %s", got)
	}
}

func TestCleanChunksAreNotHeldBack(t *testing.T) {
	r := &redactor{}
	r.forms.learn([]byte("Bearer sk_live_12345678"), make([]byte, 0, 4096))
	r.start(nil)
	for _, p := range []string{"data: hello\n\n", "{\"x\":1}", "no secret in here"} {
		if got := string(r.feed([]byte(p), false)); got != p {
			t.Errorf("%q: %q was let through", p, got)
		}
	}
	if got := string(r.feed([]byte("the end sk_live_1"), false)); got != "the end " {
		t.Errorf("what may be a secret's beginning: %q was let through", got)
	}
}

// FuzzRedactEqualsNaive: over any cutting of any body, the stream's redaction is that of a naive replacement in the joined body.
func FuzzRedactEqualsNaive(f *testing.F) {
	f.Add("sk_live_12345678", "x sk_live_12345678 y sk_live", uint64(1))
	f.Add("aaaaaaaab", "aaaaaaaaaaaaaaaab", uint64(2))
	f.Fuzz(func(t *testing.T, secret, body string, seed uint64) {
		for i := range len(secret) {
			if !isUnreserved(secret[i]) {
				return // has renderings of its own; tested above
			}
		}
		if len(secret) < minSecret || len(secret) > 200 {
			return
		}
		body += secret + body
		want := naive(body, secret)
		r := rand.New(rand.NewPCG(seed, 1))
		var pieces []string
		for rest := body; rest != ""; {
			n := 1 + r.IntN(len(rest))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		if got := redacted("Bearer "+secret, nil, pieces...); got != want {
			t.Fatalf("secret %q in %q: got %q, want %q", secret, pieces, got, want)
		}
	})
}

// naive overwrites occurrences from left to right.
func naive(body, secret string) string {
	return strings.ReplaceAll(body, secret, strings.Repeat("*", len(secret)))
}

func TestNamedFieldsAreOverwritten(t *testing.T) {
	fields := mask.NewFields([]string{"auth_token", "credentials", "server.headers", "server.secret"})
	for name, tc := range map[string]struct{ body, want string }{
		"a text":               {`{"sid":"AC1","auth_token":"abc","x":1}`, `{"sid":"AC1","auth_token":"***","x":1}`},
		"white space":          {"{ \"auth_token\" :\n \"abc\" }", "{ \"auth_token\" :\n \"***\" }"},
		"escapes in it":        {`{"auth_token":"a\"b\\"}`, `{"auth_token":"******"}`},
		"a name with escapes":  {`{"auth\u005ftoken":"abc"}`, `{"auth\u005ftoken":"***"}`},
		"null and numbers":     {`{"auth_token":null,"auth_token":12,"x":"y"}`, `{"auth_token":null,"auth_token":12,"x":"y"}`},
		"deep down":            {`{"a":[{"b":{"auth_token":"abc"}}]}`, `{"a":[{"b":{"auth_token":"***"}}]}`},
		"a value of that name": {`{"x":"auth_token","y":"abc"}`, `{"x":"auth_token","y":"abc"}`},
		"in a list":            {`["auth_token","abc"]`, `["auth_token","abc"]`},
		"longer names":         {`{"auth_token_id":"abc","my_auth_token":"abc"}`, `{"auth_token_id":"abc","my_auth_token":"abc"}`},
		"a list of objects":    {`{"credentials":[{"provider":"x","apiKey":"abc"}],"y":"z"}`, `{"credentials":[{"provider":"*","apiKey":"***"}],"y":"z"}`},
		"under a parent":       {`{"server":{"url":"u","headers":{"A":"b"},"secret":"s"},"headers":{"A":"b"},"secret":"s"}`, `{"server":{"url":"u","headers":{"A":"*"},"secret":"*"},"headers":{"A":"b"},"secret":"s"}`},
		"not under another":    {`{"x":{"headers":{"A":"b"}},"server":{"y":{"headers":{"A":"b"}}}}`, `{"x":{"headers":{"A":"b"}},"server":{"y":{"headers":{"A":"b"}}}}`},
		"several documents":    {"{\"auth_token\":\"a\"}\n{\"auth_token\":\"b\"}", "{\"auth_token\":\"*\"}\n{\"auth_token\":\"*\"}"},
		"events":               {"event: x\ndata: {\"auth_token\":\"abc\"}\n\n", "event: x\ndata: {\"auth_token\":\"***\"}\n\n"},
		"an empty text":        {`{"auth_token":"","x":"y"}`, `{"auth_token":"","x":"y"}`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := redacted("", fields, tc.body); got != tc.want {
				t.Errorf("whole: %s\nwant:  %s", got, tc.want)
			}
			if got := redacted("", fields, strings.Split(tc.body, "")...); got != tc.want {
				t.Errorf("byte by byte: %s\nwant:         %s", got, tc.want)
			}
		})
	}
}

func TestSecretRoutes(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	trusted := w.token(store.Token{Name: "trusted", SecretRoutes: true})
	ask := func(line, more string) string {
		resp := w.raw("tcp", line+" HTTP/1.1\r\n"+orgLine+more+"\r\n")
		return problemCode(resp)
	}
	plain := "Keyward-Token: " + w.token(anyToken) + "\r\n"
	for _, line := range []string{
		"POST /twilio/2010-04-01/Accounts.json", "POST /twilio/2010-04-01/Accounts", "POST /twilio/2010-04-01/accounts.json/",
		"POST /twilio/2010-04-01/Accounts/ACkeyward/Keys.json", "POST /twilio/2010-04-01/Accounts/ACkeyward/SigningKeys.json",
		"POST /twilio/2010-04-01/Account%73/ACkeyward/%4Beys.json",
		"POST /iam.twilio.com/v1/Keys", "POST /iam.dublin.ie1.twilio.com/v1/Keys", "POST /accounts.twilio.com/v1/AuthTokens/Promote", "POST /accounts.twilio.com/v1/AuthTokens/Secondary",
		"POST /oauth.twilio.com/v2/token", "POST /resend/api-keys", "POST /resend/api-keys/", "POST /resend/api%2Dkeys", "POST /resend/webhooks", "POST /resend/webhooks/wh_1/signing-secret/rotate",
		"GET /vapi/credential", "GET /vapi/credential/1", "POST /vapi/credentials", "DELETE /vapi/credential/1", "POST /elevenlabs/v1/service-accounts/1/api-keys", "POST /elevenlabs/v1/workspace/webhooks",
	} {
		if got := ask(line, plain); got != "secret_route" {
			t.Errorf("%s: %q", line, got)
		}
		if got := ask(line, "Keyward-Token: "+trusted+"\r\n"); got != "" {
			t.Errorf("%s with secret_routes: %q", line, got)
		}
	}
	if got := ask("GET /resend/api-keys", plain+"X-HTTP-Method-Override: POST\r\n"); got != "secret_route" {
		t.Errorf("an overridden method: %q", got)
	}
	for _, line := range []string{
		"GET /twilio/2010-04-01/Accounts/ACkeyward/Keys.json", "GET /resend/api-keys", "GET /resend/webhooks/wh_1", "POST /twilio/2010-04-01/Accounts/ACkeyward/Tokens.json",
		"GET /elevenlabs/v1/convai/conversation/get-signed-url", "POST /elevenlabs/v1/single-use-token/tts_websocket", "POST /verify.twilio.com/v1/Keys", "GET /vapi/assistant",
	} {
		if got := ask(line, plain); got != "" {
			t.Errorf("%s: %q", line, got)
		}
	}
}

// TestSecretsDoNotComeBack: named fields and the injected value itself, in short answers, streamed ones and headers.
func TestSecretsDoNotComeBack(t *testing.T) {
	const key = "vapi-private-acme-0001"
	long := strings.Repeat(`{"id":"0123456789"},`, 2000)
	body := `{"list":[` + long + `{"twilioAuthToken":"tok_of_twilio","note":"` + key + `"}]}`
	clean := `{"list":[` + long + `{"twilioAuthToken":"*************","note":"` + strings.Repeat("*", len(key)) + `"}]}`
	for name, answer := range map[string]func(body string) string{
		"length": func(b string) string {
			return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Echo: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", key, len(b), b)
		},
		"chunked": func(b string) string {
			var s strings.Builder
			s.WriteString("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Echo: Bearer " + key + "\r\nTransfer-Encoding: chunked\r\n\r\n")
			for len(b) > 0 {
				n := min(len(b), 37)
				fmt.Fprintf(&s, "%x\r\n%s\r\n", n, b[:n])
				b = b[n:]
			}
			return s.String() + "0\r\n\r\n"
		},
		"until closed": func(b string) string {
			return "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nX-Echo: Bearer " + key + "\r\n\r\n" + b
		},
	} {
		for size, pair := range map[string][2]string{"long": {body, clean}, "short": {strings.Replace(body, long, "", 1), strings.Replace(clean, long, "", 1)}} {
			t.Run(name+"/"+size, func(t *testing.T) {
				peer := newPeer(t, true)
				w := newWorld(t, peer.url)
				seen := make(chan string, 2)
				peer.handler = func(c net.Conn, _ *bufio.Reader, head string) {
					seen <- head
					_, _ = io.WriteString(c, answer(pair[0]))
				}
				head := "GET /vapi/phone-number HTTP/1.1\r\n" + orgLine + "Accept-Encoding: gzip\r\nRange: bytes=10-\r\n"
				resp := w.raw("unix", head+"\r\n")
				if got := bodyOf(resp); got != pair[1] {
					t.Errorf("got …%.200s", got[max(0, len(got)-200):])
				}
				if echo := resp.Header.Get("X-Echo"); strings.Contains(echo, key) {
					t.Errorf("the header came back: %q", echo)
				}
				if sent := <-seen; headerOf(sent, "Accept-Encoding") != "identity" || headerOf(sent, "Range") != "" {
					t.Errorf("the provider was asked for an answer that cannot be read:\n%s", sent)
				}
				trusted := w.token(store.Token{Name: "trusted", SecretRoutes: true})
				w.callers()
				resp = w.raw("tcp", head+"Keyward-Token: "+trusted+"\r\n\r\n")
				if got := bodyOf(resp); !strings.Contains(got, "tok_of_twilio") || strings.Contains(got, key) {
					t.Errorf("with secret_routes: …%.200s", got[max(0, len(got)-200):])
				}
				<-seen
			})
		}
	}
}

func TestUnreadableBodiesPassAsTheyAre(t *testing.T) {
	const key = "sk_acme_0123456789abcdef"
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	for _, header := range []string{"Content-Type: audio/mpeg", "Content-Type: application/octet-stream", "Content-Type: text/plain\r\nContent-Encoding: gzip"} {
		peer.answer = func(int, string) string {
			return fmt.Sprintf("HTTP/1.1 200 OK\r\n%s\r\nContent-Length: %d\r\n\r\n%s", header, len(key), key)
		}
		if got := bodyOf(w.raw("unix", "GET /elevenlabs/v1/text-to-speech/x HTTP/1.1\r\n"+orgLine+"\r\n")); got != key {
			t.Errorf("%s: %q", header, got)
		}
	}
}

func TestCompressedAnswerOnASecretRouteIsRefused(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	peer.answer = func(int, string) string {
		return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nzip"
	}
	if resp := w.raw("unix", "GET /vapi/phone-number HTTP/1.1\r\n"+orgLine+"\r\n"); problemCode(resp) != "upstream_protocol" {
		t.Errorf("got %d %q", resp.StatusCode, problemCode(resp))
	}
}

func BenchmarkRedact(b *testing.B) {
	body := bytes.Repeat([]byte(`{"id":"0123456789abcdef","name":"something"},`), 12)
	scratch := make([]byte, 0, 1024)
	fields := mask.NewFields([]string{"auth_token", "secondary_auth_token"})
	value := []byte("Basic " + base64.StdEncoding.EncodeToString([]byte("AC0123456789abcdef0123456789abcdef:0123456789abcdef0123456789abcdef")))
	r := &redactor{}
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		r.forms.learn(value, scratch)
		r.whole(body, fields)
	}
}
