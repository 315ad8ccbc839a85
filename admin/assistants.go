package admin

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/keyward/keyward/store"
)

// An assistant is the mapping of a Vapi assistant to its org, as it is shown.
type assistant struct {
	ID         string     `json:"id"`
	Org        string     `json:"org"`
	Role       string     `json:"role"`
	Name       string     `json:"name"`
	Version    int64      `json:"version"`
	LastUsedAt *time.Time `json:"last_used_at"`
	UseCount   int64      `json:"use_count"`
	CreatedAt  *time.Time `json:"created_at"`
	UpdatedAt  *time.Time `json:"updated_at"`
}

func showAssistant(m *store.Assistant) assistant {
	return assistant{m.ID, m.Org, m.Role, m.Name, m.Version, moment(m.LastUsedAt), m.UseCount, moment(m.CreatedAt), moment(m.UpdatedAt)}
}

// assistantID is the assistant of the path.
func (c *call) assistantID() (string, error) {
	id := c.r.PathValue("assistant")
	if !isAssistantID(id) {
		return "", badField("assistant", "is malformed: 1 to 128 letters, digits or . _ -")
	}
	return id, nil
}

func isAssistantID(id string) bool {
	ok := 0 < len(id) && len(id) <= 128
	for i := 0; ok && i < len(id); i++ {
		b := id[i]
		ok = '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || b == '.' || b == '_' || b == '-'
	}
	return ok
}

func (a *API) listOrgAssistants(c *call) error {
	org, err := c.org()
	if err != nil {
		return err
	}
	return a.pageOfAssistants(c, org)
}

func (a *API) listAssistants(c *call) error { return a.pageOfAssistants(c, c.who.org) }

func (a *API) pageOfAssistants(c *call, org string) error {
	after, n, err := c.paged()
	if err != nil {
		return err
	}
	rows, next, err := a.o.DB.Assistants(c.r.Context(), org, after, n)
	if err != nil {
		return err
	}
	items := make([]assistant, len(rows))
	for i, row := range rows {
		items[i] = showAssistant(row)
	}
	return c.json(http.StatusOK, page{items, next})
}

func (a *API) showAssistant(c *call) error {
	id, err := c.assistantID()
	if err != nil {
		return err
	}
	if _, err := c.query(); err != nil {
		return err
	}
	row, err := a.assistant(c.r.Context(), c.who, id)
	if err != nil {
		return err
	}
	c.etag(row.Version)
	return c.json(http.StatusOK, showAssistant(row))
}

// assistant reads a mapping that is within reach.
func (a *API) assistant(ctx context.Context, who identity, id string) (*store.Assistant, error) {
	row, err := a.o.DB.Assistant(ctx, id)
	if err != nil {
		return nil, noAssistant(err)
	}
	if !who.reaches(row.Org) {
		return nil, noAssistant(store.ErrNotFound)
	}
	return row, nil
}

// putAssistant maps the assistant, from now on, to the org of the body.
func (a *API) putAssistant(c *call) error {
	id, err := c.assistantID()
	if err != nil {
		return err
	}
	ifVersion, err := c.ifVersion()
	if err != nil {
		return err
	}
	m := &store.Assistant{ID: id}
	if err := c.read(field{"org", &m.Org}, field{"role", &m.Role}, field{"name", &m.Name}); err != nil {
		return err
	}
	if err := a.mapAssistant(c.r.Context(), c.who, m, ifVersion); err != nil {
		return stale(err, ifVersion)
	}
	c.etag(m.Version)
	code := http.StatusOK
	if m.CreatedAt.Equal(m.UpdatedAt) {
		code = http.StatusCreated
	}
	return c.json(code, showAssistant(m))
}

// mapAssistant writes a mapping. An operator may so move an assistant from one org to another; a token that is bound to an org maps what
// is its own or nobody's, to its own org, which it need not name.
func (a *API) mapAssistant(ctx context.Context, who identity, m *store.Assistant, ifVersion *int64) error {
	if m.Org == "" {
		m.Org = who.org
	}
	if err := checkAssistant(m); err != nil {
		return err
	}
	if !who.reaches(m.Org) {
		return problemNoSuchOrg
	}
	for range raceAttempts {
		expect := int64(-1)
		if who.org != "" {
			switch row, err := a.o.DB.Assistant(ctx, m.ID); {
			case errors.Is(err, store.ErrNotFound):
				expect = 0
			case err != nil:
				return err
			case !who.reaches(row.Org):
				return noAssistant(store.ErrNotFound)
			default:
				expect = row.Version
			}
			if ifVersion != nil && *ifVersion != expect {
				return store.ErrConflict
			}
		} else if ifVersion != nil {
			expect = *ifVersion
		}
		err := a.o.DB.PutAssistant(ctx, who.Actor, m, expect)
		if who.org == "" || ifVersion != nil || !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return store.ErrConflict
}

// raceAttempts is how often a write that depends on what was read is tried again because others wrote in between.
const raceAttempts = 16

func checkAssistant(m *store.Assistant) error {
	p := malformed("the assistant is not valid")
	switch {
	case m.Org == "":
		p.add("org", "is missing")
	case !store.IsOrg(m.Org):
		p.add("org", malformedOrg)
	}
	if !isText(m.Role, 64) {
		p.add("role", "must be at most 64 characters, none of them a control character")
	}
	if !isText(m.Name, 200) {
		p.add("name", "must be at most 200 characters, none of them a control character")
	}
	return p.orNil()
}

// isText says whether s is a short printable text.
func isText(s string, longest int) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= longest && strings.IndexFunc(s, unicode.IsControl) < 0
}

func (a *API) deleteAssistant(c *call) error {
	id, err := c.assistantID()
	if err != nil {
		return err
	}
	ifVersion, expect, err := c.expected()
	if err != nil {
		return err
	}
	if ifVersion == nil {
		expect = -1
	}
	if err := a.unmapAssistant(c.r.Context(), c.who, id, expect); err != nil {
		return stale(err, ifVersion)
	}
	c.status(http.StatusNoContent)
	return nil
}

// unmapAssistant deletes a mapping that is within reach, at the version expect (-1: at any).
func (a *API) unmapAssistant(ctx context.Context, who identity, id string, expect int64) error {
	for range raceAttempts {
		at := expect
		if who.org != "" {
			row, err := a.assistant(ctx, who, id)
			if err != nil {
				return err
			}
			if at < 0 {
				at = row.Version // it may be another org's by the time that it is deleted
			}
		}
		err := a.o.DB.DeleteAssistant(ctx, who.Actor, id, at)
		if expect >= 0 || !errors.Is(err, store.ErrConflict) {
			return noAssistant(err)
		}
	}
	return store.ErrConflict
}

func noAssistant(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return &Problem{Status: http.StatusNotFound, Code: "unknown_assistant", Detail: "no org is mapped to this assistant"}
	}
	return err
}
