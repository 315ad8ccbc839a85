package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/provider"
)

func TestProvidersOfTheFile(t *testing.T) {
	c := load(t, nil, "--config", writeFile(t, "k.yaml", `
providers:
  - name: acme_api
    title: Acme
    hosts: [api.acme.example, eu.api.acme.example]
    header: X-Acme-Key
    probe: /v1/me
callers:
  - {name: api, unix: {uid: 1}, orgs: ["*"], providers: [acme_api], allow: ["GET /v1/**"]}
listeners:
  - {address: "127.0.0.1:7460", upstream: eu.api.acme.example}
upstream:
  api.acme.example: http://127.0.0.1:9001
`))
	all := c.providers()
	p := all.Named("acme_api")
	if len(all) != len(provider.All)+1 || p == nil || p.Title != "Acme" || len(p.Hosts) != 2 {
		t.Fatalf("%v", all.Names())
	}
	if _, err := c.compileRules(c.known(), nil); err != nil {
		t.Error(err)
	}
	if provider.Named("acme_api") != nil {
		t.Error("it is one of those with a file now")
	}
}

// Every problem stands with its line, and all at once.
func TestProvidersThatAreRefused(t *testing.T) {
	is := func(text string, want ...string) {
		t.Helper()
		path := writeFile(t, "k.yaml", text)
		got := refusal(t, nil, "--config", path)
		for _, w := range want {
			if !strings.Contains(got, path+":"+w) {
				t.Errorf("%q is not in %s", path+":"+w, got)
			}
		}
	}
	is(`providers:
  - name: stripe
    hosts:
      - "*.acme.example"
      - 10.0.0.1
      - http://api.acme.example
      - api.resend.com
      - db.internal
    header: Connection
    prefix: "a\r\nb"
    probe: "/me\x01"
`, `2: providers[0].name is that of a provider that there is already`, `4: providers[0].hosts[0] must be one exact host`, `5: providers[0].hosts[1] must be a name, not an address`,
		`6: providers[0].hosts[2] must be a host alone; plain http`, `7: providers[0].hosts[3] is a host of resend already`, `8: providers[0].hosts[4] is a name of this machine`,
		`9: providers[0].header is a header that makes a request`, `10: providers[0].prefix must be one word`, `11: providers[0].probe must be a path`)
	is("providers:\n  - {name: a, hosts: [a.example]}\n  - {name: b, hosts: [a.example]}\n", `3: providers[1].hosts[0] is a host of a already`)
	is("providers:\n  - name: a\n", `2: providers[0].hosts must be a list of 1 to 20`)
	is("providers:\n  - {name: a, hosts: [a.example], header: Keyward-Org}\n", `2: providers[0].header is one of Keyward's own`)
	is("providers:\n  - {name: a, host: a.example}\n", `2: host: unknown key; did you mean hosts?`)
	is("providers:\n  - name: a\n    hosts: {a: b}\n", `3: keys with values must be a list of texts`)
	path := writeFile(t, "k.yaml", "providers:\n  - {name: a, hosts: [a.example]}\nwebhooks:\n  - {provider: a, target: \"http://127.0.0.1:1/\"}\n")
	if got := refusal(t, nil, "--config", path); !strings.Contains(got, `webhooks[0].provider "a": is one of providers:, which send no webhooks`) {
		t.Error(got)
	}
	is("providers: a\n", `1: "a" must be a list`)
}

const acmeKey = "acme-key-0123456789abcdef"

// From the file to the provider, and back through everything that shows providers.
func TestProviderOfTheFileWorksEverywhere(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Acme-Key") != acmeKey {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"unknown key"}`)
			return
		}
		_, _ = io.WriteString(w, `{"path":"`+r.URL.Path+`","key":"`+r.Header.Get("X-Acme-Key")+`"}`)
	}))
	t.Cleanup(peer.Close)
	config := writeFile(t, "k.yaml", "providers:\n  - {name: acme_api, title: The Acme, hosts: [api.acme.example], header: X-Acme-Key, probe: /v1/me}\n")
	s := serve(t, dir, "--config", config, "--upstream", "api.acme.example="+peer.URL)
	at := []string{"--org", "acme", "--provider", "acme_api"}
	s.must(`{"api_key":"`+acmeKey+`"}`, append([]string{"credentials", "set", "--verify"}, at...)...)
	if out := s.must("", append([]string{"credentials", "verify"}, at...)...); !strings.Contains(out, "acme_api: valid") {
		t.Error(out)
	}
	if out, code := s.run(`{"api_key":"a-wrong-key-0123"}`, append([]string{"credentials", "set", "--verify"}, at...)...); code == 0 || !strings.Contains(out, "nothing was changed") {
		t.Errorf("%d %s", code, out)
	}
	if out := s.must("", "credentials", "list", "--org", "acme"); !strings.Contains(out, "acme_api") {
		t.Error(out)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://api.acme.example/v1/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Keyward-Org", "acme")
	resp, err := s.client("caller.sock").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != 200 || !strings.Contains(string(body), `"path":"/v1/x"`) || strings.Contains(string(body), acmeKey) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	api := func(path string) string {
		resp, err := s.client("admin.sock").Get("http://keyward" + path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	if got := api("/api/providers"); !strings.Contains(got, `"title":"The Acme"`) {
		t.Error(got)
	}
	doc := api("/api/openapi.json")
	if !json.Valid([]byte(doc)) || !strings.Contains(doc, `"AcmeApiCredential"`) || !strings.Contains(doc, `"stripe", "acme_api"]`) {
		t.Errorf("%.300s", doc)
	}
	if got := s.must("", "callers", "add", "--name", "w", "--org", "acme", "--provider", "acme_api"); !strings.HasPrefix(got, "kwt") {
		t.Error(got)
	}
	out := s.must("", "top", "--json")
	if !strings.Contains(out, `"acme_api"`) {
		t.Error(out)
	}
	s.stopsWithin(30 * time.Second)
	s.done <- nil // for the clean-up

	// Without the file the row stays and is shown; nothing uses it.
	s = serve(t, dir)
	if out := s.must("", "credentials", "list", "--org", "acme"); !strings.Contains(out, "acme_api") {
		t.Error(out)
	}
	if out, code := s.run("", append([]string{"credentials", "verify"}, at...)...); code != exitNotFound {
		t.Errorf("%d %s", code, out)
	}
}

// A name that leads into a private network is named by doctor before any request is refused for it.
func TestDoctorSeesThatAProviderOfTheFileIsPrivate(t *testing.T) {
	p := &provider.Provider{Name: "acme_api", Hosts: []string{"localhost"}, DefaultHost: func(provider.Secret) string { return "localhost" }, Custom: true}
	d := &doctor{c: &Config{custom: provider.Set{p}}}
	o := reachUpstream(t.Context(), "localhost", p.Custom, d.c.Upstreams["localhost"], nil)
	all := providerFindings(p, d.hostsOf(p), map[string]reachOutcome{"localhost": o})
	if len(all) != 1 || all[0].Status != isFail || !strings.Contains(all[0].Saw, "private network") || !strings.Contains(all[0].Mend, "--upstream") {
		t.Errorf("%+v", all)
	}
}
