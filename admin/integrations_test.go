package admin

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/internal/pgtest"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

func TestPutShowsTheCredentialMasked(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		created := s.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken))
		shown := s.must(200, "GET", acmeTwilio, "")
		for _, a := range []answer{created, shown} {
			if strings.Contains(a.body, twilioToken[:5]) || a.header.Get("ETag") != `"1"` {
				t.Errorf("shows too much, or ETag %q: %s", a.header.Get("ETag"), a.body)
			}
			o := a.object(t)
			fields := o["fields"].(map[string]any)
			if fields["account_sid"] != twilioSID || !strings.Contains(fmt.Sprint(fields["auth_token"]), twilioToken[len(twilioToken)-4:]) {
				t.Errorf("fields %v", fields)
			}
			for name, want := range map[string]any{
				"org": "acme", "provider": "twilio", "version": 1.0, "is_active": true, "last_verified_at": nil, "verification_error": nil,
			} {
				if got, ok := o[name]; !ok || got != want {
					t.Errorf("%s is %v, want %v", name, got, want)
				}
			}
		}
	})
}

func TestPutIsTheWholeCredential(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	s.must(201, "PUT", acmeTwilio, `{"credentials":{"account_sid":"`+twilioSID+`","auth_token":"`+twilioToken+`","from_number":"+15550001"}}`)
	a := s.must(200, "PUT", acmeTwilio, twilioBody(twilioSID, strings.Repeat("ab", 16)))
	if a.header.Get("ETag") != `"2"` || strings.Contains(a.body, "from_number") && strings.Contains(a.body, "15550001") {
		t.Errorf("a field outlived its replacement: %s", a.body)
	}
	again := s.must(200, "PUT", acmeTwilio, twilioBody(twilioSID, strings.Repeat("ab", 16)))
	if fmt.Sprint(again.object(t)["fields"]) != fmt.Sprint(a.object(t)["fields"]) {
		t.Errorf("the same PUT again made something else: %s", again.body)
	}
}

func TestPutLeavesADisabledCredentialDisabled(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	s.must(201, "PUT", acmeTwilio, `{"credentials":`+twilioFields(twilioSID, twilioToken)+`,"is_active":false}`)
	if a := s.must(200, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken)); a.object(t)["is_active"] != false {
		t.Errorf("a replacement enabled it: %s", a.body)
	}
	if a := s.must(200, "PUT", acmeTwilio, `{"credentials":`+twilioFields(twilioSID, twilioToken)+`,"is_active":true}`); a.object(t)["is_active"] != true {
		t.Errorf("is_active was not taken: %s", a.body)
	}
}

func TestPatchKeepsWhatItDoesNotName(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	s.must(201, "PUT", acmeTwilio, `{"credentials":{"account_sid":"`+twilioSID+`","auth_token":"`+twilioToken+`","from_number":"+15550001"}}`)
	s.must(200, "PATCH", acmeTwilio, `{"credentials":{"from_number":"+15550002"}}`)
	s.plain("acme", map[string]string{"account_sid": twilioSID, "auth_token": twilioToken, "from_number": "+15550002"})
	s.must(200, "PATCH", acmeTwilio, `{"credentials":{"from_number":null}}`)
	s.plain("acme", map[string]string{"account_sid": twilioSID, "auth_token": twilioToken, "from_number": ""})
	if a := s.must(200, "PATCH", acmeTwilio, `{"is_active":false}`); a.object(t)["is_active"] != false {
		t.Errorf("still active: %s", a.body)
	}
	s.plain("acme", map[string]string{"auth_token": twilioToken})
	if a := s.must(200, "PATCH", acmeTwilio, `{"is_active":true,"credentials":{"from_number":"+15550003"}}`); a.object(t)["is_active"] != true {
		t.Errorf("not enabled: %s", a.body)
	}
	s.refuse(400, "bad_request", "PATCH", acmeTwilio, `{"credentials":{"account_sid":null}}`)
	s.refuse(400, "bad_request", "PATCH", acmeTwilio, `{"credentials":{"no_such":null}}`)
	s.refuse(404, "not_found", "PATCH", "/api/orgs/globex/integrations/twilio", `{"is_active":true}`)
	s.refuse(404, "not_found", "PATCH", "/api/orgs/globex/integrations/twilio", `{"credentials":{"from_number":"+15550003"}}`)
}

// plain fails the test unless the org's Twilio credential holds these values.
func (s *server) plain(org string, want map[string]string) {
	s.t.Helper()
	_, values, err := s.keeper.Values(s.t.Context(), store.Ref{Org: org, Provider: "twilio"})
	if err != nil {
		s.t.Fatal(err)
	}
	for name, v := range want {
		if values[name].Text != v {
			s.t.Errorf("%s is %q, want %q", name, values[name].Text, v)
		}
	}
}

func TestDeleteForgetsAndNeverRepeatsAVersion(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	s.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken))
	if a := s.must(204, "DELETE", acmeTwilio, ""); a.body != "" {
		t.Errorf("204 with a body: %q", a.body)
	}
	s.refuse(404, "not_found", "GET", acmeTwilio, "")
	s.refuse(404, "not_found", "DELETE", acmeTwilio, "")
	if a := s.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken)); a.header.Get("ETag") == `"1"` {
		t.Errorf("version 1 was given twice")
	}
}

func TestPreconditions(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	body := twilioBody(twilioSID, twilioToken)
	s.refuse(412, "version_conflict", "PUT", acmeTwilio, body, `If-Match: "1"`)
	s.must(201, "PUT", acmeTwilio, body, "If-None-Match: *")
	s.refuse(412, "version_conflict", "PUT", acmeTwilio, body, "If-None-Match: *")
	s.must(200, "PUT", acmeTwilio, body, `If-Match: "1"`)
	for _, method := range []string{"PUT", "PATCH", "DELETE"} {
		s.refuse(412, "version_conflict", method, acmeTwilio, body, `If-Match: "1"`)
	}
	s.refuse(412, "version_conflict", "PATCH", acmeTwilio, `{"is_active":false}`, `If-Match: "1"`)
	s.refuse(412, "version_conflict", "PATCH", acmeTwilio, `{"is_active":false}`, "If-None-Match: *")
	s.refuse(412, "version_conflict", "PATCH", acmeTwilio, `{}`, `If-Match: "1"`)
	s.must(200, "PATCH", acmeTwilio, `{"is_active":false}`, `If-Match: "2"`)
	for _, bad := range []string{"If-Match: *", "If-Match: x", `If-Match: "0"`, `If-Match: "-3"`, "If-None-Match: \"3\"", `If-Match: "2", "3"`} {
		s.refuse(400, "bad_request", "PUT", acmeTwilio, body, bad)
	}
	s.refuse(400, "bad_request", "DELETE", acmeTwilio, "", "If-None-Match: *")
	s.must(204, "DELETE", acmeTwilio, "", `If-Match: "3"`)
}

func TestSecondClaimOfAnAccountIsRefused(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	s.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken))
	p := s.refuse(409, "account_claimed", "PUT", "/api/orgs/globex/integrations/twilio", twilioBody(twilioSID, twilioToken))
	if len(p.Errors) != 1 || p.Errors[0].Field != "account_sid" || strings.Contains(p.Error(), "acme") {
		t.Errorf("should name the field, and not the other org: %+v", p)
	}
	s.refuse(404, "not_found", "GET", "/api/orgs/globex/integrations/twilio", "")
	s.must(204, "DELETE", acmeTwilio, "")
	s.must(201, "PUT", "/api/orgs/globex/integrations/twilio", twilioBody(twilioSID, twilioToken))
}

func TestMalformedRequestsAreRefusedByName(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	good := twilioFields(twilioSID, twilioToken)
	names := func(field, body string) {
		t.Helper()
		p := s.refuse(400, "bad_request", "PUT", acmeTwilio, body)
		if len(p.Errors) == 0 || !strings.Contains(fmt.Sprint(p.Errors), field) {
			t.Errorf("%s: does not name %s: %+v", body, field, p)
		}
	}
	names("auth_token", `{"credentials":{"account_sid":"`+twilioSID+`"}}`)
	names("account_sid", `{"credentials":{"account_sid":"AC123","auth_token":"`+twilioToken+`"}}`)
	names("api_token", `{"credentials":{"account_sid":"`+twilioSID+`","auth_token":"`+twilioToken+`","api_token":"x"}}`)
	names("active", `{"credentials":`+good+`,"active":true}`)
	names("Credentials", `{"Credentials":`+good+`}`)
	names("credentials", `{"is_active":true}`)
	names("is_active", `{"credentials":`+good+`,"is_active":"yes"}`)
	names("is_active", `{"credentials":`+good+`,"is_active":true,"is_active":false}`)
	names("auth_token", `{"credentials":{"account_sid":"`+twilioSID+`","auth_token":"`+twilioToken+`","auth_token":"`+twilioToken+`"}}`)

	for _, body := range []string{
		``, ` `, `null`, `[]`, `"x"`, `{`, `{"credentials":`, `{}{}`, `{"credentials":"x"}`, `{"credentials":[]}`,
		`{"credentials":` + strings.Repeat(`[`, 100) + strings.Repeat(`]`, 100) + `}`, `{"a":` + strings.Repeat(`{"a":`, 5000) + `1`,
	} {
		s.refuse(400, "bad_request", "PUT", acmeTwilio, body)
	}
	s.refuse(413, "body_too_large", "PUT", acmeTwilio, `{"credentials":{"auth_token":"`+strings.Repeat("x", maxBody)+`"}}`)
	for _, org := range []string{"-acme", "a%2Fb", "a%20b", "a%00", strings.Repeat("a", 65), "%C3%A4"} {
		if p := s.refuse(400, "bad_request", "GET", "/api/orgs/"+org+"/integrations", ""); p.Errors[0].Field != "org" {
			t.Errorf("%+v", p)
		}
	}
	s.refuse(404, "unknown_provider", "PUT", "/api/orgs/acme/integrations/nosuch", twilioBody(twilioSID, twilioToken))
	s.refuse(400, "bad_request", "GET", "/api/orgs/acme/integrations?limt=5", "")
	s.refuse(400, "bad_request", "GET", "/api/orgs/acme/integrations?limit=0", "")
	s.refuse(404, "not_found", "GET", acmeTwilio, "")
}

func TestVerifyIsNotAvailableAndChangesNothing(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	s.refuse(501, "not_available", "PUT", acmeTwilio, `{"credentials":`+twilioFields(twilioSID, twilioToken)+`,"verify":true}`)
	s.refuse(404, "not_found", "GET", acmeTwilio, "")
	s.must(201, "PUT", acmeTwilio, `{"credentials":`+twilioFields(twilioSID, twilioToken)+`,"verify":false}`)
}

func TestConcurrentPutsLoseNothing(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		const writers, each = 8, 5
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					a := s.ask("PUT", acmeTwilio, twilioBody(twilioSID, fmt.Sprintf("%032x", w*each+i)))
					if a.status != 200 && a.status != 201 {
						t.Errorf("%d: %s", a.status, a.body)
					}
				}
			})
		}
		wg.Wait()
		if v := s.must(200, "GET", acmeTwilio, "").header.Get("ETag"); v != `"`+strconv.Itoa(writers*each)+`"` {
			t.Errorf("%d acknowledged writes made version %s", writers*each, v)
		}
		events, err := s.db.Events(t.Context(), store.EventFilter{Action: "credential.put", Limit: 1000})
		if err != nil || len(events) != writers*each {
			t.Errorf("%d acknowledged writes made %d audit rows, %v", writers*each, len(events), err)
		}
	})
}

func TestOfRacingWritersWithOnePreconditionOneWins(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	s.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken))
	var won, lost atomic.Int32
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			switch a := s.ask("PUT", acmeTwilio, twilioBody(twilioSID, fmt.Sprintf("%032x", w)), `If-Match: "1"`); a.status {
			case 200:
				won.Add(1)
			case 412:
				lost.Add(1)
			default:
				t.Errorf("%d: %s", a.status, a.body)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || lost.Load() != 7 {
		t.Errorf("%d won, %d lost", won.Load(), lost.Load())
	}
}

func TestListingsGoPageByPage(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	if a := s.must(200, "GET", "/api/orgs/acme/integrations", ""); strings.TrimSpace(a.body) != `{"items":[],"next_cursor":""}` {
		t.Errorf("an org without credentials: %s", a.body)
	}
	orgs := []string{"acme", "globex", "initech", "umbrella", "x1"}
	for i, org := range orgs {
		s.must(201, "PUT", "/api/orgs/"+org+"/integrations/resend", fmt.Sprintf(`{"credentials":{"api_key":"re_%08d_abcdefghijklmnopqrstuvwx"}}`, i))
	}
	s.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken))
	s.walk("/api/orgs", "org", orgs)
	s.walk("/api/orgs/acme/integrations", "provider", []string{"resend", "twilio"})
}

// walk reads a listing with pages of two and fails the test unless the items' members of that name are these.
func (s *server) walk(path, member string, want []string) {
	s.t.Helper()
	var got []string
	for cursor, n := "", 0; n < 20; n++ {
		page := s.must(200, "GET", path+"?limit=2&cursor="+cursor, "").object(s.t)
		for _, item := range page["items"].([]any) {
			got = append(got, fmt.Sprint(item.(map[string]any)[member]))
		}
		if cursor = page["next_cursor"].(string); cursor == "" {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.t.Errorf("%s lists %v, want %v", path, got, want)
	}
}

func TestUnreadableCredentialsAreShownAndCanBeReplaced(t *testing.T) {
	url := sqliteURL(t)
	before := newServer(t, url)
	before.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken))
	before.must(201, "PUT", "/api/orgs/globex/integrations/resend", `{"credentials":{"api_key":"re_00000000_abcdefghijklmnopqrstuvwx"}}`)

	s := newServer(t, url, func(o *Options) { o.Keeper = &credential.Keeper{DB: o.DB, Keys: seal.Generate()} })
	a := s.must(200, "GET", "/api/orgs/acme/integrations", "")
	if !strings.Contains(a.body, `"unreadable":true`) || strings.Contains(a.body, twilioSID) {
		t.Errorf("%s", a.body)
	}
	s.refuse(424, "credential_unreadable", "PATCH", acmeTwilio, `{"credentials":{"from_number":"+15550001"}}`)
	s.must(200, "PATCH", acmeTwilio, `{"is_active":false}`)
	if a := s.must(200, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken)); strings.Contains(a.body, "unreadable") {
		t.Errorf("%s", a.body)
	}
	s.must(204, "DELETE", "/api/orgs/globex/integrations/resend", "")
}

func TestEveryWriteAndEveryLookIsAudited(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	s.must(201, "PUT", acmeTwilio, twilioBody(twilioSID, twilioToken))
	s.must(200, "GET", acmeTwilio, "")
	s.must(200, "GET", "/api/orgs/acme/integrations", "")
	s.must(200, "PATCH", acmeTwilio, `{"is_active":false}`)
	s.must(204, "DELETE", acmeTwilio, "")
	events, err := s.db.Events(t.Context(), store.EventFilter{Org: "acme", Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, e := range events {
		actions = append(actions, e.Action)
		if !strings.HasPrefix(e.Actor.Name, "uid ") || e.Actor.From != "admin socket" || e.Org != "acme" || e.Result != "ok" {
			t.Errorf("%+v", e)
		}
	}
	if got, want := strings.Join(actions, " "), "credential.put credential.show credential.list credential.disable credential.delete"; got != want {
		t.Errorf("audited %s, want %s", got, want)
	}
}

func TestStoreThatIsGone(t *testing.T) {
	pg := pgtest.Start(t)
	s := newServer(t, pg.New(t))
	pg.Stop(t)
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		a := s.ask(method, acmeTwilio, twilioBody(twilioSID, twilioToken))
		s.isProblem(a, http.StatusServiceUnavailable, "store_unavailable")
		if a.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
}

// TestAProviderThatLeftTheConfiguration: what is stored for it is still shown, by the names of its fields alone, and can be deleted; nothing
// else can be done with it.
func TestAProviderThatLeftTheConfiguration(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		s := newServer(t, url)
		gone, problems := (&provider.Custom{Name: "acme_api", Hosts: []string{"api.acme.example"}}).Make(provider.All)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		const secret, at = "sk-acme-0123456789abcdef", "/api/orgs/acme/integrations/acme_api"
		values, problems := gone.Parse([]byte(`{"api_key":"` + secret + `"}`))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		before := &credential.Keeper{DB: s.db, Keys: s.keeper.Keys, Providers: provider.Set{gone}}
		ref := store.Ref{Org: "acme", Provider: gone.Name}
		if _, err := before.Put(t.Context(), store.Actor{Name: "test", From: "process"}, ref, values, credential.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		for _, a := range []answer{s.must(200, "GET", at, ""), s.must(200, "GET", "/api/orgs/acme/integrations", "")} {
			if !strings.Contains(a.body, `"fields":{"api_key":"…"},`) || !strings.Contains(a.body, `"unconfigured":true`) || strings.Contains(a.body, "cdef") {
				t.Errorf("shows %s", a.body)
			}
		}
		for method, body := range map[string]string{"PUT": `{"credentials":{"api_key":"` + secret + `"}}`, "PATCH": `{"is_active":false}`} {
			if p := s.refuse(404, "unknown_provider", method, at, body); !strings.Contains(p.Detail, "deleted") {
				t.Errorf("%s does not say what can be done: %s", method, p.Detail)
			}
		}
		s.refuse(404, "unknown_provider", "POST", at+"/verify", "")
		s.refuse(404, "unknown_provider", "DELETE", "/api/orgs/globex/integrations/acme_api", "")
		s.refuse(412, "version_conflict", "DELETE", at, "", `If-Match: "7"`)
		of := func(org string) (targets []string) {
			events, err := s.db.Events(t.Context(), store.EventFilter{Org: org})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if e.Result != "ok" {
					targets = append(targets, e.Result+" "+e.Target)
				}
			}
			slices.Sort(targets)
			return targets
		}
		known, unknown := "unknown_provider acme_api", "unknown_provider "
		// A token of another org does not learn from its own log what there is in this one.
		s.withToken(`{"name":"g","role":"org","org":"globex"}`).refuse(404, "not_found", "DELETE", at, "")
		if got := of("acme"); !slices.Equal(got, []string{known, known, known, "version_conflict acme_api"}) {
			t.Errorf("refused, in the audit log: %q", got)
		}
		if got := of("globex"); !slices.Equal(got, []string{"not_found ", unknown}) { // there it is no name that we know
			t.Errorf("refused, in the audit log: %q", got)
		}
		s.must(204, "DELETE", at, "", `If-Match: "1"`)
		s.refuse(404, "unknown_provider", "GET", at, "")
	})
}
