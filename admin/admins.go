package admin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/store"
)

// An adminToken is a token of this API as it is shown. The token itself is shown once, in the answer that made it.
type adminToken struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Role       string     `json:"role"`
	Org        string     `json:"org"`
	CreatedAt  *time.Time `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
	Token      string     `json:"token,omitempty"`
}

func showAdminToken(t *store.AdminToken) adminToken {
	return adminToken{ID: t.ID, Name: t.Name, Role: t.Role, Org: t.Org, CreatedAt: moment(t.CreatedAt), LastUsedAt: moment(t.LastUsedAt)}
}

func (a *API) listAdminTokens(c *call) error {
	after, n, err := c.paged()
	if err != nil {
		return err
	}
	rows, next, err := a.o.DB.AdminTokens(c.r.Context(), after, n)
	if err != nil {
		return err
	}
	items := make([]adminToken, len(rows))
	for i, row := range rows {
		items[i] = showAdminToken(row)
	}
	return c.json(http.StatusOK, page{items, next})
}

// addAdminToken makes a token and shows it, this once.
func (a *API) addAdminToken(c *call) error {
	t := &store.AdminToken{}
	if err := c.read(field{"name", &t.Name}, field{"role", &t.Role}, field{"org", &t.Org}); err != nil {
		return err
	}
	plain, err := a.makeAdminToken(c.r.Context(), c.by, t)
	if err != nil {
		return err
	}
	shown := showAdminToken(t)
	shown.Token = plain
	c.etag(onlyVersion)
	c.w.Header().Set("Location", "/api/admin-tokens/"+url.PathEscape(t.ID))
	return c.json(http.StatusCreated, shown)
}

// makeAdminToken makes the token that t describes, and returns it; t has its id from then on. With an org and no role, the role is that
// of the org.
func (a *API) makeAdminToken(ctx context.Context, by store.Actor, t *store.AdminToken) (plain string, err error) {
	if t.Role == "" && t.Org != "" {
		t.Role = store.RoleOrg
	}
	if err := checkAdminToken(t); err != nil {
		return "", err
	}
	plain, t.Hash = caller.NewAdminToken()
	if err := a.o.DB.PutAdminToken(ctx, by, t); err != nil {
		if errors.Is(err, store.ErrConflict) {
			err = taken("there is an admin token of that name: revoke it first, or take another name")
		}
		return "", err
	}
	return plain, nil
}

func checkAdminToken(t *store.AdminToken) error {
	p := malformed("the admin token is not valid")
	if t.Name == "" || !isText(t.Name, 64) {
		p.add("name", "must be 1 to 64 characters, none of them a control character")
	}
	switch {
	case t.Role == "":
		p.add("role", "is missing: operator, or org for a token that is bound to one org")
	case !slices.Contains([]string{store.RoleOperator, store.RoleOrg}, t.Role):
		p.add("role", "must be operator or org")
	case t.Role == store.RoleOrg && t.Org == "":
		p.add("org", "is missing: the org that the token is bound to")
	case t.Role == store.RoleOperator && t.Org != "":
		p.add("org", "is for tokens of the role org: an operator is bound to none")
	case t.Org != "" && !store.IsOrg(t.Org):
		p.add("org", malformedOrg)
	}
	return p.orNil()
}

// taken is a 409 about a name.
func taken(detail string) *Problem {
	return &Problem{Status: http.StatusConflict, Code: "conflict", Detail: detail, Errors: []FieldProblem{{"name", "is taken"}}}
}

func (a *API) revokeAdminToken(c *call) error {
	if err := c.ifOnlyVersion(); err != nil {
		return err
	}
	if _, err := a.o.DB.RevokeAdminToken(c.r.Context(), c.by, c.r.PathValue("token")); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			return missing("there is no admin token of that id or name")
		}
		return err
	}
	c.status(http.StatusNoContent)
	return nil
}
