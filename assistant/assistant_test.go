package assistant

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/standin"
	"github.com/keyward/keyward/store"
)

func TestEnsureMakesOnceAndThenLeavesAlone(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		w := newWorld(t, url, "acme")
		m := w.manager()
		r := w.ensure(m, "acme", store.Inbound)
		if r.Outcome != Created || r.Org != "acme" || r.Role != store.Inbound || r.Name != "Front desk inbound" || r.Version != 1 {
			t.Errorf("%+v", r)
		}
		id := w.holds("acme", store.Inbound)
		made := w.remote("acme", id)
		metadata := made["metadata"].(map[string]any)
		if id != r.ID || made["name"] != "Front desk inbound" || made["firstMessage"] != "Hello, inbound" || made["model"].(map[string]any)["temperature"] != 0.7 ||
			metadata["keyward_org"] != "acme" || metadata["keyward_role"] != "inbound" || len(metadata["keyward_claim"].(string)) < 20 {
			t.Errorf("%v", made)
		}
		again := w.ensure(m, "acme", store.Inbound)
		if again.Outcome != Unchanged || again.ID != r.ID || again.Version != 1 || w.count("POST") != 1 || w.count("PATCH") != 0 {
			t.Errorf("%+v, %v", again, w.asked)
		}
		other := w.ensure(m, "acme", store.Outbound)
		if other.Outcome != Created || other.ID == r.ID {
			t.Errorf("%+v", other)
		}
		w.holds("acme", store.Outbound)
	})
}

func TestEnsureChangesWhatDiffers(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	m := w.manager()
	id := w.ensure(m, "acme", store.Inbound).ID
	w.agent("acme", store.Inbound, `{"firstMessage":"Good morning","model":{"provider":"openai","model":"gpt-4o","temperature":0.70}}`)
	if r := w.ensure(m, "acme", store.Inbound); r.Outcome != Updated || r.ID != id || w.remote("acme", id)["firstMessage"] != "Good morning" {
		t.Errorf("the configuration changed: %+v %v", r, w.remote("acme", id))
	}
	// Somebody changed it at Vapi, and added to its metadata.
	w.patch(id, `{"firstMessage":"Hijacked","metadata":{"crm":"7","keyward_org":"acme","keyward_role":"inbound","keyward_claim":"`+w.claimOf(id)+`"}}`)
	if r := w.ensure(m, "acme", store.Inbound); r.Outcome != Updated || w.remote("acme", id)["firstMessage"] != "Good morning" {
		t.Errorf("it was changed at Vapi: %+v", r)
	}
	if metadata := w.remote("acme", id)["metadata"].(map[string]any); metadata["crm"] != "7" {
		t.Errorf("others' metadata: %v", metadata)
	}
	// What Vapi adds by itself is no difference, and neither is what it does not show.
	w.patch(id, `{"transcriber":{"provider":"deepgram"},"model":{"provider":"openai","model":"gpt-4o","temperature":0.7,"maxTokens":250}}`)
	if r := w.ensure(m, "acme", store.Inbound); r.Outcome != Unchanged {
		t.Errorf("defaults of Vapi's: %+v", r)
	}
	w.holds("acme", store.Inbound)
}

// patch changes the assistant at Vapi behind Keyward's back.
func (w *world) patch(id, body string) {
	w.t.Helper()
	req, err := http.NewRequest("PATCH", w.vapi.URL()+"/assistant/"+id, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	w.send(req, 200)
}

func (w *world) remove(id string) {
	w.t.Helper()
	req, err := http.NewRequest("DELETE", w.vapi.URL()+"/assistant/"+id, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.send(req, 200)
}

// post makes an assistant behind Keyward's back.
func (w *world) post(body string) {
	w.t.Helper()
	req, err := http.NewRequest("POST", w.vapi.URL()+"/assistant", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	w.send(req, 201)
}

func (w *world) send(req *http.Request, want int) {
	w.t.Helper()
	req.Host = "api.vapi.ai"
	for _, c := range standin.Sample("acme") {
		if c.Provider == standin.Vapi {
			req.Header.Set("Authorization", "Bearer "+c.Fields["api_key"])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		w.t.Fatalf("%s %s: %d", req.Method, req.URL, resp.StatusCode)
	}
}

func (w *world) claimOf(id string) string {
	return w.remote("acme", id)["metadata"].(map[string]any)[markClaim].(string)
}

func TestEnsureMakesAnotherWhenItWasDeletedAtVapi(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		w := newWorld(t, url, "acme")
		m := w.manager()
		first := w.ensure(m, "acme", store.Inbound).ID
		w.remove(first)
		r := w.ensure(m, "acme", store.Inbound)
		if r.Outcome != Created || r.ID == first {
			t.Errorf("%+v", r)
		}
		w.holds("acme", store.Inbound)
		if _, err := w.db.Assistant(t.Context(), first); err == nil {
			t.Error("the one that is gone is still mapped")
		}
	})
}

// What was mapped by hand is the org's: it is changed, not made a second time.
func TestEnsureTakesWhatWasMappedByHand(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	w.post(`{"name":"by hand"}`)
	id := w.vapi.Made("acme", standin.Vapi, "assistant")[0]["id"].(string)
	if err := w.db.PutAssistant(t.Context(), by, &store.Assistant{ID: id, Org: "acme", Role: store.Inbound, Name: "by hand"}, 0); err != nil {
		t.Fatal(err)
	}
	if r := w.ensure(w.manager(), "acme", store.Inbound); r.Outcome != Updated || r.ID != id || r.Name != "Front desk inbound" || w.count("POST") != 0 {
		t.Errorf("%+v", r)
	}
	w.holds("acme", store.Inbound)
}

func TestEnsureFindsWhatIsMappedNoMore(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	m := w.manager()
	id := w.ensure(m, "acme", store.Inbound).ID
	if err := w.db.DeleteAssistant(t.Context(), by, id, 0); err != nil {
		t.Fatal(err)
	}
	if r := w.ensure(m, "acme", store.Inbound); r.Outcome != Found || r.ID != id || w.count("POST") != 1 {
		t.Errorf("%+v", r)
	}
	w.holds("acme", store.Inbound)
	// Mapped to another org meanwhile: that is an operator's decision, which is not undone.
	if err := w.db.PutAssistant(t.Context(), by, &store.Assistant{ID: id, Org: "globex"}, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Ensure(t.Context(), by, "acme", store.Inbound); !isError(err, 409, "conflict") {
		t.Errorf("%v", err)
	}
}

// Two more were made late by a slow Vapi: one stays, the mapped one.
func TestEnsureRemovesTheSurplus(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	m := w.manager()
	id := w.ensure(m, "acme", store.Inbound).ID
	mark := `{"metadata":{"keyward_org":"acme","keyward_role":"inbound","keyward_claim":"` + w.claimOf(id) + `"}}`
	w.post(mark)
	w.post(mark)
	w.post(`{"metadata":{"keyward_org":"acme","keyward_role":"inbound","keyward_claim":"another store's"}}`)
	c, err := w.db.ClaimAssistant(t.Context(), "acme", store.Inbound, "a dead sidecar", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.db.UnsettleClaim(t.Context(), c, time.Second); err != nil {
		t.Fatal(err)
	}
	if r := w.ensure(m, "acme", store.Inbound); r.ID != id {
		t.Errorf("%+v", r)
	}
	left := w.vapi.Made("acme", standin.Vapi, "assistant")
	if len(left) != 2 { // ours and the other store's
		t.Errorf("%d assistants are left", len(left))
	}
}

func TestEnsureRefuses(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	m := w.manager()
	refuse := func(what string, status int, code, org, role string) {
		t.Helper()
		if _, err := m.Ensure(t.Context(), by, org, role); !isError(err, status, code) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refuse("no such role", 404, "not_found", "acme", "sideways")
	refuse("no org", 404, "not_found", "-", store.Inbound)
	refuse("no agent", 404, "not_found", "globex", store.Inbound)
	w.agent("globex", store.Inbound, `{}`)
	refuse("no credential", 424, "credential_missing", "globex", store.Inbound)
	for what, config := range map[string]string{
		"an id": `{"id":"x"}`, "our mark": `{"metadata":{"keyward_claim":"x"}}`, "metadata of another form": `{"metadata":7}`,
	} {
		w.agent("acme", store.Inbound, config)
		refuse(what, 422, "agent_invalid", "acme", store.Inbound)
	}
	w.agent("acme", store.Inbound, `{}`)
	if _, err := w.db.SetActive(t.Context(), by, store.Ref{Org: "acme", Provider: "vapi"}, false, 0); err != nil {
		t.Fatal(err)
	}
	refuse("disabled", 424, "credential_inactive", "acme", store.Inbound)
	if _, err := w.db.SetActive(t.Context(), by, store.Ref{Org: "acme", Provider: "vapi"}, true, 0); err != nil {
		t.Fatal(err)
	}
	off := true
	m = w.manager(func(o *Options) {
		o.Off = func(ref store.Ref) bool { return off && ref == store.Ref{Org: "acme", Provider: "vapi"} }
	})
	refuse("disabled in this sidecar", 424, "credential_inactive", "acme", store.Inbound)
	off = false
	w.vapi.Forget("acme", standin.Vapi)
	refuse("revoked", 424, "credential_rejected", "acme", store.Inbound)
	if w.count("POST") != 0 {
		t.Errorf("%v", w.asked)
	}
}

// Vapi's own words, without which nobody can mend a configuration; never the key.
func TestRefusalSaysWhatVapiSays(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	m := w.manager()
	key := ""
	for _, c := range standin.Sample("acme") {
		if c.Provider == standin.Vapi {
			key = c.Fields["api_key"]
		}
	}
	says := func(body, want string) {
		t.Helper()
		w.vapi.Mend()
		w.vapi.Fail(standin.Fault{Provider: standin.Vapi, Method: "POST", Answer: func(rw http.ResponseWriter, _ *http.Request) {
			rw.WriteHeader(400)
			_, _ = rw.Write([]byte(body))
		}})
		_, err := m.Ensure(t.Context(), by, "acme", store.Inbound)
		if !isError(err, 422, "assistant_refused") || !strings.HasSuffix(err.Error(), ": "+want) {
			t.Errorf("%s: %v", body, err)
		}
	}
	says(`{"message":["model.provider must be one of the following values","voice is required"],"error":"Bad Request","statusCode":400}`, "model.provider must be one of the following values; voice is required")
	says(`{"message":"nope\nnever"}`, "nope never")
	says(`{"message":"your key `+key+` is bad"}`, "status 400")
	says(`<html>`, "status 400")
	w.vapi.Mend()
	if r := w.ensure(m, "acme", store.Inbound); r.Outcome != Created { // and nothing is left of the attempts
		t.Errorf("%+v", r)
	}
	w.holds("acme", store.Inbound)
}

func TestRateLimitsAreWaitedFor(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	w.vapi.Fail(standin.Fault{Provider: standin.Vapi, Status: 429, Times: 3})
	if r := w.ensure(w.manager(), "acme", store.Inbound); r.Outcome != Created {
		t.Errorf("%+v", r)
	}
	w.holds("acme", store.Inbound)
	w.vapi.Fail(standin.Fault{Provider: standin.Vapi, Status: 429})
	_, err := w.manager(func(o *Options) { o.Limit = 5 * time.Second }).Ensure(t.Context(), by, "acme", store.Inbound)
	if !isError(err, 429, "rate_limited") || err.(*Error).RetryAfter == 0 { //nolint:errorlint,forcetypeassert // isError says that it is one
		t.Errorf("%v", err)
	}
}

// While the org's key is being replaced, assistants go on.
func TestFormerCredentialStandsIn(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	k := &credential.Keeper{DB: w.db, Keys: w.keys}
	values := provider.Values{"api_key": {Text: "not-yet-known-to-vapi"}}
	if _, err := k.Stage(t.Context(), by, store.Ref{Org: "acme", Provider: "vapi"}, values, time.Hour, credential.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	w.ensure(w.manager(), "acme", store.Inbound)
	w.holds("acme", store.Inbound)
}

func TestGetSaysWhatIsThere(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	m := w.manager()
	is := func(what string, exists, asConfigured bool) {
		t.Helper()
		s, err := m.Get(t.Context(), "acme", store.Inbound)
		if err != nil || s.Exists != exists || s.AsConfigured != asConfigured {
			t.Errorf("%s: %+v %v", what, s, err)
		}
	}
	if _, err := m.Get(t.Context(), "acme", store.Inbound); !isError(err, 404, "unknown_assistant") {
		t.Errorf("none: %v", err)
	}
	id := w.ensure(m, "acme", store.Inbound).ID
	is("made", true, true)
	w.patch(id, `{"firstMessage":"Hijacked"}`)
	is("changed at Vapi", true, false)
	w.remove(id)
	is("deleted at Vapi", false, false)
}

func TestDeleteRemovesHereAndThere(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		w := newWorld(t, url, "acme")
		m := w.manager()
		id, out := w.ensure(m, "acme", store.Inbound).ID, w.ensure(m, "acme", store.Outbound).ID
		w.post(`{"metadata":{"keyward_claim":"` + w.claimOf(id) + `"}}`) // never registered
		ids, err := m.Delete(t.Context(), by, "acme", store.Inbound, 0)
		if err != nil || len(ids) != 2 {
			t.Errorf("%v %v", ids, err)
		}
		if left := w.vapi.Made("acme", standin.Vapi, "assistant"); len(left) != 1 || left[0]["id"] != out {
			t.Errorf("%v", left)
		}
		w.holds("acme", store.Outbound)
		if _, err := m.Delete(t.Context(), by, "acme", store.Inbound, 0); !isError(err, 404, "unknown_assistant") {
			t.Errorf("twice: %v", err)
		}
		if r := w.ensure(m, "acme", store.Inbound); r.Outcome != Created {
			t.Errorf("%+v", r)
		}
		w.holds("acme", store.Inbound)
	})
}

// What somebody has mapped anew since it was looked at is not deleted at Vapi, from where nothing brings it back.
func TestDeleteOfWhatWasLookedAt(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	m := w.manager()
	id := w.ensure(m, "acme", store.Inbound).ID
	seen, err := m.Get(t.Context(), "acme", store.Inbound)
	if err != nil {
		t.Fatal(err)
	}
	renamed := store.Assistant{ID: id, Org: "acme", Role: store.Inbound, Name: "Night desk"}
	if err := w.db.PutAssistant(t.Context(), by, &renamed, seen.Version); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Delete(t.Context(), by, "acme", store.Inbound, seen.Version); !isError(err, 412, "version_conflict") {
		t.Errorf("at the former version: %v", err)
	}
	w.holds("acme", store.Inbound)
	if ids, err := m.Delete(t.Context(), by, "acme", store.Inbound, renamed.Version); err != nil || len(ids) != 1 {
		t.Errorf("at its version: %v %v", ids, err)
	}
	if left := w.vapi.Made("acme", standin.Vapi, "assistant"); len(left) != 0 {
		t.Errorf("%v", left)
	}
}

// Who asks while another's turn runs has a turn that begins later: nobody gets what was configured before they asked.
func TestATurnHasTheConfigurationOfWhoeverAskedForIt(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	m := w.manager()
	w.vapi.Fail(standin.Fault{Provider: standin.Vapi, Method: "POST", Path: "/assistant", Delay: 200 * time.Millisecond, Times: 1})
	var first sync.WaitGroup
	first.Go(func() { w.ensure(m, "acme", store.Inbound) })
	time.Sleep(100 * time.Millisecond)
	w.agent("acme", store.Inbound, `{"firstMessage":"Changed meanwhile"}`)
	r := w.ensure(m, "acme", store.Inbound)
	first.Wait()
	if got := w.remote("acme", r.ID)["firstMessage"]; got != "Changed meanwhile" {
		t.Errorf("%v", got)
	}
	w.holds("acme", store.Inbound)
}

// A store that does not answer in time is not taken for another sidecar that is at work.
func TestAStoreThatHangsIsSaidToBeAway(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	err := w.manager().claimed(t.Context(), key{"acme", store.Inbound}, func(context.Context, *store.AssistantClaim) error {
		return fmt.Errorf("%w: no answer in time: %w", store.ErrUnavailable, context.DeadlineExceeded) // as the store says it
	})
	if isError(err, 503, "assistant_busy") || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	m := w.manager()
	w.vapi.Fail(standin.Fault{Provider: standin.Vapi, Delay: 10 * time.Second})
	var ended sync.WaitGroup
	ended.Go(func() {
		if _, err := m.Ensure(t.Context(), by, "acme", store.Inbound); !isError(err, 503, "draining") {
			t.Errorf("%v", err)
		}
	})
	time.Sleep(100 * time.Millisecond)
	m.Close()
	ended.Wait()
	if _, err := m.Ensure(t.Context(), by, "acme", store.Inbound); !isError(err, 503, "draining") {
		t.Errorf("afterwards: %v", err)
	}
}
