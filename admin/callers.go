package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/store"
)

// A token is a caller's token as it is shown: by what it may do. The token itself is shown once, in the answer that made it.
type token struct {
	ID           string     `json:"id"`
	Name         string     `json:"name"`
	Orgs         []string   `json:"orgs"`
	Providers    []string   `json:"providers"`
	Allow        []string   `json:"allow"`
	Rate         string     `json:"rate"`
	SecretRoutes bool       `json:"secret_routes"`
	CreatedAt    *time.Time `json:"created_at"`
	LastUsedAt   *time.Time `json:"last_used_at"`
	UseCount     int64      `json:"use_count"`
	Token        string     `json:"token,omitempty"`
}

func showToken(t *store.Token) token {
	return token{
		ID: t.ID, Name: t.Name, Orgs: list(t.Orgs), Providers: list(t.Providers), Allow: list(t.Allow), Rate: t.Rate, SecretRoutes: t.SecretRoutes,
		CreatedAt: moment(t.CreatedAt), LastUsedAt: moment(t.LastUsedAt), UseCount: t.UseCount,
	}
}

// list is a list that JSON never shows as null.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func (a *API) listCallers(c *call) error {
	after, n, err := c.paged()
	if err != nil {
		return err
	}
	rows, next, err := a.o.DB.Tokens(c.r.Context(), after, n)
	if err != nil {
		return err
	}
	items := make([]token, len(rows))
	for i, row := range rows {
		items[i] = showToken(row)
	}
	return c.json(http.StatusOK, page{items, next})
}

// addCaller makes a token and shows it, this once.
func (a *API) addCaller(c *call) error {
	t := &store.Token{}
	err := c.read(field{"name", &t.Name}, field{"orgs", &t.Orgs}, field{"providers", &t.Providers}, field{"allow", &t.Allow},
		field{"rate", &t.Rate}, field{"secret_routes", &t.SecretRoutes})
	if err != nil {
		return err
	}
	plain, err := a.makeCaller(c.r.Context(), c.by, t)
	if err != nil {
		return err
	}
	shown := showToken(t)
	shown.Token = plain
	c.etag(onlyVersion)
	c.w.Header().Set("Location", "/api/callers/"+url.PathEscape(t.ID))
	return c.json(http.StatusCreated, shown)
}

// makeCaller makes the token that t describes, and returns it; t has its id from then on. No providers: all.
func (a *API) makeCaller(ctx context.Context, by store.Actor, t *store.Token) (plain string, err error) {
	if t.Providers == nil {
		t.Providers = []string{"*"}
	}
	if _, err := caller.NewRule(t.Name, t.Orgs, t.Providers, t.Allow, t.Rate, t.SecretRoutes, a.o.Providers.Names()); err != nil {
		return "", badRule(err)
	}
	plain, t.Hash = caller.NewToken()
	if err := a.o.DB.PutToken(ctx, by, t); err != nil {
		if errors.Is(err, store.ErrConflict) {
			err = taken("there is a caller of that name: revoke it first, or take another name")
		}
		return "", err
	}
	return plain, nil
}

// badRule is a 400 with one entry for each problem that caller.NewRule joined, "field: problem".
func badRule(err error) *Problem {
	p := malformed("the caller is not valid")
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		all = joined.Unwrap()
	}
	for _, e := range all {
		name, problem, _ := strings.Cut(e.Error(), ": ")
		p.add(name, problem)
	}
	return p
}

func (a *API) revokeCaller(c *call) error {
	if err := c.ifOnlyVersion(); err != nil {
		return err
	}
	if _, err := a.o.DB.RevokeToken(c.r.Context(), c.by, c.r.PathValue("caller")); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return missing("there is no caller of that id or name")
		}
		return err
	}
	c.status(http.StatusNoContent)
	return nil
}
