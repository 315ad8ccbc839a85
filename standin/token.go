package standin

import (
	"crypto/sha512"
	"encoding/base64"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const tokenHost = "oauth2.googleapis.com"

// tokens is Google's token endpoint: which refresh tokens are good and which access tokens came of them.
type tokens struct {
	mu      sync.Mutex
	grants  map[string]grant       // :: refresh token
	access  map[string]accessToken // :: access token
	issued  map[string][]string    // :: label → access tokens, oldest first
	refresh map[string]string      // :: label → the refresh token that is good now
	clients map[string]grant       // :: client id → the client, and whose consents it asks for
	codes   map[string]code        // :: authorization code
	deny    bool                   // the person at the consent page says no
}

// A grant is what a refresh token stands for.
type grant struct{ label, clientID, clientSecret string }

type accessToken struct {
	label string
	ends  time.Time
}

func (t *tokens) accept(c Credential) {
	if c.Provider != GoogleCalendar {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.grants == nil {
		t.grants, t.access = map[string]grant{}, map[string]accessToken{}
		t.issued, t.refresh = map[string][]string{}, map[string]string{}
		t.clients, t.codes = map[string]grant{}, map[string]code{}
	}
	f := c.Fields
	client := grant{c.Label, f["client_id"], f["client_secret"]}
	t.clients[f["client_id"]] = client
	if f["refresh_token"] == "" {
		return // a client that nobody has consented to yet
	}
	t.grants[f["refresh_token"]] = client
	t.refresh[c.Label] = f["refresh_token"]
}

// forget ends the refresh token and all access tokens of a label.
func (t *tokens) forget(c Credential) {
	if c.Provider != GoogleCalendar {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.grants, t.refresh[c.Label])
	delete(t.refresh, c.Label)
	t.expireLocked(c.Label)
}

func (t *tokens) expireLocked(label string) {
	for _, a := range t.issued[label] {
		delete(t.access, a)
	}
}

// owner is the label of a good access token, or "".
func (t *tokens) owner(access string, now time.Time) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.access[access]
	if !ok || !now.Before(a.ends) {
		return ""
	}
	return a.label
}

// Revoke makes the token endpoint answer invalid_grant for that label, as after the user took the consent back.
func (s *Set) Revoke(label string) {
	s.google.forget(Credential{Label: label, Provider: GoogleCalendar})
}

// ExpireTokens ends the access tokens of that label early: the calendar answers 401 until a new one is fetched.
func (s *Set) ExpireTokens(label string) {
	s.google.mu.Lock()
	defer s.google.mu.Unlock()
	s.google.expireLocked(label)
}

// AccessTokens are all that the token endpoint gave out for that label, oldest first; their number is that of the exchanges.
func (s *Set) AccessTokens(label string) []string {
	s.google.mu.Lock()
	defer s.google.mu.Unlock()
	return append([]string(nil), s.google.issued[label]...)
}

// RefreshToken is the refresh token of that label that is good now: another one than the Credential's after a rotation.
func (s *Set) RefreshToken(label string) string {
	s.google.mu.Lock()
	defer s.google.mu.Unlock()
	return s.google.refresh[label]
}

// token exchanges a refresh token.
func (s *Set) token(w http.ResponseWriter, r *http.Request) {
	form, ok := formOf(r)
	if ok && form.Get("grant_type") == "authorization_code" {
		s.tradeCode(w, r, form)
		return
	}
	if !ok || form.Get("grant_type") != "refresh_token" {
		tokenError(w, http.StatusBadRequest, "unsupported_grant_type", "Invalid grant_type: "+form.Get("grant_type"))
		return
	}
	t := &s.google
	t.mu.Lock()
	defer t.mu.Unlock()
	old := form.Get("refresh_token")
	g, ok := t.grants[old]
	switch {
	case !ok:
		tokenError(w, http.StatusBadRequest, "invalid_grant", "Token has been expired or revoked.")
		return
	case g.clientID != form.Get("client_id") || g.clientSecret != form.Get("client_secret"):
		refuseToken(w, http.StatusUnauthorized)
		return
	}
	n := len(t.issued[g.label]) + 1
	access := "ya29." + madeUp(old, "access", n)
	t.access[access] = accessToken{g.label, s.opt.Now().Add(s.opt.TokenLife)}
	t.issued[g.label] = append(t.issued[g.label], access)
	out := object{
		"access_token": access, "expires_in": int(s.opt.TokenLife / time.Second), "token_type": "Bearer",
		"scope": "https://www.googleapis.com/auth/calendar",
	}
	if s.opt.RotateRefresh {
		next := "1//0" + madeUp(old, "refresh", n)
		delete(t.grants, old)
		t.grants[next], t.refresh[g.label] = g, next
		out["refresh_token"] = next
	}
	s.label(w, r, g.label)
	answer(w, http.StatusOK, out)
}

// label says in the answer and in the kept request whose they are.
func (s *Set) label(w http.ResponseWriter, r *http.Request, label string) {
	if k, ok := r.Context().Value(keptKey{}).(*keptRequest); ok {
		k.with(func(r *Request) { r.Label = label })
	}
	w.Header().Set(LabelHeader, label)
}

func (s *Set) revoke(w http.ResponseWriter, r *http.Request) {
	form, _ := formOf(r)
	s.google.mu.Lock()
	g, ok := s.google.grants[form.Get("token")]
	s.google.mu.Unlock()
	if !ok {
		tokenError(w, http.StatusBadRequest, "invalid_token", "Token expired or revoked")
		return
	}
	s.Revoke(g.label)
	answer(w, http.StatusOK, object{})
}

// madeUp is a text that looks like a token; the same for the same from, kind and n.
func madeUp(from, kind string, n int) string {
	sum := sha512.Sum512([]byte(kind + " " + strconv.Itoa(n) + " of " + from))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func tokenError(w http.ResponseWriter, status int, name, description string) {
	answer(w, status, object{"error": name, "error_description": description})
}

func refuseToken(w http.ResponseWriter, status int) {
	switch status {
	case http.StatusUnauthorized:
		tokenError(w, status, "invalid_client", "The OAuth client was not found.")
	case http.StatusTooManyRequests:
		tokenError(w, status, "rate_limit_exceeded", "Rate Limit Exceeded")
	case http.StatusBadRequest:
		tokenError(w, status, "invalid_grant", "Token has been expired or revoked.")
	default:
		tokenError(w, status, "internal_failure", "Internal server error.")
	}
}
