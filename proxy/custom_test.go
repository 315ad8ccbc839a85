package proxy

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// customWorld has a provider of the configuration, at host, beside all others.
func customWorld(t *testing.T, to, host, header string) *world {
	t.Helper()
	custom := provider.Custom{Name: "acme_api", Hosts: []string{"api.acme.example"}, Header: header, Probe: "/me"}
	p, errs := custom.Make(provider.All)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	p.Hosts, p.DefaultHost = []string{host}, func(provider.Secret) string { return host }
	w := newWorld(t, "", func(o *Options) {
		o.Providers = append(slices.Clone(provider.All), p)
		if to != "" {
			u, err := url.Parse(to)
			if err != nil {
				t.Fatal(err)
			}
			o.Upstreams[host], o.Roots = u, testRoots()
		}
	})
	c := &store.Credential{Ref: store.Ref{Org: "acme", Provider: "acme_api"}, Version: 1, SealedVersion: 1, Active: true}
	c.Sealed = w.keys.Seal(nil, provider.Values{"api_key": {Text: "acme-secret-0123456789"}}.Encode(nil), c.AppendContext(nil))
	w.rows.credentials[c.Ref] = c
	return w
}

func TestCustomProviderIsReachedLikeAnyOther(t *testing.T) {
	peer := newPeer(t, true)
	w := customWorld(t, peer.url, "api.acme.example", "X-Acme-Key")
	peer.answer = func(int, string) string {
		return "HTTP/1.1 200 OK\r\nContent-Length: 39\r\n\r\n" + `{"your key":"acme-secret-0123456789..."}`[:39]
	}
	token := w.token(store.Token{Name: "only", Providers: []string{"acme_api"}, Allow: []string{"GET /v1/**"}})
	for _, head := range []string{
		"GET /acme_api/v1/x HTTP/1.1\r\nHost: localhost\r\n", "GET /acme-api/v1/x HTTP/1.1\r\nHost: localhost\r\n", "GET /api.acme.example/v1/x HTTP/1.1\r\nHost: localhost\r\n",
		"GET /v1/x HTTP/1.1\r\nHost: api.acme.example\r\n", "GET /v1/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Upstream: api.acme.example\r\n",
		"GET /org/acme/acme_api/v1/x HTTP/1.1\r\nHost: acme-api.localhost\r\n",
	} {
		resp := w.raw("tcp", head+"Keyward-Org: acme\r\nX-Acme-Key: "+token+"\r\nAuthorization: Bearer my-own\r\n\r\n")
		body := bodyOf(resp)
		if resp.StatusCode != 200 || strings.Contains(body, "acme-secret") || !strings.Contains(body, "*****") {
			t.Errorf("%s: %d %s", head, resp.StatusCode, body)
		}
		got := peer.last()
		if headerOf(got, "X-Acme-Key") != "acme-secret-0123456789" || headerOf(got, "Host") != "api.acme.example" || strings.Contains(got, token) || strings.Contains(got, "my-own") || !strings.HasPrefix(got, "GET /v1/x ") {
			t.Errorf("%s: went out as\n%s", head, got)
		}
	}
	sent, _ := peer.count()
	is := func(code, head string) {
		t.Helper()
		if got := problemCode(w.raw("tcp", head+"\r\n")); got != code {
			t.Errorf("%s: %q, want %q", head, got, code)
		}
	}
	is("route_forbidden", "POST /acme_api/v1/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\nX-Acme-Key: "+token+"\r\nContent-Length: 0\r\n")
	is("provider_forbidden", "GET /resend/domains HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\nKeyward-Token: "+token+"\r\n")
	is("credential_missing", "GET /acme_api/v1/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: globex\r\nX-Acme-Key: "+token+"\r\n")
	is("caller_unauthenticated", "GET /acme_api/v1/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\nX-Acme-Key: kwt"+strings.Repeat("x", 43)+"\r\n")
	is("caller_unauthenticated", "GET /acme_api/v1/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\nKeyward-Token: "+token+"\r\nX-Acme-Key: kwt"+strings.Repeat("x", 43)+"\r\n")
	is("unknown_upstream", "GET /www.api.acme.example/v1/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\nX-Acme-Key: "+token+"\r\n")
	is("unknown_upstream", "GET /acme_api/api.resend.com/v1/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\nX-Acme-Key: "+token+"\r\n")
	if n, _ := peer.count(); n != sent {
		t.Errorf("%d refused requests went out", n-sent)
	}
	reply, err := w.p.Ask(t.Context(), &provider.Question{Provider: w.p.providers.Named("acme_api"), Method: "GET", Path: "/me"})
	if err != nil || reply.Status != 200 {
		t.Errorf("asked: %d, %v", reply.Status, err)
	}
}

// A name of the configuration's that leads to this machine is not followed: neither for a caller nor for Keyward's own questions. That a
// provider of ours is, is another matter: its names are constants.
func TestCustomProviderIsNeverThisMachine(t *testing.T) {
	w := customWorld(t, "", "localhost", "") // stands for any name that resolves to a private address
	resp := w.raw("unix", "GET /acme_api/v1/x HTTP/1.1\r\n"+orgLine+"\r\n")
	if body := bodyOf(resp); problemCode(resp) != "upstream_unreachable" || !strings.Contains(body, "private network") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if _, err := w.p.Ask(t.Context(), &provider.Question{Provider: w.p.providers.Named("acme_api"), Method: "GET", Path: "/me"}); err == nil || !strings.Contains(err.Error(), "private network") {
		t.Errorf("asked: %v", err)
	}
	peer := newPeer(t, true)
	u, err := url.Parse(strings.Replace(peer.url, "127.0.0.1", "localhost", 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		to   map[string]*url.URL
		code string
	}{{map[string]*url.URL{"localhost": u}, "upstream_tls"}, {nil, "upstream_unreachable"}} { // the operator's own word, and taken back
		if err := w.p.SetUpstreams(step.to); err != nil {
			t.Fatal(err)
		}
		if resp := w.raw("unix", "GET /acme_api/v1/x HTTP/1.1\r\n"+orgLine+"\r\n"); problemCode(resp) != step.code {
			t.Errorf("%v: %q, want %q", step.to, problemCode(resp), step.code)
		}
	}
}

func TestPublicOnly(t *testing.T) {
	for _, a := range []string{
		"127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "0.0.0.0", "0.1.2.3",
		"224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.0.192", "198.18.0.1", "203.0.113.5", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1",
		"::ffff:127.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:0:7f00::1", "2001:db8::1",
	} {
		if PublicOnly("tcp", net.JoinHostPort(a, "443"), nil) == nil {
			t.Errorf("%s is dialled", a)
		}
	}
	for _, a := range []string{"8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"} {
		if err := PublicOnly("tcp", net.JoinHostPort(a, "443"), nil); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
	for _, a := range []string{"", "localhost:443", "8.8.8.8"} {
		if PublicOnly("tcp", a, nil) == nil {
			t.Errorf("%q is dialled", a)
		}
	}
	if isPublic(netip.Addr{}) {
		t.Error("no address is public")
	}
}
