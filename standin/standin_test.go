package standin_test

import (
	"bufio"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/keyward/keyward/standin"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A rig is a Set that two orgs' samples are accepted by.
type rig struct {
	*standin.Set
	t    *testing.T
	http *http.Client
}

func start(t *testing.T, o standin.Options) *rig {
	t.Helper()
	s := standin.New(o)
	s.Expect(standin.Sample("acme")...)
	s.Expect(standin.Sample("globex")...)
	if _, err := s.Start(); err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &rig{s, t, &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// call sends a request like "POST api.resend.com/emails" and gives the answer with its body read.
func (g *rig) call(what, body string, headers ...string) (*http.Response, string) {
	g.t.Helper()
	res, err := g.try(what, body, headers...)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res, string(b)
}

func (g *rig) try(what, body string, headers ...string) (*http.Response, error) {
	method, target, _ := strings.Cut(what, " ")
	host, path, _ := strings.Cut(target, "/")
	r, err := http.NewRequest(method, g.URL()+"/"+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Host = host
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	return g.http.Do(r)
}

func fields(org, provider string) map[string]string {
	for _, c := range standin.Sample(org) {
		if c.Provider == provider {
			return c.Fields
		}
	}
	return nil
}

// auth is the header line that proves an org's sample.
func (g *rig) auth(org, provider string) string {
	f := fields(org, provider)
	switch provider {
	case standin.Twilio:
		r := http.Request{Header: http.Header{}}
		r.SetBasicAuth(f["account_sid"], f["auth_token"])
		return "Authorization: " + r.Header.Get("Authorization")
	case standin.ElevenLabs:
		return "xi-api-key: " + f["api_key"]
	case standin.GoogleCalendar:
		return "Authorization: Bearer " + g.exchange(org)
	}
	return "Authorization: Bearer " + f["api_key"]
}

// exchange asks the token endpoint for an access token.
func (g *rig) exchange(org string) string {
	g.t.Helper()
	res, body := g.token(org, g.RefreshToken(org))
	if res.StatusCode != 200 {
		g.t.Fatalf("token endpoint: %d %s", res.StatusCode, body)
	}
	return decode(g.t, body)["access_token"].(string)
}

func (g *rig) token(org, refresh string) (*http.Response, string) {
	f := fields(org, standin.GoogleCalendar)
	return g.call("POST oauth2.googleapis.com/token",
		"grant_type=refresh_token&refresh_token="+refresh+"&client_id="+f["client_id"]+"&client_secret="+f["client_secret"],
		"Content-Type: application/x-www-form-urlencoded")
}

func decode(t *testing.T, body string) map[string]any {
	t.Helper()
	m := map[string]any{}
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatalf("%v in %q", err, body)
	}
	return m
}

var probes = []struct{ provider, what, refusal string }{
	{standin.Twilio, "GET api.twilio.com/2010-04-01/Accounts/{sid}/Balance.json", `"code":20003`},
	{standin.Vapi, "GET api.vapi.ai/assistant?limit=1", `"message":"Invalid Key.`},
	{standin.Resend, "GET api.resend.com/domains", `"message":"API key is invalid"`},
	{standin.ElevenLabs, "GET api.eu.residency.elevenlabs.io/v1/user", `"status":"invalid_api_key"`},
	{standin.GoogleCalendar, "GET www.googleapis.com/calendar/v3/users/me/calendarList?maxResults=1", `"reason":"authError"`},
}

func TestEachOrgIsKnownByItsOwnCredential(t *testing.T) {
	g := start(t, standin.Options{})
	for _, p := range probes {
		for _, org := range []string{"acme", "globex"} {
			what := strings.ReplaceAll(p.what, "{sid}", fields(org, standin.Twilio)["account_sid"])
			res, body := g.call(what, "", g.auth(org, p.provider))
			if res.StatusCode != 200 || res.Header.Get(standin.LabelHeader) != org {
				t.Errorf("%s as %s: %d by %q: %s", what, org, res.StatusCode, res.Header.Get(standin.LabelHeader), body)
			}
		}
	}
	for _, r := range g.Requests() {
		if r.Label == "" || r.Status != 200 || !r.Done {
			t.Errorf("kept as %+v", r)
		}
	}
}

func TestOtherCredentialsAreRefusedInTheProvidersWords(t *testing.T) {
	g := start(t, standin.Options{})
	for _, p := range probes {
		good := g.auth("acme", p.provider)
		what := strings.ReplaceAll(p.what, "{sid}", fields("acme", standin.Twilio)["account_sid"])
		refused := func(why string, headers ...string) {
			t.Helper()
			res, body := g.call(what, "", headers...)
			if res.StatusCode != 401 || res.Header.Get(standin.LabelHeader) != "" {
				t.Errorf("%s with %s: %d %s", what, why, res.StatusCode, body)
			}
			if why == "a wrong one" && !strings.Contains(body, p.refusal) {
				t.Errorf("%s with %s: body %s", what, why, body)
			}
		}
		refused("none")
		refused("a wrong one", good+"x")
		refused("two", good, good)
		g.Forget("acme", p.provider)
		refused("a forgotten one", good)
	}
}

func TestAReplacedCredentialEndsAtOnce(t *testing.T) {
	g := start(t, standin.Options{})
	old := g.auth("acme", standin.Resend)
	g.Expect(standin.Credential{Label: "acme", Provider: standin.Resend, Fields: map[string]string{"api_key": "re_new_key"}})
	if res, _ := g.call("GET api.resend.com/domains", "", old); res.StatusCode != 401 {
		t.Errorf("the old key: %d", res.StatusCode)
	}
	if res, _ := g.call("GET api.resend.com/domains", "", "Authorization: Bearer re_new_key"); res.StatusCode != 200 {
		t.Errorf("the new key: %d", res.StatusCode)
	}
}

func TestTwilioTakesAnAPIKeyAndKnownSubaccountsOnly(t *testing.T) {
	g := start(t, standin.Options{})
	sub := "AC" + strings.Repeat("5", 32)
	g.Expect(standin.Credential{Label: "keyed", Provider: standin.Twilio, Fields: map[string]string{
		"account_sid": "AC" + strings.Repeat("4", 32), "api_key_sid": "SK1", "api_key_secret": "shh", "subaccounts": sub,
	}})
	const auth = "Authorization: Basic U0sxOnNoaA=="
	if res, body := g.call("GET api.twilio.com/2010-04-01/Accounts/"+sub+"/Balance.json", "", auth); res.StatusCode != 200 {
		t.Errorf("subaccount: %d %s", res.StatusCode, body)
	}
	if res, body := g.call("GET api.twilio.com/2010-04-01/Accounts/AC"+strings.Repeat("6", 32)+"/Balance.json", "", auth); res.StatusCode != 404 {
		t.Errorf("foreign account: %d %s", res.StatusCode, body)
	}
}

func TestRequestsAreKeptAsTheyArrived(t *testing.T) {
	g := start(t, standin.Options{KeepBody: 8})
	c, err := net.Dial("tcp", strings.TrimPrefix(g.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Two requests in one write, the first with chunks and a trailer, the second with a length.
	key := fields("acme", standin.ElevenLabs)["api_key"]
	_, _ = io.WriteString(c, "POST /v1/x%2Fy?b=2&a=1 HTTP/1.1\r\nhOST: api.elevenlabs.io\r\nX-Zed: 1\r\nx-alpha:  two \r\nxi-API-key: "+key+
		"\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n"+
		"POST /v1/second HTTP/1.1\r\nHost: api.elevenlabs.io\r\nxi-api-key: "+key+"\r\nContent-Length: 3\r\n\r\nabc"+
		"GET /requests HTTP/1.1\r\nHost: localhost\r\n\r\n"+
		"GET /v1/third HTTP/1.1\r\nHost: api.elevenlabs.io\r\n\r\n")
	br := bufio.NewReader(c)
	var page string
	for i := range 4 {
		res, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		if i == 2 {
			page = string(b)
		}
	}
	want := []string{
		"POST /v1/x%2Fy?b=2&a=1 HTTP/1.1\nhOST: api.elevenlabs.io\nX-Zed: 1\nx-alpha: two\nxi-API-key: " + key + "\nTransfer-Encoding: chunked\nTrailer: X-T\n\nhello wo",
		"POST /v1/second HTTP/1.1\nHost: api.elevenlabs.io\nxi-api-key: " + key + "\nContent-Length: 3\n\nabc",
		"GET /v1/third HTTP/1.1\nHost: api.elevenlabs.io\n\n",
	}
	var got []string
	for _, r := range g.Requests() {
		got = append(got, r.String())
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	first := g.Requests()[0]
	sum := sha256.Sum256([]byte("hello world"))
	if first.Size != 11 || first.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("a body of %d bytes, %s", first.Size, first.SHA256)
	}
	if !strings.Contains(page, want[1]) {
		t.Errorf("/requests shows %q", page)
	}
}

func TestOnlyTheNewestRequestsAreKept(t *testing.T) {
	g := start(t, standin.Options{Keep: 2})
	for _, path := range []string{"one", "two", "three"} {
		g.call("GET api.resend.com/"+path, "")
	}
	if r := g.Requests(); len(r) != 2 || r[0].URI != "/two" || r[1].URI != "/three" {
		t.Errorf("kept %v", r)
	}
	g.Reset()
	if r := g.Requests(); len(r) != 0 {
		t.Errorf("kept %v after Reset", r)
	}
}

func TestTLSVerifiesWithTheSetsAuthority(t *testing.T) {
	s := standin.New(standin.Options{})
	s.Expect(standin.Sample("acme")...)
	hosts, err := s.StartTLS()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ca, err := s.CAPEM()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	r, _ := http.NewRequest("GET", hosts["api.vapi.ai"]+"/assistant", nil)
	r.Host = "api.vapi.ai"
	r.Header.Set("Authorization", "Bearer "+fields("acme", standin.Vapi)["api_key"])
	res, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 || res.Proto != "HTTP/1.1" || s.Requests()[0].Header[0].Name != "Host" {
		t.Errorf("%d by %s, kept %v", res.StatusCode, res.Proto, s.Requests())
	}
}

func TestAHandlerAnswersForOneProviderBehindAnyServer(t *testing.T) {
	s := standin.New(standin.Options{})
	s.Expect(standin.Sample("acme")...)
	srv := httptest.NewServer(s.Handler(standin.Resend))
	defer srv.Close()
	r, _ := http.NewRequest("GET", srv.URL+"/domains", nil)
	r.Header.Set("Authorization", "Bearer "+fields("acme", standin.Resend)["api_key"])
	res, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if q := s.Requests(); res.StatusCode != 200 || len(q) != 1 || q[0].Label != "acme" || q[0].Header[0].Name != "Host" {
		t.Errorf("%d, kept %v", res.StatusCode, q)
	}
}
