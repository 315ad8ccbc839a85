package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/keyward/keyward/store"
)

// An agent is the configuration of an org's agent, as it is shown.
type agent struct {
	Org       string          `json:"org"`
	Role      string          `json:"role"`
	Name      string          `json:"name"`
	Config    json.RawMessage `json:"config"`
	Version   int64           `json:"version"`
	CreatedAt *time.Time      `json:"created_at"`
	UpdatedAt *time.Time      `json:"updated_at"`
}

func showAgent(g *store.Agent) agent {
	return agent{g.Org, g.Role, g.Name, g.Config, g.Version, moment(g.CreatedAt), moment(g.UpdatedAt)}
}

// maxConfig is the longest configuration: prompts are long, and this is longer.
const maxConfig = 256 << 10

// maxNamed is how many of one kind of problem are named at once.
const maxNamed = 20

// agentRef is the org and the role of the path.
func (c *call) agentRef() (org, role string, err error) {
	if org, err = c.org(); err != nil {
		return "", "", err
	}
	role = c.r.PathValue("role")
	if role != store.Inbound && role != store.Outbound {
		return "", "", missing("there is no such role: an agent is inbound or outbound")
	}
	return org, role, nil
}

func (a *API) listAgents(c *call) error {
	org, err := c.org()
	if err != nil {
		return err
	}
	after, n, err := c.paged()
	if err != nil {
		return err
	}
	rows, err := a.o.DB.Agents(c.r.Context(), org)
	if err != nil {
		return err
	}
	items := []agent{}
	for _, row := range rows {
		if row.Role > after {
			items = append(items, showAgent(row))
		}
	}
	next := ""
	if len(items) > n {
		items = items[:n]
		next = items[n-1].Role
	}
	return c.json(http.StatusOK, page{items, next})
}

func (a *API) showAgent(c *call) error {
	org, role, err := c.agentRef()
	if err != nil {
		return err
	}
	if _, err := c.query(); err != nil {
		return err
	}
	row, err := a.o.DB.Agent(c.r.Context(), org, role)
	if err != nil {
		return noAgent(err, org, role)
	}
	c.etag(row.Version)
	return c.json(http.StatusOK, showAgent(row))
}

// An agentChange is what PUT and PATCH ask for.
type agentChange struct {
	name      *string
	config    json.RawMessage
	ifVersion *int64
}

// agentChange reads a request to change an agent.
func (c *call) agentChange() (ch agentChange, err error) {
	if ch.ifVersion, err = c.ifVersion(); err != nil {
		return ch, err
	}
	err = c.read(field{"name", &ch.name}, field{"config", &ch.config})
	return ch, err
}

func (a *API) putAgent(c *call) error { return a.changeAgent(c, a.writeAgent) }

func (a *API) patchAgent(c *call) error { return a.changeAgent(c, a.mergeAgent) }

func (a *API) changeAgent(c *call, write func(context.Context, store.Actor, *store.Agent, agentChange) error) error {
	org, role, err := c.agentRef()
	if err != nil {
		return err
	}
	ch, err := c.agentChange()
	if err != nil {
		return err
	}
	row := &store.Agent{Org: org, Role: role}
	if err := write(c.r.Context(), c.by, row, ch); err != nil {
		return stale(err, ch.ifVersion)
	}
	c.etag(row.Version)
	code := http.StatusOK
	if c.r.Method == http.MethodPut && row.CreatedAt.Equal(row.UpdatedAt) {
		code = http.StatusCreated
	}
	return c.json(code, showAgent(row))
}

// writeAgent makes name and configuration the whole agent, of which row says whose and which it is.
func (a *API) writeAgent(ctx context.Context, by store.Actor, row *store.Agent, ch agentChange) error {
	if len(ch.config) == 0 {
		return badField("config", "is missing: an object as Vapi's API takes it; {} is one")
	}
	if ch.name != nil {
		row.Name = *ch.name
	}
	row.Config = ch.config
	if err := checkAgent(row); err != nil {
		return err
	}
	expect := int64(-1)
	if ch.ifVersion != nil {
		expect = *ch.ifVersion
	}
	return a.o.DB.PutAgent(ctx, by, row, expect)
}

// mergeAgent changes what is named and keeps the rest: a JSON merge patch (RFC 7396) of the configuration.
func (a *API) mergeAgent(ctx context.Context, by store.Actor, row *store.Agent, ch agentChange) error {
	for range raceAttempts {
		old, err := a.o.DB.Agent(ctx, row.Org, row.Role)
		if err != nil {
			return noAgent(err, row.Org, row.Role)
		}
		if ch.ifVersion != nil && *ch.ifVersion != old.Version {
			return store.ErrConflict
		}
		row.Name, row.Config = old.Name, old.Config
		if ch.name != nil {
			row.Name = *ch.name
		}
		if len(ch.config) > 0 {
			if ch.config[0] != '{' {
				return badField("config", "must be an object")
			}
			row.Config = mergePatch(old.Config, ch.config)
		}
		if err := checkAgent(row); err != nil {
			return err
		}
		err = a.o.DB.PutAgent(ctx, by, row, old.Version)
		if ch.ifVersion != nil || !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return store.ErrConflict
}

// checkAgent checks an agent and makes its configuration compact.
func checkAgent(row *store.Agent) error {
	p := malformed("the agent is not valid")
	if !isText(row.Name, 200) {
		p.add("name", "must be at most 200 characters, none of them a control character")
	}
	switch {
	case row.Config[0] != '{':
		p.add("config", "must be an object")
	case len(row.Config) > maxConfig:
		p.add("config", fmt.Sprintf("must be at most %d KiB", maxConfig>>10))
	default:
		found := secretsIn(row.Config, "config", nil)
		for _, at := range found[:min(len(found), maxNamed)] {
			p.add(at, "is a secret, and a configuration is shown to whoever may read it: the org's vapi credential is the place for secrets")
		}
	}
	var compact bytes.Buffer
	_ = json.Compact(&compact, row.Config) // it is valid
	row.Config = compact.Bytes()
	return p.orNil()
}

// secretNames are members of Vapi's objects, without case and separators, that hold a secret when they hold a text.
var secretNames = []string{
	"secret", "serverurlsecret", "webhooksecret", "apikey", "apisecret", "privatekey", "password", "token", "authtoken", "accesstoken", "refreshtoken",
	"bearertoken", "twilioauthtoken", "twilioapisecret", "clientsecret", "authorization", "secretkey", "xvapisecret", "xapikey",
}

// secretsIn lists the places in a valid JSON value at which a secret stands.
func secretsIn(value []byte, at string, found []string) []string {
	switch value[0] {
	case '{':
		eachMember(value, func(name string, raw []byte) {
			place := at + "." + shownName(name)
			plain := strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(name))
			if raw[0] == '"' && string(raw) != `""` && slices.Contains(secretNames, plain) {
				found = append(found, place)
			}
			found = secretsIn(raw, place, found)
		})
	case '[':
		i := 0
		eachElement(value, func(raw []byte) {
			found = secretsIn(raw, fmt.Sprintf("%s[%d]", at, i), found)
			i++
		})
	}
	return found
}

// mergePatch applies a JSON merge patch. Both are valid; the patch is an object. What is not named keeps its bytes and its place.
func mergePatch(target, patch []byte) []byte {
	type member struct {
		name string
		raw  []byte
	}
	var members []member
	if len(target) > 0 && target[0] == '{' {
		eachMember(target, func(name string, raw []byte) { members = append(members, member{name, raw}) })
	}
	eachMember(patch, func(name string, raw []byte) {
		i := slices.IndexFunc(members, func(m member) bool { return m.name == name })
		if string(raw) == "null" {
			if i >= 0 {
				members = slices.Delete(members, i, i+1)
			}
			return
		}
		if i < 0 {
			members = append(members, member{name, nil})
			i = len(members) - 1
		}
		if raw[0] == '{' {
			raw = mergePatch(members[i].raw, raw)
		}
		members[i].raw = raw
	})
	out := []byte{'{'}
	for i, m := range members {
		if i > 0 {
			out = append(out, ',')
		}
		name, _ := json.Marshal(m.name) // a string always can be
		out = append(append(append(out, name...), ':'), m.raw...)
	}
	return append(out, '}')
}

func (a *API) deleteAgent(c *call) error {
	org, role, err := c.agentRef()
	if err != nil {
		return err
	}
	ifVersion, expect, err := c.expected()
	if err != nil {
		return err
	}
	if err := a.o.DB.DeleteAgent(c.r.Context(), c.by, org, role, expect); err != nil {
		return stale(noAgent(err, org, role), ifVersion)
	}
	c.status(http.StatusNoContent)
	return nil
}

// noAgent says which agent is not there.
func noAgent(err error, org, role string) error {
	if errors.Is(err, store.ErrNotFound) {
		return missing(fmt.Sprintf("org %s has no %s agent", org, role))
	}
	return err
}
