package admin

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/standin"
	"github.com/keyward/keyward/store"
)

// asking asks the stand-ins at the URL, as the proxy does.
func asking(url *string) func(context.Context, *provider.Question) (provider.Reply, error) {
	return func(ctx context.Context, q *provider.Question) (provider.Reply, error) {
		defer q.Wipe()
		host := q.Host
		if host == "" {
			host = q.Provider.DefaultHost(q.Secret)
		}
		r := provider.Request{Method: []byte(q.Method), Host: host, Path: []byte(q.Path), Token: q.Token}
		if !q.Secret.IsZero() {
			if err := q.Provider.Inject(&r, q.Secret); err != nil {
				return provider.Reply{}, err
			}
		}
		req, err := http.NewRequestWithContext(ctx, q.Method, *url+string(r.Path), bytes.NewReader(q.Body))
		if err != nil {
			return provider.Reply{}, err
		}
		req.Host = host
		if r.Header != "" {
			req.Header.Set(r.Header, string(r.Value))
		}
		req.Header.Set("Content-Type", q.Type)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return provider.Reply{}, &provider.NoAnswerError{Code: "upstream_unreachable", Detail: "nobody answered", Sent: true}
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		return provider.Reply{Status: resp.StatusCode, RetryAfter: time.Duration(after) * time.Second, Body: b}, err
	}
}

// newProviders are stand-ins that know the samples of the labels, and the option that has the API ask them.
func newProviders(t testing.TB, o standin.Options, labels ...string) (*standin.Set, func(*Options)) {
	t.Helper()
	set := standin.New(o)
	t.Cleanup(func() { _ = set.Close() })
	for _, l := range labels {
		set.Expect(standin.Sample(l)...)
	}
	if _, err := set.Start(); err != nil {
		t.Fatal(err)
	}
	url := set.URL()
	return set, func(o *Options) {
		o.Verifier = credential.NewVerifier(credential.VerifierOptions{Keeper: o.Keeper, Ask: asking(&url), Log: o.Log})
	}
}

// sample is the JSON of a label's credential with a provider.
func sample(label, name string) string {
	for _, c := range standin.Sample(label) {
		if c.Provider == name {
			return string(c.JSON())
		}
	}
	panic("no sample for " + name)
}

func TestVerifySaysAndStoresWhatTheProviderSays(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		set, verifies := newProviders(t, standin.Options{}, "acme")
		s := newServer(t, url, verifies)
		for _, p := range provider.All {
			at := "/api/orgs/acme/integrations/" + p.Name
			s.must(201, "PUT", at, `{"credentials":`+sample("acme", p.Name)+`}`)
			a := s.must(200, "POST", at+"/verify", "").object(t)
			if a["outcome"] != "valid" || a["verification"] != "valid" || a["last_verified_at"] == nil || a["verification_error"] != nil || a["is_active"] != true {
				t.Errorf("%s: %v", p.Name, a)
			}
			set.Forget("acme", p.Name)
			a = s.must(200, "POST", at+"/verify", "{}").object(t)
			if a["outcome"] != "invalid" || a["verification"] != "invalid" || a["verification_error"] == nil || a["verification_error"] != a["detail"] || a["is_active"] != true {
				t.Errorf("%s, revoked: %v", p.Name, a)
			}
			if shown := s.must(200, "GET", at, "").object(t); shown["verification"] != "invalid" || shown["verification_error"] != a["verification_error"] {
				t.Errorf("%s, as it is shown: %v", p.Name, shown)
			}
			if _, reconnects := a["reconnect"]; reconnects != (p.Name == "google_calendar") {
				t.Errorf("%s: %v", p.Name, a)
			}
		}
		if a := s.must(200, "GET", "/api/orgs/acme/integrations/google_calendar", "").object(t); a["reconnect"] != "/api/orgs/acme/integrations/google_calendar/connect" {
			t.Errorf("%v", a["reconnect"])
		}
	})
}

func TestVerifyLeavesWhatIsKnownWhenTheProviderIsDown(t *testing.T) {
	set, verifies := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), verifies)
	s.must(201, "PUT", acmeTwilio, `{"credentials":`+sample("acme", "twilio")+`}`)
	before := s.must(200, "POST", acmeTwilio+"/verify", "").object(t)
	for _, status := range []int{429, 500, 503} {
		set.Mend()
		set.Fail(standin.Fault{Provider: standin.Twilio, Status: status})
		a := s.must(200, "POST", acmeTwilio+"/verify", "").object(t)
		if a["outcome"] != "unproven" || a["detail"] == "" || a["verification"] != "valid" || a["last_verified_at"] != before["last_verified_at"] || a["version"] != before["version"] {
			t.Errorf("%d: %v", status, a)
		}
	}
}

func TestPutWithVerifyChangesNothingUnlessItIsValid(t *testing.T) {
	set, verifies := newProviders(t, standin.Options{}, "acme")
	s := newServer(t, sqliteURL(t), verifies)
	s.refuse(422, "credential_invalid", "PUT", acmeTwilio, `{"credentials":`+twilioFields(twilioSID, twilioToken)+`,"verify":true}`)
	s.refuse(404, "not_found", "GET", acmeTwilio, "")
	good := `{"credentials":` + sample("acme", "twilio") + `,"verify":true}`
	a := s.must(201, "PUT", acmeTwilio, good).object(t)
	if a["verification"] != "valid" || a["last_verified_at"] == nil {
		t.Errorf("%v", a)
	}
	tag := func() string { return s.must(200, "GET", acmeTwilio, "").header.Get("ETag") }
	before := tag()
	p := s.refuse(422, "credential_invalid", "PUT", acmeTwilio, `{"credentials":`+twilioFields(twilioSID, twilioToken)+`,"verify":true}`)
	s.refuse(422, "credential_invalid", "PATCH", acmeTwilio, `{"credentials":{"auth_token":"`+twilioToken+`"},"verify":true}`)
	if strings.Contains(p.Detail, twilioToken[:6]) || !strings.Contains(p.Detail, "nothing was changed") {
		t.Errorf("%q", p.Detail)
	}
	set.Fail(standin.Fault{Provider: standin.Twilio, Status: 503})
	if a := s.ask("PUT", acmeTwilio, good); a.status != 503 || a.problem().Code != "verification_unproven" || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if now := tag(); now != before {
		t.Errorf("the version went from %s to %s", before, now)
	}
	s.must(200, "PUT", acmeTwilio, strings.Replace(good, `true`, `false`, 1))
	// Verify, then activate.
	set.Mend()
	s.must(200, "PATCH", acmeTwilio, `{"is_active":false}`)
	if a := s.must(200, "PATCH", acmeTwilio, `{"is_active":true,"verify":true}`).object(t); a["is_active"] != true || a["verification"] != "valid" {
		t.Errorf("%v", a)
	}
	set.Forget("acme", "twilio")
	s.must(200, "PATCH", acmeTwilio, `{"is_active":false}`)
	s.refuse(422, "credential_invalid", "PATCH", acmeTwilio, `{"is_active":true,"verify":true}`)
	if a := s.must(200, "GET", acmeTwilio, "").object(t); a["is_active"] != false {
		t.Errorf("it was activated: %v", a)
	}
}

func TestVerifyRefuses(t *testing.T) {
	_, verifies := newProviders(t, standin.Options{})
	s := newServer(t, sqliteURL(t), verifies)
	s.refuse(404, "not_found", "POST", acmeTwilio+"/verify", "")
	s.refuse(404, "unknown_provider", "POST", "/api/orgs/acme/integrations/nosuch/verify", "")
	s.refuse(400, "bad_request", "POST", "/api/orgs/-/integrations/twilio/verify", "")
	s.refuse(400, "bad_request", "POST", acmeTwilio+"/verify", `{"force":true}`)
	s.refuse(400, "bad_request", "POST", acmeTwilio+"/verify?force=1", "")
	s.refuse(405, "method_not_allowed", "GET", acmeTwilio+"/verify", "")
	without := newServer(t, sqliteURL(t))
	without.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken))
	without.refuse(501, "not_available", "POST", acmeTwilio+"/verify", "")
}

// An org's own administrators verify and replace what is theirs; another org's is not there for them.
func TestOrgBoundTokensVerifyTheirOwn(t *testing.T) {
	_, verifies := newProviders(t, standin.Options{}, "acme", "globex")
	s := newServer(t, sqliteURL(t), verifies)
	for _, org := range []string{"acme", "globex"} {
		s.must(201, "PUT", "/api/orgs/"+org+"/integrations/resend", `{"credentials":`+sample(org, "resend")+`}`)
	}
	token := s.must(201, "POST", "/api/admin-tokens", `{"name":"a","role":"org","org":"acme"}`).object(t)["token"].(string)
	auth := "Authorization: Bearer " + token
	s.must(200, "POST", "/api/integrations/resend/verify", "", auth)
	s.must(200, "PUT", "/api/integrations/resend/next", `{"credentials":`+sample("acme", "resend")+`}`, auth)
	s.must(200, "DELETE", "/api/integrations/resend/next", "", auth)
	s.must(200, "PUT", "/api/integrations/resend/next", `{"credentials":`+sample("acme", "resend")+`}`, auth)
	s.must(200, "POST", "/api/integrations/resend/next/promote", "", auth)
	for _, at := range []string{"POST /verify", "PUT /next", "DELETE /next", "POST /next/promote"} {
		method, rest, _ := strings.Cut(at, " ")
		s.isProblem(s.ask(method, "/api/orgs/globex/integrations/resend"+rest, `{"credentials":{"api_key":"re_x"}}`, auth), 404, "not_found")
	}
}

func TestRotationHasBothCredentialsForAWhile(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		_, verifies := newProviders(t, standin.Options{}, "acme")
		s := newServer(t, url, verifies)
		const other = "fedcba9876543210fedcba9876543210"
		s.refuse(404, "not_found", "PUT", acmeTwilio+"/next", twilioBody(twilioSID, other))
		s.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken))
		s.refuse(404, "not_found", "POST", acmeTwilio+"/next/promote", "")
		s.refuse(404, "not_found", "DELETE", acmeTwilio+"/next", "")

		a := s.must(200, "PUT", acmeTwilio+"/next", `{"credentials":`+twilioFields(twilioSID, other)+`,"retire_after":"2h"}`)
		until, err := time.Parse(time.RFC3339, a.object(t)["former_until"].(string))
		if left := time.Until(until); err != nil || left > 2*time.Hour || left < 119*time.Minute || a.header.Get("ETag") != `"2"` {
			t.Errorf("%v left, %v: %s", left, err, a.body)
		}
		s.plain("acme", map[string]string{"auth_token": other})
		s.refuse(409, "rotation_underway", "PUT", acmeTwilio+"/next", twilioBody(twilioSID, twilioToken))
		s.refuse(412, "version_conflict", "POST", acmeTwilio+"/next/promote", "", `If-Match: "1"`)
		s.must(200, "DELETE", acmeTwilio+"/next", "", `If-Match: "2"`)
		s.plain("acme", map[string]string{"auth_token": twilioToken})

		s.must(200, "PUT", acmeTwilio+"/next", twilioBody(twilioSID, other))
		if a := s.must(200, "POST", acmeTwilio+"/next/promote", "").object(t); a["former_until"] != nil {
			t.Errorf("%v", a)
		}
		s.plain("acme", map[string]string{"auth_token": other})
		s.refuse(422, "credential_invalid", "PUT", acmeTwilio+"/next", `{"credentials":`+twilioFields(twilioSID, twilioToken)+`,"verify":true}`)
		s.plain("acme", map[string]string{"auth_token": other})

		for field, body := range map[string]string{
			"retire_after": `{"credentials":` + twilioFields(twilioSID, other) + `,"retire_after":"never"}`,
			"credentials":  `{"retire_after":"1h"}`,
			"auth_token":   `{"credentials":{"account_sid":"` + twilioSID + `"}}`,
			"is_active":    `{"credentials":` + twilioFields(twilioSID, other) + `,"is_active":true}`,
		} {
			if p := s.refuse(400, "bad_request", "PUT", acmeTwilio+"/next", body); len(p.Errors) == 0 || p.Errors[0].Field != field {
				t.Errorf("%s: %+v", body, p)
			}
		}
		const google = "/api/orgs/acme/integrations/google_calendar"
		s.must(201, "PUT", google, `{"credentials":`+sample("acme", "google_calendar")+`}`)
		s.refuse(409, "consent_needed", "PUT", google+"/next", `{"credentials":`+sample("acme", "google_calendar")+`}`)
	})
}

// What is suspect is shown as such, and only that.
func TestSuspectIsShown(t *testing.T) {
	_, verifies := newProviders(t, standin.Options{}, "acme")
	var v *credential.Verifier
	s := newServer(t, sqliteURL(t), verifies, func(o *Options) { v = o.Verifier })
	s.must(201, "PUT", acmeTwilio, `{"credentials":`+sample("acme", "twilio")+`}`)
	if a := s.must(200, "GET", acmeTwilio, "").object(t); a["suspect"] != nil {
		t.Errorf("%v", a)
	}
	row, _, err := s.db.Credential(t.Context(), store.Ref{Org: "acme", Provider: "twilio"})
	if err != nil {
		t.Fatal(err)
	}
	v.Suspect(row)
	if a := s.must(200, "GET", acmeTwilio, "").object(t); a["suspect"] != true {
		t.Errorf("%v", a)
	}
}

// A key that may do its work and nothing else is valid.
func TestRestrictedKeysAreValid(t *testing.T) {
	set, verifies := newProviders(t, standin.Options{})
	s := newServer(t, sqliteURL(t), verifies)
	for _, c := range standin.Sample("acme") {
		c.Restricted = true
		set.Expect(c)
		if c.Provider == standin.Vapi {
			continue // there is no such key
		}
		at := "/api/orgs/acme/integrations/" + c.Provider
		a := s.must(201, "PUT", at, `{"credentials":`+string(c.JSON())+`,"verify":true}`).object(t)
		if a["verification"] != "valid_restricted" || a["verification_error"] != nil {
			t.Errorf("%s: %v", c.Provider, a)
		}
		if a := s.must(200, "POST", at+"/verify", "").object(t); a["outcome"] != "valid_restricted" || a["detail"] == "" {
			t.Errorf("%s: %v", c.Provider, a)
		}
	}
}
