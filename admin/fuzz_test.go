package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/internal/storetest"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// A rawAPI is the API without sockets, as root on the admin socket asks it.
type rawAPI struct {
	t        testing.TB
	api      *API
	log      *logBuffer
	contract *contract
	good     int      // how many were done
	states   []string // of consents that were begun
}

func newRawAPI(t testing.TB, url string) *rawAPI {
	t.Helper()
	r := &rawAPI{t: t, log: &logBuffer{}}
	log := zerolog.New(r.log).Level(zerolog.ErrorLevel)
	db, err := store.Open(context.Background(), url, store.Options{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.MigrateUp(context.Background()); err != nil {
		t.Fatal(err)
	}
	keeper := &credential.Keeper{DB: db, Keys: seal.Generate()}
	r.api = New(Options{DB: db, Keeper: keeper, Log: log, Version: "test", Local: nothingLocal, Consents: credential.NewConsents(credential.ConsentOptions{
		Keeper: keeper, Log: log, Redirect: func() string { return "http://127.0.0.1:7452" + callbackPath }, ClientID: "client", ClientSecret: []byte("secret"),
		Ask: func(_ context.Context, q *provider.Question) (provider.Reply, error) {
			q.Wipe()
			return provider.Reply{Status: 200, Body: []byte(`{"access_token":"ya29.x","refresh_token":"1//x","token_type":"Bearer","expires_in":3599}`)}, nil
		},
	})})
	if r.contract, err = theContract(); err != nil {
		t.Fatal(err)
	}
	return r
}

// ask sends one request, if it is one; whatever it is, the answer is documented and no 500.
func (r *rawAPI) ask(method, target, body string, header ...string) (a answer) {
	r.t.Helper()
	u, err := url.ParseRequestURI(target)
	if err != nil || u.Host != "" || strings.ContainsAny(method, " \t\r\n") || method == "" {
		return answer{}
	}
	// The server has read the request from the wire by then: so is it here.
	req := &http.Request{
		Method: method, URL: u, Host: "keyward", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, RequestURI: target,
		Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	req = req.WithContext(context.WithValue(context.Background(), peerKey{}, &peer{unix: true, name: "uid 0 (root)", from: "admin socket"}))
	w := httptest.NewRecorder()
	r.api.ServeHTTP(w, req)
	a = answer{w.Code, w.Result().Header, w.Body.String()}
	if a.status < 400 {
		r.good++
		var begun startedConsent
		if json.Unmarshal([]byte(a.body), &begun) == nil && begun.URL != "" {
			page, err := url.Parse(begun.URL)
			if err != nil {
				r.t.Error(err)
				return a
			}
			r.states = append(r.states, page.Query().Get("state"))
		}
	}
	if a.status >= 500 && a.status != http.StatusNotImplemented {
		r.t.Errorf("%s %s %q %.500q: %d %s\n%s", method, target, header, body, a.status, a.body, r.log)
	}
	r.contract.hold(r.t, req, body, a)
	return a
}

// Whatever is sent, the answer is not a 500, and it is one that the document has.
func FuzzNoRequestEndsIn500(f *testing.F) {
	for _, r := range routes() {
		f.Add(r.method, strings.NewReplacer("{org}", "acme", "{provider}", "twilio", "{assistant}", "asst_1", "{role}", "inbound").Replace(r.path), `{"name":"x","orgs":["*"],"config":{}}`, "If-Match: \"1\"")
	}
	f.Add("PUT", acmeTwilio, twilioBody(twilioSID, twilioToken), "")
	f.Add("GET", "/api/audit?since=2026-01-01T00:00:00Z&tail=5&format=jsonl", "", "Accept: application/x-ndjson")
	f.Add("PATCH", acmeInbound, `{"config":{"a":{"b":null}},"name":null}`, "If-None-Match: *")
	r := newRawAPI(f, storetest.SQLite(f))
	f.Fuzz(func(t *testing.T, method, target, body, header string) {
		if strings.ContainsAny(header, "\r\n\x00") {
			return
		}
		r.t = t
		r.ask(method, target, body, header)
	})
}

// The same for requests that are made to get far: known paths, ids that exist, bodies that are nearly right, on both stores.
func TestGeneratedRequestsEndInNo500(t *testing.T) {
	n := generated(800)
	if testing.Short() {
		n = 1000
	}
	for engine, url := range map[string]func(testing.TB) string{
		"sqlite":   storetest.SQLite,
		"postgres": storetest.Postgres,
	} {
		t.Run(engine, func(t *testing.T) {
			r := newRawAPI(t, url(t))
			g := generator{rand.New(rand.NewPCG(1, 2)), samples(t), func() []string { return r.states }}
			for range n {
				method, target, body, header := g.request()
				r.ask(method, target, body, header...)
				if t.Failed() {
					return
				}
			}
			if r.good < n/4 {
				t.Errorf("only %d of %d were done: too much is refused at once", r.good, n)
			}
		})
	}
}

// lastUsed of a token goes on by itself.
var lastUsed = regexp.MustCompile(`"last_used_at":[^,}]*`)

// generated is how many requests are made up: with KEYWARD_TORTURE=1 they are many.
func generated(n int) int {
	if os.Getenv("KEYWARD_TORTURE") == "1" {
		return 20 * n
	}
	return n
}

// A token that is bound to an org changes and sees nothing of another, whatever it asks for.
func TestGeneratedRequestsOfAnOrgBoundTokenStayInside(t *testing.T) {
	const mark = "MARKED"
	r := newRawAPI(t, storetest.SQLite(t))
	g := generator{rand.New(rand.NewPCG(3, 4)), samples(t), func() []string { return r.states }}
	r.ask("PUT", "/api/orgs/globex/integrations/twilio", `{"credentials":{"account_sid":"AC0123456789abcdef0123456789abcdef","auth_token":"`+twilioToken+`","webhook_url":"https://`+mark+`.example/x"}}`)
	r.ask("PUT", "/api/orgs/globex/agents/inbound", `{"name":"`+mark+`","config":{}}`)
	r.ask("PUT", "/api/assistants/asst_1", `{"org":"globex","name":"`+mark+`"}`)
	theirs := &store.Delivery{ID: "wd_aaaaaaaaaaaaaaaaaaaaaaaaaa", Org: "globex", Provider: "vapi", Type: mark, Target: hooks, Method: "POST"}
	if _, err := r.api.o.DB.AcceptDelivery(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	token := r.ask("POST", "/api/admin-tokens", ofAcme).object(t)["token"].(string)
	state := func() (all string) {
		for _, path := range []string{
			"/api/orgs/globex/integrations", "/api/orgs/globex/agents", "/api/orgs/globex/assistants", "/api/webhooks/deliveries?org=globex", "/api/callers", "/api/admin-tokens",
		} {
			a := r.ask("GET", path, "")
			if a.status != 200 || !strings.Contains(path, "/api/callers") && !strings.Contains(path, "tokens") && !strings.Contains(a.body, mark) {
				t.Fatalf("%s: %d %s", path, a.status, a.body)
			}
			all += lastUsed.ReplaceAllString(a.body, "")
		}
		return all
	}
	r.ask("GET", "/api/orgs", "", "Authorization: Bearer "+token) // from now on it was used lately
	before := state()
	r.good = 0
	for range generated(600) {
		method, target, body, header := g.request()
		if a := r.ask(method, target, body, append(header, "Authorization: Bearer "+token)...); strings.Contains(a.body, mark) {
			t.Fatalf("%s %s: %s", method, target, a.body)
		}
	}
	if r.good < 60 {
		t.Errorf("only %d were done: too much is refused at once", r.good)
	}
	if after := state(); after != before {
		t.Errorf("changed from\n%s\nto\n%s", before, after)
	}
}

// A generator makes requests up.
type generator struct {
	*rand.Rand
	samples map[string]map[string]any
	states  func() []string // of consents that were begun
}

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

// once says yes one time in n.
func (g generator) once(n int) bool { return g.IntN(n) == 0 }

var (
	all     = routes()
	strange = []string{
		"", "x", "\x00", "a\x00b", "\xff\xfe", "ä", "💩", "'", "\"", "%", "../..", "/", "*", "<b>", "-1", "0", "9223372036854775808", "1e9", "NaN", "\u202e", " ", "\n", "\ud7ff",
		"true", "null", "[]", strings.Repeat("x", 300),
	}
)

func (g generator) request() (method, target, body string, header []string) {
	r := all[g.IntN(len(all))]
	method = r.method
	if g.once(30) {
		method = pick(g, "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get", "Ä")
	}
	org := pick(g, "acme", "globex", "initech")
	name := provider.All[g.IntN(len(provider.All))].Name
	for _, part := range strings.Split(strings.TrimPrefix(r.path, "/"), "/") {
		switch part {
		case "{org}":
			part = org
		case "{provider}":
			part = name
		case "{assistant}":
			part = pick(g, "asst_1", "asst_2", "asst_3")
		case "{role}":
			part = pick(g, "inbound", "outbound")
		case "{caller}", "{token}":
			part = pick(g, "w1", "w2", "w3")
		case "{delivery}":
			part = pick(g, "wd_none", "wd_aaaaaaaaaaaaaaaaaaaaaaaaaa")
		}
		if g.once(40) {
			part = pick(g, strange...)
		}
		target += "/" + url.PathEscape(part)
	}
	query := url.Values{}
	for name, values := range map[string][]string{
		"limit": {"1", "2", "1000", "5000"}, "cursor": {"acme", "1", "inbound", "twilio"}, "tail": {"0", "3"}, "org": {"acme", "globex"}, "since": {"2026-01-01T00:00:00Z"},
		"until": {"2027-01-01T00:00:00+01:00"}, "state": {"dead", "pending"}, "format": {"json", "jsonl"}, "action": {"credential.put"}, "verbose": {""},
	} {
		if g.once(40) {
			query.Set(name, pick(g, values...))
			if g.once(4) {
				query.Add(name, pick(g, strange...))
			}
		}
	}
	if len(query) > 0 && (r.method == "GET" || g.once(10)) {
		target += "?" + query.Encode()
	}
	if r.method != "GET" && r.method != "DELETE" || g.once(20) {
		body = g.body(r, name, org)
	}
	if g.once(3) {
		header = append(header, pick(g, "If-Match: ", "If-None-Match: ", "if-match: W/")+pick(g, `"1"`, `"2"`, `"7"`, "*", `"x"`, "", "1", `"1", "2"`))
	}
	if g.once(20) {
		header = append(header, "Accept: "+pick(g, "application/x-ndjson", "*/*", "\xff", "text/html;q=0"))
	}
	if r.path == callbackPath && len(g.states()) > 0 {
		back := url.Values{"state": {pick(g, g.states()...)}, "code": {"4/x"}}
		for _, name := range []string{"state", "code", "iss", "error", "scope"} {
			if g.once(10) {
				back.Set(name, pick(g, strange...))
			}
		}
		target = callbackPath + "?" + back.Encode()
	}
	return method, target, body, header
}

// body is one that the route might take, whole, or with something wrong in it.
func (g generator) body(r route, provider, org string) string {
	var object map[string]any
	switch {
	case strings.Contains(r.path, "integrations"):
		fields := map[string]any{}
		for k, v := range g.samples[provider] {
			fields[k] = v
			if g.once(15) {
				fields[k] = g.value(3)
			}
		}
		if provider == "twilio" { // each org has its own
			fields["account_sid"] = "AC" + fmt.Sprintf("%032x", len(org))
		}
		object = map[string]any{"credentials": fields}
		if g.once(3) {
			object["is_active"] = g.once(2)
		}
		if g.once(5) {
			delete(object, "credentials")
		}
	case strings.Contains(r.path, "agents"):
		object = map[string]any{"config": map[string]any{"model": g.value(4), "n": g.value(2)}, "name": "Front desk"}
	case strings.Contains(r.path, "assistants"):
		object = map[string]any{"org": org, "role": "inbound", "name": "Front desk"}
	case strings.Contains(r.path, "callers"):
		object = map[string]any{"name": pick(g, "w1", "w2", "w3"), "orgs": []string{org}, "rate": "50/s", "allow": []string{"GET /**"}}
	case strings.Contains(r.path, "admin-tokens"):
		object = map[string]any{"name": pick(g, "w1", "w2", "w3"), "org": org}
	default:
		object = map[string]any{}
	}
	for k := range object {
		if g.once(25) {
			object[k] = g.value(3)
		}
	}
	if g.once(25) {
		object[pick(g, strange...)] = g.value(2)
	}
	b, _ := json.Marshal(object) // it is made of what can be
	text := string(b)
	switch {
	case g.once(40):
		return text[:g.IntN(len(text))]
	case g.once(40):
		i := g.IntN(len(text))
		return text[:i] + pick(g, strange...) + text[i:]
	}
	return text
}

// value is any JSON.
func (g generator) value(depth int) any {
	kind := g.IntN(7)
	if depth == 0 {
		kind = g.IntN(5)
	}
	switch kind {
	case 0:
		return nil
	case 1:
		return g.once(2)
	case 2:
		return pick(g, 0.0, -1, 1.5, 1e300, 12)
	case 3, 4:
		return pick(g, strange...)
	case 5:
		list := make([]any, g.IntN(4))
		for i := range list {
			list[i] = g.value(depth - 1)
		}
		return list
	}
	object := map[string]any{}
	for range g.IntN(4) {
		object[pick(g, "a", "secret", "model", "ä", "", "\x00")] = g.value(depth - 1)
	}
	return object
}
