package proxy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyward/keyward/store"
)

// TestRoutes sends one request per way of naming an upstream and an org, and looks at what the provider got.
func TestRoutes(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	const org = "Keyward-Org: acme\r\n"
	for name, tc := range map[string]struct{ line, headers, wantHost, wantTarget string }{
		"Host":                         {"GET /v1/x?a=b", "Host: verify.twilio.com\r\n" + org, "verify.twilio.com", "/v1/x?a=b"},
		"Host in capitals with a port": {"GET /emails", "Host: API.Resend.com:80\r\n" + org, "api.resend.com", "/emails"},
		"Keyward-Upstream":             {"GET /v2/Services", "Host: localhost\r\nKeyward-Upstream: verify.twilio.com\r\n" + org, "verify.twilio.com", "/v2/Services"},
		"Keyward-Upstream before Host": {"GET /x", "Host: api.resend.com\r\nKeyward-Upstream: api.vapi.ai\r\n" + org, "api.vapi.ai", "/x"},
		"provider in the path":         {"GET /resend/domains", "Host: localhost\r\n" + org, "api.resend.com", "/domains"},
		"provider alone":               {"GET /resend", "Host: localhost\r\n" + org, "api.resend.com", "/"},
		"provider in the path, hyphen": {"GET /google-calendar/calendar/v3/x", "Host: localhost\r\nKeyward-Org: nogoogle\r\n", "", ""},
		"host in the path":             {"GET /verify.twilio.com/v2/Services", "Host: localhost\r\n" + org, "verify.twilio.com", "/v2/Services"},
		"provider, then host":          {"GET /twilio/verify.twilio.com/v2/Services?P=1", "Host: localhost\r\n" + org, "verify.twilio.com", "/v2/Services?P=1"},
		"regional host":                {"GET /twilio/api.dublin.ie1.twilio.com/x", "Host: localhost\r\n" + org, "api.dublin.ie1.twilio.com", "/x"},
		"absolute form":                {"GET http://api.vapi.ai/assistant", "Host: api.vapi.ai\r\n" + org, "api.vapi.ai", "/assistant"},
		"absolute form with userinfo":  {"GET http://AC1:tok@api.vapi.ai/assistant", "Host: api.vapi.ai\r\n" + org, "api.vapi.ai", "/assistant"},
		"absolute form without path":   {"GET http://api.vapi.ai", "Host: api.vapi.ai\r\n" + org, "api.vapi.ai", "/"},
		"PROVIDER.localhost":           {"GET /assistant", "Host: vapi.localhost:7450\r\n" + org, "api.vapi.ai", "/assistant"},
		"org in the path":              {"GET /org/acme/vapi/assistant", "Host: localhost\r\n", "api.vapi.ai", "/assistant"},
		"org and host in the path":     {"GET /org/acme/api.resend.com/emails", "Host: localhost\r\n", "api.resend.com", "/emails"},
		"assistant in the path":        {"GET /assistant/asst_1/vapi/call", "Host: localhost\r\n", "api.vapi.ai", "/call"},
		"assistant in a header":        {"GET /vapi/call", "Host: localhost\r\nKeyward-Assistant: asst_1\r\n", "api.vapi.ai", "/call"},
		"org and assistant agree":      {"GET /vapi/call", "Host: localhost\r\nKeyward-Assistant: asst_1\r\n" + org, "api.vapi.ai", "/call"},
		"Vapi's own /assistant/ID":     {"GET /assistant/asst_2", "Host: api.vapi.ai\r\n" + org, "api.vapi.ai", "/assistant/asst_2"},
		"Vapi's own by its prefix":     {"GET /vapi/assistant/asst_2", "Host: localhost\r\n" + org, "api.vapi.ai", "/assistant/asst_2"},
		"region of the credential":     {"GET /elevenlabs/v1/voices", "Host: localhost\r\nKeyward-Org: globex\r\n", "api.eu.residency.elevenlabs.io", "/v1/voices"},
		"encoded and odd bytes":        {"GET /vapi/a%2Fb/c;x?y=%41&&z", "Host: localhost\r\n" + org, "api.vapi.ai", "/a%2Fb/c;x?y=%41&&z"},
		"query that ends in an equals": {"GET /vapi/x?", "Host: localhost\r\n" + org, "api.vapi.ai", "/x?"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.wantHost == "" {
				if resp := w.raw("unix", tc.line+" HTTP/1.1\r\n"+tc.headers+"\r\n"); problemCode(resp) != "credential_missing" {
					t.Errorf("got %d %s, want to get as far as the credential", resp.StatusCode, problemCode(resp))
				}
				return
			}
			resp := w.raw("unix", tc.line+" HTTP/1.1\r\n"+tc.headers+"\r\n")
			if resp.StatusCode != 200 {
				t.Fatalf("status %d: %s", resp.StatusCode, bodyOf(resp))
			}
			got := peer.last()
			method, _, _ := strings.Cut(tc.line, " ")
			if want := method + " " + tc.wantTarget + " HTTP/1.1"; requestLine(got) != want {
				t.Errorf("request line %q, want %q", requestLine(got), want)
			}
			if headerOf(got, "Host") != tc.wantHost {
				t.Errorf("Host %q, want %q", headerOf(got, "Host"), tc.wantHost)
			}
			if strings.Contains(strings.ToLower(got), "keyward-") {
				t.Errorf("a trace of Keyward went to the provider:\n%s", got)
			}
		})
	}
}

func TestFixedListener(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	address := w.serve("tcp", "127.0.0.1:0", &Listener{Upstream: "api.elevenlabs.io", Org: "acme"})
	w.tcp = address
	token := w.token(store.Token{Name: "t"})
	resp := w.raw("tcp", "GET /v1/voices HTTP/1.1\r\nHost: "+address+"\r\nxi-api-key: "+token+"\r\n\r\n")
	if got := peer.last(); resp.StatusCode != 200 || headerOf(got, "Host") != "api.elevenlabs.io" || headerOf(got, "xi-api-key") != "sk_acme_0123456789abcdef" {
		t.Errorf("status %d, provider got\n%s", resp.StatusCode, got)
	}
	resp = w.raw("tcp", "GET /v1/voices HTTP/1.1\r\nHost: "+address+"\r\nKeyward-Org: globex\r\nxi-api-key: "+token+"\r\n\r\n")
	if problemCode(resp) != "org_conflict" {
		t.Errorf("another org than the listener's: %d %s", resp.StatusCode, problemCode(resp))
	}
}

// TestRefusals is the error table of docs/outbound.md, as far as it needs no failing provider.
func TestRefusals(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	w.set("acme", "twilio", acmeTwilio, 2)
	off := *w.rows.credentials[store.Ref{Org: "globex", Provider: "vapi"}]
	off.Active = false
	swapped := *w.rows.credentials[store.Ref{Org: "acme", Provider: "resend"}]
	swapped.Ref = store.Ref{Org: "globex", Provider: "resend"}
	w.rows.credentials[off.Ref], w.rows.credentials[swapped.Ref] = &off, &swapped
	acmeOnly := w.token(store.Token{Name: "acme-only", Orgs: []string{"acme"}, Providers: []string{"twilio", "vapi"}})
	narrow := w.token(store.Token{Name: "narrow", Allow: []string{"POST /2010-04-01/Accounts/*/Messages.json"}})
	slow := w.token(store.Token{Name: "slow", Rate: "1/m"})
	any := w.token(store.Token{Name: "any"})
	w.raw("tcp", "GET /vapi/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\nKeyward-Token: "+slow+"\r\n\r\n") // spends its rate
	unknown := "kwt" + strings.Repeat("a", 43)
	for name, tc := range map[string]struct {
		network, line, headers string
		status                 int
		code                   string
	}{
		"no org":                      {"unix", "GET /vapi/x", "", 400, "org_required"},
		"malformed org":               {"unix", "GET /vapi/x", "Keyward-Org: a/b\r\n", 400, "bad_request"},
		"empty org":                   {"unix", "GET /vapi/x", "Keyward-Org:\r\n", 400, "bad_request"},
		"long org":                    {"unix", "GET /vapi/x", "Keyward-Org: " + strings.Repeat("a", 65) + "\r\n", 400, "bad_request"},
		"org against path":            {"unix", "GET /org/globex/vapi/x", "Keyward-Org: acme\r\n", 400, "org_conflict"},
		"org against assistant":       {"unix", "GET /vapi/x", "Keyward-Org: acme\r\nKeyward-Assistant: asst_2\r\n", 400, "org_conflict"},
		"two assistants":              {"unix", "GET /assistant/asst_1/vapi/x", "Keyward-Assistant: asst_2\r\n", 400, "org_conflict"},
		"malformed assistant":         {"unix", "GET /vapi/x", "Keyward-Assistant: a b\r\n", 400, "bad_request"},
		"unknown assistant":           {"unix", "GET /vapi/x", "Keyward-Assistant: asst_9\r\n", 404, "unknown_assistant"},
		"unknown host":                {"unix", "GET /x", "Keyward-Org: acme\r\n", 404, "unknown_upstream"},
		"host with a prefix":          {"unix", "GET /evil-api.twilio.com/x", "Keyward-Org: acme\r\n", 404, "unknown_upstream"},
		"host with a suffix":          {"unix", "GET /api.twilio.com.evil.com/x", "Keyward-Org: acme\r\n", 404, "unknown_upstream"},
		"upstream not of the list":    {"unix", "GET /x", "Keyward-Org: acme\r\nKeyward-Upstream: example.com\r\n", 404, "unknown_upstream"},
		"upstream with a port":        {"unix", "GET /x", "Keyward-Org: acme\r\nKeyward-Upstream: api.vapi.ai:444\r\n", 404, "unknown_upstream"},
		"Keyward's own host":          {"unix", "GET /token", "Keyward-Org: acme\r\nKeyward-Upstream: oauth2.googleapis.com\r\n", 404, "unknown_upstream"},
		"another provider's host":     {"unix", "GET /twilio/api.vapi.ai/x", "Keyward-Org: acme\r\n", 404, "unknown_upstream"},
		"absolute form elsewhere":     {"unix", "GET http://example.com/x", "Keyward-Org: acme\r\n", 404, "unknown_upstream"},
		"https absolute form":         {"unix", "GET https://api.vapi.ai/x", "Keyward-Org: acme\r\n", 400, "bad_request"},
		"CONNECT":                     {"unix", "CONNECT api.vapi.ai:443", "Keyward-Org: acme\r\n", 403, "route_forbidden"},
		"asterisk form":               {"unix", "OPTIONS *", "Keyward-Org: acme\r\n", 404, "unknown_upstream"},
		"no credential":               {"unix", "GET /vapi/x", "Keyward-Org: nobody\r\n", 424, "credential_missing"},
		"disabled credential":         {"unix", "GET /vapi/x", "Keyward-Org: globex\r\n", 424, "credential_inactive"},
		"another org's row":           {"unix", "GET /resend/x", "Keyward-Org: globex\r\n", 424, "credential_unreadable"},
		"no public key":               {"unix", "POST /vapi/call/web", "Keyward-Org: globex2\r\n", 424, "credential_incomplete"},
		"foreign account":             {"unix", "GET /twilio/2010-04-01/Accounts/" + globexSID + "/Messages.json", "Keyward-Org: acme\r\n", 403, "foreign_account"},
		"TCP without a token":         {"tcp", "GET /vapi/x", "Keyward-Org: acme\r\n", 401, "caller_unauthenticated"},
		"unknown token":               {"tcp", "GET /vapi/x", "Keyward-Org: acme\r\nKeyward-Token: " + unknown + "\r\n", 401, "caller_unauthenticated"},
		"unknown token on the socket": {"unix", "GET /vapi/x", "Keyward-Org: acme\r\nAuthorization: Bearer " + unknown + "\r\n", 401, "caller_unauthenticated"},
		"unknown beside a good one":   {"tcp", "GET /vapi/x", "Keyward-Org: acme\r\nKeyward-Token: " + any + "\r\nxi-api-key: " + unknown + "\r\n", 401, "caller_unauthenticated"},
		"malformed token":             {"unix", "GET /vapi/x", "Keyward-Org: acme\r\nKeyward-Token: nonsense\r\n", 401, "caller_unauthenticated"},
		"cut token":                   {"unix", "GET /vapi/x", "Keyward-Org: acme\r\nAuthorization: Bearer kwtABC\r\n", 401, "caller_unauthenticated"},
		"token of another org":        {"tcp", "GET /vapi/x", "Keyward-Org: globex\r\nKeyward-Token: " + acmeOnly + "\r\n", 403, "org_forbidden"},
		"token of other providers":    {"tcp", "GET /resend/x", "Keyward-Org: acme\r\nKeyward-Token: " + acmeOnly + "\r\n", 403, "provider_forbidden"},
		"token narrows the socket":    {"unix", "GET /resend/x", "Keyward-Org: acme\r\nKeyward-Token: " + acmeOnly + "\r\n", 403, "provider_forbidden"},
		"route not allowed":           {"tcp", "GET /twilio/2010-04-01/Accounts/ACkeyward/Messages.json", "Keyward-Org: acme\r\nKeyward-Token: " + narrow + "\r\n", 403, "route_forbidden"},
		"dots where a rule applies":   {"tcp", "POST /twilio/2010-04-01/Accounts/x/../ACkeyward/Messages.json", "Keyward-Org: acme\r\nKeyward-Token: " + narrow + "\r\n", 400, "bad_request"},
		"a secret route":              {"unix", "POST /resend/api-keys", "Keyward-Org: acme\r\n", 403, "secret_route"},
		"dots before a secret route":  {"unix", "POST /resend/x/../api-keys", "Keyward-Org: acme\r\n", 400, "bad_request"},
		"slashes before one":          {"unix", "POST /resend//api-keys", "Keyward-Org: acme\r\n", 400, "bad_request"},
		"encoded dots likewise":       {"tcp", "POST /twilio/2010-04-01/Accounts/%2e%2E/Messages.json", "Keyward-Org: acme\r\nKeyward-Token: " + narrow + "\r\n", 400, "bad_request"},
		"over the rate":               {"tcp", "GET /vapi/x", "Keyward-Org: acme\r\nKeyward-Token: " + slow + "\r\n", 429, "rate_limited"},
		"a web page":                  {"tcp", "GET /vapi/x", "Origin: http://localhost\r\nKeyward-Org: acme\r\nKeyward-Token: " + any + "\r\n", 403, "browser_request"},
		"a cross-site fetch":          {"tcp", "GET /vapi/x", "Sec-Fetch-Site: cross-site\r\nKeyward-Org: acme\r\nKeyward-Token: " + any + "\r\n", 403, "browser_request"},
		"a rebound name":              {"tcp", "GET /vapi/x", "Host: evil.example\r\nKeyward-Org: acme\r\nKeyward-Token: " + any + "\r\n", 403, "host_forbidden"},
		"a rebound absolute form":     {"tcp", "GET http://evil.example/vapi/x", "Keyward-Org: acme\r\nKeyward-Token: " + any + "\r\n", 403, "host_forbidden"},
		"a public address":            {"tcp", "GET /vapi/x", "Host: 10.0.0.1\r\nKeyward-Org: acme\r\nKeyward-Token: " + any + "\r\n", 403, "host_forbidden"},
		"two orgs":                    {"unix", "GET /vapi/x", "Keyward-Org: acme\r\nKeyward-Org: acme\r\n", 400, "bad_request"},
		"length and coding":           {"unix", "POST /vapi/x", "Keyward-Org: acme\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", 400, "bad_request"},
		"too many headers":            {"unix", "GET /vapi/x", "Keyward-Org: acme\r\n" + strings.Repeat("X: 1\r\n", 100), 431, "headers_too_large"},
		"head too long":               {"unix", "GET /vapi/x", "Keyward-Org: acme\r\nX: " + strings.Repeat("x", 33<<10) + "\r\n", 431, "headers_too_large"},
		"head far too long":           {"unix", "GET /vapi/x", "Keyward-Org: acme\r\nX: " + strings.Repeat("x", 60<<10) + "\r\n", 431, "headers_too_large"},
		"HTTP/2.0":                    {"unix", "GET /vapi/x HTTP/2.0", "Keyward-Org: acme\r\n", 400, "bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.code == "credential_incomplete" {
				w.set("globex2", "vapi", `{"api_key":"vapi-private-globex-02"}`, 1)
			}
			headers := tc.headers
			if !strings.Contains(headers, "Host:") {
				headers = "Host: localhost\r\n" + headers
			}
			line := tc.line
			if !strings.Contains(line, " HTTP/") {
				line += " HTTP/1.1"
			}
			before, _ := peer.count()
			resp := w.raw(tc.network, line+"\r\n"+headers+"\r\n")
			body := bodyOf(resp)
			if resp.StatusCode != tc.status || problemCode(resp) != tc.code {
				t.Fatalf("got %d %q, want %d %q: %s", resp.StatusCode, problemCode(resp), tc.status, tc.code, body)
			}
			if after, _ := peer.count(); after != before {
				t.Errorf("the provider was asked all the same: %s", peer.last())
			}
			if resp.Header.Get("Content-Type") != "application/problem+json" || !strings.Contains(body, `"code":"`+tc.code+`"`) ||
				!strings.Contains(body, `"request_id":"`+resp.Header.Get("Keyward-Request-Id")+`"`) || !strings.Contains(body, fmt.Sprintf(`"status":%d`, tc.status)) {
				t.Errorf("not a whole problem: %v %s", resp.Header, body)
			}
			if tc.status == 429 && resp.Header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
			if strings.Contains(body, "kwt") || strings.Contains(w.logs.String(), "kwt") {
				t.Error("a token stands in the answer or in the log")
			}
		})
	}
}
