package console

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
)

// An integrationPage is the form for an org's credential. A secret is never in it: not the stored one, and not the one that was just typed.
type integrationPage struct {
	Org      string
	Provider providerInfo
	Has      *integration // nil: there is none yet
	Inputs   []input
	Verify   bool
	Overlap  string
	Bad      *refusal
}

// An input is one field of the form.
type input struct {
	fieldInfo
	ID      string // of the element, and the name it is sent under
	Value   string // of what is no secret
	Masked  string // of what is one and set
	Was     string // Value as it was loaded, so that only what was changed is sent
	Problem string
	Inner   []input // of an object
	Open    bool    // an object that has a value
}

func (c *Console) editIntegration(v *visit) error {
	p, err := v.integrationPage()
	if err != nil {
		return err
	}
	p.Verify = true
	return v.showIntegration(http.StatusOK, p)
}

func (v *visit) showIntegration(status int, p integrationPage) error {
	title := "Add " + p.Provider.Title
	if p.Has != nil {
		title = "Change " + p.Provider.Title
	}
	return v.show(status, "integration", page{Title: title, Nav: "overview", Back: [2]string{path("/orgs/", p.Org), p.Org}, Bad: p.Bad, Data: p})
}

func (v *visit) integrationPage() (p integrationPage, err error) {
	p.Org = v.r.PathValue("org")
	if p.Provider, err = v.provider(v.r.PathValue("provider")); err != nil {
		return p, err
	}
	has := &integration{}
	err = v.get(has, "/api/orgs/", p.Org, "/integrations/", p.Provider.Name)
	var r *refusal
	switch {
	case err == nil:
		p.Has = has
	case errors.As(err, &r) && r.Status == http.StatusNotFound && r.Code == "not_found" && v.within(p.Org):
	default:
		return p, err
	}
	p.Inputs = inputs(p.Provider.Fields, has.Fields, "")
	return p, nil
}

// within says whether the org may be one of this person's: to one who is bound to an org, no other is there.
func (v *visit) within(org string) bool { return v.who.Operator() || v.who.org == org }

func inputs(fields []fieldInfo, values map[string]json.RawMessage, prefix string) []input {
	all := make([]input, len(fields))
	for i, f := range fields {
		one := input{fieldInfo: f, ID: prefix + f.Name}
		raw, set := values[f.Name]
		switch {
		case f.Type == "object":
			var members map[string]json.RawMessage
			_ = json.Unmarshal(raw, &members) // none: nothing is set
			one.Inner, one.Open = inputs(f.Members, members, f.Name+"."), set
		case !set:
		case f.Secret:
			one.Masked = plain(raw)
		case f.Type == "list":
			one.Value = strings.ReplaceAll(plain(raw), ", ", "\n")
		default:
			one.Value = plain(raw)
		}
		one.Was = one.Value
		all[i] = one
	}
	return all
}

// saveIntegration adds, changes or rotates the credential. What is changed is sent as a patch, so that secrets which were not typed anew
// stay; a credential that takes the place of another for good, with that beside it for a while, is sent whole.
func (c *Console) saveIntegration(v *visit) error {
	org := v.r.PathValue("org")
	info, err := v.provider(v.r.PathValue("provider"))
	if err != nil {
		return err
	}
	version, overlap := v.form.text("version"), v.form.text("overlap")
	a := ask{method: http.MethodPut, path: path("/api/orgs/", org, "/integrations/", info.Name), ifMatch: version, ifNone: version == ""}
	patch := version != "" && overlap == ""
	fields := newObject(len(v.form.body) + 256)
	v.fields(fields, info.Fields, "", patch)
	body := newObject(2*len(v.form.body) + 512)
	credentials := fields.end()
	defer clear(credentials)
	if !patch || len(credentials) > 2 {
		body.raw("credentials", credentials)
	}
	switch {
	case patch:
		a.method = http.MethodPatch
	case version != "":
		a.path += "/next"
		body.value("retire_after", overlap)
	}
	if v.form.text("verify") != "" {
		body.value("verify", true)
	}
	a.body = body.end()
	err = v.do(a, nil)
	var r *refusal
	if errors.As(err, &r) && r.Status != http.StatusUnauthorized {
		return v.askAgain(r)
	}
	if err != nil {
		return err
	}
	v.redirect(path("/orgs/", org), "saved")
	return nil
}

// askAgain shows the form as it was sent, with what is wrong and without the secrets. A value that was refused is not repeated either: it
// may be a secret in the wrong field.
func (v *visit) askAgain(r *refusal) error {
	p, err := v.integrationPage()
	if err != nil {
		return err
	}
	p.Bad, p.Verify, p.Overlap = r, v.form.text("verify") != "", v.form.text("overlap")
	v.refill(p.Inputs, r)
	return v.showIntegration(r.Status, p)
}

func (v *visit) refill(inputs []input, r *refusal) {
	for i := range inputs {
		one := &inputs[i]
		one.Problem = r.field(one.ID)
		v.refill(one.Inner, r)
		for _, inner := range one.Inner {
			one.Open = one.Open || inner.Value != "" || inner.Problem != ""
		}
		// What was left as it was is what is there by now: sent once more as it was loaded, it would undo what somebody else has changed.
		if typed := v.form.text(one.ID); !one.Secret && one.Type != "object" && one.Problem == "" && !sameLines(typed, v.form.text("was."+one.ID)) {
			one.Value = typed
		}
	}
}

// fields writes what the form has for the fields. In a patch, what is as it was is left out, and what was emptied is null.
func (v *visit) fields(o *object, fields []fieldInfo, prefix string, patch bool) {
	for _, f := range fields {
		id := prefix + f.Name
		if f.Type == "object" {
			inner := newObject(512)
			v.fields(inner, f.Members, f.Name+".", false)
			before, after := v.form.text("was."+id), string(inner.end())
			switch {
			case after != "{}" && (!patch || !v.same(f)):
				o.raw(f.Name, []byte(after))
			case after == "{}" && patch && before != "":
				o.raw(f.Name, []byte("null"))
			}
			continue
		}
		values := v.form.all(id)
		switch {
		case f.Secret && len(values) == 0 && patch && v.form.text("remove."+id) != "":
			o.raw(f.Name, []byte("null"))
		case f.Secret && len(values) == 0:
		case f.Secret && len(values) > 1:
			o.list(f.Name, values)
		case f.Secret:
			o.text(f.Name, values[0])
		case patch && sameLines(v.form.text(id), v.form.text("was."+id)):
		case len(values) == 0 && patch:
			o.raw(f.Name, []byte("null"))
		case len(values) == 0:
		case f.Type == "list":
			o.list(f.Name, lines(values[0]))
		case f.Type == "boolean" || f.Type == "integer":
			o.raw(f.Name, literal(values[0]))
		default:
			o.text(f.Name, values[0])
		}
	}
}

// same says whether an object's members are as they were.
func (v *visit) same(f fieldInfo) bool {
	for _, m := range f.Members {
		if id := f.Name + "." + m.Name; v.form.text(id) != v.form.text("was."+id) {
			return false
		}
	}
	return true
}

func sameLines(a, b string) bool {
	return strings.Join(strings.Fields(a), " ") == strings.Join(strings.Fields(b), " ")
}

// literal is what was typed as JSON where it is a literal, and a string for the API to refuse where it is not.
func literal(b []byte) []byte {
	if json.Valid(b) && b[0] != '{' && b[0] != '[' {
		return b
	}
	o := &object{}
	o.quote(b)
	return o.b
}

// act does one thing to an integration and goes back to the org.
func (v *visit) act(a ask, out any, what string) error {
	a.path = path("/api/orgs/", v.r.PathValue("org"), "/integrations/", v.r.PathValue("provider")) + a.path
	a.ifMatch = v.form.text("version")
	if err := v.do(a, out); err != nil {
		return err
	}
	v.redirect(path("/orgs/", v.r.PathValue("org")), what)
	return nil
}

func (c *Console) verifyIntegration(v *visit) error {
	var answer struct{ Outcome string }
	a := ask{method: http.MethodPost, path: path("/api/orgs/", v.r.PathValue("org"), "/integrations/", v.r.PathValue("provider"), "/verify")}
	if err := v.do(a, &answer); err != nil {
		return err
	}
	what := "verified"
	if answer.Outcome == "unproven" {
		what = "unproven"
	}
	v.redirect(path("/orgs/", v.r.PathValue("org")), what)
	return nil
}

func (c *Console) enableIntegration(v *visit) error {
	return v.act(ask{method: http.MethodPatch, body: []byte(`{"is_active":true}`)}, nil, "enabled")
}

func (c *Console) disableIntegration(v *visit) error {
	return v.act(ask{method: http.MethodPatch, body: []byte(`{"is_active":false}`)}, nil, "disabled")
}

func (c *Console) promoteIntegration(v *visit) error {
	return v.act(ask{method: http.MethodPost, path: "/next/promote"}, nil, "promoted")
}

func (c *Console) unstageIntegration(v *visit) error {
	return v.act(ask{method: http.MethodDelete, path: "/next"}, nil, "unstaged")
}

func (c *Console) askDeleteIntegration(v *visit) error {
	org, title := v.r.PathValue("org"), v.r.PathValue("provider") // its title is its name when it is configured no more
	if info, err := v.provider(title); err == nil {
		title = info.Title
	}
	var has integration
	err := v.get(&has, "/api/orgs/", org, "/integrations/", v.r.PathValue("provider"))
	var r *refusal
	if errors.As(err, &r) && r.Status == http.StatusNotFound && r.Code == "not_found" {
		return &refusal{Status: http.StatusNotFound, Detail: "the org has no credential with " + title}
	}
	if err != nil {
		return err
	}
	return v.confirm(confirmation{
		Title: "Delete " + title + "?", Version: has.Version.String(), Button: "Delete", Back: [2]string{path("/orgs/", org), org},
		Text: "The credential of " + org + " is gone for good, and requests with it are refused within a second. To stop them for a while, disable it instead.",
	})
}

func (c *Console) deleteIntegration(v *visit) error {
	return v.act(ask{method: http.MethodDelete}, nil, "deleted")
}

func (c *Console) testWebhook(v *visit) error {
	var answer struct{ Status int }
	a := ask{method: http.MethodPost, path: path("/api/orgs/", v.r.PathValue("org"), "/integrations/", v.r.PathValue("provider"), "/webhook-test")}
	if err := v.do(a, &answer); err != nil {
		return err
	}
	what := "sample"
	if answer.Status >= 300 {
		what = "sample-bad"
	}
	v.redirect(path("/orgs/", v.r.PathValue("org")), what)
	return nil
}

// connect sends the person on to where the org's consent is given. The API binds the consent to this browser by a cookie.
func (c *Console) connect(v *visit) error {
	at := path("/api/orgs/", v.r.PathValue("org"), "/integrations/", v.r.PathValue("provider"), "/connect")
	header, err := v.ask(ask{method: http.MethodGet, path: at, navigates: true}, nil)
	if err != nil {
		return err
	}
	to := header.Get("Location")
	if !strings.HasPrefix(to, "https://") && !strings.HasPrefix(to, "http://") {
		return &refusal{Status: http.StatusServiceUnavailable, Detail: "the API named no place where the consent is given"}
	}
	for _, cookie := range header.Values("Set-Cookie") {
		v.w.Header().Add("Set-Cookie", cookie)
	}
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
	return nil
}
