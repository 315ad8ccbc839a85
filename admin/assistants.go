package admin

import (
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
	ok := 0 < len(id) && len(id) <= 128
	for i := 0; ok && i < len(id); i++ {
		b := id[i]
		ok = '0' <= b && b <= '9' || 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || b == '.' || b == '_' || b == '-'
	}
	if !ok {
		return "", badField("assistant", "is malformed: 1 to 128 letters, digits or . _ -")
	}
	return id, nil
}

func (a *API) listOrgAssistants(c *call) error {
	org, err := c.org()
	if err != nil {
		return err
	}
	return a.pageOfAssistants(c, org)
}

func (a *API) listAssistants(c *call) error { return a.pageOfAssistants(c, "") }

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
	row, err := a.o.DB.Assistant(c.r.Context(), id)
	if err != nil {
		return noAssistant(err)
	}
	c.etag(row.Version)
	return c.json(http.StatusOK, showAssistant(row))
}

// putAssistant maps the assistant, from now on, to the org of the body; an operator may so move it from one org to another.
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
	if err := checkAssistant(m); err != nil {
		return err
	}
	expect := int64(-1)
	if ifVersion != nil {
		expect = *ifVersion
	}
	if err := a.o.DB.PutAssistant(c.r.Context(), c.by, m, expect); err != nil {
		return stale(err, ifVersion)
	}
	c.etag(m.Version)
	code := http.StatusOK
	if m.CreatedAt.Equal(m.UpdatedAt) {
		code = http.StatusCreated
	}
	return c.json(code, showAssistant(m))
}

func checkAssistant(m *store.Assistant) error {
	p := malformed("the assistant is not valid")
	switch {
	case m.Org == "":
		p.add("org", "is missing")
	case !store.IsOrg(m.Org):
		p.add("org", "is malformed: a letter or digit, then up to 63 letters, digits or . _ -")
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
	ifVersion, err := c.ifVersion()
	if err != nil {
		return err
	}
	expect, err := expected(ifVersion)
	if err != nil {
		return err
	}
	if ifVersion == nil {
		expect = -1
	}
	if err := a.o.DB.DeleteAssistant(c.r.Context(), c.by, id, expect); err != nil {
		return stale(noAssistant(err), ifVersion)
	}
	c.status(http.StatusNoContent)
	return nil
}

func noAssistant(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return &Problem{Status: http.StatusNotFound, Code: "unknown_assistant", Detail: "no org is mapped to this assistant"}
	}
	return err
}
