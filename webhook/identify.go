package webhook

import (
	"bytes"
	"strings"
	"time"

	"github.com/keyward/keyward/provider"
)

// An account is one of a provider's own ids that a payload names: a hint at whose it is, and until it is verified no more than that.
type account struct{ field, id string }

// An identity is what a delivery says about itself. Nothing of it is trusted before the signature verifies.
type identity struct {
	typ        string    // "tool-calls", "email.bounced"; empty: it does not say
	group      string    // deliveries of one group are kept in order: a call's or a message's id
	accounts   []account // ids that the store maps to orgs, in the order in which they are looked up
	assistants []string  // Vapi assistants, likewise
	problem    string    // why none of it counts; empty: nothing is wrong
}

// A source says how one provider's deliveries are read.
type source struct {
	provider *provider.Provider
	read     func(id *identity, m *message)
	shared   bool // POST /webhooks/PROVIDER, without an org, is resolved by what read finds

	// answers are the types to which the app's answer matters, and how long it may take; "" stands for all that are not listed.
	answers map[string]time.Duration
	// limit is how long an answer may take that only the configuration asks for.
	limit time.Duration
	// hidden are headers that prove the sender and are secrets themselves: the app does not get them.
	hidden []string
}

// sources are the deliveries of all providers that send any, in the order of provider.All.
var sources = func() (all []*source) {
	for _, p := range provider.All {
		if w := p.Webhook; w != nil {
			src := ownSources[p.Name]
			if src == nil {
				src = &source{read: reader(w), limit: defaultLimit}
			}
			src.provider, src.shared = p, w.AccountField != ""
			all = append(all, src)
		}
	}
	return all
}()

// ownSources are those that are read or answered as no other provider's are.
var ownSources = map[string]*source{
	provider.Twilio.Name: {read: readTwilio, limit: twilioLimit, answers: map[string]time.Duration{"": twilioLimit}},
	provider.Vapi.Name: {read: readVapi, limit: vapiLimit, hidden: []string{"x-vapi-secret"}, answers: map[string]time.Duration{
		// providers.md has the list: docs.vapi.ai/server-url/events, and schema ServerMessageResponse of Vapi's specification.
		"assistant-request":            assistantLimit,
		"tool-calls":                   vapiLimit,
		"function-call":                vapiLimit, // what tool-calls were before
		"transfer-destination-request": vapiLimit,
		"handoff-destination-request":  vapiLimit,
		"knowledge-base-request":       vapiLimit,
		"call.endpointing.request":     vapiLimit,
		voiceRequest:                   vapiLimit,
		"campaign.predial":             vapiLimit,
	}},
}

// How long an answer may take, from the first byte of the request. The providers' own limits, less the way to them.
const (
	assistantLimit = 7 * time.Second  // Vapi gives up at 7.5 s, fixed
	vapiLimit      = 20 * time.Second // Vapi's default, server.timeoutSeconds
	twilioLimit    = 14 * time.Second // Twilio gives up at 15 s
	defaultLimit   = 14 * time.Second
)

// voiceRequest is answered with audio as it is made.
const voiceRequest = "voice-request"

// What a text in a payload is.
const (
	leafType = iota + 1
	leafGroup
	leafGroupElse // where there is no call: a chat or a session
	leafOrg
	leafPhone
	leafAssistant
	leafMember // of a squad
	leafAccount
)

// maxIDs is how many ids of one kind are taken from a payload; a squad has a handful of members.
const maxIDs = 32

var (
	vapiTree = &node{kids: []node{{key: "message", kids: []node{
		{key: "type", leaf: leafType},
		{key: "call", kids: []node{
			{key: "id", leaf: leafGroup},
			{key: "orgId", leaf: leafOrg},
			{key: "phoneNumberId", leaf: leafPhone},
			{key: "assistantId", leaf: leafAssistant},
			{key: "assistant", kids: []node{{key: "id", leaf: leafAssistant}}},
			{key: "squad", kids: squad},
		}},
		{key: "phoneNumber", kids: []node{{key: "id", leaf: leafPhone}, {key: "orgId", leaf: leafOrg}, {key: "assistantId", leaf: leafAssistant}}},
		{key: "chat", kids: chat},
		{key: "session", kids: chat},
		{key: "contact", kids: []node{{key: "orgId", leaf: leafOrg}}},
		{key: "assistant", kids: []node{{key: "id", leaf: leafAssistant}}},
		{key: "assistantId", leaf: leafAssistant},
		{key: "squad", kids: squad},
	}}}}
	squad = []node{{key: "members", each: true, kids: []node{{key: "assistantId", leaf: leafMember}}}}
	chat  = []node{{key: "id", leaf: leafGroupElse}, {key: "orgId", leaf: leafOrg}, {key: "assistantId", leaf: leafAssistant}}

	twilioTree = &node{kids: []node{{key: "AccountSid", leaf: leafAccount}, {key: "account_sid", leaf: leafAccount}, {key: "accountSid", leaf: leafAccount}}}
)

// readVapi finds Vapi's own org, its phone numbers and the assistants, in this order (each list by itself, as they stand in the body).
func readVapi(id *identity, m *message) {
	var orgs, phones, members []string
	chat := ""
	id.problem = string(scan(m.body, vapiTree, func(leaf int, text []byte) {
		switch leaf {
		case leafType:
			id.typ = string(text)
		case leafGroup:
			id.group = string(text)
		case leafGroupElse:
			chat = string(text)
		case leafOrg:
			orgs = appendID(orgs, text)
		case leafPhone:
			phones = appendID(phones, text)
		case leafAssistant:
			id.assistants = appendID(id.assistants, text)
		case leafMember:
			members = appendID(members, text)
		}
	}))
	for _, o := range orgs {
		id.accounts = append(id.accounts, account{"vapi_org_id", o})
	}
	for _, p := range phones {
		id.accounts = append(id.accounts, account{"phone_number_ids", p})
	}
	for _, a := range members {
		id.assistants = appendID(id.assistants, []byte(a))
	}
	if id.group == "" {
		id.group = chat
	}
}

// appendID adds an id that is not there yet.
func appendID(ids []string, text []byte) []string {
	if len(text) == 0 || len(text) > maxID || len(ids) == maxIDs {
		return ids
	}
	for _, have := range ids {
		if have == string(text) {
			return ids
		}
	}
	return append(ids, string(text))
}

// maxID is the longest id that a credential or an assistant can have.
const maxID = 128

// reader reads what a provider's Webhook says about its deliveries.
func reader(w *provider.Webhook) func(*identity, *message) {
	if token, ok := w.Scheme.(provider.SharedToken); ok && token.TypeHeader != "" {
		return func(id *identity, m *message) {
			v, _ := m.head.one(token.TypeHeader)
			id.typ = string(v)
		}
	}
	tree := &node{}
	for path, leaf := range map[string]int{w.Type: leafType, w.Group: leafGroup, w.Account: leafAccount} {
		if path != "" {
			tree.grow(strings.Split(path, "."), leaf)
		}
	}
	return func(id *identity, m *message) {
		id.problem = string(scan(m.body, tree, func(leaf int, text []byte) { id.take(leaf, text, w.AccountField) }))
	}
}

// grow adds a place to a tree; "[]" stands for the elements of a list.
func (n *node) grow(path []string, leaf int) {
	switch {
	case len(path) == 0:
		n.leaf = leaf
		return
	case path[0] == "[]":
		n.each = true
		n.grow(path[1:], leaf)
		return
	}
	for i := range n.kids {
		if n.kids[i].key == path[0] {
			n.kids[i].grow(path[1:], leaf)
			return
		}
	}
	kid := node{key: path[0]}
	kid.grow(path[1:], leaf)
	n.kids = append(n.kids, kid)
}

// take keeps a type, a group, or an account id of the given field.
func (id *identity) take(leaf int, text []byte, field string) {
	switch leaf {
	case leafType:
		if id.typ == "" { // of a list, the first one's
			id.typ = string(text)
		}
	case leafGroup:
		id.group = string(text)
	case leafAccount:
		if len(text) > 0 && len(text) <= maxID {
			id.accounts = append(id.accounts, account{field, string(text)})
		}
	}
}

// readTwilio takes the account and the call or message from the form, from the query, or from a JSON body's top.
func readTwilio(id *identity, m *message) {
	var form map[string][]string
	switch {
	case isForm(m.head):
		form, _ = parseForm(m.body)
	case len(bytes.TrimSpace(m.body)) > 0:
		id.problem = string(scan(m.body, twilioTree, func(leaf int, text []byte) { id.take(leaf, text, "account_sid") }))
	}
	query, _ := parseForm([]byte(m.rawQuery))
	for _, where := range []map[string][]string{form, query} {
		for _, sid := range where["AccountSid"] {
			id.take(leafAccount, []byte(sid), "account_sid")
		}
	}
	for i := range id.accounts {
		a := &id.accounts[i]
		if a.id != id.accounts[0].id {
			id.problem = string(ambiguous)
		}
		a.id = provider.Twilio.Field(a.field).Account(a.id)
	}
	first := func(names ...string) string {
		for _, name := range names {
			if v := form[name]; len(v) > 0 && v[0] != "" {
				return v[0]
			}
		}
		return ""
	}
	id.group = first("CallSid", "MessageSid", "SmsSid")
	switch {
	case strings.HasPrefix(id.group, "CA"):
		id.typ = "call"
	case id.group != "":
		id.typ = "message"
	}
	if status := first("CallStatus", "MessageStatus", "SmsStatus"); id.typ != "" && status != "" {
		id.typ += "." + status
	}
}
