package torture

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// mine begins every credential that a caller sends by itself; none may be seen by a provider, in any form.
const mine = "m1ne-credential-"

// ofProvider says where a request goes by default, and how the org's credential must look there.
type ofProvider struct {
	name, segment, host string
	header              string
	value               func(org string, r *rawRequest) string
	params              []string // where in the query a credential may stand
	paths               []string
}

func sidOf(org string) string { return "AC" + fmt.Sprintf("%032x", hashOf(org)) }

func hashOf(s string) (h uint64) {
	for _, c := range []byte(s) {
		h = h*1099511628211 + uint64(c) + 1
	}
	return h
}

var everyProvider = []*ofProvider{
	{
		name: "twilio", segment: "twilio", host: "api.twilio.com", header: "Authorization",
		value: func(org string, _ *rawRequest) string {
			return "Basic " + base64.StdEncoding.EncodeToString([]byte(sidOf(org)+":"+secretOf(org, "twilio")))
		},
		paths: []string{"/2010-04-01/Accounts/ACkeyward/Calls.json", "/2010-04-01/Accounts/AC00000000000000000000000000000000/Calls.json", "/2010-04-01/Accounts/SID/Calls.json"},
	},
	{
		name: "vapi", segment: "vapi", host: "api.vapi.ai", header: "Authorization",
		value: func(org string, r *rawRequest) string {
			if r.method == "POST" && strings.HasPrefix(r.path, "/call/web") {
				return "Bearer " + secretOf(org, "vapi-public")
			}
			return "Bearer " + secretOf(org, "vapi")
		},
		paths: []string{"/call", "/call/web", "/assistant/asst_1"},
	},
	{
		name: "resend", segment: "resend", host: "api.resend.com", header: "Authorization",
		value: func(org string, _ *rawRequest) string { return "Bearer " + secretOf(org, "resend") },
		paths: []string{"/emails", "/domains"},
	},
	{
		name: "elevenlabs", segment: "elevenlabs", host: "api.elevenlabs.io", header: "Xi-Api-Key",
		value:  func(org string, _ *rawRequest) string { return secretOf(org, "elevenlabs") },
		params: []string{"authorization", "xi-api-key", "xi_api_key"},
		paths:  []string{"/v1/voices", "/v1/text-to-speech/x/stream"},
	},
	{
		name: "google_calendar", segment: "google-calendar", host: "www.googleapis.com", header: "Authorization",
		value:  func(org string, _ *rawRequest) string { return "Bearer " + secretOf(org, "google-access") },
		params: []string{"key", "oauth_token", "access_token", "bearer_token", "$key", "$access_token"},
		paths:  []string{"/calendar/v3/calendars/primary/events"},
	},
}

func (p *ofProvider) fields(org string) map[string]any {
	switch p.name {
	case "twilio":
		return map[string]any{"account_sid": sidOf(org), "auth_token": secretOf(org, "twilio")}
	case "vapi":
		return map[string]any{"api_key": secretOf(org, "vapi"), "public_key": secretOf(org, "vapi-public")}
	case "google_calendar":
		return map[string]any{"client_id": "id", "client_secret": "secret", "refresh_token": "refresh." + org}
	}
	return map[string]any{"api_key": secretOf(org, p.name)}
}

// A generated request, and what must become of it.
type generated struct {
	raw, method string
	id          string // "provider org number", which the provider sees
	refused     string // why it must be refused; empty: it must be forwarded
}

// A generator makes requests with a caller's own credentials in every place that a provider would read one from.
type generator struct {
	*rand.Rand
	orgs  int
	token string // of the caller; it must not be seen by a provider either
	n     int
}

func (g *generator) one(of ...string) string { return of[g.IntN(len(of))] }
func (g *generator) often(percent int) bool  { return g.IntN(100) < percent }

// cased is a name in random case.
func (g *generator) cased(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'a' && c <= 'z' && g.often(30) || c >= 'A' && c <= 'Z' && g.often(30) {
			b[i] = c ^ 0x20
		}
	}
	return string(b)
}

// encoded is a text with some of its bytes percent-encoded.
func (g *generator) encoded(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if g.often(30) {
			fmt.Fprintf(&b, g.one("%%%02x", "%%%02X"), c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// secret is a credential of the caller's own, in one of the forms that schemes have.
func (g *generator) secret() string {
	s := fmt.Sprintf("%s%08x", mine, g.Uint32())
	switch g.IntN(6) {
	case 0:
		return "Bearer " + s
	case 1:
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(g.one("", "u", "us")+":"+s))
	case 2:
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(s+":"))
	case 3:
		return g.cased("bearer") + " " + s
	case 4:
		return "Token " + s
	}
	return s
}

const aTrailer = "a trailer"

var credentialHeaders = []string{"Authorization", "Proxy-Authorization", "Xi-Api-Key", "X-Api-Key", "X-Goog-Api-Key", "Cookie"}

// next makes one request for the network that it will be sent over.
func (g *generator) next(network string) generated {
	g.n++
	p := everyProvider[g.IntN(len(everyProvider))]
	org := fmt.Sprintf("org%d", g.IntN(g.orgs))
	x := generated{method: g.one("GET", "POST", "POST", "DELETE", "PATCH"), id: fmt.Sprintf("%s %s %d", p.name, org, g.n)}
	path := strings.Replace(g.one(p.paths...), "SID", sidOf(org), 1)
	if p.name == "twilio" && g.often(3) {
		path = "/2010-04-01/Accounts/" + sidOf("another") + "/Calls.json"
		x.refused = "another account"
	}
	path += g.query(p)

	lines := []string{}
	line := func(name, value string) { lines = append(lines, g.cased(name)+":"+g.one(" ", "", "  ", "\t")+value) }
	host := p.host
	named := g.IntN(6)
	switch named {
	case 0:
		host, path = "localhost", "/"+p.segment+path
	case 1:
		host, path = "localhost", "/"+p.host+path
	case 2:
		path = "http://" + g.one("", "user:"+mine+"1@", mine+"@", "a@b:"+mine+"@") + p.host + path
	case 3:
		host = "localhost"
		line("Keyward-Upstream", p.host)
	case 4:
		host, path = "localhost", "/org/"+org+"/"+p.segment+path
	}
	if named != 4 || g.often(30) {
		line("Keyward-Org", org)
	}
	used := map[string]int{}
	if network == "tcp" {
		where := g.one("Keyward-Token", "Proxy-Authorization", "Authorization", "Xi-Api-Key")
		used[where]++
		switch where {
		case "Proxy-Authorization", "Authorization":
			line(where, g.one("Bearer "+g.token, "Basic "+base64.StdEncoding.EncodeToString([]byte("x:"+g.token)), "Basic "+base64.StdEncoding.EncodeToString([]byte(g.token+":"))))
		default:
			line(where, g.token)
		}
	}
	for range g.IntN(4) {
		name := g.one(credentialHeaders...)
		if used[name] > 0 && !g.often(10) {
			continue
		}
		used[name]++
		if used[name] > 1 && name != "Cookie" && name != "X-Api-Key" {
			x.refused = "a credential twice"
		}
		line(name, g.secret())
	}
	if g.often(2) {
		line(g.one("xi_api_key", "X_Api_Key", "Keyward_Org", "Proxy_Authorization", "x_goog_api_key"), g.secret())
		x.refused = "an underscore"
	}
	if g.often(20) {
		listed := make([]string, 1+g.IntN(3))
		for i := range listed {
			listed[i] = g.cased(g.one(append(credentialHeaders, "Host", "Content-Length", "Keyward-Org", "X-Nothing", "keep-alive")...))
		}
		line("Connection", strings.Join(listed, g.one(",", ", ", " , ")))
	}
	line("X-Id", x.id)
	body := ""
	if x.method != "GET" && g.often(80) {
		body = "body of " + x.id
		if g.often(30) {
			line("Transfer-Encoding", "chunked")
			cut := g.IntN(len(body)-1) + 1
			end := "0\r\n\r\n"
			if g.often(10) {
				end = "0\r\n" + g.cased(g.one(credentialHeaders...)) + ": " + g.secret() + "\r\n\r\n"
				x.refused = aTrailer
			}
			body = fmt.Sprintf("%x\r\n%s\r\n%x\r\n%s\r\n%s", cut, body[:cut], len(body)-cut, body[cut:], end)
		} else {
			line("Content-Length", fmt.Sprint(len(body)))
		}
	}
	g.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	x.raw = x.method + " " + path + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n" + body
	return x
}

// query puts credentials among harmless parameters.
func (g *generator) query(p *ofProvider) string {
	var parts []string
	for range g.IntN(3) {
		parts = append(parts, g.one("a=b", "page=2", "empty=", "flag", "x=%26%3d"))
	}
	if len(p.params) > 0 {
		for range g.IntN(3) {
			name := g.one(p.params...)
			if g.often(40) {
				name = g.encoded(name)
			}
			parts = append(parts, name+"="+g.one(mine+"q", g.encoded(mine+"q"), "Bearer%20"+mine+"q"))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	g.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	return "?" + strings.Join(parts, "&")
}

// forms are the ways in which a text can show: as it is, and within base64 at each of the three offsets.
func forms(text string) []string {
	all := []string{text}
	for offset := range 3 {
		padded := strings.Repeat("\x00", offset) + text
		e := base64.StdEncoding.EncodeToString([]byte(padded))
		all = append(all, e[(offset*8+5)/6:len(padded)*8/6])
	}
	return all
}

func TestNoCredentialOfTheCallersReachesAProvider(t *testing.T) {
	orgs, n := 40, many(10_000, 1_000_000)
	if long {
		orgs = 200
	}
	var token string
	var leaks, wrong, forwarded, refusals atomic.Int64
	var foreign [][]string
	judge := func(r *rawRequest) string {
		raw := string(r.head) + string(r.body)
		decoded, _ := url.PathUnescape(r.path)
		for _, f := range foreign {
			for _, form := range f {
				if strings.Contains(raw, form) || strings.Contains(decoded, form) {
					leaks.Add(1)
					return "the caller's own credential reached the provider"
				}
			}
		}
		id := strings.Fields(r.first("X-Id"))
		if len(id) != 3 {
			return "no id"
		}
		var p *ofProvider
		for _, q := range everyProvider {
			if q.name == id[0] {
				p = q
			}
		}
		ours := 0
		for i, name := range r.names {
			switch {
			case strings.EqualFold(name, p.header) && r.values[i] == p.value(id[1], r):
				ours++
			case len(name) > 7 && strings.EqualFold(name[:8], "Keyward-"):
				return name + " reached the provider"
			default:
				for _, c := range credentialHeaders {
					if strings.EqualFold(name, c) {
						return name + " reached the provider, and is not the org's"
					}
				}
			}
		}
		if strings.Count(raw, "ours.") > 1 || ours != 1 {
			return fmt.Sprintf("%d credentials of the org, want 1", ours)
		}
		if r.first("Host") != p.host {
			return "Host is " + r.first("Host")
		}
		if len(r.body) > 0 && string(r.body) != "body of "+r.first("X-Id") {
			return "another body"
		}
		if p.name == "twilio" && !strings.Contains(r.path, "/Accounts/"+sidOf(id[1])+"/") {
			return "another account"
		}
		return ""
	}
	u := newRawUpstream(t, func(c *upstreamSide, r *rawRequest) {
		if r.first("Host") == "oauth2.googleapis.com" {
			form, _ := url.ParseQuery(string(r.body))
			org := strings.TrimPrefix(form.Get("refresh_token"), "refresh.")
			c.send(plainAnswer(`{"access_token":"` + secretOf(org, "google-access") + `","expires_in":3600,"token_type":"Bearer"}`))
			return
		}
		forwarded.Add(1)
		verdict := judge(r)
		if verdict == "" {
			verdict = "seen " + r.first("X-Id")
		} else {
			verdict = "WRONG: " + verdict + ": " + strings.ReplaceAll(string(r.head), "\r\n", " | ")
		}
		c.send(plainAnswer(verdict))
	})
	upstreams := map[string]string{"oauth2.googleapis.com": u.address}
	for _, p := range everyProvider {
		upstreams[p.host] = u.address
	}
	s := startSidecar(t, upstreams)
	for i := range orgs {
		for _, p := range everyProvider {
			org := fmt.Sprintf("org%d", i)
			s.put(org, p.name, p.fields(org))
		}
	}
	token = s.token()
	foreign = [][]string{forms(mine), forms(token)}

	var group sync.WaitGroup
	const workers = 8
	for w := range workers {
		network := []string{"unix", "unix", "tcp"}[w%3]
		group.Add(1)
		go func() {
			defer group.Done()
			g := &generator{Rand: rand.New(rand.NewPCG(*seed, uint64(w))), orgs: orgs, token: token}
			k := &keptConn{s: s, network: network}
			defer k.close()
			for range n / workers {
				x := g.next(network)
				got := k.do(x.method, x.raw)
				ok := got.err == nil && got.status == 200 && got.body == "seen "+x.id
				if x.refused != "" {
					ok = got.err == nil && got.ours() && (got.status == 400 || got.status == 403)
					refusals.Add(1)
				}
				if x.refused == aTrailer {
					k.close() // a request that was refused for something else first is answered before its trailer is found
				}
				if !ok && wrong.Add(1) <= 20 {
					t.Errorf("(%s, must be refused for %q) got %v\n\tsent %q", network, x.refused, got, x.raw)
				}
			}
		}()
	}
	group.Wait()
	s.mustLive()
	row(t, "generated requests: 0 of the caller's credentials at a provider, exactly 1 of the right org's", "%d requests, %d forwarded, %d had to be refused: %d leaks, %d otherwise wrong",
		n/workers*workers, forwarded.Load(), refusals.Load(), leaks.Load(), wrong.Load())
}
