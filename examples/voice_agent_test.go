package examples

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestVoiceAgent(t *testing.T) {
	if !nodeInstalled(t) {
		t.Skip("KEYWARD_TEST_NO_NODE=1: the voice agent is not tested")
	}
	for _, transport := range []string{"unix", "tcp"} {
		t.Run("over "+transport, func(t *testing.T) {
			v := newVoiceAgent(t, transport)
			for _, s := range schemes {
				secrets := v.setUp(t, s)
				t.Run(s.name+": a tool call becomes an SMS", func(t *testing.T) { v.toolCallBecomesSMS(t, s, secrets) })
				t.Run(s.name+": forged", func(t *testing.T) { v.forgedReachesNobody(t, s, secrets) })
				t.Run(s.name+": two orgs at once", func(t *testing.T) { v.orgsAreNotMixed(t, s, secrets) })
			}
			s, secrets := schemes[2], v.setUp(t, schemes[2])
			t.Run("who answers a call", func(t *testing.T) { v.assistantIsChosen(t, s, secrets) })
			if transport == "tcp" {
				t.Run("not through Keyward", v.directIsRefused)
			}
			t.Run("a report", func(t *testing.T) { v.reportArrivesOnce(t, s, secrets) })
			v.logHoldsNoSecret(t)
			v.backendHoldsNoSecret(t)
		})
	}
}

func (v *voiceAgent) toolCallBecomesSMS(t *testing.T, s scheme, secrets map[string]string) {
	for _, org := range orgs {
		v.peers.Reset()
		id := "toolu_" + s.name
		body := v.message(org, s.name+"-"+org, "tool-calls", toolCall(id, "A table for two at eight. Ciào!"))
		signed := http.Header{}
		s.sign(signed, secrets[org], body)
		sign := func(h http.Header) { maps.Copy(h, signed) }
		status, header, answer := v.post(t, body, sign)
		requests := v.peers.Requests()
		v.compare(t, "node-voice-agent", org, requests)
		if len(requests) != 1 || requests[0].Label != org {
			t.Fatalf("%d requests at the providers, answer %d %s, backend:\n%s", len(requests), status, answer, v.said.String())
		}
		v.onlyOne(t, org, requests[0])
		var got struct {
			Results []struct{ ToolCallID, Name, Result string }
		}
		if err := json.Unmarshal(answer, &got); err != nil || len(got.Results) != 1 {
			t.Fatalf("the answer is %d %s", status, answer)
		}
		want := fmt.Sprintf(`{"results":[{"toolCallId":%q,"name":"sendConfirmation","result":%q}]}`, id, got.Results[0].Result)
		if status != http.StatusOK || header.Get("Content-Type") != "application/json" || string(answer) != want || !strings.HasPrefix(got.Results[0].Result, "sent SM") {
			t.Errorf("the answer is %d %s %s, want %s", status, header.Get("Content-Type"), answer, want)
		}
		if !strings.Contains(v.said.String(), "tool-calls "+org+" "+v.assistants[org]+" -\n") {
			t.Errorf("the backend was not told %s and its assistant:\n%s", org, v.said.String())
		}
		if status, header, _ := v.post(t, body, sign); status != http.StatusConflict || header.Get("Keyward-Error") != "replayed" || len(v.sent(org)) != 1 {
			t.Errorf("sent again it is answered %d %s, and %d messages are sent", status, header.Get("Keyward-Error"), len(v.sent(org)))
		}
	}
}

func (v *voiceAgent) forgedReachesNobody(t *testing.T, s scheme, secrets map[string]string) {
	v.peers.Reset()
	heard := v.heard()
	mine := v.message(orgs[0], "forged", "tool-calls", toolCall("t", "forged"))
	own, other := secrets[orgs[0]], secrets[orgs[1]]
	unknown := bytes.ReplaceAll(bytes.ReplaceAll(mine, []byte(`"orgId"`), []byte(`"org"`)), []byte(v.assistants[orgs[0]]), []byte("nobody"))
	foreign := bytes.ReplaceAll(mine, []byte(v.assistants[orgs[0]]), []byte(v.assistants[orgs[1]]))
	type forgery struct {
		secret       string // none: it is not signed at all
		signed, sent []byte
		more         bool // the proof stands twice
	}
	forgeries := map[string]forgery{
		"not signed":                 {"", mine, mine, false},
		"with another secret":        {own + "x", mine, mine, false},
		"with the other org's":       {other, mine, mine, false},
		"signed twice":               {own, mine, mine, true},
		"of an org that is not here": {own, unknown, unknown, false},
		"with the other's assistant": {own, foreign, foreign, false},
	}
	if s.name == "hmac" {
		forgeries["for another number"] = forgery{own, mine, bytes.Replace(mine, []byte("+15550003"), []byte("+15550666"), 1), false}
	}
	for name, f := range forgeries {
		status, header, answer := v.post(t, f.sent, func(h http.Header) {
			if f.secret != "" {
				s.sign(h, f.secret, f.signed)
			}
			if f.more {
				for _, name := range []string{"X-Vapi-Secret", "Authorization", "X-Signature"} {
					h.Add(name, "x")
				}
			}
		})
		if status != http.StatusUnauthorized || header.Get("Keyward-Error") != "webhook_unverified" {
			t.Errorf("%s: %d %s", name, status, answer)
		}
	}
	if n := v.heard() - heard; n != 0 || len(v.peers.Requests()) != 0 {
		t.Errorf("%d messages reached the backend, and %d requests the providers:\n%s", n, len(v.peers.Requests()), v.said.String())
	}
}

func (v *voiceAgent) orgsAreNotMixed(t *testing.T, s scheme, secrets map[string]string) {
	const calls = 20
	v.peers.Reset()
	var done sync.WaitGroup
	for i := range calls {
		for _, org := range orgs {
			done.Go(func() {
				id := fmt.Sprintf("%s-%s-%d", s.name, org, i)
				body := v.message(org, id, "tool-calls", toolCall(id, "for-"+org))
				status, _, answer := v.post(t, body, func(h http.Header) { s.sign(h, secrets[org], body) })
				if status != http.StatusOK || !bytes.Contains(answer, []byte(quoted(id))) {
					t.Errorf("%s: %d %s", id, status, answer)
				}
			})
		}
	}
	done.Wait()
	for i, org := range orgs {
		sent := v.sent(org)
		own := v.secrets(org)["from_number"]
		for _, form := range sent {
			if !strings.Contains(form, "for-"+org) || strings.Contains(form, "for-"+orgs[1-i]) || !strings.Contains(form, own) {
				t.Errorf("%s sent %s", org, form)
			}
		}
		if len(sent) != calls {
			t.Errorf("%d messages of %s, want %d", len(sent), org, calls)
		}
	}
}

// directIsRefused talks to the backend itself, as Vapi's messages would come if its port were open by mistake.
func (v *voiceAgent) directIsRefused(t *testing.T) {
	v.peers.Reset()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, v.target, bytes.NewReader(v.message(orgs[0], "direct", "tool-calls", toolCall("t", "x"))))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Keyward-Org", orgs[0])
	if status, _, _ := do(t, req); status != http.StatusForbidden || len(v.peers.Requests()) != 0 {
		t.Errorf("answered %d, %d requests at the providers", status, len(v.peers.Requests()))
	}
}

func (v *voiceAgent) assistantIsChosen(t *testing.T, s scheme, secrets map[string]string) {
	for _, org := range orgs {
		body := v.message(org, "ringing-"+org, "assistant-request", "")
		status, _, answer := v.post(t, body, func(h http.Header) { s.sign(h, secrets[org], body) })
		if want := fmt.Sprintf(`{"assistantId":%q}`, v.assistants[org]); status != http.StatusOK || string(answer) != want {
			t.Errorf("%s: %d %s, want %s", org, status, answer, want)
		}
	}
}

// reportArrivesOnce sends the report while the backend is down, and has it delivered twice when it is up again.
func (v *voiceAgent) reportArrivesOnce(t *testing.T, s scheme, secrets map[string]string) {
	v.stopApp(t)
	for _, org := range orgs {
		body := v.message(org, "call-"+org, "end-of-call-report", `"endedReason":"customer-ended-call","cost":0.1,"analysis":{},`)
		if status, _, answer := v.post(t, body, func(h http.Header) { s.sign(h, secrets[org], body) }); status != http.StatusOK {
			t.Fatalf("%s: %d %s", org, status, answer)
		}
	}
	v.startApp(t)
	var listed struct {
		Items []struct{ ID, Org, State string }
	}
	waitFor(t, "the reports to be delivered", func() bool {
		if err := json.Unmarshal([]byte(v.keyward(t, "", "webhooks", "list", "--run-dir", v.run, "--json")), &listed); err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(listed.Items, func(d struct{ ID, Org, State string }) bool { return d.State != "delivered" })
	})
	want := map[string]string{}
	for _, d := range listed.Items {
		file := filepath.Join(v.reports, d.ID+".json")
		first, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		want[d.ID+".json"] = fmt.Sprintf(`{"org":%q,"call":%q,"cost":0.1,"endedReason":"customer-ended-call"}`, d.Org, "call-"+d.Org)
		v.keyward(t, "", "webhooks", "redeliver", "--run-dir", v.run, d.ID)
		waitFor(t, "the report to come again", func() bool {
			return strings.Count(v.log.String(), `"webhook delivered"`) == len(listed.Items)+len(want)
		})
		if second, err := os.Stat(file); err != nil || !os.SameFile(first, second) {
			t.Errorf("the report of %s was taken twice: %v", d.Org, err)
		}
	}
	files, err := os.ReadDir(v.reports)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(v.reports, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		got[f.Name()] = string(text)
	}
	if d := cmp.Diff(want, got); d != "" || len(want) != len(orgs) {
		t.Errorf("the reports (-want +got):\n%s", d)
	}
}

// backendHoldsNoSecret looks at what the backend was started with, and at what it wrote.
func (v *voiceAgent) backendHoldsNoSecret(t *testing.T) {
	has := strings.Join(v.environ, "\n") + v.said.String()
	for _, org := range orgs {
		for name, secret := range v.secrets(org) {
			if name != "account_sid" && name != "from_number" && secret != "" && strings.Contains(has, secret) {
				t.Errorf("the backend has %s of %s", name, org)
			}
		}
	}
	if strings.Contains(has, "-secret-of-") {
		t.Errorf("the backend has a webhook secret")
	}
}
