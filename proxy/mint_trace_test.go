package proxy

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Nothing of a token, of what signs it, or of whose it is, is in a log or an audit row, whether it was minted or refused; and nothing of it
// has gone to the provider.
func TestMintedTokensLeaveNoTrace(t *testing.T) {
	to := newPeer(t, false)
	m := newMintWorld(t, to.url)
	var calls []*call
	fresh := m.p.calls.New
	m.p.calls.New = func() any {
		c := fresh().(*call)
		calls = append(calls, c) // requests come one after the other
		return c
	}
	looked := 0
	m.while = func() { // the key is gone as soon as it has signed
		for _, c := range calls {
			if cap(c.plain) == 0 {
				continue
			}
			looked++
			for _, b := range [][]byte{c.plain[:cap(c.plain)], c.value[:cap(c.value)], c.spare[:cap(c.spare)], c.out[:cap(c.out)]} {
				if strings.Contains(string(b), mintKeySecret) || strings.Contains(string(b), "vapi-private-acme-0001") {
					t.Error("a key stays in a call's memory")
				}
			}
		}
	}
	var tokens []string
	for i := range 20 {
		r := m.order("unix", mintTwilio, fmt.Sprintf(`{"identity":"alice-%d","grants":{"video":{}}}`, i), "Keyward-Org: acme\r\n")
		tokens = append(tokens, m.read(r, mintKeySecret).Token)
		tokens = append(tokens, m.read(m.order("unix", mintVapi, "", "Keyward-Org: acme\r\n"), "vapi-private-acme-0001").Token)
	}
	m.mu.Lock()
	m.broken = errors.New("no store")
	m.mu.Unlock()
	m.refused("not recorded", m.order("unix", mintTwilio, aliceVideo, "Keyward-Org: acme\r\n"), 503, "store_unavailable", "")
	m.refused("malformed", m.order("unix", mintTwilio, `{"identity":"alice","grants":{"video":{"room":7}}}`, "Keyward-Org: acme\r\n"), 400, "bad_request", "")
	written := m.logs.String() + fmt.Sprintf("%+v", m.events)
	if strings.Count(written, mintTwilio) < 22 {
		t.Fatalf("the log says nothing of it:\n%s", written)
	}
	for _, token := range tokens {
		for _, part := range strings.Split(token, ".")[1:] {
			if strings.Contains(written, part) {
				t.Fatal("a token is written down")
			}
		}
	}
	for _, secret := range []string{mintKeySecret, "vapi-private-acme-0001", "alice", "lobby", base64.StdEncoding.EncodeToString([]byte(mintKeySecret))} {
		if strings.Contains(written, secret) {
			t.Errorf("%s is written down", secret)
		}
	}
	if n, _ := to.count(); n != 0 {
		t.Errorf("%d requests went to a provider", n)
	}
	if looked < 40 {
		t.Errorf("looked at %d calls", looked)
	}
}

// Twilio's tokens for its own TURN servers are short-lived and made by Twilio: they pass as they are.
func TestTwilioICETokensPass(t *testing.T) {
	const answer = `{"username":"dc2d2894d5a9023620c467b0e71cfa6a","password":"D2bvGjRaC9oVc","ttl":"86400","ice_servers":[{"url":"turn:global.turn.twilio.com","username":"u","credential":"p"}]}`
	to := newPeer(t, false)
	to.answer = func(int, string) string {
		return fmt.Sprintf("HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
	}
	m := newMintWorld(t, to.url)
	r := m.order("unix", "/twilio/2010-04-01/Accounts/ACkeyward/Tokens.json", "Ttl=60", "Keyward-Org: acme\r\nContent-Type: application/x-www-form-urlencoded\r\n")
	if text := bodyOf(r); r.StatusCode != 201 || text != answer {
		t.Errorf("%d %s", r.StatusCode, text)
	}
	if got := requestLine(to.last()); got != "POST /2010-04-01/Accounts/"+acmeSID+"/Tokens.json HTTP/1.1" {
		t.Error(got)
	}
}
