package console

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strings"
)

// A visit is one request of a browser being answered.
type visit struct {
	c     *Console
	w     http.ResponseWriter
	r     *http.Request
	who   *session // nil: nobody is logged in
	token string   // the admin token, for this request
	form  *form    // of a POST
}

// handle makes a handler of a page: it finds out who asks, refuses forms that are not ours, and shows what goes wrong.
func (c *Console) handle(page func(*Console, *visit) error, loggedIn bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := &visit{c: c, w: w, r: r}
		v.who, v.token = c.sessions.find(cookieOf(r), r.URL.Path != "/live")
		if err := v.answer(page, loggedIn); err != nil {
			v.fail(err)
		}
	}
}

func (v *visit) answer(page func(*Console, *visit) error, loggedIn bool) (err error) {
	if v.r.Method == http.MethodPost {
		longest := int64(maxForm)
		if v.who == nil {
			longest = maxLogin
		}
		if v.form, err = readForm(v.r, longest); err != nil {
			return &refusal{Status: http.StatusBadRequest, Detail: err.Error()}
		}
		defer v.form.wipe()
	}
	switch {
	case !loggedIn:
		return page(v.c, v)
	case v.who == nil && v.r.URL.Path == "/live":
		return &refusal{Status: http.StatusUnauthorized, Detail: "nobody is logged in"}
	case v.who == nil && v.r.URL.Path == "/logout":
		v.redirect("/login", "bye")
		return nil
	case v.who == nil && v.r.Method == http.MethodGet && v.c.o.Open != nil && v.c.o.Open() != "":
		if err := v.enter(v.c.o.Open()); err != nil {
			return err
		}
	case v.who == nil:
		return v.toLogin("")
	case v.r.Method == http.MethodPost && !sameText(v.form.text("csrf"), v.who.csrf):
		return &refusal{Status: http.StatusForbidden, Detail: "the form belongs to another session: go back, load the page again and send it anew"}
	}
	return page(v.c, v)
}

// toLogin asks who it is, and remembers where the person wanted to go.
func (v *visit) toLogin(done string) error {
	q := url.Values{}
	if to := v.r.URL.RequestURI(); v.r.Method == http.MethodGet && to != "/" {
		q.Set("to", to)
	}
	if done != "" {
		q.Set("done", done)
	}
	to := "/login"
	if len(q) > 0 {
		to += "?" + q.Encode()
	}
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
	return nil
}

// fail shows why a page cannot be shown.
func (v *visit) fail(err error) {
	var r *refusal
	if !errors.As(err, &r) {
		v.c.o.Log.Error().Err(err).Msg("a page of the console could not be made")
		r = &refusal{Status: http.StatusInternalServerError, Detail: "the console could not make this page; the sidecar's log says more"}
	}
	if r.Status == http.StatusUnauthorized && v.r.URL.Path == "/live" {
		v.w.WriteHeader(r.Status)
		return
	}
	if r.Status == http.StatusUnauthorized && v.who != nil { // the token was revoked
		v.c.sessions.end(cookieOf(v.r))
		setCookie(v.w, "")
		_ = v.toLogin("revoked") // it writes a redirect
		return
	}
	title := map[int]string{
		http.StatusNotFound: "Not found", http.StatusForbidden: "Not allowed", http.StatusServiceUnavailable: "Not now",
		http.StatusTooManyRequests: "Too many tries", http.StatusPreconditionFailed: "Changed by somebody else", http.StatusConflict: "Not possible now",
	}[r.Status]
	if title == "" {
		title = "That did not work"
	}
	if err := v.show(r.Status, "problem", page{Title: title, Data: r}); err != nil {
		v.c.o.Log.Error().Err(err).Msg("a page of the console could not be shown")
		v.w.WriteHeader(http.StatusInternalServerError)
	}
}

// A page is what every page's template gets.
type page struct {
	Title string
	Nav   string    // which entry of the navigation is the current one
	Back  [2]string // where the page belongs: path and name
	Done  string    // what has just been done
	Bad   *refusal
	Who   *session
	CSRF  string
	Data  any

	titles map[string]string // Options.Titles
}

// ProviderTitle is a provider's name as people write it.
func (p page) ProviderTitle(name string) string {
	if title := p.titles[name]; title != "" {
		return title
	}
	return name
}

// show writes a page.
func (v *visit) show(status int, name string, p page) error {
	p.titles = v.c.o.Titles
	if v.who != nil {
		p.Who, p.CSRF = v.who, v.who.csrf
	}
	if p.Done == "" {
		p.Done = done[v.r.URL.Query().Get("done")]
	}
	var b bytes.Buffer
	if err := templates()[name].ExecuteTemplate(&b, "page", p); err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.WriteHeader(status)
	_, _ = v.w.Write(b.Bytes()) // the browser is gone: nobody to tell
	return nil
}

// redirect sends the browser to a page of ours, which then says what was done.
func (v *visit) redirect(to, what string) {
	if what != "" {
		to += "?done=" + url.QueryEscape(what)
	}
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
}

// local is to if that is a path of ours, else the overview: a link must not lead to another host by way of the login.
func local(to string) string {
	u, err := url.Parse(to)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n\t") ||
		strings.HasPrefix(u.Path, "/login") || strings.HasPrefix(u.Path, "/live") || strings.HasPrefix(u.Path, "/api/") {
		return "/"
	}
	return to
}

// nowhere is the answer to unknown paths.
func (c *Console) nowhere(*visit) error {
	return &refusal{Status: http.StatusNotFound, Detail: "there is no such page"}
}
