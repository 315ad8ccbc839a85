package console

import (
	"errors"
	"net/http"
	"net/url"
)

// A loginPage is the form for the admin token.
type loginPage struct {
	To  string
	Bad string
}

func (c *Console) showLogin(v *visit) error {
	to := v.r.URL.Query().Get("to")
	if v.who != nil {
		v.redirect(local(to), "")
		return nil
	}
	p := loginPage{To: to}
	if v.r.URL.Query().Has("kept") {
		p.Bad = "The browser did not keep the session's cookie. Over plain http, browsers keep it from this machine only (127.0.0.1 or localhost): " +
			"use an ssh tunnel, or put TLS in front."
	}
	return v.show(http.StatusOK, "login", page{Title: "Log in", Data: p})
}

// login trades an admin token for a session. The API decides whether it is right, and limits how often wrong ones are tried.
func (c *Console) login(v *visit) error {
	old := cookieOf(v.r)
	err := v.enter(v.form.text("token"))
	var r *refusal
	switch {
	case errors.As(err, &r):
		p := loginPage{To: v.form.text("to"), Bad: r.Detail}
		if r.Status == http.StatusUnauthorized {
			p.Bad = "This admin token is unknown or revoked."
		}
		v.who = nil
		return v.show(r.Status, "login", page{Title: "Log in", Data: p})
	case err != nil:
		return err
	}
	if old != "" {
		c.sessions.end(old)
	}
	// Back to this page, which sees whether the browser kept the cookie.
	http.Redirect(v.w, v.r, "/login?"+url.Values{"kept": {"1"}, "to": {local(v.form.text("to"))}}.Encode(), http.StatusSeeOther)
	return nil
}

// enter makes a session for the token, if the API takes it.
func (v *visit) enter(token string) error {
	v.token = token
	var who struct{ Name, Org string }
	if err := v.get(&who, "/api/whoami"); err != nil {
		return err
	}
	s := &session{Name: who.Name, org: who.Org}
	setCookie(v.w, v.c.sessions.add(token, s))
	v.who = s
	v.c.o.Log.Info().Str("by", who.Name).Str("from", v.r.RemoteAddr).Msg("somebody logged in to the console")
	return nil
}

func (c *Console) logout(v *visit) error {
	c.sessions.end(cookieOf(v.r))
	setCookie(v.w, "")
	v.redirect("/login", "bye")
	return nil
}
