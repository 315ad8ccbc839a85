package console

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
)

// An agentPage is the form for an org's agent.
type agentPage struct {
	Org, Role string
	Version   string // empty: there is none yet
	Name      string
	Config    string
	Bad       *refusal
}

func (c *Console) editAgent(v *visit) error {
	p := agentPage{Org: v.r.PathValue("org"), Role: v.r.PathValue("role"), Config: "{}"}
	var a agent
	err := v.get(&a, "/api/orgs/", p.Org, "/agents/", p.Role)
	var r *refusal
	switch {
	case err == nil:
		p.Version, p.Name, p.Config = a.Version.String(), a.Name, pretty(a.Config)
	case errors.As(err, &r) && r.Status == http.StatusNotFound && v.within(p.Org) && (p.Role == "inbound" || p.Role == "outbound"):
	default:
		return err
	}
	return v.showAgent(http.StatusOK, p)
}

func (v *visit) showAgent(status int, p agentPage) error {
	return v.show(status, "agent", page{Title: "The " + p.Role + " agent", Nav: "overview", Back: [2]string{path("/orgs/", p.Org), p.Org}, Bad: p.Bad, Data: p})
}

func (c *Console) saveAgent(v *visit) error {
	f := v.form
	p := agentPage{Org: v.r.PathValue("org"), Role: v.r.PathValue("role"), Version: f.text("version"), Name: f.text("name"), Config: f.text("config")}
	if !json.Valid([]byte(p.Config)) {
		p.Bad = notJSON(p.Config)
		return v.showAgent(p.Bad.Status, p)
	}
	o := newObject(len(p.Config) + 512)
	o.value("name", p.Name)
	o.raw("config", []byte(p.Config))
	err := v.do(ask{method: http.MethodPut, path: path("/api/orgs/", p.Org, "/agents/", p.Role), body: o.end(), ifMatch: p.Version, ifNone: p.Version == ""}, nil)
	var r *refusal
	if errors.As(err, &r) && r.Status != http.StatusUnauthorized {
		p.Bad = r
		return v.showAgent(r.Status, p)
	}
	if err != nil {
		return err
	}
	v.redirect(path("/orgs/", p.Org), "agent")
	return nil
}

// notJSON says where a text stops being JSON, which is no secret: it was typed as a configuration, and is only counted.
func notJSON(text string) *refusal {
	r := &refusal{Status: http.StatusBadRequest, Detail: "the configuration is not valid JSON"}
	var syntax *json.SyntaxError
	if errors.As(json.Unmarshal([]byte(text), new(json.RawMessage)), &syntax) {
		line := 1
		for _, b := range []byte(text)[:min(int(syntax.Offset), len(text))] {
			if b == '\n' {
				line++
			}
		}
		r.Detail += ": see line " + strconv.Itoa(line)
	}
	return r
}

func (c *Console) ensureAssistant(v *visit) error {
	var answer struct{ Outcome string }
	a := ask{method: http.MethodPost, path: path("/api/orgs/", v.r.PathValue("org"), "/agents/", v.r.PathValue("role"), "/ensure")}
	if err := v.do(a, &answer); err != nil {
		return err
	}
	what := answer.Outcome
	if what != "created" && what != "updated" {
		what = "unchanged"
	}
	v.redirect(path("/orgs/", v.r.PathValue("org")), what)
	return nil
}

func (c *Console) askDeleteAgent(v *visit) error {
	org, role := v.r.PathValue("org"), v.r.PathValue("role")
	var a agent
	if err := v.get(&a, "/api/orgs/", org, "/agents/", role); err != nil {
		return err
	}
	return v.confirm(confirmation{
		Title: "Delete the " + role + " agent?", Version: a.Version.String(), Button: "Delete", Back: [2]string{path("/orgs/", org), org},
		Text: "Its configuration is gone for good. The assistant that was made of it stays at Vapi, and so does its mapping.",
	})
}

func (c *Console) deleteAgent(v *visit) error {
	org := v.r.PathValue("org")
	a := ask{method: http.MethodDelete, path: path("/api/orgs/", org, "/agents/", v.r.PathValue("role")), ifMatch: v.form.text("version")}
	if err := v.do(a, nil); err != nil {
		return err
	}
	v.redirect(path("/orgs/", org), "deleted")
	return nil
}
