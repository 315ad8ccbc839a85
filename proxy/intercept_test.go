package proxy

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/ca"
	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// An interceptor is a world in which CONNECT is answered.
type interceptor struct {
	*world
	leaves *ca.Leaves
	roots  *x509.CertPool
}

func newInterceptor(t testing.TB, to string, change ...func(*Options)) *interceptor {
	t.Helper()
	var hosts []string
	for _, v := range provider.All {
		hosts = append(hosts, v.Hosts...)
	}
	a, err := ca.Generate(hosts, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	i := &interceptor{leaves: ca.NewLeaves(a, nil), roots: x509.NewCertPool()}
	i.roots.AddCert(a.Root())
	i.world = newWorld(t, to, append([]func(*Options){func(o *Options) {
		o.Intercept = &Interception{Certificate: i.leaves.For, Passthrough: []string{"files.example:443", "*.cdn.example:8443"}}
	}}, change...)...)
	return i
}

func basic(user, password string) string {
	return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)) + "\r\n"
}

// connect sends CONNECT and returns its answer, and the connection behind it.
func (i *interceptor) connect(network, authority, headers string) (*http.Response, net.Conn) {
	i.t.Helper()
	c := i.dial(network)
	if _, err := io.WriteString(c, "CONNECT "+authority+" HTTP/1.1\r\nHost: "+authority+"\r\n"+headers+"\r\n"); err != nil {
		i.t.Fatal(err)
	}
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, &http.Request{Method: "CONNECT"})
	if err != nil {
		i.t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10)) // ReadResponse takes CONNECT's answers for tunnels only when they are 200
		resp.Body = io.NopCloser(strings.NewReader(string(b)))
	} else if br.Buffered() > 0 {
		i.t.Fatalf("bytes before TLS")
	}
	return resp, c
}

// tls begins TLS within CONNECT, as a client that trusts the CA.
func (i *interceptor) tls(c net.Conn, host string, change ...func(*tls.Config)) (*tls.Conn, error) {
	o := &tls.Config{RootCAs: i.roots, ServerName: host, NextProtos: []string{"h2", "http/1.1"}}
	for _, fn := range change {
		fn(o)
	}
	t := tls.Client(c, o)
	return t, t.Handshake()
}

// within is TLS to a host within CONNECT.
func (i *interceptor) within(network, host, headers string) *tls.Conn {
	i.t.Helper()
	resp, c := i.connect(network, host+":443", headers)
	if resp.StatusCode != 200 {
		i.t.Fatalf("CONNECT %s: %d %s", host, resp.StatusCode, bodyOf(resp))
	}
	t, err := i.tls(c, host)
	if err != nil {
		i.t.Fatal(err)
	}
	return t
}

// ask sends a request over a connection and reads its answer.
func ask(t testing.TB, c net.Conn, request string) *http.Response {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%v\nrequest:\n%s", err, request)
	}
	return resp
}

// TestAnUnchangedAppIsServedWithinConnect: the URL form of a proxy, over TCP, with keep-alive and the app's own idea of a credential.
func TestAnUnchangedAppIsServedWithinConnect(t *testing.T) {
	up := newPeer(t, true)
	i := newInterceptor(t, up.url)
	token := i.token(store.Token{ID: "t1", Name: "worker"})
	proxy := &url.URL{Scheme: "http", Host: i.tcp, User: url.UserPassword(token, "acme")}
	tr := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: i.roots}, ForceAttemptHTTP2: true}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	for range 3 {
		req, _ := http.NewRequest("POST", "https://api.twilio.com/2010-04-01/Accounts/ACkeyward/Messages.json", strings.NewReader("To=%2B1555&Body=hi"))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth("ACkeyward", "what-the-app-holds")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if b := bodyOf(resp); resp.StatusCode != 200 || b != "ok" || resp.ProtoMajor != 1 {
			t.Fatalf("%s: %s", resp.Status, b)
		}
		_ = resp.Body.Close()
	}
	got := up.last()
	if headerOf(got, "Authorization") != acmeBasic || headerOf(got, "Host") != "api.twilio.com" || headerOf(got, "Proxy-Authorization") != "" {
		t.Errorf("arrived:\n%s", got)
	}
	if !strings.HasPrefix(got, "POST /2010-04-01/Accounts/"+acmeSID+"/Messages.json ") || !strings.HasSuffix(got, "To=%2B1555&Body=hi&From=%2B15550009") {
		t.Errorf("arrived:\n%s", got)
	}
	if n := strings.Count(i.logs.String(), `"method":"CONNECT"`); n != 1 {
		t.Errorf("%d tunnels for three requests", n)
	}
	if logs := i.logs.String(); strings.Contains(logs, token) || !strings.Contains(logs, `"path":"api.twilio.com:443"`) {
		t.Errorf("log:\n%s", logs)
	}
	if n := i.p.Numbers().Connections; n != 1 {
		t.Errorf("%d connections are counted", n)
	}
}

// TestAPeerNeedsNoTokenForConnect: on the unix socket the kernel says who it is; the password is the org.
func TestAPeerNeedsNoTokenForConnect(t *testing.T) {
	up := newPeer(t, true)
	i := newInterceptor(t, up.url)
	for _, org := range []string{basic("x", "globex"), "Keyward-Org: globex\r\n"} {
		c := i.within("unix", "api.resend.com", org)
		if resp := ask(t, c, "GET /domains HTTP/1.1\r\nHost: api.resend.com\r\n\r\n"); resp.StatusCode != 200 {
			t.Fatalf("%s: %s", resp.Status, bodyOf(resp))
		}
		if a := headerOf(up.last(), "Authorization"); a != "Bearer re_globex_0123456789" {
			t.Errorf("%q", a)
		}
	}
	// Each request may name the org where CONNECT did not.
	c := i.within("unix", "api.resend.com", "")
	if resp := ask(t, c, "GET /domains HTTP/1.1\r\nHost: api.resend.com:443\r\nKeyward-Org: acme\r\n\r\n"); resp.StatusCode != 200 {
		t.Fatalf("%s: %s", resp.Status, bodyOf(resp))
	}
	if a := headerOf(up.last(), "Authorization"); a != "Bearer re_acme_0123456789" {
		t.Errorf("%q", a)
	}
	_, _ = c.Write([]byte("GET /domains HTTP/1.1\r\nHost: api.resend.com\r\n\r\n"))
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || problemCode(resp) != "org_required" {
		t.Errorf("no org at all: %v", err)
	}
}

func TestWhatConnectIsRefusedFor(t *testing.T) {
	i := newInterceptor(t, newPeer(t, true).url)
	token := i.token(store.Token{ID: "t1", Name: "worker", Orgs: []string{"acme"}, Providers: []string{"twilio", "google_calendar"}})
	stranger, _ := caller.NewToken()
	good := basic(token, "acme")
	for name, c := range map[string]struct {
		authority, headers string
		status             int
		code               string
	}{
		"unknown host":             {"evil.example:443", good, 403, "host_forbidden"},
		"host below a provider's":  {"x.api.twilio.com:443", good, 403, "host_forbidden"},
		"trailing dot":             {"api.twilio.com.:443", good, 403, "host_forbidden"},
		"IPv4":                     {"127.0.0.1:443", good, 403, "host_forbidden"},
		"IPv6":                     {"[::1]:443", good, 403, "host_forbidden"},
		"port 80":                  {"api.twilio.com:80", good, 403, "host_forbidden"},
		"port 0443":                {"api.twilio.com:0443", good, 403, "host_forbidden"},
		"no port":                  {"api.twilio.com", good, 400, "bad_request"},
		"no host":                  {":443", good, 400, "bad_request"},
		"userinfo":                 {"a@api.twilio.com:443", good, 400, "bad_request"},
		"a path":                   {"/api.twilio.com:443", good, 400, "bad_request"},
		"with a body":              {"api.twilio.com:443", good + "Content-Length: 2\r\n", 400, "bad_request"},
		"with a chunked body":      {"api.twilio.com:443", good + "Transfer-Encoding: chunked\r\n", 400, "bad_request"},
		"with an empty body":       {"api.twilio.com:443", good + "Content-Length: 0\r\n", 200, ""},
		"expecting to go on":       {"api.twilio.com:443", good + "Content-Length: 0\r\nExpect: 100-continue\r\n", 400, "bad_request"},
		"only Keyward's own":       {"oauth2.googleapis.com:443", good, 403, "host_forbidden"},
		"another provider":         {"api.resend.com:443", good, 403, "provider_forbidden"},
		"another org":              {"api.twilio.com:443", basic(token, "globex"), 403, "org_forbidden"},
		"no org id":                {"api.twilio.com:443", basic(token, "no org"), 400, "bad_request"},
		"two orgs":                 {"api.twilio.com:443", good + "Keyward-Org: globex\r\n", 400, "org_conflict"},
		"no token":                 {"api.twilio.com:443", "", 407, "caller_unauthenticated"},
		"an unknown token":         {"api.twilio.com:443", basic(stranger, "acme"), 401, "caller_unauthenticated"},
		"an unknown one beside":    {"api.twilio.com:443", good + "Authorization: Bearer " + stranger + "\r\n", 401, "caller_unauthenticated"},
		"a web page":               {"api.twilio.com:443", good + "Origin: https://evil.example\r\n", 403, "browser_request"},
		"passthrough, other port":  {"files.example:80", good, 403, "host_forbidden"},
		"passthrough, the domain":  {"cdn.example:8443", good, 403, "host_forbidden"},
		"passthrough without name": {".cdn.example:8443", good, 403, "host_forbidden"},
		"passthrough, no token":    {"files.example:443", "", 407, "caller_unauthenticated"},
	} {
		t.Run(name, func(t *testing.T) {
			body := ""
			if strings.Contains(c.headers, "Content-Length: 2") {
				body = "hi"
			}
			conn := i.dial("tcp")
			_, _ = io.WriteString(conn, "CONNECT "+c.authority+" HTTP/1.1\r\nHost: "+c.authority+"\r\n"+c.headers+"\r\n"+body)
			resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: "GET"})
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status || problemCode(resp) != c.code {
				t.Errorf("%d %s, want %d %s: %s", resp.StatusCode, problemCode(resp), c.status, c.code, bodyOf(resp))
			}
			if asks := resp.Header.Get("Proxy-Authenticate") != ""; asks != (c.status == 407) {
				t.Errorf("Proxy-Authenticate: %v", asks)
			}
		})
	}
}

func TestConnectIsRefusedWhereNothingIsIntercepted(t *testing.T) {
	w := newWorld(t, "")
	resp := w.raw("unix", "CONNECT api.twilio.com:443 HTTP/1.1\r\nHost: api.twilio.com:443\r\n\r\n")
	if resp.StatusCode != 403 || problemCode(resp) != "route_forbidden" {
		t.Errorf("%s", resp.Status)
	}
}

// TestThreeNamesAreOne: CONNECT, SNI and Host are the same, or nothing is sent.
func TestThreeNamesAreOne(t *testing.T) {
	up := newPeer(t, true)
	i := newInterceptor(t, up.url)
	blind := func(name string) func(*tls.Config) {
		return func(o *tls.Config) { o.InsecureSkipVerify, o.ServerName = true, name }
	}
	const host = "api.twilio.com"
	good := "GET /2010-04-01/Accounts/ACkeyward.json HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	for name, c := range map[string]struct {
		change  func(*tls.Config)
		request string
		status  int
		code    string
	}{
		"all the same":      {func(*tls.Config) {}, good, 200, ""},
		"in capitals":       {func(*tls.Config) {}, strings.Replace(good, host, "API.Twilio.com:443", 1), 200, ""},
		"SNI missing":       {blind(""), good, 421, "misdirected_request"},
		"SNI other":         {blind("api.resend.com"), good, 421, "misdirected_request"},
		"Host other":        {func(*tls.Config) {}, strings.Replace(good, host, "api.resend.com", 1), 421, "misdirected_request"},
		"Host loopback":     {func(*tls.Config) {}, strings.Replace(good, host, "localhost", 1), 421, "misdirected_request"},
		"Host, other port":  {func(*tls.Config) {}, strings.Replace(good, host, host+":80", 1), 421, "misdirected_request"},
		"no Host":           {func(*tls.Config) {}, "GET /x HTTP/1.0\r\n\r\n", 421, "misdirected_request"},
		"Keyward-Upstream":  {func(*tls.Config) {}, strings.Replace(good, "\r\n\r\n", "\r\nKeyward-Upstream: api.resend.com\r\n\r\n", 1), 421, "misdirected_request"},
		"absolute-form":     {func(*tls.Config) {}, strings.Replace(good, "GET /", "GET http://"+host+"/", 1), 400, "bad_request"},
		"absolute, https":   {func(*tls.Config) {}, strings.Replace(good, "GET /", "GET https://"+host+"/", 1), 400, "bad_request"},
		"CONNECT again":     {func(*tls.Config) {}, "CONNECT " + host + ":443 HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 403, "route_forbidden"},
		"another org":       {func(*tls.Config) {}, strings.Replace(good, "\r\n\r\n", "\r\nKeyward-Org: globex\r\n\r\n", 1), 400, "org_conflict"},
		"a provider's path": {func(*tls.Config) {}, "GET /resend/emails HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 200, ""},
		"an org's path":     {func(*tls.Config) {}, "GET /org/globex/resend/emails HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 200, ""},
		"a path like ours":  {func(*tls.Config) {}, "POST /keyward/mint/twilio-access-token HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 0\r\n\r\n", 200, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before, _ := up.count()
			_, conn := i.connect("unix", host+":443", basic("x", "acme"))
			tc, err := i.tls(conn, host, c.change)
			if err != nil {
				t.Fatal(err)
			}
			resp := ask(t, tc, c.request)
			if resp.StatusCode != c.status || problemCode(resp) != c.code {
				t.Errorf("%d %s, want %d %s: %s", resp.StatusCode, problemCode(resp), c.status, c.code, bodyOf(resp))
			}
			after, _ := up.count()
			if (after > before) != (c.status == 200) {
				t.Errorf("%d requests reached the provider", after-before)
			}
			if c.status == 200 && headerOf(up.last(), "Host") != host {
				t.Errorf("went to %s", headerOf(up.last(), "Host"))
			}
			if method, rest, _ := strings.Cut(c.request, " "); c.status == 200 && !strings.Contains(c.request, "ACkeyward") {
				path, _, _ := strings.Cut(rest, " ")
				if got := up.last(); !strings.HasPrefix(got, method+" "+path+" ") {
					t.Errorf("went out as %.80q", got)
				}
			}
		})
	}
}

// TestTLSThatIsRefusedIsExplained: the log says what is wrong with the client, and what mends it.
func TestTLSThatIsRefusedIsExplained(t *testing.T) {
	i := newInterceptor(t, newPeer(t, true).url)
	const host = "api.resend.com"
	for name, c := range map[string]struct {
		do   func(net.Conn) error
		says string
	}{
		"TLS 1.1": {func(c net.Conn) error {
			_, err := i.tls(c, host, func(o *tls.Config) { o.MinVersion, o.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 })
			return err
		}, "no TLS from version 1.2 on"},
		"an app that does not trust the CA": {func(c net.Conn) error {
			_, err := i.tls(c, host, func(o *tls.Config) { o.RootCAs = x509.NewCertPool() })
			return err
		}, "does not trust Keyward's CA: give it the variables of keyward ca env"},
		"the same in TLS 1.2": {func(c net.Conn) error {
			_, err := i.tls(c, host, func(o *tls.Config) { o.RootCAs, o.MaxVersion = x509.NewCertPool(), tls.VersionTLS12 })
			return err
		}, "does not trust Keyward's CA: give it the variables of keyward ca env"},
		"HTTP/2 alone": {func(c net.Conn) error {
			_, err := i.tls(c, host, func(o *tls.Config) { o.NextProtos = []string{"h2"} })
			return err
		}, "something else than HTTP/1.1"},
		"no TLS": {func(c net.Conn) error {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
			_, err := io.ReadAll(c)
			return errors.Join(err, io.EOF)
		}, "something else than TLS within CONNECT"},
		"nothing": {func(c net.Conn) error { return errors.Join(c.Close(), io.EOF) }, "the app left before TLS had begun"},
		"no request": {func(c net.Conn) error {
			_, err := i.tls(c, host)
			return errors.Join(err, c.Close(), io.EOF)
		}, "left without a request"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(i.logs.String())
			_, conn := i.connect("unix", host+":443", basic("x", "acme"))
			if err := c.do(conn); err == nil {
				t.Error("was not refused")
			}
			_ = conn.Close()
			waitFor(t, func() bool { return strings.Contains(i.logs.String()[before:], c.says) })
		})
	}
}

// TestWhatTLSOffersIsBoundedInTheLog: the protocols of an app that is refused for them are its own words, of any length, and explain nothing.
func TestWhatTLSOffersIsBoundedInTheLog(t *testing.T) {
	i := newInterceptor(t, newPeer(t, true).url)
	offered := []string{"expired certificate", "\"\n{\"level\":\"error\"}\x1b[2J\u202e"}
	for range 200 {
		offered = append(offered, strings.Repeat("\u00fc", 127))
	}
	_, conn := i.connect("unix", "api.resend.com:443", basic("x", "acme"))
	if _, err := i.tls(conn, "api.resend.com", func(o *tls.Config) { o.NextProtos = offered }); err == nil {
		t.Fatal("was not refused")
	}
	waitFor(t, func() bool { return strings.Contains(i.logs.String(), "have it offer http/1.1") })
	for _, line := range strings.Split(strings.TrimSpace(i.logs.String()), "\n") {
		var said struct{ Error string }
		if err := json.Unmarshal([]byte(line), &said); err != nil {
			t.Errorf("%v in %q", err, line)
		}
		if len(said.Error) > maxLoggedError || len(line) > 1024 || strings.ContainsAny(said.Error, "\n\x1b\u202e\ufffd") {
			t.Errorf("%d bytes, of which the error has %d: %.400s", len(line), len(said.Error), line)
		}
	}
}

// TestAHostThatTheCADoesNotCoverIsSaid: a CA that cannot vouch for the host is said before TLS, to the app and in the log.
func TestAHostThatTheCADoesNotCoverIsSaid(t *testing.T) {
	i := newInterceptor(t, "", func(o *Options) {
		o.Intercept.Certificate = func(string) (*tls.Certificate, error) { return nil, ca.ErrUncovered }
	})
	resp, _ := i.connect("unix", "api.resend.com:443", basic("x", "acme"))
	if resp.StatusCode != 503 || problemCode(resp) != "ca_unavailable" || !strings.Contains(i.logs.String(), "keyward ca rotate") {
		t.Errorf("%s\n%s", resp.Status, i.logs.String())
	}
}

// waitFor waits for a condition that comes about by itself.
func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("did not come about")
		}
	}
}
