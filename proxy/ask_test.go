package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// secretOf opens the org's credential.
func (w *world) secretOf(org, name string) provider.Secret {
	w.t.Helper()
	row, _, err := w.rows.Credential(context.Background(), store.Ref{Org: org, Provider: name})
	if err != nil {
		w.t.Fatal(err)
	}
	s, _, err := credential.Open(w.keys, row, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func TestAskSendsTheCredentialAndLeavesNothingOfIt(t *testing.T) {
	up := newPeer(t, true)
	up.answer = func(int, string) string {
		return "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{\"a\r\n5\r\n\": 1}\r\n0\r\n\r\n"
	}
	w := newWorld(t, up.url)
	q := &provider.Question{
		Provider: &provider.Twilio, Method: "POST", Path: "/2010-04-01/Accounts/ACkeyward/Messages.json?PageSize=1", Type: "text/plain",
		Body: []byte("secret body"), Secret: w.secretOf("acme", "twilio"), Token: []byte("secret token"),
	}
	r, err := w.p.Ask(t.Context(), q)
	if err != nil || r.Status != 429 || r.RetryAfter != 7*time.Second || string(r.Body) != `{"a": 1}` {
		t.Fatalf("%d after %v: %s %v", r.Status, r.RetryAfter, r.Body, err)
	}
	want := "POST /2010-04-01/Accounts/" + acmeSID + "/Messages.json?PageSize=1 HTTP/1.1\r\nHost: api.twilio.com\r\nUser-Agent: keyward\r\n" +
		"Accept: application/json\r\nAccept-Encoding: identity\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n" +
		"Authorization: " + acmeBasic + "\r\n\r\nsecret body"
	if got := up.requests(); len(got) != 1 || got[0] != want {
		t.Errorf("sent\n%q, want\n%q", got, want)
	}
	if !isWiped(q.Secret) || bytes.Contains(q.Body, []byte("secret")) || bytes.Contains(q.Token, []byte("secret")) {
		t.Error("what was asked with is still in memory")
	}
}

func TestAskReachesNoOtherHost(t *testing.T) {
	up := newPeer(t, true)
	w := newWorld(t, up.url)
	for _, host := range []string{"api.vapi.ai", "evil.example", "127.0.0.1", "api.twilio.com:443", "API.TWILIO.COM"} {
		q := &provider.Question{Provider: &provider.Twilio, Host: host, Method: "GET", Path: "/", Secret: w.secretOf("acme", "twilio")}
		if _, err := w.p.Ask(t.Context(), q); !errors.Is(err, errNoQuestion) {
			t.Errorf("%s: %v", host, err)
		}
		if !isWiped(q.Secret) {
			t.Errorf("%s: the secret is still in memory", host)
		}
	}
	split := &provider.Question{Provider: &provider.Vapi, Method: "GET", Path: "/assistant/x HTTP/1.1\r\nHost: evil.example\r\n\r\n", Secret: w.secretOf("acme", "vapi")}
	if _, err := w.p.Ask(t.Context(), split); !errors.Is(err, errNoQuestion) {
		t.Errorf("a line break in the path: %v", err)
	}
	if got := up.requests(); len(got) != 0 {
		t.Errorf("sent %q", got)
	}
}

// A redirect is an answer: the credential goes nowhere else.
func TestAskFollowsNoRedirect(t *testing.T) {
	other, up := newPeer(t, true), newPeer(t, true)
	up.answer = func(int, string) string {
		return "HTTP/1.1 307 Temporary Redirect\r\nLocation: " + other.url + "/\r\nContent-Length: 0\r\n\r\n"
	}
	w := newWorld(t, up.url)
	r, err := w.p.Ask(t.Context(), &provider.Question{Provider: &provider.ElevenLabs, Method: "GET", Path: "/v1/user", Secret: w.secretOf("acme", "elevenlabs")})
	if err != nil || r.Status != 307 || len(other.requests()) != 0 {
		t.Errorf("%d %v, the other host was sent %q", r.Status, err, other.requests())
	}
}

func TestAskSaysWhyThereIsNoAnswer(t *testing.T) {
	says := func(what, code string, sent bool, answer string) {
		t.Helper()
		up := newPeer(t, true)
		up.handler = func(c net.Conn, _ *bufio.Reader, _ string) { _, _ = io.WriteString(c, answer) }
		w := newWorld(t, up.url)
		_, err := w.p.Ask(t.Context(), &provider.Question{Provider: &provider.Resend, Method: "GET", Path: "/domains", Secret: w.secretOf("acme", "resend")})
		var no *provider.NoAnswerError
		if !errors.As(err, &no) || no.Code != code || no.Sent != sent || !errors.Is(err, provider.ErrNoAnswer) {
			t.Errorf("%s: %+v", what, err)
		}
	}
	says("it closes the connection", "upstream_unreachable", true, "")
	says("it breaks off", "upstream_unreachable", true, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
	says("it speaks something else", "upstream_protocol", true, "SSH-2.0-OpenSSH_9.2\r\n\r\n")
	says("it never ends", "upstream_protocol", true, "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"+strings.Repeat("x", maxReply+1))

	w := newWorld(t, "http://127.0.0.1:1")
	_, err := w.p.Ask(t.Context(), &provider.Question{Provider: &provider.Resend, Method: "GET", Path: "/", Secret: w.secretOf("acme", "resend")})
	var no *provider.NoAnswerError
	if !errors.As(err, &no) || no.Code != "upstream_unreachable" || no.Sent {
		t.Errorf("nobody listens: %+v", err)
	}
	slow := newPeer(t, true)
	over := make(chan struct{})
	slow.answer = func(int, string) string { <-over; return okAnswer }
	defer close(over)
	w = newWorld(t, slow.url)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // a busy machine has sent it by then
	defer cancel()
	_, err = w.p.Ask(ctx, &provider.Question{Provider: &provider.Resend, Method: "GET", Path: "/", Secret: w.secretOf("acme", "resend")})
	if !errors.As(err, &no) || no.Code != "upstream_timeout" || !no.Sent {
		t.Errorf("it is slow: %+v", err)
	}
}

func TestRetryAfterReadsBothForms(t *testing.T) {
	in := func(want time.Duration, value string) {
		t.Helper()
		if got := retryAfter(value); got > want || got < want-2*time.Second {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
	in(0, "")
	in(0, "soon")
	in(0, "-5")
	in(12*time.Second, "12")
	in(time.Hour, "99999999999999999")
	in(time.Minute, time.Now().Add(time.Minute).UTC().Format(http.TimeFormat))
	in(0, "Mon, 02 Jan 2006 15:04:05 GMT")
}

// suspects collects what the hook is told.
type suspects struct {
	mu   sync.Mutex
	refs []store.Ref
}

func (s *suspects) hook(o *Options) {
	o.Suspect = func(row *store.Credential) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.refs = append(s.refs, row.Ref)
	}
}

func (s *suspects) all() []store.Ref { s.mu.Lock(); defer s.mu.Unlock(); return s.refs }

func TestOnlyA401MakesACredentialSuspect(t *testing.T) {
	status := "200 OK"
	up := newPeer(t, true)
	up.answer = func(int, string) string { return "HTTP/1.1 " + status + "\r\nContent-Length: 0\r\n\r\n" }
	var s suspects
	w := newWorld(t, up.url, s.hook)
	for _, status = range []string{"200 OK", "403 Forbidden", "429 Too Many Requests", "500 Internal Server Error"} {
		w.raw("unix", "GET /domains HTTP/1.1\r\nHost: api.resend.com\r\nKeyward-Org: acme\r\n\r\n")
	}
	if got := s.all(); len(got) != 0 {
		t.Errorf("suspects after no 401: %v", got)
	}
	status = "401 Unauthorized"
	if resp := w.raw("unix", "GET /domains HTTP/1.1\r\nHost: api.resend.com\r\nKeyward-Org: acme\r\n\r\n"); resp.StatusCode != 401 || problemCode(resp) != "" {
		t.Errorf("the caller got %d %s, want the provider's own 401", resp.StatusCode, problemCode(resp))
	}
	if got := s.all(); len(got) != 1 || got[0] != (store.Ref{Org: "acme", Provider: "resend"}) {
		t.Errorf("suspects after a 401: %v", got)
	}
}

func TestARejectedConsentIsSuspect(t *testing.T) {
	g := &google{}
	var s suspects
	w := newGoogle(t, g, s.hook)
	g.refresh = "another"
	if resp := w.raw("unix", calendar); problemCode(resp) != "credential_rejected" {
		t.Fatalf("%d %s", resp.StatusCode, problemCode(resp))
	}
	if got := s.all(); len(got) != 1 || got[0] != (store.Ref{Org: "acme", Provider: "google_calendar"}) {
		t.Errorf("suspects: %v", got)
	}
}

// Two sidecars trade the same refresh token; the second comes too late, and the new one is about to be stored by the first.
func TestARotationElsewhereIsWaitedFor(t *testing.T) {
	g := &google{}
	var s suspects
	w := newGoogle(t, g, s.hook)
	g.refresh = "refresh-acme-2"
	time.AfterFunc(150*time.Millisecond, func() {
		w.set("acme", "google_calendar", strings.Replace(credentialsOf["acme"]["google_calendar"], "refresh-acme-1", "refresh-acme-2", 1), 2)
	})
	if resp := w.raw("unix", calendar); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, problemCode(resp))
	}
	if got := s.all(); len(got) != 0 {
		t.Errorf("suspects: %v", got)
	}
}

// isWiped says whether nothing is left of a secret.
func isWiped(s provider.Secret) bool {
	return s.Field("auth_token") == nil && s.Field("api_key") == nil
}

// requests are what arrived, whole.
func (p *peer) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}
