// Package canary finds secrets where none may be. Tests teach it every secret that they send, and show it all that comes out: answers, logs,
// audit rows, what commands print.
package canary

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/keyward/keyward/provider"
)

// least is the length from which a secret cannot be in a text by chance. Shorter ones have tests of their own, of masking.
const least = 16

// secretNames are the fields, of any provider, that hold secrets.
var secretNames = func() map[string]bool {
	names := map[string]bool{"code": true} // of a consent
	for _, p := range provider.All {
		for _, f := range p.Fields {
			if f.Secret {
				names[f.Name] = true
			}
		}
	}
	return names
}()

// tokens are those of callers and of the admin API, in any text that is not the one answer that shows a new one.
var tokens = regexp.MustCompile(`\bkw[ta][0-9A-Za-z]{43}\b`)

// A Set is the secrets that are known. The zero Set knows none, and it is safe for concurrent use.
type Set struct {
	mu    sync.Mutex
	forms map[string]string // :: a secret as it may be written → what it is
}

// Learn learns the secrets in a request's JSON: the values of what a provider's table calls secret. What is no JSON teaches nothing.
func (s *Set) Learn(text string) {
	var v any
	if json.Unmarshal([]byte(text), &v) == nil {
		s.walk("", v)
	}
}

func (s *Set) walk(name string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, one := range v {
			s.walk(k, one)
		}
	case []any:
		for _, one := range v {
			s.walk(name, one)
		}
	case string:
		if secretNames[name] {
			s.Add(name, v)
		}
	}
}

// Add learns one secret, by the name that a failure gives it.
func (s *Set) Add(name, secret string) {
	if len(secret) < least {
		return
	}
	escaped, _ := json.Marshal(secret) // it is a string
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.forms == nil {
		s.forms = map[string]string{}
	}
	s.forms[secret] = name
	s.forms[strings.Trim(string(escaped), `"`)] = name + ", escaped"
	s.forms[url.QueryEscape(secret)] = name + ", percent-encoded"
	s.forms[base64.RawStdEncoding.EncodeToString([]byte(secret))] = name + ", as base64"
}

// Leak says which secret the text holds, not its value; empty: none.
func (s *Set) Leak(text string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for form, name := range s.forms {
		if strings.Contains(text, form) {
			return name
		}
	}
	return ""
}

// LeakOrToken is Leak, and finds tokens of callers and admins too.
func (s *Set) LeakOrToken(text string) string {
	if tokens.MatchString(text) {
		return "a token"
	}
	return s.Leak(text)
}
