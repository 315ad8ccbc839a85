package console

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"
)

// What the API says of an org, as far as it is shown.
type (
	integration struct {
		Org               string                     `json:"org"`
		Provider          string                     `json:"provider"`
		Fields            map[string]json.RawMessage `json:"fields"`
		Version           json.Number                `json:"version"`
		IsActive          bool                       `json:"is_active"`
		Unreadable        bool                       `json:"unreadable"`
		Unconfigured      bool                       `json:"unconfigured"`
		LastVerifiedAt    *time.Time                 `json:"last_verified_at"`
		VerificationError *string                    `json:"verification_error"`
		Verification      *string                    `json:"verification"`
		Suspect           bool                       `json:"suspect"`
		Reconnect         string                     `json:"reconnect"`
		FormerUntil       *time.Time                 `json:"former_until"`
		UpdatedAt         *time.Time                 `json:"updated_at"`
	}
	assistant struct {
		ID, Role, Name, Org string
		Version             json.Number
		LastUsedAt          *time.Time `json:"last_used_at"`
	}
	agent struct {
		Role, Name string
		Config     json.RawMessage
		Version    json.Number
		UpdatedAt  *time.Time `json:"updated_at"`
	}
	providerInfo struct {
		Name, Title string
		Fields      []fieldInfo
	}
	fieldInfo struct {
		Name, Title, Help, Example, Type string
		Secret, Required                 bool
		Options                          []string
		Members                          []fieldInfo
	}
)

// A state is what an integration's badge says.
type state struct{ Word, Tone string } // tone: good, warn, bad or quiet

// State is the one word for how an integration is: what somebody has to do something about comes first.
func (i *integration) State() state {
	verification := ""
	if i.Verification != nil {
		verification = *i.Verification
	}
	switch {
	case i.Unconfigured:
		return state{"Unconfigured", "bad"}
	case i.Unreadable:
		return state{"Unreadable", "bad"}
	case i.Reconnect != "":
		return state{"Reconnect", "bad"}
	case verification == "invalid":
		return state{"Invalid", "bad"}
	case !i.IsActive:
		return state{"Disabled", "quiet"}
	case i.Suspect:
		return state{"Suspect", "warn"}
	case verification == "valid_restricted":
		return state{"Valid, restricted", "good"}
	case verification == "valid":
		return state{"Valid", "good"}
	}
	return state{"Not verified", "quiet"}
}

// A slot is a provider in an org: with an integration or without.
type slot struct {
	providerInfo
	Org    string
	Has    *integration
	Shown  []shownField
	Google bool // its credential is a consent
}

// A shownField is a field that is set, masked by the API where it is a secret.
type shownField struct{ Title, Value string }

type orgPage struct {
	Org        string
	Slots      []slot
	Assistants []assistant
	More       bool // assistants than are shown
	Agents     []agent
	Events     []event
	Missing    []string // roles without an agent
	Typed      map[string]string
	Bad        *refusal
}

func (c *Console) org(v *visit) error { return c.showOrg(v, http.StatusOK, nil, nil) }

// showOrg shows the org, with what was typed into the form for assistants and what is wrong with that.
func (c *Console) showOrg(v *visit, status int, typed map[string]string, bad *refusal) error {
	p := orgPage{Org: v.r.PathValue("org"), Typed: typed, Bad: bad}
	var err error
	if p.Slots, err = v.slots(p.Org); err != nil {
		return err
	}
	var assistants struct {
		Items []assistant
		Next  string `json:"next_cursor"`
	}
	if err := v.get(&assistants, "/api/orgs/", p.Org, "/assistants"); err != nil {
		return err
	}
	p.Assistants, p.More = assistants.Items, assistants.Next != ""
	var agents struct{ Items []agent }
	if err := v.get(&agents, "/api/orgs/", p.Org, "/agents"); err != nil {
		return err
	}
	p.Agents = agents.Items
	for _, role := range []string{"inbound", "outbound"} {
		missing := true
		for _, a := range p.Agents {
			missing = missing && a.Role != role
		}
		if missing {
			p.Missing = append(p.Missing, role)
		}
	}
	if p.Events, err = v.events(eventQuery{Org: p.Org}, 12); err != nil {
		return err
	}
	back := [2]string{"/", "Overview"}
	if !v.who.Operator() {
		back = [2]string{}
	}
	return v.show(status, "org", page{Title: p.Org, Nav: "overview", Back: back, Bad: bad, Data: p})
}

// slots are all providers, and what the org has with each; then what it has with providers that are configured no more.
func (v *visit) slots(org string) ([]slot, error) {
	infos, err := v.providers()
	if err != nil {
		return nil, err
	}
	var has struct{ Items []*integration }
	if err := v.get(&has, "/api/orgs/", org, "/integrations"); err != nil {
		return nil, err
	}
	slots := make([]slot, len(infos))
	for i, info := range infos {
		slots[i] = slot{providerInfo: info, Org: org, Google: info.Name == "google_calendar"}
		for _, one := range has.Items {
			if one.Provider == info.Name {
				slots[i].Has, slots[i].Shown = one, shownFields(info.Fields, one.Fields)
			}
		}
	}
	for _, one := range has.Items {
		if one.Unconfigured {
			slots = append(slots, slot{providerInfo: providerInfo{Name: one.Provider, Title: one.Provider}, Org: org, Has: one, Shown: namedFields(one.Fields)})
		}
	}
	return slots, nil
}

func (v *visit) providers() ([]providerInfo, error) {
	var all struct{ Items []providerInfo }
	err := v.get(&all, "/api/providers")
	return all.Items, err
}

func (v *visit) provider(name string) (providerInfo, error) {
	all, err := v.providers()
	if err != nil {
		return providerInfo{}, err
	}
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
	}
	return providerInfo{}, &refusal{Status: http.StatusNotFound, Detail: "there is no such provider"}
}

func shownFields(fields []fieldInfo, values map[string]json.RawMessage) []shownField {
	var shown []shownField
	for _, f := range fields {
		if raw, ok := values[f.Name]; ok {
			shown = append(shown, shownField{f.Title, plain(raw)})
		}
	}
	return shown
}

// namedFields are those of a provider that is configured no more: by their names, since nobody knows their titles.
func namedFields(values map[string]json.RawMessage) []shownField {
	var shown []shownField
	for _, name := range slices.Sorted(maps.Keys(values)) {
		shown = append(shown, shownField{name, plain(values[name])})
	}
	return shown
}

// plain is a field's value as it is shown: a text as it is, a list with commas, anything else as JSON.
func plain(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	var list []string
	if json.Unmarshal(raw, &list) == nil {
		out := ""
		for i, item := range list {
			if i > 0 {
				out += ", "
			}
			out += item
		}
		return out
	}
	return string(raw)
}

// mapAssistant makes an assistant this org's.
func (c *Console) mapAssistant(v *visit) error {
	org, id := v.r.PathValue("org"), v.form.text("id")
	typed := map[string]string{"id": id, "role": v.form.text("role"), "name": v.form.text("name")}
	if id == "" {
		bad := &refusal{Status: http.StatusBadRequest, Detail: "the assistant's id is missing"}
		return c.showOrg(v, bad.Status, typed, bad)
	}
	o := newObject(256)
	o.value("org", org)
	o.value("role", typed["role"])
	o.value("name", typed["name"])
	err := v.do(ask{method: http.MethodPut, path: path("/api/assistants/", id), body: o.end()}, nil)
	var r *refusal
	if errors.As(err, &r) && r.Status != http.StatusUnauthorized {
		return c.showOrg(v, r.Status, typed, r)
	}
	if err != nil {
		return err
	}
	v.redirect(path("/orgs/", org), "mapped")
	return nil
}

func (c *Console) askUnmapAssistant(v *visit) error {
	org, id := v.r.PathValue("org"), v.r.PathValue("assistant")
	return v.confirm(confirmation{
		Title: "Remove the mapping?", Text: "Keyward then no longer knows which org the assistant " + id + " belongs to: its webhooks and requests that name it are refused. The assistant itself stays at Vapi.",
		Button: "Remove", Back: [2]string{path("/orgs/", org), org},
	})
}

func (c *Console) unmapAssistant(v *visit) error {
	if err := v.do(ask{method: http.MethodDelete, path: path("/api/assistants/", v.r.PathValue("assistant"))}, nil); err != nil {
		return err
	}
	v.redirect(path("/orgs/", v.r.PathValue("org")), "unmapped")
	return nil
}

// A confirmation asks once more before something is gone for good. The form goes back to the page's own path.
type confirmation struct {
	Title, Text, Button string
	Version             string
	Back                [2]string
}

func (v *visit) confirm(q confirmation) error {
	return v.show(http.StatusOK, "confirm", page{Title: q.Title, Back: q.Back, Data: q})
}
