package console

import (
	"errors"
	"net/http"
	"time"
)

// What the API says of tokens. Token is there only in the answer that made it.
type (
	callerToken struct {
		ID, Name, Rate, Token  string
		Orgs, Providers, Allow []string
		SecretRoutes           bool       `json:"secret_routes"`
		LastUsedAt             *time.Time `json:"last_used_at"`
	}
	adminToken struct {
		ID, Name, Role, Org, Token string
		LastUsedAt                 *time.Time `json:"last_used_at"`
	}
)

type accessPage struct {
	Callers   []callerToken
	Tokens    []adminToken
	MoreToken bool
	MoreCall  bool
	Providers []providerInfo
	Made      string // a new token, shown this once
	MadeFor   string
	BadCaller *refusal
	BadToken  *refusal
	Typed     map[string]string
	Ticked    map[string]bool
}

func (c *Console) access(v *visit) error { return v.showAccess(http.StatusOK, accessPage{}) }

func (v *visit) showAccess(status int, p accessPage) error {
	var callers struct {
		Items []callerToken
		Next  string `json:"next_cursor"`
	}
	if err := v.get(&callers, "/api/callers?limit=500"); err != nil {
		return err
	}
	var tokens struct {
		Items []adminToken
		Next  string `json:"next_cursor"`
	}
	if err := v.get(&tokens, "/api/admin-tokens?limit=500"); err != nil {
		return err
	}
	var err error
	if p.Providers, err = v.providers(); err != nil {
		return err
	}
	p.Callers, p.MoreCall, p.Tokens, p.MoreToken = callers.Items, callers.Next != "", tokens.Items, tokens.Next != ""
	bad := p.BadCaller
	if bad == nil {
		bad = p.BadToken
	}
	return v.show(status, "access", page{Title: "Callers and tokens", Nav: "access", Bad: bad, Data: p})
}

// addCaller makes a token for an app's process. It is in the answer to this form and nowhere else, ever.
func (c *Console) addCaller(v *visit) error {
	f := v.form
	o := newObject(512)
	o.value("name", f.text("name"))
	o.list("orgs", lines(f.raw("orgs")))
	providers := f.texts("providers")
	if len(providers) > 0 {
		o.value("providers", providers)
	}
	if allow := lines(f.raw("allow")); len(allow) > 0 {
		o.list("allow", allow)
	}
	if rate := f.text("rate"); rate != "" {
		o.value("rate", rate)
	}
	var made callerToken
	p := accessPage{}
	err := v.do(ask{method: http.MethodPost, path: "/api/callers", body: o.end()}, &made)
	if r := (*refusal)(nil); errors.As(err, &r) && r.Status != http.StatusUnauthorized {
		p.BadCaller = r
		p.Typed = map[string]string{"name": f.text("name"), "orgs": f.text("orgs"), "allow": f.text("allow"), "rate": f.text("rate")}
		p.Ticked = map[string]bool{}
		for _, name := range providers {
			p.Ticked[name] = true
		}
		return v.showAccess(r.Status, p)
	}
	if err != nil {
		return err
	}
	p.Made, p.MadeFor = made.Token, "the caller "+made.Name
	return v.showAccess(http.StatusCreated, p)
}

func (c *Console) addToken(v *visit) error {
	f := v.form
	o := newObject(256)
	o.value("name", f.text("name"))
	if org := f.text("org"); org != "" {
		o.value("org", org)
		o.value("role", "org")
	} else {
		o.value("role", f.text("role"))
	}
	var made adminToken
	p := accessPage{}
	err := v.do(ask{method: http.MethodPost, path: "/api/admin-tokens", body: o.end()}, &made)
	if r := (*refusal)(nil); errors.As(err, &r) && r.Status != http.StatusUnauthorized {
		p.BadToken = r
		p.Typed = map[string]string{"token-name": f.text("name"), "token-org": f.text("org")}
		return v.showAccess(r.Status, p)
	}
	if err != nil {
		return err
	}
	p.Made, p.MadeFor = made.Token, "the admin token "+made.Name
	return v.showAccess(http.StatusCreated, p)
}

func (c *Console) askRevokeCaller(v *visit) error {
	return v.confirm(confirmation{
		Title: "Revoke this caller's token?", Button: "Revoke", Back: [2]string{"/access", "Callers and tokens"},
		Text: "Requests with it are refused within a second, in every sidecar. It cannot be taken back: a new token is a new one.",
	})
}

func (c *Console) revokeCaller(v *visit) error { return v.revoke("/api/callers/") }

func (c *Console) askRevokeToken(v *visit) error {
	return v.confirm(confirmation{
		Title: "Revoke this admin token?", Button: "Revoke", Back: [2]string{"/access", "Callers and tokens"},
		Text: "Whoever uses it is refused at once, and is logged out of the console: you too, if it is your own.",
	})
}

func (c *Console) revokeToken(v *visit) error { return v.revoke("/api/admin-tokens/") }

func (v *visit) revoke(where string) error {
	if err := v.do(ask{method: http.MethodDelete, path: path(where, v.r.PathValue("id"))}, nil); err != nil {
		return err
	}
	v.redirect("/access", "token-gone")
	return nil
}
