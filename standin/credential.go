package standin

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"sync"

	"github.com/keyward/keyward/provider"
)

// A Credential is what the stand-in of one provider accepts. Fields are named as in Keyward's own credentials: account_sid,
// auth_token, api_key_sid, api_key_secret and subaccounts (separated by commas) for Twilio; api_key and public_key for Vapi; api_key
// for Resend, ElevenLabs and those with the common stand-in; client_id, client_secret and refresh_token for Google (without the latter an OAuth client to which nobody has
// consented yet).
type Credential struct {
	Label    string // says whose it is, in answers and in kept requests: an org's name
	Provider string
	Fields   map[string]string
	// Restricted: the provider takes it, and not for everything: it may not read what a probe reads (Twilio's balance, Resend's domains,
	// ElevenLabs' account, Google's list of calendars).
	Restricted bool

	of *provider.Provider // of SampleOf, which may be one that has no file
}

// JSON is the fields as one object, as `keyward credentials set` reads it.
func (c Credential) JSON() []byte {
	b, err := json.Marshal(c.Fields)
	if err != nil {
		panic(err) // a map of strings always encodes
	}
	return b
}

// Sample makes up a well-formed credential of each provider. The same label gives the same credentials, another one gives others.
func Sample(label string) []Credential {
	pick := func(name string, n int) string {
		sum := sha256.Sum256([]byte("standin " + name + " of " + label))
		return hex.EncodeToString(sum[:])[:n]
	}
	uuid := func(name string) string {
		h := pick(name, 32)
		return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:]
	}
	digits := func(name string, n int) string {
		sum := sha256.Sum256([]byte("standin " + name + " of " + label))
		b := make([]byte, n)
		for i := range b {
			b[i] = '0' + sum[i]%10
		}
		return string(b)
	}
	fields := map[string]map[string]string{
		Twilio: {
			"account_sid": "AC" + pick("account", 32),
			"auth_token":  pick("auth token", 32),
			"from_number": "+1555" + digits("number", 7),
		},
		Vapi: {
			"api_key":     uuid("private key"),
			"public_key":  uuid("public key"),
			"vapi_org_id": uuid("vapi org"),
		},
		Resend: {
			"api_key": "re_" + pick("resend", 8) + "_" + pick("resend key", 24),
		},
		ElevenLabs: {
			"api_key": "sk_" + pick("elevenlabs", 48),
		},
		GoogleCalendar: {
			"client_id":     digits("project", 12) + "-" + pick("client", 32) + ".apps.googleusercontent.com",
			"client_secret": "GOCSPX-" + pick("client secret", 28),
			"refresh_token": "1//0" + pick("refresh", 64),
			"calendar_id":   "primary",
		},
	}
	var all []Credential
	for _, p := range provider.All {
		f := fields[p.Name]
		if f == nil {
			f = SampleOf(p, label).Fields
		}
		all = append(all, Credential{Label: label, Provider: p.Name, Fields: f})
	}
	return all
}

// Expect accepts these credentials from now on. One of the same label and provider is replaced: the old one is refused at once.
func (s *Set) Expect(all ...Credential) {
	for _, c := range all {
		s.accounts.put(c)
		s.google.forget(c)
		s.google.accept(c)
	}
}

// Forget refuses the credential of that label and provider from now on, as a provider does when its key was revoked.
func (s *Set) Forget(label, provider string) {
	s.accounts.drop(label, provider)
	s.google.forget(Credential{Label: label, Provider: provider})
}

// An account is a credential and what was made with it.
type account struct {
	Credential
	*things
}

// accounts are the accepted credentials, by what proves them.
type accounts struct {
	mu    sync.RWMutex
	proof map[string]*account // :: provider, kind and secret, see proofs
	held  map[string][]string // :: provider and label → proofs
	by    map[string]*account // :: provider and label
}

// proofs are the ways in which a request may prove this credential.
func (c Credential) proofs() []string {
	var all []string
	add := func(kind, value string) {
		if value != "" {
			all = append(all, c.Provider+" "+kind+" "+value)
		}
	}
	f := c.Fields
	switch c.Provider {
	case Twilio:
		if f["auth_token"] != "" {
			add("basic", f["account_sid"]+":"+f["auth_token"])
		}
		if f["api_key_secret"] != "" {
			add("basic", f["api_key_sid"]+":"+f["api_key_secret"])
		}
	case Vapi:
		add("private", f["api_key"])
		add("public", f["public_key"])
	case Resend, ElevenLabs:
		add("key", f["api_key"])
	case GoogleCalendar:
	default:
		add("injected", c.injected())
	}
	return all
}

func (a *accounts) put(c Credential) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.proof == nil {
		a.proof, a.held, a.by = map[string]*account{}, map[string][]string{}, map[string]*account{}
	}
	id := c.Provider + " " + c.Label
	acct := &account{c, &things{shelves: map[string]*shelf{}}}
	if old := a.by[id]; old != nil {
		acct.things = old.things // a new key, the same account
	}
	a.removeLocked(id)
	a.by[id] = acct
	a.held[id] = c.proofs()
	for _, p := range a.held[id] {
		a.proof[p] = acct
	}
}

func (a *accounts) drop(label, provider string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.removeLocked(provider + " " + label)
}

func (a *accounts) removeLocked(id string) {
	for _, p := range a.held[id] {
		delete(a.proof, p)
	}
	delete(a.held, id)
	delete(a.by, id)
}

// proven is the account that a secret of that kind proves, or nil.
func (a *accounts) proven(provider, kind, value string) *account {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.proof[provider+" "+kind+" "+value]
}

func (a *accounts) labelled(provider, label string) *account {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.by[provider+" "+label]
}

// bearer is the token of the one Authorization header. Two headers prove nothing.
func bearer(r *http.Request) string {
	if all := r.Header.Values("Authorization"); len(all) == 1 {
		if t, ok := strings.CutPrefix(all[0], "Bearer "); ok {
			return t
		}
	}
	return ""
}

// basic is "user:password" of the one Authorization header.
func basic(r *http.Request) string {
	if all := r.Header.Values("Authorization"); len(all) == 1 {
		if t, ok := strings.CutPrefix(all[0], "Basic "); ok {
			if b, err := base64.StdEncoding.DecodeString(t); err == nil {
				return string(b)
			}
		}
	}
	return ""
}
