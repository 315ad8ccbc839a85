package proxy

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/standin"
	"github.com/keyward/keyward/store"
)

// newStandins is a proxy in front of the providers' stand-ins, with their made-up credentials of org acme.
func newStandins(t *testing.T) (*world, *standin.Set) {
	t.Helper()
	peers := standin.New(standin.Options{Pause: -1})
	t.Cleanup(func() { _ = peers.Close() })
	samples := standin.Sample("acme")
	peers.Expect(samples...)
	where, err := peers.Start()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, "", func(o *Options) {
		for host, to := range where {
			if o.Upstreams[host], err = url.Parse(to); err != nil {
				t.Fatal(err)
			}
		}
	})
	for _, s := range samples {
		w.set("acme", s.Provider, string(s.JSON()), 1)
	}
	return w, peers
}

// Every provider, those without a line of their own in this package included: its credential goes in, in the caller's place; the provider
// takes it; what it says of its own secrets does not come back.
func TestEveryProvider(t *testing.T) {
	w, peers := newStandins(t)
	for _, p := range provider.All {
		path := p.Probe.Paths(provider.Secret{})[0]
		if p == &provider.Twilio {
			path = "/2010-04-01/Accounts/ACkeyward/Balance.json"
		}
		path, _, _ = strings.Cut(path, "?")
		dashed := strings.ReplaceAll(p.Name, "_", "-")
		for _, line := range []string{
			"GET /" + p.Name + path + " HTTP/1.1\r\nHost: localhost\r\n", "GET " + path + " HTTP/1.1\r\nHost: " + p.DefaultHost(provider.Secret{}) + "\r\n",
			"GET " + path + " HTTP/1.1\r\nHost: " + dashed + ".localhost\r\n",
		} {
			smuggled := ""
			for _, h := range p.AuthHeaders {
				smuggled += h + ": smuggled-" + h + "\r\n"
			}
			peers.Reset()
			resp := w.raw("unix", line+"Keyward-Org: acme\r\nUser-Agent: t\r\n"+smuggled+"\r\n")
			if resp.StatusCode != 200 || resp.Header.Get(standin.LabelHeader) != "acme" {
				t.Errorf("%s: %d %s", line, resp.StatusCode, bodyOf(resp))
			}
			for _, q := range peers.Requests() {
				if strings.Contains(q.String(), "smuggled-") {
					t.Errorf("%s: the caller's own credential went out:\n%s", p.Name, q)
				}
			}
		}
	}
}

// Those that have no stand-in of their own answer with the secrets that their files name.
func TestNamedSecretsOfEveryProviderAreOverwritten(t *testing.T) {
	w, _ := newStandins(t)
	trusted := w.token(store.Token{Name: "trusted", SecretRoutes: true})
	n := 0
	for _, p := range []*provider.Provider{&provider.SendGrid, &provider.Deepgram, &provider.OpenAI, &provider.Stripe} {
		for _, f := range p.SecretFields {
			path := strings.TrimSuffix(strings.ReplaceAll(strings.ReplaceAll(f.Path, "**", "x"), "*", "x"), "/")
			ask := func(more string) string {
				resp := w.raw("tcp", "GET /"+p.Name+path+" HTTP/1.1\r\n"+orgLine+more+"\r\n")
				body := bodyOf(resp)
				if resp.StatusCode != 200 || !json.Valid([]byte(body)) {
					t.Fatalf("%s %s: %d %s", p.Name, path, resp.StatusCode, body)
				}
				return body
			}
			all, none := ask("Keyward-Token: "+trusted+"\r\n"), ask("Keyward-Token: "+w.token(anyToken)+"\r\n")
			if !strings.Contains(all, "made-up-") || strings.Contains(none, "made-up-") || len(all) != len(none) {
				t.Errorf("%s %s:\nallowed %s\nmasked  %s", p.Name, path, all, none)
			}
			n++
		}
	}
	if n < 8 {
		t.Errorf("only %d places were tried", n)
	}
}

func TestSecretRoutesOfMoreProviders(t *testing.T) {
	w, _ := newStandins(t)
	token := "Keyward-Token: " + w.token(anyToken) + "\r\n"
	for line, want := range map[string]string{
		"POST /sendgrid/v3/api_keys":                                          "secret_route",
		"POST /api.eu.sendgrid.com/v3/api%5Fkeys/":                            "secret_route",
		"PATCH /sendgrid/v3/user/webhooks/event/settings/signed/1":            "secret_route",
		"POST /deepgram/v1/projects/p/keys":                                   "secret_route",
		"POST /deepgram/v1/projects/p/self-hosted/distribution/credentials":   "secret_route",
		"POST /openai/v1/organization/admin_api_keys":                         "secret_route",
		"POST /openai/v1/organization/projects/p/service_accounts":            "secret_route",
		"POST /openai/v1/organization/projects/p/service_accounts/s/api_keys": "secret_route",
		"POST /stripe/v1/webhook_endpoints":                                   "secret_route",
		"POST /stripe/v1/ephemeral_keys":                                      "secret_route",
		"GET /stripe/v2/iam/api_keys":                                         "secret_route",
		"GET /sendgrid/v3/api_keys":                                           "",
		"POST /sendgrid/v3/mail/send":                                         "",
		"POST /deepgram/v1/auth/grant":                                        "", // tokens of half a minute, made for clients
		"POST /openai/v1/realtime/client_secrets":                             "",
		"POST /openai/v1/responses":                                           "",
		"POST /stripe/v1/payment_intents":                                     "",
		"GET /stripe/v1/webhook_endpoints":                                    "",
	} {
		resp := w.raw("tcp", line+" HTTP/1.1\r\n"+orgLine+token+"Content-Length: 2\r\n\r\n{}")
		if got := problemCode(resp); got != want {
			t.Errorf("%s: %d %q, want %q", line, resp.StatusCode, got, want)
		}
	}
}

// A WebSocket is authenticated in its head, whatever a browser's library would have put into the subprotocols.
func TestWebSocketsOfDeepgramAndOpenAI(t *testing.T) {
	w, peers := newStandins(t)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, c := range []struct {
		name, url string
		protocols []string
		want      string // that goes out, and that is agreed on
	}{
		{"deepgram", "ws://api.deepgram.com/v1/listen?model=nova-3", nil, ""},
		{"openai", "ws://api.openai.com/v1/realtime?model=gpt-realtime", nil, ""},
		{"openai", "ws://api.openai.com/v1/realtime?model=gpt-realtime", []string{"realtime", "openai-insecure-api-key.sk-smuggled"}, "realtime"},
		{"openai", "ws://us.api.openai.com/v1/responses", nil, ""},
	} {
		peers.Reset()
		conn, resp, err := websocket.Dial(ctx, c.url, &websocket.DialOptions{
			HTTPClient: w.client("unix"), HTTPHeader: http.Header{"Keyward-Org": {"acme"}, "Authorization": {"Bearer placeholder"}}, Subprotocols: c.protocols,
		})
		if err != nil {
			t.Fatalf("%s: %v", c.url, err)
		}
		if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != c.want {
			t.Errorf("%s: agreed on %q", c.url, got)
		}
		if err := conn.Write(ctx, websocket.MessageBinary, []byte("audio")); err != nil {
			t.Fatal(err)
		}
		if _, b, err := conn.Read(ctx); err != nil || string(b) != "audio" {
			t.Errorf("%s: %q, %v", c.url, b, err)
		}
		_ = conn.CloseNow()
		all := peers.Requests()
		if len(all) != 1 || all[0].Label != "acme" || strings.Contains(all[0].String(), "smuggled") || strings.Contains(all[0].String(), "placeholder") {
			t.Errorf("%s: the provider saw %v", c.url, all)
		}
	}
}

func TestSubprotocolsWithACredential(t *testing.T) {
	peer := newPeer(t, true)
	w := newWorld(t, peer.url)
	w.set("acme", "deepgram", `{"api_key":"dg"}`, 1)
	w.set("acme", "openai", `{"api_key":"sk-x"}`, 1)
	is := func(name, sent, want string) {
		t.Helper()
		w.raw("unix", fmt.Sprintf("GET /%s/v1/listen HTTP/1.1\r\n%sSec-WebSocket-Protocol: %s\r\n%s", name, orgLine, sent, upgradeHead))
		if got := headerOf(peer.last(), "Sec-WebSocket-Protocol"); got != want {
			t.Errorf("%s, %s: %q went out, want %q", name, sent, got, want)
		}
	}
	is("deepgram", "token, KEY", "")
	is("deepgram", "Bearer,KEY", "")
	is("deepgram", "other, token, KEY, last", "other, last")
	is("deepgram", "token, token", "")
	is("deepgram", "token", "")
	is("deepgram", "token, , KEY", "")                         // an empty item is none (RFC 9110, section 5.6.1.2)
	is("deepgram", "token\r\nSec-WebSocket-Protocol: KEY", "") // one list, on two lines (RFC 6455, section 11.3.4)
	is("deepgram", "other, token\r\nX-Other: a\r\nSec-WebSocket-Protocol: KEY, last", "other|last")
	is("deepgram", "token,\r\nSec-WebSocket-Protocol: , KEY", "")
	is("openai", "realtime\r\nSec-WebSocket-Protocol: openai-insecure-api-key.sk", "realtime")
	is("openai", "realtime, OpenAI-Insecure-API-Key.sk, openai-beta.realtime-v1", "realtime, openai-beta.realtime-v1")
	is("openai", "token, KEY", "token, KEY") // nothing that it reads
	is("elevenlabs", "convai", "convai")
}
