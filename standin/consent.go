package standin

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// consentPath is Google's consent page. A person would be asked there; the stand-in agrees at once, as the person of Consent's label.
const consentPath = "/o/oauth2/v2/auth"

// A code is what a consent yields until it is traded, once.
type code struct {
	grant
	redirect, challenge, scope string
	offline                    bool
	ends                       time.Time
}

// authorize checks the request as Google does, and sends the browser back with a code. What could send it to a stranger is an error page.
func (s *Set) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	c := s.google.client(q.Get("client_id"))
	back, err := url.Parse(q.Get("redirect_uri"))
	switch {
	case c == nil:
		http.Error(w, "Error 401: invalid_client", http.StatusUnauthorized)
		return
	case err != nil || back.Host == "" || back.Fragment != "":
		http.Error(w, "Error 400: redirect_uri_mismatch", http.StatusBadRequest)
		return
	}
	answer := url.Values{"state": {q.Get("state")}}
	switch {
	case q.Get("response_type") != "code" || q.Get("scope") == "" || q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43:
		answer.Set("error", "invalid_request")
	case s.google.denies():
		answer.Set("error", "access_denied")
	default:
		name := "4/0" + hexID(60)
		s.google.mu.Lock()
		s.google.codes[name] = code{*c, q.Get("redirect_uri"), q.Get("code_challenge"), q.Get("scope"), q.Get("access_type") == "offline" && q.Get("prompt") == "consent", s.opt.Now().Add(10 * time.Minute)}
		s.google.mu.Unlock()
		answer.Set("code", name)
		answer.Set("scope", q.Get("scope"))
		answer.Set("iss", "https://accounts.google.com")
		answer.Set("authuser", "0")
	}
	back.RawQuery = answer.Encode()
	w.Header().Set("Location", back.String())
	w.WriteHeader(http.StatusFound)
}

// tradeCode trades a code for tokens. A code is good once, for the client, the redirect and the verifier that it was asked for with.
func (s *Set) tradeCode(w http.ResponseWriter, r *http.Request, form url.Values) {
	t := &s.google
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.codes[form.Get("code")]
	delete(t.codes, form.Get("code"))
	sum := sha256.Sum256([]byte(form.Get("code_verifier")))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	switch {
	case ok && (c.clientID != form.Get("client_id") || c.clientSecret != form.Get("client_secret")):
		refuseToken(w, http.StatusUnauthorized)
		return
	case !ok || !s.opt.Now().Before(c.ends) || c.redirect != form.Get("redirect_uri") || subtle.ConstantTimeCompare([]byte(challenge), []byte(c.challenge)) != 1:
		tokenError(w, http.StatusBadRequest, "invalid_grant", "Malformed auth code.")
		return
	}
	n := len(t.issued[c.label]) + 1
	access := "ya29." + madeUp(form.Get("code"), "access", n)
	t.access[access] = accessToken{c.label, s.opt.Now().Add(s.opt.TokenLife)}
	t.issued[c.label] = append(t.issued[c.label], access)
	out := object{"access_token": access, "expires_in": int(s.opt.TokenLife / time.Second), "token_type": "Bearer", "scope": c.scope}
	if s.opt.Grants != nil {
		out["scope"] = strings.Join(s.opt.Grants, " ")
	}
	if c.offline {
		refresh := "1//0" + madeUp(form.Get("code"), "refresh", n)
		t.grants[refresh], t.refresh[c.label] = c.grant, refresh
		out["refresh_token"] = refresh
	}
	s.label(w, r, c.label)
	answer(w, http.StatusOK, out)
}

// client is the OAuth client of that id, and the label of the credential that it is known from; nil: unknown.
func (t *tokens) client(id string) *grant {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok := t.clients[id]; ok {
		return &c
	}
	return nil
}

func (t *tokens) denies() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.deny
}

// Deny has the person at the consent page say no, or yes again.
func (s *Set) Deny(no bool) {
	s.google.mu.Lock()
	defer s.google.mu.Unlock()
	s.google.deny = no
}
