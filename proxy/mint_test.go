package proxy

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/store"
	"github.com/rs/zerolog"
)

const (
	mintKeySID    = "SK11111111111111111111111111111111"
	mintKeySecret = "acmeacmeacmeacmeacmeacmeacmeacme"
	acmeMints     = `{"account_sid":"` + acmeSID + `","auth_token":"0000000000000000000000000000acme","api_key_sid":"` + mintKeySID + `","api_key_secret":"` + mintKeySecret + `"}`
	acmeVapiMints = `{"api_key":"vapi-private-acme-0001","public_key":"vapi-public-acme-0001","vapi_org_id":"00112233-4455-4677-8899-aabbccddeeff"}`
	mintTwilio    = "/keyward/mint/twilio-access-token"
	mintVapi      = "/keyward/mint/vapi-jwt"
	aliceVideo    = `{"identity":"alice","grants":{"video":{"room":"lobby"}}}`
)

// A mintWorld is a proxy whose acme has what minting needs, with the audit rows that it writes.
type mintWorld struct {
	*world
	mu     sync.Mutex
	events []store.Event
	broken error  // what recording returns, if set
	while  func() // runs while a token is recorded
}

func newMintWorld(t *testing.T, to string) *mintWorld {
	m := &mintWorld{}
	m.world = newWorld(t, to, func(o *Options) {
		o.Log = o.Log.Level(zerolog.TraceLevel)
		o.Audit = func(_ context.Context, e store.Event) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.events = append(m.events, e)
			if m.while != nil {
				m.while()
			}
			return m.broken
		}
	})
	m.set("acme", "twilio", acmeMints, 2)
	m.set("acme", "vapi", acmeVapiMints, 2)
	return m
}

// order asks for a token; further headers end with a line break each.
func (m *mintWorld) order(network, path, body, headers string) *http.Response {
	m.t.Helper()
	return m.raw(network, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\n%sContent-Length: %d\r\n\r\n%s", path, headers, len(body), body))
}

// minted is a token that was handed out, with its claims.
type mintedAnswer struct {
	Token   string `json:"token"`
	ID      string `json:"id"`
	Expires string `json:"expires_at"`
	In      int64  `json:"expires_in"`
	claims  struct {
		Issuer  string         `json:"iss"`
		Subject string         `json:"sub"`
		From    int64          `json:"iat"`
		Till    int64          `json:"exp"`
		Grants  map[string]any `json:"grants"`
		Token   map[string]any `json:"token"`
		Org     string         `json:"orgId"`
	}
}

// read verifies a token with the key and reads it.
func (m *mintWorld) read(r *http.Response, key string) (a mintedAnswer) {
	m.t.Helper()
	text := bodyOf(r)
	if r.StatusCode != 200 || json.Unmarshal([]byte(text), &a) != nil {
		m.t.Fatalf("%d %s", r.StatusCode, text)
	}
	at := strings.LastIndexByte(a.Token, '.')
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(a.Token[:at]))
	if a.Token[at+1:] != base64.RawURLEncoding.EncodeToString(mac.Sum(nil)) {
		m.t.Fatal("the signature is not the key's")
	}
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(a.Token, ".")[1])
	if err != nil || json.Unmarshal(claims, &a.claims) != nil {
		m.t.Fatalf("claims: %s", claims)
	}
	sum := sha256.Sum256([]byte(a.Token))
	if want := fmt.Sprintf("%x", sum[:8]); a.ID != want {
		m.t.Errorf("id %s is not the token's fingerprint", a.ID)
	}
	if a.claims.Till-a.claims.From != a.In || a.Expires != time.Unix(a.claims.Till, 0).UTC().Format(time.RFC3339) {
		m.t.Errorf("it ends at %d, and the answer says %s, in %d", a.claims.Till, a.Expires, a.In)
	}
	if off := time.Now().Unix() - a.claims.From; off < 0 || off > 60 {
		m.t.Errorf("it begins %d s ago", off)
	}
	return a
}

func (m *mintWorld) refused(what string, r *http.Response, status int, code, detail string) {
	m.t.Helper()
	if text := bodyOf(r); r.StatusCode != status || problemCode(r) != code || !strings.Contains(text, detail) {
		m.t.Errorf("%s: %d %s\n%s", what, r.StatusCode, problemCode(r), text)
	}
}

func TestTokensAreMinted(t *testing.T) {
	m := newMintWorld(t, "")
	token := m.token(store.Token{Name: "worker", Orgs: []string{"acme"}})
	for _, where := range []struct{ network, path, headers string }{
		{"unix", mintTwilio, "Keyward-Org: acme\r\n"},
		{"unix", mintTwilio + "?x=y", "Keyward-Assistant: asst_1\r\n"},
		{"unix", "/org/acme" + mintTwilio, ""},
		{"unix", "/assistant/asst_1" + mintTwilio, ""},
		{"unix", "http://api.twilio.com" + mintTwilio, "Keyward-Org: acme\r\n"},
		{"tcp", mintTwilio, "Keyward-Token: " + token + "\r\n"},
		{"tcp", mintTwilio, "Authorization: Bearer " + token + "\r\n"},
	} {
		a := m.read(m.order(where.network, where.path, aliceVideo, where.headers), mintKeySecret)
		if c := a.claims; c.Issuer != mintKeySID || c.Subject != acmeSID || a.In != 3600 || fmt.Sprint(c.Grants) != "map[identity:alice video:map[room:lobby]]" {
			t.Errorf("%v: %+v", where, c)
		}
	}
	r := m.order("unix", mintVapi, `{"ttl":60,"grants":{"public":{"allowed_assistant_ids":["a1"]}}}`, "Keyward-Org: acme\r\n")
	if r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Keyward-Request-Id") == "" {
		t.Errorf("headers %v", r.Header)
	}
	a := m.read(r, "vapi-private-acme-0001")
	if a.In != 60 || a.claims.Org != "00112233-4455-4677-8899-aabbccddeeff" || a.claims.Token["tag"] != "public" {
		t.Errorf("%+v", a.claims)
	}
	if a := m.read(m.raw("unix", "POST "+mintVapi+" HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"), "vapi-private-acme-0001"); a.In != 3600 {
		t.Errorf("%+v", a)
	}
}

// talk sends pieces of requests over one connection, and reads an answer after each.
func talk(t *testing.T, c net.Conn) func(text string) *http.Response {
	br := bufio.NewReader(c)
	return func(text string) *http.Response {
		t.Helper()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}

// Who waits for "100 Continue" is told to go on only where something may be minted.
func TestMintingThatWaitsForContinue(t *testing.T) {
	m := newMintWorld(t, "")
	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: %%s\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", mintTwilio, len(aliceVideo))
	send := talk(t, m.dial("unix"))
	if r := send(fmt.Sprintf(head, "acme")); r.StatusCode != 100 {
		t.Fatalf("%d", r.StatusCode)
	}
	m.read(send(aliceVideo), mintKeySecret)
	m.refused("no credential", m.raw("unix", fmt.Sprintf(head, "nobody")), 424, "credential_missing", "")
}

// Who is revoked while the body of an order comes, or that of any request, gets nothing for it any more.
func TestARevokedCallerDoesNotGoOnWithItsBody(t *testing.T) {
	up := newPeer(t, true)
	m := newMintWorld(t, up.url)
	for _, path := range []string{mintVapi, "/vapi/assistant"} {
		token := m.token(store.Token{Name: "worker"})
		send := talk(t, m.dial("tcp"))
		if r := send("POST " + path + " HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\nKeyward-Token: " + token + "\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"); r.StatusCode != 100 {
			t.Fatalf("%s: %s", path, r.Status)
		}
		m.rows.mu.Lock()
		delete(m.rows.tokens, caller.HashToken([]byte(token)))
		m.rows.mu.Unlock()
		time.Sleep(400 * time.Millisecond) // a body that comes slowly
		m.refused(path, send("{}"), 401, "caller_unauthenticated", "")
	}
	if n, _ := up.count(); n > 0 || len(m.events) > 0 {
		t.Errorf("%d requests arrived, recorded: %v", n, m.events)
	}
}

// No rule, and no credential, is outlived by a token.
func TestNoTokenOutlivesItsCap(t *testing.T) {
	m := newMintWorld(t, "")
	ask := func(network, headers string, ttl int) *http.Response {
		return m.order(network, mintVapi, strings.Replace(fmt.Sprintf(`{"ttl":%d}`, ttl), `"ttl":0`, "", 1), "Keyward-Org: acme\r\n"+headers)
	}
	const key = "vapi-private-acme-0001"
	is := func(what string, network, headers string, most int64) {
		t.Helper()
		if a := m.read(ask(network, headers, 0), key); a.In != min(most, 3600) {
			t.Errorf("%s: without a ttl it lives %d s", what, a.In)
		}
		if a := m.read(ask(network, headers, int(most)), key); a.In != most {
			t.Errorf("%s: the longest lives %d s", what, a.In)
		}
		for _, over := range []int64{most + 1, 86400} {
			if over > most && over <= 86400 {
				m.refused(what, ask(network, headers, int(over)), 403, "route_forbidden", fmt.Sprintf("at most %d seconds", most))
			}
		}
		m.refused(what, ask(network, headers, 86401), 400, "bad_request", "ttl must be a whole number from 1 to 86400")
	}
	token := "Keyward-Token: " + m.token(store.Token{Name: "worker"}) + "\r\n"
	is("no rule of its own", "unix", "", 3600)
	is("a token", "tcp", token, 3600)
	uid := uint32(os.Geteuid())
	rule := caller.Spec{Name: "app", Unix: caller.Unix{UID: &uid}, Orgs: []string{"*"}}
	rule.MintTTL = "24h"
	m.callers(rule)
	is("a rule that says more", "unix", "", 86400)
	is("a token beside it", "unix", token, 3600)
	rule.MintTTL = "10m"
	m.callers(rule)
	is("a rule that says less", "unix", "", 600)
	is("a token beside that one", "unix", token, 600)
	m.set("acme", "vapi", strings.Replace(acmeVapiMints, "{", `{"max_token_ttl":"90s",`, 1), 3)
	is("a credential that says less", "unix", "", 90)
	is("the same for a token", "tcp", token, 90)
	m.set("acme", "vapi", strings.Replace(acmeVapiMints, "{", `{"max_token_ttl":"12h",`, 1), 4)
	is("a credential that says more", "unix", "", 600)
}

func TestMintingNeedsWhatSigns(t *testing.T) {
	m := newMintWorld(t, "")
	m.refused("no API key", m.order("unix", mintTwilio, aliceVideo, "Keyward-Org: globex\r\n"), 424, "credential_incomplete",
		"has no api_key_sid, which twilio-access-token needs. Twilio's access tokens are signed with an API key, never with the auth token: make one in")
	m.refused("no Vapi org id", m.order("unix", mintVapi, "", "Keyward-Org: globex\r\n"), 424, "credential_incomplete", "has no vapi_org_id, which vapi-jwt needs. Vapi's tokens")
	m.refused("no credential", m.order("unix", mintTwilio, aliceVideo, "Keyward-Org: nobody\r\n"), 424, "credential_missing", "")
	row := *m.rows.credentials[store.Ref{Org: "acme", Provider: "twilio"}]
	row.Active = false
	m.rows.mu.Lock()
	m.rows.credentials[row.Ref] = &row
	m.rows.mu.Unlock()
	m.refused("a disabled one", m.order("unix", mintTwilio, aliceVideo, "Keyward-Org: acme\r\n"), 424, "credential_inactive", "")
	if len(m.events) != 0 {
		t.Errorf("recorded: %v", m.events)
	}
}

// Who may not use the org, the provider or the route may not mint, and neither may who is not known.
func TestRulesBoundWhatIsMinted(t *testing.T) {
	m := newMintWorld(t, "")
	uid := uint32(os.Geteuid())
	try := func(change func(*caller.Spec), path, body string) *http.Response {
		t.Helper()
		s := caller.Spec{Name: "app", Unix: caller.Unix{UID: &uid}, Orgs: []string{"*"}}
		change(&s)
		m.callers(s)
		return m.order("unix", path, body, "Keyward-Org: acme\r\n")
	}
	const both = `{"identity":"a","grants":{"voice":{},"video":{}}}`
	allow := func(routes ...string) func(*caller.Spec) { return func(s *caller.Spec) { s.Allow = routes } }
	for _, c := range []struct {
		what       string
		rule       func(*caller.Spec)
		path, body string
		code       string
	}{
		{"another org's", func(s *caller.Spec) { s.Orgs = []string{"globex"} }, mintTwilio, both, "org_forbidden"},
		{"another provider's", func(s *caller.Spec) { s.Providers = []string{"vapi"} }, mintTwilio, both, "provider_forbidden"},
		{"a messenger", allow("POST /2010-04-01/Accounts/*/Messages.json"), mintTwilio, both, "route_forbidden"},
		{"one for another token", allow("POST " + mintVapi), mintTwilio, both, "route_forbidden"},
		{"one for another method", allow("GET " + mintTwilio), mintTwilio, both, "route_forbidden"},
		{"one grant of two", allow("POST " + mintTwilio + "/voice"), mintTwilio, both, "route_forbidden"},
		{"a Vapi token that can do all", func(*caller.Spec) {}, mintVapi, `{"grants":{"private":{}}}`, "secret_route"},
		{"the same, with every route", allow("* /**"), mintVapi, `{"grants":{"private":{}}}`, "secret_route"},
	} {
		m.refused(c.what, try(c.rule, c.path, c.body), 403, c.code, "")
	}
	if len(m.events) != 0 {
		t.Errorf("recorded: %v", m.events)
	}
	for _, c := range []struct {
		what       string
		rule       func(*caller.Spec)
		path, body string
		key        string
	}{
		{"the whole path", allow("POST " + mintTwilio), mintTwilio, both, mintKeySecret},
		{"its grants", allow("POST "+mintTwilio+"/voice", "POST "+mintTwilio+"/video"), mintTwilio, both, mintKeySecret},
		{"its only grant", allow("POST " + mintTwilio + "/video"), mintTwilio, aliceVideo, mintKeySecret},
		{"all that is minted", allow("POST /keyward/mint/**"), mintTwilio, both, mintKeySecret},
		{"secret routes", func(s *caller.Spec) { s.SecretRoutes = true }, mintVapi, `{"grants":{"private":{}}}`, "vapi-private-acme-0001"},
	} {
		m.read(try(c.rule, c.path, c.body), c.key)
	}

	// A token narrows its peer's rule, in minting as elsewhere.
	m.callers(caller.Spec{Name: "app", Unix: caller.Unix{UID: &uid}, Orgs: []string{"*"}, SecretRoutes: true})
	narrow := func(tok store.Token, path, body, code string) {
		t.Helper()
		m.refused(tok.Name, m.order("unix", path, body, "Keyward-Org: acme\r\nKeyward-Token: "+m.token(tok)+"\r\n"), 403, code, "")
	}
	narrow(store.Token{Name: "video alone", Allow: []string{"POST " + mintTwilio + "/video"}}, mintTwilio, both, "route_forbidden")
	narrow(store.Token{Name: "vapi alone", Providers: []string{"vapi"}}, mintTwilio, both, "provider_forbidden")
	narrow(store.Token{Name: "no secrets"}, mintVapi, `{"grants":{"private":{}}}`, "secret_route")

	m.refused("nobody", m.order("tcp", mintTwilio, both, "Keyward-Org: acme\r\n"), 401, "caller_unauthenticated", "")
	m.refused("a web page", m.order("tcp", mintTwilio, both, "Keyward-Org: acme\r\nOrigin: https://evil.example\r\n"), 403, "browser_request", "")
	limited := m.token(store.Token{Name: "limited", Orgs: []string{"acme"}, Rate: "1/h"})
	m.read(m.order("tcp", mintTwilio, both, "Keyward-Token: "+limited+"\r\n"), mintKeySecret)
	m.refused("over its rate", m.order("tcp", mintTwilio, both, "Keyward-Token: "+limited+"\r\n"), 429, "rate_limited", "")
}

func TestBadRequestsForTokens(t *testing.T) {
	m := newMintWorld(t, "")
	const acme = "Keyward-Org: acme\r\n"
	m.refused("GET", m.raw("unix", "GET "+mintTwilio+" HTTP/1.1\r\nHost: localhost\r\n"+acme+"\r\n"), 400, "bad_request", "minted by POST")
	for _, path := range []string{"/keyward", "/keyward/", "/keyward/mint", "/keyward/mint/", "/keyward/mint/other", mintTwilio + "/", mintTwilio + "/voice", "/keyward//mint/vapi-jwt", "/keyward/mint/vapi%2Djwt"} {
		m.refused(path, m.order("unix", path, aliceVideo, acme), 404, "unknown_upstream", "docs/minted-tokens.md")
	}
	m.refused("no org", m.order("unix", mintTwilio, aliceVideo, ""), 400, "org_required", "")
	m.refused("no JSON", m.order("unix", mintTwilio, "identity=alice", acme), 400, "bad_request", "the body is not valid JSON")
	m.refused("what the credential says", m.order("unix", mintTwilio, `{"identity":"a","account_sid":"`+globexSID+`","grants":{"video":{}}}`, acme), 400, "bad_request", "account_sid is not a member")
	m.refused("too long", m.order("unix", mintTwilio, `{"identity":"`+strings.Repeat("a", maxOrder)+`"}`, acme), 413, "body_too_large", "32 KiB")
	m.refused("too long in chunks", m.raw("unix", fmt.Sprintf("POST %s HTTP/1.1\r\nHost: localhost\r\n%sTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", mintTwilio, acme, maxOrder+1, strings.Repeat(" ", maxOrder+1))),
		413, "body_too_large", "32 KiB")
	if len(m.events) != 0 {
		t.Errorf("recorded: %v", m.events)
	}
}

// A token is recorded, or it is not handed out.
func TestMintedTokensAreRecorded(t *testing.T) {
	m := newMintWorld(t, "")
	a := m.read(m.order("unix", mintTwilio, `{"identity":"alice@example.com","ttl":60,"grants":{"video":{},"voice":{}}}`, "Keyward-Org: acme\r\n"), mintKeySecret)
	worker := m.token(store.Token{Name: "worker", Orgs: []string{"acme"}})
	m.read(m.order("tcp", mintVapi, "", "Keyward-Token: "+worker+"\r\n"), "vapi-private-acme-0001")
	if n := m.p.Stats().Minted.Load(); n != 2 {
		t.Errorf("%d tokens are counted", n)
	}
	if len(m.events) != 2 {
		t.Fatalf("%v", m.events)
	}
	e := m.events[0]
	if e.Actor.Name != "caller self" || e.Actor.From != fmt.Sprintf("caller socket, uid %d", os.Geteuid()) || e.Action != "token.mint" || e.Org != "acme" ||
		e.Target != "twilio-access-token" || e.Result != "ok" || !strings.HasPrefix(e.Detail, "voice, video; 60 s; token "+a.ID+"; request ") {
		t.Errorf("%+v", e)
	}
	if e = m.events[1]; e.Actor.Name != "caller worker" || !strings.HasPrefix(e.Actor.From, "127.0.0.1:") || e.Target != "vapi-jwt" {
		t.Errorf("%+v", e)
	}
	m.mu.Lock()
	m.broken = errors.New("no store")
	m.mu.Unlock()
	r := m.order("unix", mintTwilio, aliceVideo, "Keyward-Org: acme\r\n")
	if text := bodyOf(r); r.StatusCode != 503 || problemCode(r) != "store_unavailable" || strings.Contains(text, "ey") && strings.Contains(text, `"token"`) || r.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", r.StatusCode, text)
	}
	m.p.audit = nil
	m.refused("nobody records", m.order("unix", mintTwilio, aliceVideo, "Keyward-Org: acme\r\n"), 503, "store_unavailable", "")
}
