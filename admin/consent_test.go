package admin

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/standin"
	"github.com/keyward/keyward/store"
)

const acmeGoogle = "/api/orgs/acme/integrations/google_calendar"

// consenting has the API ask for consents at the stand-ins, with the client of acme's sample as the operator's.
func consenting(set *standin.Set, change ...func(*credential.ConsentOptions)) func(*Options) {
	url := set.URL()
	return func(o *Options) {
		client := fieldsOf("acme")
		co := credential.ConsentOptions{
			Keeper: o.Keeper, Ask: asking(&url), Log: o.Log, Base: url,
			Redirect: func() string { return "http://127.0.0.1:7452/api/oauth/google/callback" },
			ClientID: client["client_id"], ClientSecret: []byte(client["client_secret"]),
		}
		for _, f := range change {
			f(&co)
		}
		o.Consents = credential.NewConsents(co)
	}
}

func fieldsOf(label string) map[string]string {
	for _, c := range standin.Sample(label) {
		if c.Provider == standin.GoogleCalendar {
			return c.Fields
		}
	}
	panic("no sample")
}

// connect begins acme's consent and returns where the browser is sent.
func (s *server) connect(headers ...string) string {
	s.t.Helper()
	a := s.must(200, "GET", acmeGoogle+"/connect", "", append(headers, "Accept: application/json")...)
	return a.object(s.t)["url"].(string)
}

// agree is the person at the consent page: it returns the path and query that the browser comes back to.
func agree(t testing.TB, at string) string {
	t.Helper()
	req, _ := http.NewRequest("GET", at, nil)
	req.Host = "accounts.google.com"
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	back, err := resp.Location()
	if err != nil {
		t.Fatalf("%s sends nowhere: %v", at, err)
	}
	return back.RequestURI()
}

func TestConsentBecomesTheOrgsCredential(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		set, verifies := newProviders(t, standin.Options{}, "acme")
		s := newServer(t, url, verifies, consenting(set))
		a := s.must(200, "GET", agree(t, s.connect()), "").object(t)
		if a["org"] != "acme" || a["provider"] != "google_calendar" || a["status"] != "connected" || a["verification"] != "valid" || len(a) != 5 {
			t.Errorf("%v", a)
		}
		values := s.open("acme", "google_calendar")
		if got := values["refresh_token"].Text; got == "" || got != set.RefreshToken("acme") || got == fieldsOf("acme")["refresh_token"] {
			t.Errorf("kept %q", got)
		}
		if values["client_id"].Text != fieldsOf("acme")["client_id"] || values["client_secret"].Text != fieldsOf("acme")["client_secret"] {
			t.Error("kept without the client that it was asked for with, and so it cannot be renewed")
		}
		if v := s.must(200, "POST", acmeGoogle+"/verify", "").object(t); v["outcome"] != "valid" {
			t.Errorf("%v", v)
		}
	})
}

func (s *server) open(org, name string) provider.Values {
	s.t.Helper()
	_, values, err := s.keeper.Values(context.Background(), store.Ref{Org: org, Provider: name})
	if err != nil {
		s.t.Fatal(err)
	}
	return values
}

func TestConsentIsAskedForAsGoogleWantsIt(t *testing.T) {
	set, _ := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), consenting(set))
	u, err := url.Parse(s.connect())
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for name, want := range map[string]string{
		"response_type": "code", "access_type": "offline", "prompt": "consent", "code_challenge_method": "S256",
		"redirect_uri": "http://127.0.0.1:7452/api/oauth/google/callback", "scope": "https://www.googleapis.com/auth/calendar",
		"client_id": fieldsOf("acme")["client_id"],
	} {
		if q.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, q.Get(name), want)
		}
	}
	if len(q.Get("code_challenge")) != 43 || q.Get("code_verifier") != "" || strings.Contains(u.String(), fieldsOf("acme")["client_secret"]) {
		t.Errorf("%s", u)
	}
	again, _ := url.Parse(s.connect())
	if again.Query().Get("state") == q.Get("state") || again.Query().Get("code_challenge") == q.Get("code_challenge") {
		t.Error("two consents share a state or a verifier")
	}
}

func TestConnectRedirectsBrowsers(t *testing.T) {
	set, _ := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), consenting(set))
	s.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	a := s.must(302, "GET", acmeGoogle+"/connect", "")
	if at := a.header.Get("Location"); at != a.object(t)["url"] || !strings.HasPrefix(at, set.URL()+"/o/oauth2/v2/auth?") || a.header.Get("Set-Cookie") != "" {
		t.Errorf("%s %v", at, a.header)
	}
}

// What a browser brings that nobody waits for changes nothing.
func TestStatesThatNobodyWaitsForAreRefused(t *testing.T) {
	set, _ := newProviders(t, standin.Options{}, "acme")
	var now atomic.Pointer[time.Time]
	clock := func(o *credential.ConsentOptions) {
		o.Now = func() time.Time {
			if n := now.Load(); n != nil {
				return *n
			}
			return time.Now()
		}
	}
	s := newServer(t, sqliteURL(t), consenting(set, clock))
	other := newServer(t, sqliteURL(t), consenting(set)) // with keys of its own
	refuse := func(what, back string) {
		t.Helper()
		if a := s.ask("GET", back, ""); a.status != 400 || a.problem().Code != "consent_unknown" {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	spoil := func(back, name string, change func(string) string) string {
		u, _ := url.Parse(back)
		q := u.Query()
		q.Set(name, change(q.Get(name)))
		u.RawQuery = q.Encode()
		return u.RequestURI()
	}
	good := agree(t, s.connect())
	refuse("made up", callbackPath+"?state=x&code=y")
	refuse("empty", callbackPath+"?state=&code=y")
	refuse("cut", spoil(good, "state", func(v string) string { return v[:len(v)-1] }))
	refuse("a bit turned", spoil(good, "state", func(v string) string { return v[:20] + string(v[20]^1) + v[21:] }))
	refuse("far too long", callbackPath+"?code=y&state="+strings.Repeat("A", 20_000))
	refuse("of other keys", agree(t, other.connect()))
	late := time.Now().Add(11 * time.Minute)
	now.Store(&late)
	refuse("over", good)
	now.Store(nil)
	s.must(200, "GET", good, "")
	refuse("used before", good)
	refuse("of another issuer", spoil(agree(t, s.connect()), "iss", func(string) string { return "https://evil.example" }))
	for _, q := range []string{"", "?state=x", "?code=x", "?state=a&state=b&code=x", "?state=a&code=x&code=y", "?state=%zz&code=y"} {
		s.refuse(400, "bad_request", "GET", callbackPath+q, "")
	}
	if a := s.ask("HEAD", good, ""); a.status != 405 {
		t.Errorf("HEAD: %d", a.status)
	}
	s.refuse(405, "method_not_allowed", "POST", good, "")
}

// A state that is stolen and used first by somebody else works once, and so does the code: of many at once one gets through.
func TestAConsentIsFinishedOnce(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		set, _ := newProviders(t, standin.Options{}, "acme")
		s := newServer(t, url, consenting(set))
		back := agree(t, s.connect())
		var done atomic.Int64
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if s.ask("GET", back, "").status == 200 {
					done.Add(1)
				}
			})
		}
		all.Wait()
		if done.Load() != 1 {
			t.Errorf("finished %d times", done.Load())
		}
	})
}

func TestConsentIsBoundToWhoBeganIt(t *testing.T) {
	set, _ := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), consenting(set))
	token := s.must(201, "POST", "/api/admin-tokens", `{"name":"acme","role":"org","org":"acme"}`).object(t)
	back := agree(t, s.connect("Authorization: Bearer "+token["token"].(string)))
	s.must(204, "DELETE", "/api/admin-tokens/"+token["id"].(string), "")
	s.refuse(400, "consent_unknown", "GET", back, "")
	s.refuse(404, "not_found", "GET", acmeGoogle, "")
}

func TestAnOrgsTokenConnectsItsOwnOrgAndNoOther(t *testing.T) {
	set, _ := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), consenting(set))
	token := s.must(201, "POST", "/api/admin-tokens", `{"name":"acme","role":"org","org":"acme"}`).object(t)["token"].(string)
	bearer := "Authorization: Bearer " + token
	at := s.must(200, "GET", "/api/integrations/google_calendar/connect", "", bearer, "Accept: application/json").object(t)["url"].(string)
	if a := s.must(200, "GET", agree(t, at), "").object(t); a["org"] != "acme" {
		t.Errorf("%v", a)
	}
	s.refuse(404, "not_found", "GET", "/api/orgs/globex/integrations/google_calendar/connect", "", bearer)
}

// Begun in a browser it is finished in that browser: nobody can be made to give a consent for an org that is not theirs.
func TestConsentOfABrowserIsBoundToIt(t *testing.T) {
	set, _ := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), consenting(set))
	begin := func() (back, cookie string) {
		a := s.must(200, "GET", acmeGoogle+"/connect", "", "Accept: application/json", "Sec-Fetch-Mode: navigate")
		set := a.header.Get("Set-Cookie")
		for _, want := range []string{"__Host-keyward-consent=", "HttpOnly", "Secure", "SameSite=Lax", "Path=/"} {
			if !strings.Contains(set, want) {
				t.Errorf("cookie %q lacks %s", set, want)
			}
		}
		cookie, _, _ = strings.Cut(set, ";")
		return agree(t, a.object(t)["url"].(string)), cookie
	}
	back, cookie := begin()
	s.refuse(400, "consent_unknown", "GET", back, "")
	_, others := begin()
	s.refuse(400, "consent_unknown", "GET", back, "", "Cookie: "+others)
	s.must(200, "GET", back, "", "Cookie: "+cookie)
}

// Browsers come back by a navigation from another site, over TCP, with no token.
func TestBrowsersComeBackFromGoogle(t *testing.T) {
	set, _ := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), consenting(set))
	a := s.askAt("http://"+s.tcp, "GET", agree(t, s.connect()), "", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Accept: text/html,application/xhtml+xml")
	if a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") || !strings.Contains(a.body, "connected for acme") {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if !strings.HasPrefix(a.header.Get("Content-Security-Policy"), "default-src 'none'") || a.header.Get("Referrer-Policy") != "no-referrer" || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", a.header)
	}
	set.Deny(true)
	a = s.askAt("http://"+s.tcp, "GET", agree(t, s.connect()), "", "Accept: text/html")
	if a.status != 403 || !strings.Contains(a.body, "refused") || a.header.Get("Keyward-Error") != "consent_denied" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	s.refuse(403, "consent_denied", "GET", agree(t, s.connect()), "")
}

func TestBrowsersAreSentToTheAppsPage(t *testing.T) {
	set, _ := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), consenting(set), func(o *Options) { o.ConsentReturn = "https://app.example/settings?tab=calendar" })
	s.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	to := func(back, want string) {
		t.Helper()
		if a := s.must(303, "GET", back, "", "Accept: text/html"); a.header.Get("Location") != want {
			t.Errorf("sent to %s, want %s", a.header.Get("Location"), want)
		}
	}
	to(agree(t, s.connect()), "https://app.example/settings?org=acme&outcome=connected&provider=google_calendar&tab=calendar")
	to(callbackPath+"?state=x&code=y", "https://app.example/settings?outcome=consent_unknown&tab=calendar")
	set.Deny(true)
	to(agree(t, s.connect()), "https://app.example/settings?org=acme&outcome=consent_denied&provider=google_calendar&tab=calendar")
}

func TestConsentKeepsWhatTheOrgHadBesides(t *testing.T) {
	set, _ := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), consenting(set))
	f := fieldsOf("acme")
	s.must(201, "PUT", acmeGoogle, `{"credentials":{"client_id":"`+f["client_id"]+`","client_secret":"`+f["client_secret"]+`","calendar_id":"team@acme.example","channel_token":"0123456789abcdef"}}`)
	back := agree(t, s.connect())
	s.must(200, "PATCH", acmeGoogle, `{"credentials":{"calendar_id":"changed@acme.example"}}`) // meanwhile
	s.must(200, "GET", back, "")
	v := s.open("acme", "google_calendar")
	if v["calendar_id"].Text != "changed@acme.example" || v["channel_token"].Text != "0123456789abcdef" || v["refresh_token"].Text != set.RefreshToken("acme") {
		t.Errorf("calendar %q", v["calendar_id"].Text)
	}
}

// An org brings its own OAuth client, and is shown as one that has yet to consent.
func TestAnOrgsOwnClientGoesFirst(t *testing.T) {
	set, _ := newProviders(t, standin.Options{}, "acme", "globex")
	s := newServer(t, sqliteURL(t), consenting(set))
	f := fieldsOf("globex")
	const at = "/api/orgs/globex/integrations/google_calendar"
	s.must(201, "PUT", at, `{"credentials":{"client_id":"`+f["client_id"]+`","client_secret":"`+f["client_secret"]+`"}}`)
	if a := s.must(200, "GET", at, "").object(t); a["reconnect"] != at+"/connect" {
		t.Errorf("%v", a)
	}
	begun := s.must(200, "GET", at+"/connect", "", "Accept: application/json").object(t)["url"].(string)
	s.must(200, "GET", agree(t, begun), "")
	if a := s.must(200, "GET", at, "").object(t); a["reconnect"] != nil || a["verification"] != "valid" {
		t.Errorf("%v", a)
	}
	if got := s.open("globex", "google_calendar")["refresh_token"].Text; got != set.RefreshToken("globex") {
		t.Errorf("%q", got)
	}
}

func TestWhatWasDeletedMeanwhileStaysDeleted(t *testing.T) {
	set, _ := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), consenting(set))
	s.must(201, "PUT", acmeGoogle, `{"credentials":`+sample("acme", "google_calendar")+`}`)
	back := agree(t, s.connect())
	s.must(204, "DELETE", acmeGoogle, "")
	s.refuse(409, "conflict", "GET", back, "")
	s.refuse(404, "not_found", "GET", acmeGoogle, "")
}

func TestConsentsThatDoNotSuffice(t *testing.T) {
	set, _ := newProviders(t, standin.Options{Grants: []string{"https://www.googleapis.com/auth/drive"}}, "acme")
	s := newServer(t, sqliteURL(t), consenting(set))
	s.refuse(422, "consent_insufficient", "GET", agree(t, s.connect()), "")
	s.refuse(404, "not_found", "GET", acmeGoogle, "")

	set, _ = newProviders(t, standin.Options{Grants: []string{"https://www.googleapis.com/auth/calendar.readonly"}}, "acme")
	s = newServer(t, sqliteURL(t), consenting(set))
	f := fieldsOf("acme")
	s.must(201, "PUT", acmeGoogle, `{"credentials":{"client_id":"`+f["client_id"]+`","client_secret":"`+f["client_secret"]+`","scopes":"https://www.googleapis.com/auth/calendar.readonly https://www.googleapis.com/auth/calendar.events"}}`)
	if a := s.must(200, "GET", agree(t, s.connect()), "").object(t); a["verification"] != "valid_restricted" {
		t.Errorf("%v", a)
	}
}

func TestConsentsThatCannotBe(t *testing.T) {
	set, _ := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), consenting(set, func(o *credential.ConsentOptions) { o.ClientID = "" }))
	s.refuse(409, "oauth_client_missing", "GET", acmeGoogle+"/connect", "")
	s.refuse(404, "not_found", "GET", "/api/orgs/acme/integrations/twilio/connect", "")
	s.refuse(404, "unknown_provider", "GET", "/api/orgs/acme/integrations/google/connect", "")
	s.refuse(400, "bad_request", "GET", acmeGoogle+"/connect?redirect_uri=https://evil.example", "")
	s = newServer(t, sqliteURL(t), consenting(set, func(o *credential.ConsentOptions) { o.Redirect = func() string { return "" } }))
	s.refuse(409, "oauth_redirect_missing", "GET", acmeGoogle+"/connect", "")
	s = newServer(t, sqliteURL(t))
	s.refuse(501, "not_available", "GET", acmeGoogle+"/connect", "")
	s.refuse(404, "not_found", "GET", callbackPath+"?state=x&code=y", "")

	s = newServer(t, sqliteURL(t), consenting(set, func(o *credential.ConsentOptions) { o.ClientSecret = []byte("wrong") }))
	s.refuse(424, "credential_rejected", "GET", agree(t, s.connect()), "")
	s = newServer(t, sqliteURL(t), consenting(set))
	set.Fail(standin.Fault{Provider: standin.GoogleCalendar, Path: "/token", Status: 503})
	s.refuse(502, "upstream_protocol", "GET", agree(t, s.connect()), "")
	set.Mend()
	back := agree(t, s.connect())
	u, _ := url.Parse(back)
	q := u.Query()
	q.Set("code", "4/made-up")
	s.refuse(400, "consent_refused", "GET", callbackPath+"?"+q.Encode(), "")
}

// A grant that is taken back is shown as one to connect again, and connecting mends it.
func TestATakenBackGrantIsConnectedAgain(t *testing.T) {
	set, verifies := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), verifies, consenting(set))
	s.must(200, "GET", agree(t, s.connect()), "")
	set.Revoke("acme")
	a := s.must(200, "POST", acmeGoogle+"/verify", "").object(t)
	if a["outcome"] != "invalid" || a["reconnect"] != acmeGoogle+"/connect" {
		t.Fatalf("%v", a)
	}
	at := s.must(200, "GET", a["reconnect"].(string), "", "Accept: application/json").object(t)["url"].(string)
	s.must(200, "GET", agree(t, at), "")
	if a := s.must(200, "GET", acmeGoogle, "").object(t); a["verification"] != "valid" || a["reconnect"] != nil || a["verification_error"] != nil {
		t.Errorf("%v", a)
	}
}

func TestConsentsAreAuditedAndLeaveNoSecret(t *testing.T) {
	set, _ := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), consenting(set))
	set.Deny(true)
	denied := agree(t, s.connect())
	s.refuse(403, "consent_denied", "GET", denied, "")
	set.Deny(false)
	back := agree(t, s.connect())
	s.must(200, "GET", back, "")
	a := s.must(200, "GET", "/api/audit?org=acme", "")
	var got []string
	for _, e := range a.object(t)["items"].([]any) {
		e := e.(map[string]any)
		got = append(got, e["action"].(string)+" "+e["result"].(string))
	}
	if all := strings.Join(got, ", "); all != "credential.consent begun, credential.consent denied, credential.consent begun, credential.put ok" {
		t.Errorf("%s", all)
	}
	u, _ := url.Parse(back)
	for _, secret := range []string{u.Query().Get("code"), u.Query().Get("state"), set.RefreshToken("acme"), fieldsOf("acme")["client_secret"], set.AccessTokens("acme")[0]} {
		if strings.Contains(s.log.String(), secret) || strings.Contains(a.body, secret) {
			t.Errorf("%.12s… is in the log or the audit log", secret)
		}
	}
}
