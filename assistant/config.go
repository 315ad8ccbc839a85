package assistant

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/keyward/keyward/store"
)

// Members of an assistant's metadata that are ours.
const (
	markOrg    = "keyward_org"
	markRole   = "keyward_role"
	markClaim  = "keyward_claim"  // the claim's nonce
	markConfig = "keyward_config" // of what configuration it was made
)

// members is a JSON object whose values stay as they were written.
type members map[string]json.RawMessage

// A wanted assistant is what an agent's configuration describes.
type wanted struct {
	members  members // without metadata
	metadata members // the configuration's own
	marks    map[string]string
}

// want reads an agent's configuration.
func want(agent *store.Agent, c *store.AssistantClaim) (*wanted, error) {
	w := &wanted{members: members{}, metadata: members{}}
	if err := json.Unmarshal(agent.Config, &w.members); err != nil || w.members == nil {
		return nil, badConfig("it is no JSON object")
	}
	for _, name := range []string{"id", "orgId", "createdAt", "updatedAt"} {
		if _, ok := w.members[name]; ok {
			return nil, badConfig(name + " is Vapi's to set: leave it out")
		}
	}
	if raw, ok := w.members["metadata"]; ok {
		if err := json.Unmarshal(raw, &w.metadata); err != nil || w.metadata == nil {
			return nil, badConfig("metadata is no object")
		}
		delete(w.members, "metadata")
	}
	for _, name := range []string{markOrg, markRole, markClaim, markConfig} {
		if _, ok := w.metadata[name]; ok {
			return nil, badConfig("metadata." + name + " is Keyward's to set: leave it out")
		}
	}
	if agent.Name != "" {
		w.members["name"] = quoted(agent.Name)
	}
	w.marks = map[string]string{markOrg: c.Org, markRole: c.Role, markClaim: c.Nonce, markConfig: w.digest()}
	return w, nil
}

func badConfig(what string) *Error {
	return &Error{Status: http.StatusUnprocessableEntity, Code: "agent_invalid", Detail: "the agent's configuration cannot be used: " + what}
}

// digest tells one configuration from another.
func (w *wanted) digest() string {
	h := sha256.New()
	for _, part := range []members{w.members, w.metadata} {
		for _, name := range slices.Sorted(maps.Keys(part)) {
			h.Write([]byte(strconv.Itoa(len(name)) + ":" + name + "=" + strconv.Itoa(len(part[name])) + ":"))
			h.Write(part[name])
		}
		h.Write([]byte{'/'})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// body is the whole as Vapi is asked for it. What others have put into the metadata of an assistant that is there stays.
func (w *wanted) body(had json.RawMessage) []byte {
	metadata := members{}
	_ = json.Unmarshal(had, &metadata) // none, or none that is an object: there is nothing to keep
	if metadata == nil {
		metadata = members{}
	}
	maps.Copy(metadata, w.metadata)
	for name, text := range w.marks {
		metadata[name] = quoted(text)
	}
	all := maps.Clone(w.members)
	all["metadata"] = encoded(metadata)
	return encoded(all)
}

// differs says whether the assistant is not as it is wanted. Vapi fills in defaults, and does not show everything that it was given, so that
// a member which it does not show counts as it was when the assistant was made of this very configuration.
func (w *wanted) differs(r *remote) bool {
	for name, text := range w.marks {
		if r.mark(name) != text {
			return true
		}
	}
	var have, all any
	if json.Unmarshal(r.raw, &have) != nil || json.Unmarshal(encoded(w.members), &all) != nil || !covers(have, all) {
		return true
	}
	var metadata any
	return json.Unmarshal(r.Metadata, &metadata) != nil || json.Unmarshal(encoded(w.metadata), &all) != nil || !covers(metadata, all)
}

// covers says whether everything in want is in have, as far as have shows it.
func covers(have, want any) bool {
	switch want := want.(type) {
	case map[string]any:
		has, ok := have.(map[string]any)
		if !ok {
			return false
		}
		for name, v := range want {
			if one, shown := has[name]; shown && !covers(one, v) {
				return false
			}
		}
		return true
	case []any:
		has, ok := have.([]any)
		if !ok || len(has) != len(want) {
			return false
		}
		for i := range want {
			if !covers(has[i], want[i]) {
				return false
			}
		}
		return true
	}
	return have == want // texts, numbers, words
}

func quoted(s string) json.RawMessage { return encoded(s) }

func encoded(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of valid JSON and strings always encode
	}
	return b
}
