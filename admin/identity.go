package admin

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/store"
)

// An identity is who asks, once that is known: on whose account the audit log has what is done, and what it may reach.
type identity struct {
	store.Actor
	org     string // the one org that it is bound to; empty: an operator
	tokenID string // of the admin token; empty: the peer of the socket
}

// reaches says whether the org is within reach. What is not looks as if it were not there.
func (i identity) reaches(org string) bool { return i.org == "" || i.org == org }

var (
	problemNoSuchOrg = missing("there is no such org")
	problemOperators = &Problem{Status: http.StatusForbidden, Code: "role_forbidden", Detail: "this is for operators: the token is bound to one org"}
	problemToken     = &Problem{Status: http.StatusUnauthorized, Code: "unauthenticated", Detail: "the admin token is unknown or revoked; keyward admin-tokens add makes one"}
)

// usedEvery is how exactly a token's last use is kept: noting it is a write.
const usedEvery = time.Minute

// identify finds out whose token it is. from is the address that it came from.
func (a *API) identify(ctx context.Context, token, from string) (identity, error) {
	now := time.Now()
	hash := caller.HashToken([]byte(token))
	who := guesser(from)
	if wait := a.guesses.try(who, hash, now); wait > 0 {
		if a.guesses.tell(now) {
			e := store.Event{Actor: store.Actor{From: from}, Action: "admin-token.guess", Result: "rate_limited", Detail: "wrong admin tokens are being tried"}
			if err := a.o.DB.AddEvent(ctx, e); err != nil {
				a.o.Log.Warn().Err(err).Msg("recording in the audit log that admin tokens are being guessed did not succeed")
			}
		}
		return identity{}, &Problem{
			Status: http.StatusTooManyRequests, Code: "rate_limited", Detail: "too many wrong admin tokens were tried: wait",
			retryAfter: int(math.Ceil(wait.Seconds())),
		}
	}
	if !caller.IsAdminToken([]byte(token)) {
		return identity{}, problemToken
	}
	row, err := a.o.DB.AdminToken(ctx, hash)
	if errors.Is(err, store.ErrNotFound) {
		a.guesses.wrong(hash)
		return identity{}, problemToken
	}
	if err != nil {
		a.guesses.undecided(who, hash)
		return identity{}, err
	}
	if (row.Role == store.RoleOperator) != (row.Org == "") {
		return identity{}, problemToken // no such row can be written; if one is there all the same, it must not become an operator's
	}
	a.guesses.right(who, hash)
	if now.Sub(row.LastUsedAt) > usedEvery {
		if err := a.o.DB.AdminTokenUsed(ctx, row.ID, now); err != nil {
			a.o.Log.Warn().Err(err).Str("token", row.ID).Msg("noting that an admin token was used did not succeed")
		}
	}
	return identity{Actor: store.Actor{Name: "admin token " + row.Name, From: from}, org: row.Org, tokenID: row.ID}, nil
}

// whoAmI says as whom the API takes who asks: what a console or a script may offer to do.
func (a *API) whoAmI(c *call) error {
	if _, err := c.query(); err != nil {
		return err
	}
	role := store.RoleOperator
	if c.who.org != "" {
		role = store.RoleOrg
	}
	return c.json(http.StatusOK, struct {
		Name string `json:"name"`
		Role string `json:"role"`
		Org  string `json:"org"`
	}{c.who.Name, role, c.who.org})
}

// bearer is the token of the Authorization header; without the header there is none, and one of another form is an error.
func bearer(r *http.Request) (token string, given bool, err error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return "", false, nil
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") {
		return "", true, problemUnauthenticated
	}
	return strings.TrimSpace(token), true, nil
}

// shared are the paths without an org that are not for operators alone: what they answer an org-bound token is its own org's.
var shared = map[string]bool{
	"/api/openapi.json": true, "/api/whoami": true, "/api/providers": true, "/api/orgs": true, "/api/assistants": true, "/api/assistants/{assistant}": true,
	"/api/webhooks/deliveries": true, "/api/webhooks/deliveries/{delivery}": true, "/api/webhooks/deliveries/{delivery}/redeliver": true,
	"/api/audit": true,
}

// permit decides whether who asks may use the path at all. A path that nobody has thought about is for operators.
func (c *call) permit(pattern string) error {
	switch {
	case c.who.org == "":
		return nil
	case strings.HasPrefix(pattern, "/api/local/"): // it is about this sidecar
		return problemOperators
	case strings.Contains(pattern, "{org}"):
		if !c.who.reaches(c.r.PathValue("org")) {
			return problemNoSuchOrg
		}
		return nil
	case shared[pattern], strings.HasPrefix(pattern, ownIntegrations):
		return nil
	}
	return problemOperators
}
