package console_test

import (
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/internal/canary"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

const (
	twilioSID   = "AC0123456789abcdef0123456789abcdef"
	twilioToken = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"
)

func TestWhoIsNotLoggedInSeesNothing(t *testing.T) {
	s := newServer(t)
	p := s.person()
	for _, path := range []string{"/", "/orgs/acme", "/webhooks", "/access", "/audit", "/audit.jsonl", "/orgs/acme/integrations/twilio", "/nothing"} {
		if a := p.get(path); !strings.HasPrefix(a.path, "/login") || a.status != 200 {
			t.Errorf("%s leads to %s", path, a.path)
		}
	}
	if a := p.get("/live"); a.status != 401 || a.body != "" {
		t.Errorf("/live: %d %q", a.status, a.body)
	}
	if a := p.do("POST", "/access/tokens", "name=mine&role=operator"); a.path != "/login" {
		t.Errorf("a form without a session leads to %s", a.path)
	}
	if rows, _, err := s.db.AdminTokens(context.Background(), "", 10); err != nil || len(rows) != 1 {
		t.Errorf("%d admin tokens, %v", len(rows), err)
	}
	// The API's own paths stay the API's.
	if a := p.get("/api/orgs"); a.status != 401 || a.header.Get("Keyward-Error") != "unauthenticated" {
		t.Errorf("/api/orgs: %d", a.status)
	}
	if a := p.get("/healthz"); a.body != "ok\n" {
		t.Errorf("/healthz: %q", a.body)
	}
}

func TestSessionsCookieIsForThisHostAlone(t *testing.T) {
	s := newServer(t)
	p := s.person()
	p.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	a := p.post("/login", "token", s.operator, "to", "/audit")
	set := a.header.Get("Set-Cookie")
	for _, want := range []string{"__Host-keyward=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"} {
		if !strings.Contains(set, want) {
			t.Errorf("the cookie lacks %q: %s", want, set)
		}
	}
	if strings.Contains(set, "Domain") || strings.Contains(set, s.operator) {
		t.Errorf("the cookie has a domain, or the token")
	}
	if at := a.header.Get("Location"); at != "/login?kept=1&to=%2Faudit" {
		t.Errorf("on to %s", at)
	}
}

func TestBrowserThatKeepsNoCookieIsToldWhy(t *testing.T) {
	newServer(t).person().get("/login?kept=1").wants(t, 200, "did not keep the session")
}

func TestProvidersHaveTheirTitles(t *testing.T) {
	s := newServer(t)
	a := s.loggedIn(s.operator).get("/")
	a.wants(t, 200, "The Acme</th>")
	a.wants(t, 200, "untitled</th>")
}

func TestEveryAnswerHasThePolicy(t *testing.T) {
	s := newServer(t)
	p := s.loggedIn(s.operator)
	css := regexp.MustCompile(`/assets/style\.[0-9a-f]+\.css`).FindString(p.get("/").body)
	for _, path := range []string{"/", "/login", "/nothing", "/orgs/not an org", css} {
		h := p.get((&url.URL{Path: path}).String()).header
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy lacks %s", path, want)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "http") || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") == "no-referrer" {
			t.Errorf("%s: %v", path, h)
		}
	}
	for _, a := range []answer{p.get("/"), p.get("/orgs/acme"), p.get("/access"), p.get("/audit"), p.get("/webhooks")} {
		if m := regexp.MustCompile(`(?i)<script[^>]*>[^<]|<style|style=|\son[a-z]+=|https?://`).FindString(a.body); m != "" {
			t.Errorf("%s has %q", a.path, m)
		}
	}
}

// What another page makes its visitor's browser send changes nothing, whatever it knows but the session's own token.
func TestForgedFormsAreRefused(t *testing.T) {
	s := newServer(t)
	p := s.loggedIn(s.operator)
	p.get("/access")
	form := "name=evil&role=operator&csrf="
	refused := func(what string, a answer) {
		t.Helper()
		if a.status != 403 {
			t.Errorf("%s: %d", what, a.status)
		}
	}
	refused("no token", p.do("POST", "/access/tokens", form))
	refused("another token", p.do("POST", "/access/tokens", form+strings.Repeat("A", 43)))
	refused("another session's token", p.do("POST", "/access/tokens", form+other(s).csrf))
	good := form + url.QueryEscape(p.csrf)
	refused("another origin", p.do("POST", "/access/tokens", good, "Origin: http://127.0.0.1:1"))
	refused("no origin", p.do("POST", "/access/tokens", good, "Origin: null"))
	refused("another site", p.do("POST", "/access/tokens", good, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"))
	refused("another port", p.do("POST", "/access/tokens", good, "Sec-Fetch-Site: same-site"))
	refused("a name that leads here", p.do("POST", "/access/tokens", good, "Host: evil.example"))
	refused("a log-in from elsewhere", p.do("POST", "/login", "token="+s.operator, "Origin: http://evil.example"))
	if a := p.do("POST", "/access/tokens", `{"name":"evil"}`, "Content-Type: text/plain"); a.status != 400 {
		t.Errorf("no form: %d", a.status)
	}
	if a := s.person().do("POST", "/login", "token="+strings.Repeat("a", 64<<10)); a.status != 400 {
		t.Errorf("a form of 64 KiB by nobody: %d", a.status)
	}
	if a := p.do("GET", "/access/tokens/ops/revoke", ""); a.status != 200 || !strings.Contains(a.body, "Revoke") {
		t.Errorf("a GET: %d", a.status)
	}
	rows, _, err := s.db.AdminTokens(context.Background(), "", 10)
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d admin tokens, %v", len(rows), err)
	}
	// A link from elsewhere may be followed.
	if a := p.do("GET", "/", "", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"); a.status != 200 {
		t.Errorf("a link: %d", a.status)
	}
	refused("a frame elsewhere", p.do("GET", "/", "", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"))
}

func other(s *server) *person { p := s.loggedIn(s.operator); p.get("/access"); return p }

func TestGuessingIsLimited(t *testing.T) {
	s := newServer(t)
	p := s.person()
	wrong, limited, begun := 0, 0, time.Now()
	guess := func() {
		t.Helper()
		token, _ := caller.NewAdminToken()
		switch a := p.post("/login", "token", token); a.status {
		case 401:
			wrong++
		case 429:
			limited++
			a.wants(t, 429, "too many wrong admin tokens")
		default:
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	for range 30 {
		guess()
	}
	if most := 11 + int(time.Since(begun)/(6*time.Second)); wrong == 0 || wrong > most {
		t.Errorf("%d were looked at, at most %d may, %d were refused", wrong, most, limited)
	}
	// Nobody finds out that one is right, tried among the others. Every 6 s there is a try again, which a machine that stands still may meet.
	for i := range 5 {
		a := p.post("/login", "token", s.token(fmt.Sprint("right-", i), ""))
		if a.status == 429 {
			return
		}
		t.Logf("the right token: %d", a.status)
		guess()
	}
	t.Error("the right token is let in among wrong ones")
}

func TestRevokedTokenEndsItsSessions(t *testing.T) {
	s := newServer(t)
	p := s.loggedIn(s.token("leaver", ""))
	stream := p.open("/live")
	next(t, stream)
	if _, err := s.db.RevokeAdminToken(context.Background(), store.Actor{Name: "test"}, "leaver"); err != nil {
		t.Fatal(err)
	}
	a := p.get("/audit")
	if !strings.HasPrefix(a.path, "/login") || !strings.Contains(a.body, "was revoked") {
		t.Errorf("it leads to %s", a.path)
	}
	if left, err := io.ReadAll(stream); err != nil || len(left) > 4096 {
		t.Errorf("the live numbers went on: %d bytes, %v", len(left), err)
	}
}

func TestLoggedOutIsLoggedOut(t *testing.T) {
	s := newServer(t)
	p := s.loggedIn(s.operator)
	u, _ := url.Parse(s.url)
	old := p.http.Jar.Cookies(u)
	p.post("/logout").wants(t, 200, "You are logged out.")
	p.http.Jar.SetCookies(u, old) // who kept the cookie has nothing
	if a := p.get("/audit"); !strings.HasPrefix(a.path, "/login") {
		t.Errorf("it leads to %s", a.path)
	}
}

func TestLogInLeadsToNoOtherHost(t *testing.T) {
	s := newServer(t)
	for _, to := range []string{"//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "evil.example", "/login", "/\tevil", "/api/orgs"} {
		if a := s.loggedInTo(to); a.path != "/" {
			t.Errorf("%q leads to %s", to, a.path)
		}
	}
	if a := s.loggedInTo("/audit?org=acme"); a.path != "/audit?org=acme" {
		t.Errorf("it leads to %s", a.path)
	}
}

func (s *server) loggedInTo(to string) answer {
	return s.person().post("/login", "token", s.operator, "to", to)
}

// A secret goes in and never comes out: no page, no log line has one, and so it is with tokens, but for the page that shows a new one.
func TestSecretsDoNotComeBack(t *testing.T) {
	s := newServer(t)
	p := s.loggedIn(s.operator)
	var known canary.Set
	known.Learn(`{"auth_token":"` + twilioToken + `"}`)
	clean := func(a answer) answer {
		t.Helper()
		if found := known.Leak(a.body); found != "" {
			t.Errorf("%s shows %s", a.path, found)
		}
		return a
	}
	clean(p.get("/orgs/acme/integrations/twilio"))
	clean(p.post("/orgs/acme/integrations/twilio", "account_sid", "wrong", "auth_token", twilioToken, "from_number", "+15550001111")).wants(t, 400, "the credential is not valid", `value="+15550001111"`)
	clean(p.post("/orgs/acme/integrations/twilio", "account_sid", twilioToken, "auth_token", "x y")).wants(t, 400)
	clean(p.post("/orgs/acme/integrations/twilio", "account_sid", twilioSID, "auth_token", twilioToken)).wants(t, 200, "Saved.", "…b1a0", twilioSID)
	clean(p.get("/orgs/acme/integrations/twilio")).wants(t, 200, "…b1a0 – leave empty to keep it")
	// A change keeps what was not typed; an emptied field goes.
	clean(p.post("/orgs/acme/integrations/twilio", "version", "1", "account_sid", twilioSID, "was.account_sid", twilioSID, "from_number", "+15550001111")).wants(t, 200, "…b1a0", "+15550001111")
	a := clean(p.post("/orgs/acme/integrations/twilio", "version", "2", "account_sid", twilioSID, "was.account_sid", twilioSID, "from_number", "", "was.from_number", "+15550001111"))
	a.wants(t, 200, "…b1a0")
	if strings.Contains(html.UnescapeString(a.body), "+15550001111") {
		t.Error("the emptied field is still there")
	}
	clean(p.post("/orgs/acme/integrations/twilio", "version", "1", "auth_token", twilioToken)).wants(t, 412, "it was changed since it was read")

	made := p.post("/access/callers", "name", "worker", "orgs", "acme")
	made.wants(t, 201, "shown this once")
	token := regexp.MustCompile(`kwt[0-9A-Za-z]{43}`).FindString(made.body)
	if a := clean(p.get("/access")); token == "" || strings.Contains(a.body, token) {
		t.Error("the token is shown twice")
	}
	clean(p.get("/audit"))
	if log := s.log.String(); strings.Contains(log, twilioToken) || strings.Contains(log, token) || strings.Contains(log, s.operator) {
		t.Error("the log has a secret")
	}
	clean(p.get("/audit.jsonl")).wants(t, 200, `"actor":"admin token ops"`, `"action":"credential.put"`)
}

// Two people at once: who adds what somebody has added meanwhile replaces nothing, and who is told that somebody was first undoes nothing by
// sending the form that comes with it.
func TestNobodysChangeIsUndoneUnseen(t *testing.T) {
	s := newServer(t)
	p := s.loggedIn(s.operator)
	p.get("/orgs/acme")
	const twilio, agent = "/orgs/acme/integrations/twilio", "/orgs/acme/agents/inbound"
	p.post(twilio, "account_sid", twilioSID, "auth_token", twilioToken, "from_number", "+15550001111").wants(t, 200, "Saved.")
	p.post(twilio, "account_sid", twilioSID, "auth_token", twilioToken, "from_number", "+15550009999").wants(t, 412, "it was changed since it was read", `value="+15550009999"`)
	p.post(agent, "name", "one", "config", `{"a":1}`).wants(t, 200)
	p.post(agent, "name", "two", "config", `{"a":2}`).wants(t, 412, "it was changed since it was read", `{"a":2}`)

	change := func(from, whatsapp string) answer {
		return p.post(twilio, "version", "1", "account_sid", twilioSID, "was.account_sid", twilioSID,
			"from_number", from, "was.from_number", "+15550001111", "whatsapp_number", whatsapp, "was.whatsapp_number", "")
	}
	change("+15550002222", "").wants(t, 200, "+15550002222")
	change("+15550001111", "+15550003333").wants(t, 412, "it was changed since it was read",
		`name="from_number" value="+15550002222"`, `name="was.from_number" value="+15550002222"`, `name="whatsapp_number" value="+15550003333"`)
}

// A configuration that is opened and saved is the same: no number has lost a digit, and what stood first stands there still.
func TestAgentsConfigurationStaysAsItWasWritten(t *testing.T) {
	s := newServer(t)
	p := s.loggedIn(s.operator)
	p.get("/orgs/acme")
	const agent, config = "/orgs/acme/agents/inbound", `{"z":12345678901234567890,"a":1.0,"b":[1e3,"<&> \\u003c \" \\"],"c":{}}`
	p.post(agent, "config", config).wants(t, 200)
	a := p.get(agent)
	shown := regexp.MustCompile(`(?s)<textarea id="config"[^>]*>(.*)</textarea>`).FindStringSubmatch(a.body)
	if shown == nil {
		t.Fatal(a.body)
	}
	p.post(agent, "version", "1", "config", html.UnescapeString(shown[1])).wants(t, 200)
	kept, err := s.db.Agent(t.Context(), "acme", "inbound")
	if err != nil {
		t.Fatal(err)
	}
	if string(kept.Config) != config {
		t.Errorf("it is %s", kept.Config)
	}
}

// What is stored for a provider that has left the configuration is shown by its fields' names, and can be deleted, which is all.
func TestProviderThatLeftTheConfiguration(t *testing.T) {
	s := newServer(t)
	gone, problems := (&provider.Custom{Name: "acme_api", Hosts: []string{"api.acme.example"}}).Make(provider.All)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	before := &credential.Keeper{DB: s.db, Keys: s.keys, Providers: provider.Set{gone}}
	values := provider.Values{"api_key": {Text: "sk-acme-0123456789abcdef"}}
	if _, err := before.Put(t.Context(), store.Actor{Name: "test"}, store.Ref{Org: "acme", Provider: gone.Name}, values, credential.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	p := s.loggedIn(s.operator)
	const at = "/orgs/acme/integrations/acme_api"
	a := p.get("/orgs/acme")
	a.wants(t, 200, "Unconfigured", "<dt>api_key</dt><dd>…</dd>", at+"/delete")
	for _, other := range []string{at + `"`, at + "/verify", at + "/disable", at + "/webhook", "cdef"} {
		if strings.Contains(a.body, other) {
			t.Errorf("the org's page has %s", other)
		}
	}
	p.get(at+"/delete").wants(t, 200, "Delete acme_api?")
	p.post(at+"/delete", "version", "1").wants(t, 200, "Deleted.")
	if a := p.get("/orgs/acme"); strings.Contains(a.body, at) {
		t.Error("it is still there")
	}
	p.get(at+"/delete").wants(t, 404)
}

// To a person who keeps one org, all others are not there, and what is for operators is refused.
func TestOrgsTokenStaysInItsOrg(t *testing.T) {
	s := newServer(t)
	ops := s.loggedIn(s.operator)
	ops.get("/orgs/globex")
	ops.post("/orgs/globex/integrations/resend", "api_key", "re_0123456789abcdef").wants(t, 200, "Saved.")
	p := s.loggedIn(s.token("acme-backend", "acme"))
	if a := p.get("/"); a.path != "/orgs/acme" || strings.Contains(a.body, "Callers and tokens") {
		t.Errorf("it begins at %s", a.path)
	}
	for path, status := range map[string]int{
		"/orgs/globex": 404, "/orgs/globex/integrations/resend": 404, "/orgs/globex/integrations/twilio": 404, "/orgs/globex/agents/inbound": 404,
		"/orgs/globex/integrations/resend/delete": 404, "/webhooks?org=globex": 404, "/audit?org=globex": 404, "/access": 403, "/live": 403,
	} {
		if a := p.get(path); a.status != status || strings.Contains(a.body, "…cdef") {
			t.Errorf("%s: %d", path, a.status)
		}
	}
	p.get("/orgs/acme")
	for _, path := range []string{"/orgs/globex/integrations/resend", "/orgs/globex/integrations/resend/disable", "/orgs/globex/integrations/resend/delete", "/orgs/globex/assistants"} {
		if a := p.post(path, "id", "asst_1", "api_key", "re_fedcba9876543210"); a.status != 404 {
			t.Errorf("POST %s: %d", path, a.status)
		}
	}
	p.post("/access/tokens", "name", "more", "role", "operator").wants(t, 403)
	p.post("/orgs/acme/integrations/resend", "api_key", "re_0123456789abcdef").wants(t, 200, "Saved.")
}

// Whatever a name is made of, on a page it is a text.
func TestNamesAreTexts(t *testing.T) {
	s := newServer(t)
	p := s.loggedIn(s.operator)
	p.get("/orgs/acme")
	for i, evil := range []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' autofocus onfocus='alert(1)`, `</textarea><script>alert(1)</script>`, `<!--`,
	} {
		p.post("/orgs/acme/assistants", "id", "asst_1", "name", evil, "role", evil).wants(t, 200)
		config, err := json.Marshal(map[string]string{"firstMessage": evil})
		if err != nil {
			t.Fatal(err)
		}
		p.post("/orgs/acme/agents/inbound", "version", strings.TrimPrefix(strconv.Itoa(i), "0"), "name", evil, "config", string(config)).wants(t, 200)
		p.post("/access/tokens", "name", evil, "role", "operator").wants(t, 201)
		for _, a := range []answer{
			p.get("/orgs/acme"), p.get("/orgs/acme/agents/inbound"), p.get("/access"), p.get("/audit"),
			p.get("/audit?" + url.Values{"actor": {evil}, "action": {evil}, "result": {evil}}.Encode()), p.get("/?" + url.Values{"cursor": {evil}, "done": {evil}}.Encode()),
			p.get("/webhooks?" + url.Values{"org": {evil}, "state": {evil}}.Encode()), p.get("/orgs/" + url.PathEscape(evil)), p.get("/orgs/acme/integrations/" + url.PathEscape(evil)),
			p.post("/orgs/acme/assistants", "id", evil, "name", evil), p.post("/orgs/acme/agents/inbound", "name", evil, "config", evil),
			p.post("/orgs/acme/integrations/twilio", "account_sid", evil, "from_number", evil, "region", evil, "subaccounts", evil, "webhook_url", evil),
			p.post("/access/callers", "name", evil, "orgs", evil, "allow", evil, "rate", evil), s.person().get("/login?" + url.Values{"to": {evil}}.Encode()),
		} {
			if strings.Contains(a.body, evil) || a.status >= 500 {
				t.Errorf("%s (%d) has %s as it is", a.path, a.status, evil)
			}
		}
	}
}

func TestLiveNumbersEndWithTheSidecar(t *testing.T) {
	s := newServer(t)
	stream := s.loggedIn(s.operator).open("/live")
	var numbers map[string]string
	if err := json.Unmarshal([]byte(next(t, stream)), &numbers); err != nil || numbers["orgs"] != "0" || numbers["hits"] == "" {
		t.Fatalf("%v, %v", numbers, err)
	}
	next(t, stream)
	close(s.stop)
	if _, err := io.ReadAll(stream); err != nil {
		t.Errorf("the stream was cut off: %v", err)
	}
}
