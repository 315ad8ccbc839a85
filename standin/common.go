package standin

import (
	"crypto/sha256"
	"net/http"
	"strings"

	"github.com/coder/websocket"
	"github.com/keyward/keyward/provider"
)

// SampleOf makes up a well-formed credential of any provider: its fields' examples, with other letters and digits for each label.
func SampleOf(p *provider.Provider, label string) Credential {
	fields := map[string]string{}
	for _, f := range p.Fields {
		if f.Required {
			fields[f.Name] = disguise(f.Example, "standin "+p.Name+" "+f.Name+" of "+label)
		}
	}
	return Credential{Label: label, Provider: p.Name, Fields: fields, of: p}
}

// disguise replaces the letters and digits of each long run in text by others of their kind, made of seed. Short runs are what a provider's
// keys begin with, and stay.
func disguise(text, seed string) string {
	const long = 8
	sum := sha256.Sum256([]byte(seed))
	b := []byte(text)
	for at := 0; at < len(b); {
		end := at
		for end < len(b) && isWord(b[end]) {
			end++
		}
		if end-at >= long {
			hex := strings.Trim(text[at:end], "0123456789abcdef") == ""
			for i := at; i < end; i++ {
				n := sum[i%len(sum)]
				if i%len(sum) == len(sum)-1 {
					sum = sha256.Sum256(sum[:])
				}
				b[i] = another(b[i], n, hex)
			}
		}
		at = end + 1
	}
	return string(b)
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func another(c, n byte, hex bool) byte {
	switch {
	case hex:
		return "0123456789abcdef"[n%16]
	case c >= 'a' && c <= 'z':
		return 'a' + n%26
	case c >= 'A' && c <= 'Z':
		return 'A' + n%26
	}
	return '0' + n%10
}

// injected is what a request with the credential carries: "Header: value".
func (c Credential) injected() string {
	p := c.of
	if p == nil {
		p = provider.Named(c.Provider)
	}
	values, problems := p.Parse(c.JSON())
	if len(problems) > 0 {
		panic("standin: " + c.Provider + ": " + problems[0].Field + " " + problems[0].Problem)
	}
	r := &provider.Request{Method: []byte("GET"), Path: []byte("/")}
	if err := p.Inject(r, provider.Open(values.Encode(nil))); err != nil {
		panic("standin: " + c.Provider + ": " + err.Error())
	}
	return r.Header + ": " + string(r.Value)
}

// common stands in for a provider by what its file says. What is no probe is answered with what arrived, with made-up secrets in the
// places where the provider's answers have such, and a WebSocket is an echo.
func (s *Set) common(p *provider.Provider) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := s.bearerOf(p, r)
		if a == nil {
			drain(r)
			sampled(w, &p.Probe, provider.Invalid, http.StatusUnauthorized)
			return
		}
		authenticated(w, r, a)
		switch {
		case r.Header.Get("Upgrade") != "":
			s.echo(w, r)
		case r.Method == http.MethodGet && a.Restricted && isProbe(p, r):
			sampled(w, &p.Probe, provider.ValidRestricted, http.StatusForbidden)
		case r.Method == http.MethodGet && isProbe(p, r):
			sampled(w, &p.Probe, provider.Valid, http.StatusOK)
		default:
			body, ok := read(r)
			if !ok {
				body = nil
			}
			o := object{"object": "standin", "provider": p.Name, "method": r.Method, "path": r.URL.Path, "received": body}
			for _, f := range p.SecretFields {
				if fits(f.Path, r.URL.Path) {
					for _, name := range f.Names {
						o.set(strings.Split(name, "."), "made-up-"+hexID(24))
					}
				}
			}
			answer(w, http.StatusOK, o)
		}
	})
}

// bearerOf is the account that the request's one credential header proves, or nil.
func (s *Set) bearerOf(p *provider.Provider, r *http.Request) *account {
	var found *account
	for _, name := range p.AuthHeaders {
		for _, value := range r.Header.Values(name) {
			a := s.accounts.proven(p.Name, "injected", name+": "+value)
			if a == nil || found != nil {
				return nil // another's beside it, or the same twice
			}
			found = a
		}
	}
	return found
}

func isProbe(p *provider.Provider, r *http.Request) bool {
	for _, path := range p.Probe.Paths(provider.Secret{}) {
		path, _, _ = strings.Cut(path, "?")
		if path == r.URL.Path {
			return true
		}
	}
	return false
}

// sampled answers as the provider does to a credential of that state.
func sampled(w http.ResponseWriter, p *provider.Probe, state provider.State, status int) {
	sample, ok := p.Sample(state)
	if !ok {
		answer(w, status, object{"error": object{"message": http.StatusText(status)}})
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(sample.Status)
	_, _ = w.Write([]byte(sample.Body))
}

// fits says whether a path is one of a glob, as far as the glob has no stars.
func fits(glob, path string) bool {
	fixed, _, star := strings.Cut(glob, "*")
	fixed = strings.TrimSuffix(fixed, "/")
	return path == fixed || star && strings.HasPrefix(path, fixed)
}

// set sets a member of an object within objects.
func (o object) set(path []string, value any) {
	if len(path) == 1 {
		o[path[0]] = value
		return
	}
	inner, _ := o[path[0]].(object)
	if inner == nil {
		inner = object{}
		o[path[0]] = inner
	}
	inner.set(path[1:], value)
}

// echo sends back each message as it came, until the other side ends it or the Set is closed.
func (s *Set) echo(w http.ResponseWriter, r *http.Request) {
	o := &websocket.AcceptOptions{InsecureSkipVerify: true}
	if names := r.Header.Get("Sec-Websocket-Protocol"); names != "" {
		first, _, _ := strings.Cut(names, ",")
		o.Subprotocols = []string{strings.TrimSpace(first)}
	}
	c, err := websocket.Accept(w, r, o)
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(-1)
	for {
		kind, data, err := c.Read(s.ctx)
		if err != nil || c.Write(s.ctx, kind, data) != nil {
			return
		}
	}
}
