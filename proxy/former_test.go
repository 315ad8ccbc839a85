package proxy

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// stage puts a credential in the place of the org's, with that beside it until then.
func (w *world) stage(org, name, text string, until time.Time) {
	w.t.Helper()
	w.rows.mu.Lock()
	old := w.rows.credentials[store.Ref{Org: org, Provider: name}]
	w.rows.mu.Unlock()
	w.set(org, name, text, old.Version+1)
	w.rows.mu.Lock()
	defer w.rows.mu.Unlock()
	next := w.rows.credentials[old.Ref]
	next.Previous = &store.Previous{Sealed: old.Sealed, KeyID: old.KeyID, SealedVersion: old.SealedVersion, Until: until}
}

// A keyed provider takes one key, and keeps what it was sent with which.
type keyed struct {
	mu   sync.Mutex
	good string   // Authorization
	got  []string // Authorization and body
}

func newKeyed(t *testing.T, good string) (*keyed, *world) {
	t.Helper()
	k := &keyed{good: good}
	up := newPeer(t, true)
	up.handler = func(c net.Conn, br *bufio.Reader, head string) {
		for {
			body, err := readBodyOf(br, head)
			if err != nil {
				return
			}
			auth := ""
			for line := range strings.SplitSeq(head, "\r\n") {
				if v, ok := strings.CutPrefix(line, "Authorization: "); ok {
					auth = v
				}
			}
			k.mu.Lock()
			k.got = append(k.got, auth+" "+body)
			answer := "HTTP/1.1 401 Unauthorized\r\nContent-Length: 5\r\n\r\nnever"
			if auth == k.good {
				answer = okAnswer
			}
			k.mu.Unlock()
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
			if head, err = readHead(br); err != nil {
				return
			}
		}
	}
	return k, newWorld(t, up.url)
}

func (k *keyed) seen() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.got...)
}

const (
	oldResend = "Bearer re_acme_0123456789"
	newResend = "Bearer re_acme_9876543210"
	nextText  = `{"api_key":"re_acme_9876543210"}`
)

func resendCall(method, body string, chunked bool) string {
	head := method + " /emails HTTP/1.1\r\nHost: api.resend.com\r\nKeyward-Org: acme\r\n"
	switch {
	case chunked:
		return head + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	case body != "":
		return head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body)
	}
	return head + "\r\n"
}

// Nobody's request fails while a key is being replaced: neither before the new one works at the provider, nor after the old one has ended.
func TestFormerCredentialIsUsedOnceAfterA401(t *testing.T) {
	passes := func(what, request, body string) {
		t.Helper()
		k, w := newKeyed(t, oldResend)
		w.stage("acme", "resend", nextText, time.Now().Add(time.Hour))
		if resp := w.raw("unix", request); resp.StatusCode != 200 || bodyOf(resp) != "ok" {
			t.Errorf("%s: %d", what, resp.StatusCode)
		}
		if got := k.seen(); len(got) != 2 || got[0] != newResend+" "+body || got[1] != oldResend+" "+body {
			t.Errorf("%s: the provider was sent %.200q", what, got)
		}
		k.mu.Lock()
		k.good, k.got = newResend, nil
		k.mu.Unlock()
		if resp := w.raw("unix", request); resp.StatusCode != 200 {
			t.Errorf("%s, with the new one: %d", what, resp.StatusCode)
		}
		if got := k.seen(); len(got) != 1 || got[0] != newResend+" "+body {
			t.Errorf("%s, with the new one: the provider was sent %.200q", what, got)
		}
	}
	long := strings.Repeat("x", 40<<10)
	passes("without a body", resendCall("GET", "", false), "")
	passes("a small body", resendCall("POST", "small", false), "small")
	passes("a body of 40 KiB", resendCall("POST", long, false), long)
	passes("a chunked body", resendCall("POST", long, true), long)
}

func TestFormerCredentialIsNotUsed(t *testing.T) {
	not := func(what string, sent int, request string, change func(k *keyed, w *world)) {
		t.Helper()
		k, w := newKeyed(t, oldResend)
		w.stage("acme", "resend", nextText, time.Now().Add(time.Hour))
		if change != nil {
			change(k, w)
		}
		resp := w.raw("unix", request)
		if resp.StatusCode != 401 || bodyOf(resp) != "never" || problemCode(resp) != "" {
			t.Errorf("%s: %d %s", what, resp.StatusCode, problemCode(resp))
		}
		if got := k.seen(); len(got) != sent {
			t.Errorf("%s: the provider was sent %d requests, want %d", what, len(got), sent)
		}
	}
	not("a body that has gone by", 1, resendCall("POST", strings.Repeat("x", 100<<10), false), nil)
	not("a long chunked body", 1, resendCall("POST", strings.Repeat("x", 100<<10), true), nil)
	not("neither is taken, and there is no third time", 2, resendCall("GET", "", false), func(k *keyed, _ *world) { k.good = "another" })
	not("its time is over", 1, resendCall("GET", "", false), func(_ *keyed, w *world) {
		w.set("acme", "resend", credentialsOf["acme"]["resend"], 1)
		w.stage("acme", "resend", nextText, time.Now().Add(-time.Second))
	})
	not("it was promoted", 1, resendCall("GET", "", false), func(_ *keyed, w *world) { w.set("acme", "resend", nextText, 3) })
}

// Another answer than 401 is the answer.
func TestOnlyA401FallsBack(t *testing.T) {
	up := newPeer(t, true)
	status := ""
	up.answer = func(int, string) string { return "HTTP/1.1 " + status + "\r\nContent-Length: 0\r\n\r\n" }
	w := newWorld(t, up.url)
	w.stage("acme", "resend", nextText, time.Now().Add(time.Hour))
	for i, s := range []string{"200 OK", "403 Forbidden", "404 Not Found", "429 Too Many Requests", "500 Internal Server Error"} {
		status = s
		w.raw("unix", resendCall("POST", "x", false))
		if n, _ := up.count(); n != i+1 {
			t.Errorf("after %s there were %d requests", s, n)
		}
	}
}

// The path and the defaults are those of the account that is used.
func TestFormerCredentialBringsItsAccountAndSender(t *testing.T) {
	const nextSID = "AC44444444444444444444444444444444"
	const next = `{"account_sid":"` + nextSID + `","auth_token":"0000000000000000000000000000next","from_number":"+15557777"}`
	k, w := newKeyed(t, acmeBasic)
	w.stage("acme", "twilio", next, time.Now().Add(time.Hour))
	resp := w.raw("unix", "POST /2010-04-01/Accounts/ACkeyward/Messages.json HTTP/1.1\r\nHost: api.twilio.com\r\nKeyward-Org: acme\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 15\r\n\r\nTo=1&Body=hello")
	nextBasic := "Basic " + base64.StdEncoding.EncodeToString([]byte(nextSID+":0000000000000000000000000000next"))
	want := []string{nextBasic + " To=1&Body=hello&From=%2B15557777", acmeBasic + " To=1&Body=hello&From=%2B15550009"}
	if got := k.seen(); resp.StatusCode != 200 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%d, sent %q, want %q", resp.StatusCode, got, want)
	}
	// A path that names the new account cannot be asked with the former's credential: the new one's 401 is the answer.
	resp = w.raw("unix", "GET /2010-04-01/Accounts/"+nextSID+"/Messages.json HTTP/1.1\r\nHost: api.twilio.com\r\nKeyward-Org: acme\r\n\r\n")
	if resp.StatusCode != 401 || problemCode(resp) != "" {
		t.Errorf("%d %s", resp.StatusCode, problemCode(resp))
	}
}

// The former one is overwritten in answers like any other injected value.
func TestFormerCredentialDoesNotComeBack(t *testing.T) {
	up := newPeer(t, true)
	up.answer = func(_ int, request string) string {
		if strings.Contains(request, newResend) {
			return "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
		}
		const echo = "you sent re_acme_0123456789"
		return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(echo), echo)
	}
	w := newWorld(t, up.url)
	w.stage("acme", "resend", nextText, time.Now().Add(time.Hour))
	if got := bodyOf(w.raw("unix", resendCall("GET", "", false))); got != "you sent "+strings.Repeat("*", len("re_acme_0123456789")) {
		t.Errorf("got %q", got)
	}
}

func TestARefusedNewCredentialIsSuspect(t *testing.T) {
	var s suspects
	up := newPeer(t, true)
	up.answer = func(_ int, request string) string {
		if strings.Contains(request, newResend) {
			return "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
		}
		return okAnswer
	}
	w := newWorld(t, up.url, s.hook)
	w.stage("acme", "resend", nextText, time.Now().Add(time.Hour))
	w.raw("unix", resendCall("GET", "", false))
	if got := s.all(); len(got) != 1 || got[0].Provider != provider.Resend.Name {
		t.Errorf("%v", got)
	}
}
