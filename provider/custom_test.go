package provider

import (
	"strings"
	"testing"
)

func word(s string) *string { return &s }

var acmeAPI = Custom{Name: "acme_api", Hosts: []string{"api.acme.example", "eu.api.acme.example"}, Probe: "/v1/me"}

// A provider of a configuration passes what those with a file pass, its probe's samples aside.
func TestCustomConforms(t *testing.T) {
	for name, c := range map[string]Custom{
		"usual":     acmeAPI,
		"header":    {Name: "x", Title: "X", Hosts: []string{"x.example"}, Header: "x-api-token"},
		"own word":  {Name: "x", Hosts: []string{"x.example"}, Prefix: word("Token ")},
		"bare":      {Name: "x", Hosts: []string{"x.example"}, Prefix: word("")},
		"most ever": {Name: "x", Hosts: []string{strings.Repeat("a.", 100) + "example"}, Header: strings.Repeat("X", 39), Prefix: word(strings.Repeat("p", 32))},
	} {
		t.Run(name, func(t *testing.T) {
			p, errs := c.Make(All)
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			conformRegions(t, p)
			conformFields(t, p)
			conformExample(t, p)
			conformInject(t, p)
			if !p.Custom || p.Webhook != nil || p.DefaultHost(Secret{}) != c.Hosts[0] {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestCustomInjects(t *testing.T) {
	is := func(want string, c Custom) {
		t.Helper()
		c.Name, c.Hosts = "x", []string{"x.example"}
		p, errs := c.Make(All)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		if got := inject(t, p, `{"api_key":"k1"}`, "GET", "/"); got != "/ "+want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	is("Authorization: Bearer k1", Custom{})
	is("Authorization: Token k1", Custom{Prefix: word("Token")})
	is("Authorization: k1", Custom{Prefix: word("")})
	is("X-Api-Token: k1", Custom{Header: "x-api-token"})
	is("X-Api-Token: Key k1", Custom{Header: "X-API-Token", Prefix: word("Key")})
}

func TestCustomRefuses(t *testing.T) {
	is := func(change func(*Custom), want string) {
		t.Helper()
		c := acmeAPI
		change(&c)
		p, errs := c.Make(All)
		var all []string
		for _, e := range errs {
			all = append(all, e.Field+" "+e.Problem)
		}
		if got := strings.Join(all, "; "); p != nil || !strings.HasPrefix(got, want) || want == "" {
			t.Errorf("%+v: %q, want %q", c, got, want)
		}
	}
	host := func(h, want string) {
		t.Helper()
		is(func(c *Custom) { c.Hosts = []string{"fine.example", h} }, "hosts[1] "+want)
	}
	host("*.acme.example", "must be one exact host")
	host("*", "must be one exact host")
	host("http://api.acme.example", "must be a host alone; plain http is never spoken")
	host("http:api.acme.example", "must be a host alone; plain http")
	host("https://api.acme.example", "must be a host alone, without scheme")
	host("api.acme.example/v1", "must be a host alone")
	host("user@api.acme.example", "must be a host alone")
	host("api.acme.example:8443", "must be without a port")
	for _, address := range []string{"127.0.0.1", "10.0.0.8", "169.254.169.254", "8.8.8.8", "::1", "[::1]", "fd00:ec2::254", "[fe80::1%25eth0]", "::ffff:10.0.0.1"} {
		host(address, "must be a name, not an address")
	}
	for _, address := range []string{"127.1", "2130706433", "0x7f000001", "0177.0.0.1", "10.0.0.8.", "1.2.3.0x4"} { // what the C library takes for one
		host(address, "must be a public host name")
	}
	for _, name := range []string{"localhost", "app.localhost", "db.internal", "metadata.google.internal", "printer.local", "nas.lan", "router.home.arpa", "internal"} {
		host(name, "is a name of this machine or of a private network")
	}
	host("api", "must be a public host name")
	host("", "must be a public host name")
	host("api.acme.example.", "must be a public host name")
	host("-a.example", "must be a public host name")
	host("a_b.example", "must be a public host name")
	host("exämple.com", "must be a public host name")
	host(strings.Repeat("a", 64)+".example", "must be a public host name")
	host(strings.Repeat("a.", 130)+"example", "must be a public host name")
	host("API.acme.example", "must be in lower case")
	host("api.acme\n.example", "contains a control character")
	host("api.acme\x00.example", "contains a control character")
	host("api.stripe.com", "is a host of stripe already")
	host("oauth2.googleapis.com", "is a host of google_calendar already")
	host("fine.example", "stands twice")
	is(func(c *Custom) { c.Hosts = nil }, "hosts must be a list of 1 to 20")

	is(func(c *Custom) { c.Name = "stripe" }, "name is that of a provider that there is already")
	is(func(c *Custom) { c.Name = "org" }, "name means something else in a path")
	for _, name := range []string{"v1", "v2beta1", "emails", "call", "calls", "calendar", "api_keys"} {
		is(func(c *Custom) { c.Name = name }, "name is how paths of other providers begin")
	}
	for _, h := range []string{"accept", "Idempotency-Key", "if-match", "X-Request-ID", "Stripe-Account", "OpenAI-Organization", "X-Goog-User-Project", "On-Behalf-Of"} {
		is(func(c *Custom) { c.Header = h }, "header is a header that requests to other providers carry")
	}
	is(func(c *Custom) { c.Name, c.Probe = "things_v", "/things-v?all" }, "name is how this API's own paths begin")
	is(func(c *Custom) { c.Name = "Acme" }, "name must be a lower-case letter")
	is(func(c *Custom) { c.Name = "a/b" }, "name must be")
	is(func(c *Custom) { c.Name = "a\n" }, "name must be")
	is(func(c *Custom) { c.Name = "" }, "name must be")
	is(func(c *Custom) { c.Title = "a\x1b[31m" }, "title must be")

	for _, h := range []string{"Connection", "host", "transfer-encoding", "Upgrade", "TE", "content-length", "Expect", "Proxy-Authorization", "cookie", "Sec-WebSocket-Key", "Http2-Settings"} {
		is(func(c *Custom) { c.Header = h }, "header is a header that makes a request what it is")
	}
	is(func(c *Custom) { c.Header = "Keyward-Org" }, "header is one of Keyward's own")
	is(func(c *Custom) { c.Header = "keyward-token" }, "header is one of Keyward's own")
	for _, h := range []string{"X Api", "X-Api:", "X-Api\r\nHost", "X_Api", "Schlüssel", strings.Repeat("X", 40)} {
		is(func(c *Custom) { c.Header = h }, "header must be the name of a header")
	}
	for _, p := range []string{"two words", "a\r\nb", "a\x00", "  ", strings.Repeat("p", 33), "ü"} {
		is(func(c *Custom) { c.Prefix = word(p) }, "prefix must be one word")
	}
	for _, p := range []string{"v1/me", "https://elsewhere.example/", "/a b", "/a\r\nX: y", "/a#b", "/" + strings.Repeat("a", 200)} {
		is(func(c *Custom) { c.Probe = p }, "probe must be a path")
	}
	one, _ := acmeAPI.Make(All)
	taken := append(append(Set{}, All...), one)
	again := acmeAPI
	if _, errs := again.Make(taken); len(errs) != 3 {
		t.Errorf("the same once more: %v", errs)
	}
}

// Two of the file do not take each other's paths either, as far as the probes tell what those are.
func TestCustomsThatBeginLikeEachOther(t *testing.T) {
	made := func(c Custom, taken Set) (*Provider, []FieldError) { return c.Make(taken) }
	things, errs := made(Custom{Name: "acme", Hosts: []string{"api.acme.example"}, Probe: "/things/me"}, All)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	taken := append(append(Set{}, All...), things)
	if _, errs := made(Custom{Name: "things", Hosts: []string{"b.example"}}, taken); len(errs) != 1 || errs[0].Field != "name" || !strings.Contains(errs[0].Problem, "the provider acme begin") {
		t.Errorf("a name like another's paths: %v", errs)
	}
	if _, errs := made(Custom{Name: "b", Hosts: []string{"b.example"}, Probe: "/acme/me"}, taken); len(errs) != 1 || errs[0].Field != "probe" || !strings.Contains(errs[0].Problem, "begins with /acme") {
		t.Errorf("paths like another's name: %v", errs)
	}
	if _, errs := made(Custom{Name: "b", Hosts: []string{"b.example"}, Probe: "/acme-things/me"}, taken); len(errs) > 0 {
		t.Error(errs)
	}
}

// No path that a provider's own file names may be taken by one of the configuration: who adds a provider adds its paths to pathNames.
func TestCustomNamesAreNobodysPaths(t *testing.T) {
	for _, p := range All {
		paths := p.Probe.Paths(opened(t, p, example(p)))
		for _, r := range p.SecretRoutes {
			paths = append(paths, r.Path)
		}
		for _, f := range p.SecretFields {
			paths = append(paths, f.Path)
		}
		for _, path := range paths {
			first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
			first, _, _ = strings.Cut(first, "?")
			name := strings.ReplaceAll(strings.TrimRight(first, "*"), "-", "_")
			if !IsCustomName(name) {
				continue
			}
			c := Custom{Name: name, Hosts: []string{"api.acme.example"}}
			if _, errs := c.Make(All); len(errs) != 1 || errs[0].Field != "name" {
				t.Errorf("a provider named %q would take %s's %s: %v", name, p.Name, path, errs)
			}
		}
	}
}

// What reads a key of its own from the header of another provider's key takes nothing from it.
func TestCustomHeadersThatAreDroppedAnyway(t *testing.T) {
	for _, h := range []string{"X-Goog-Api-Key", "xi-api-key", "X-Acme-Key", "X-Api-Key"} {
		c := acmeAPI
		c.Header = h
		if _, errs := c.Make(All); len(errs) > 0 {
			t.Errorf("%s: %v", h, errs)
		}
	}
}

func TestCustomProbe(t *testing.T) {
	p, _ := acmeAPI.Make(All)
	is := func(want State, status int, body string) {
		t.Helper()
		if v, _ := p.Probe.Read(status, []byte(body)); v.State != want || (v.State != Valid) != (v.Reason != "") {
			t.Errorf("%d %s: %+v, want %s", status, body, v, want)
		}
	}
	is(Valid, 200, `{}`)
	is(Valid, 204, ``)
	is(Invalid, 401, `{"error":"no"}`)
	is(ValidRestricted, 403, `{"error":"not this"}`)
	is(Unproven, 200, ` <html>the hotel's network</html>`)
	is(Unproven, 401, `<html>`)
	is(Unproven, 302, ``)
	is(Unproven, 404, `{}`)
	is(Unproven, 429, `{}`)
	is(Unproven, 503, `{}`)
}
