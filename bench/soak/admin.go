package soak

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/keyward/keyward/bench/provider"
	"github.com/keyward/keyward/bench/scenario"
)

// A rotor replaces one org's credential again and again. A second and a half after a replacement was acknowledged the provider refuses the key before it:
// no sidecar begins a request with it more than a second later, and half a second is for a request's way on a busy machine.
type rotor struct {
	f    *field
	node *node // whose store the org is in
	org  string

	mu         sync.Mutex
	generation int64
}

const revokedAfter = 1500 * time.Millisecond

func (r *rotor) replace() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.generation
	r.generation++ // also where it is not acknowledged: it may have been stored all the same
	sharing := r.f.sharing(r.node)
	n := sharing[rand.IntN(len(sharing))]
	out := put(n, "/api/orgs/"+r.org+"/integrations/resend", map[string]any{"credentials": map[string]any{"api_key": fmt.Sprintf("%s.%d", provider.KeyOf(r.org), r.generation)}})
	if out == good && before > 0 {
		r.f.busy.Go(func() {
			time.Sleep(revokedAfter)
			_ = r.f.provider.Revoke(r.org, before)
		})
	}
	return out
}

func rotatedCall(_ context.Context, f *field, n *node) string {
	r := f.rotor(n)
	return f.email(n, r.org)
}

// rotor is one of those whose orgs are in n's store.
func (f *field) rotor(n *node) *rotor {
	for {
		if r := f.rotors[rand.IntN(len(f.rotors))]; r.node.name[:len(onSQLite)] == n.name[:len(onSQLite)] {
			return r
		}
	}
}

// adminCall is an operator's: one of what they do.
func adminCall(_ context.Context, f *field, n *node) string {
	switch rand.IntN(6) {
	case 0, 1, 2:
		return f.rotor(n).replace()
	case 3:
		i := hotOrgs + rand.IntN(voiceOrgs-hotOrgs) // others than those that are asked for: what was changed is read anew
		return put(n, "/api/assistants/"+assistantOf(i), map[string]any{"org": scenario.OrgName(i), "role": "inbound", "name": fmt.Sprintf("soak %d", f.next.Add(1))})
	case 4:
		return listed(n)
	}
	return tokened(f, n)
}

func put(n *node, path string, body any) string {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // of strings
	}
	_, _, out := send(n.admin, request(http.MethodPut, "http://keyward"+path, "", b))
	return out
}

// listed reads a page of orgs, and one org's integrations.
func listed(n *node) string {
	body, _, out := send(n.admin, request(http.MethodGet, "http://keyward/api/orgs?limit=100", "", nil))
	var page struct {
		Items []json.RawMessage `json:"items"`
	}
	if out == good && (json.Unmarshal(body, &page) != nil || len(page.Items) != 100) {
		return wrong
	}
	if out != good {
		return out
	}
	_, _, out = send(n.admin, request(http.MethodGet, "http://keyward/api/orgs/"+scenario.OrgName(rand.IntN(hotOrgs))+"/integrations", "", nil))
	return out
}

// tokened makes a caller, has it call over TCP, revokes it, and has it refused.
func tokened(f *field, n *node) string {
	org := scenario.OrgName(rand.IntN(hotOrgs))
	b, err := json.Marshal(map[string]any{"name": fmt.Sprintf("soak-%d", f.next.Add(1)), "orgs": []string{org}, "providers": []string{"resend"}})
	if err != nil {
		panic(err)
	}
	body, _, out := send(n.admin, request(http.MethodPost, "http://keyward/api/callers", "", b))
	if out != good {
		return out
	}
	var made struct{ ID, Token string }
	if json.Unmarshal(body, &made) != nil || made.ID == "" || made.Token == "" {
		return wrong
	}
	_, _, used := send(n.overTCP, f.withToken(org, made.Token))
	_, _, out = send(n.admin, request(http.MethodDelete, "http://keyward/api/callers/"+made.ID, "", nil))
	if used != good {
		return used
	}
	if out != good {
		return out
	}
	time.Sleep(revokedAfter)
	switch _, _, out = send(n.overTCP, f.withToken(org, made.Token)); out {
	case "401 caller_unauthenticated":
		return good
	case good:
		return wrong // a token that was revoked
	}
	return out
}

func (f *field) withToken(org, token string) *http.Request {
	req := request(http.MethodPost, "http://127.0.0.1/resend/emails", org, []byte(`{"to":"a@acme.example"}`))
	req.Header.Set("Keyward-Token", token)
	return req
}
