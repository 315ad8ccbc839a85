package legacy

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// A Problem is one thing in the old tables that keeps something from being carried over. It quotes no value.
type Problem struct {
	Table  string `json:"table,omitempty"`
	Row    string `json:"row,omitempty"`
	Column string `json:"column,omitempty"`
	Text   string `json:"problem"`
}

func (p Problem) String() string {
	where := strings.TrimSpace(strings.Join([]string{p.Table, p.Row}, " "))
	if p.Column != "" {
		where += " " + p.Column
	}
	if where = strings.TrimSpace(where); where == "" {
		return p.Text
	}
	return where + ": " + p.Text
}

// A Draft is what the old tables say of one org and provider, or of one assistant.
type Draft struct {
	store.Ref
	Assistant string // of an assistant: its id
	Role      string
	Name      string

	Active   bool
	Values   provider.Values // nil with Problems, or when there is no credential
	Missing  string          // what a credential lacks, when no secret of it is there: it is none
	Problems []Problem
	Notes    []string
	Digest   []byte // of everything that was read for it

	fields map[string]found
	said   bool // a row has said whether it is active
	secret bool // a secret field is there
	digest hash.Hash
}

// A found is the value of one field, as JSON, and where it stood.
type found struct {
	raw   []byte
	where Problem
}

// Wipe overwrites what was opened.
func (d *Draft) Wipe() {
	d.Values.Wipe()
	for _, f := range d.fields {
		clear(f.raw)
	}
	clear(d.fields)
}

// A Collector makes drafts of a snapshot.
type Collector struct {
	Mapping *Mapping
	Opener  *Opener
	// Constants are the mapping's, read: provider.field → value.
	Constants map[string]string

	drafts  map[string]*Draft
	Foreign map[string]int // providers that are none of ours → rows
	Orphans []Problem      // rows without a usable org
}

// Collect makes the drafts, in the order of their orgs and providers; assistants come after them.
func (c *Collector) Collect(s *Snapshot) []*Draft {
	c.drafts, c.Foreign, c.Orphans = map[string]*Draft{}, map[string]int{}, nil
	rows := slices.Clone(s.rows)
	slices.SortStableFunc(rows, func(a, b row) int {
		if a.table != b.table {
			return slices.IndexFunc(c.Mapping.Tables, a.table.is) - slices.IndexFunc(c.Mapping.Tables, b.table.is)
		}
		on, _ := a.active()
		other, _ := b.active()
		if on != other && on {
			return -1
		} else if on != other {
			return 1
		}
		late, _ := a.first(a.table.Changed)
		later, _ := b.first(b.table.Changed)
		if late != later {
			return strings.Compare(later, late) // ISO times: the latest first
		}
		return strings.Compare(a.name(), b.name())
	})
	for i := range rows {
		c.row(&rows[i])
	}
	out := slices.SortedFunc(maps.Values(c.drafts), func(a, b *Draft) int {
		for _, by := range [][2]string{{a.Assistant, b.Assistant}, {a.Org, b.Org}, {a.Provider, b.Provider}} {
			if n := strings.Compare(by[0], by[1]); n != 0 {
				return n
			}
		}
		return 0
	})
	for _, d := range out {
		c.finish(d)
	}
	return out
}

func (t *Table) is(other Table) bool { return t.Table == other.Table }

func (c *Collector) row(r *row) {
	org, column := r.first(r.table.Org)
	if !store.IsOrg(org) {
		text := "names no org"
		if org != "" {
			text = "holds what cannot be an org id: at most 64 letters, digits and . _ -, the first a letter or digit"
		}
		c.Orphans = append(c.Orphans, Problem{r.table.Table, r.name(), column, text})
		return
	}
	var own *provider.Provider
	if called, _ := r.first(r.table.Provider); called != "" {
		if own = c.Mapping.provider(called); own == nil {
			c.Foreign[called]++
			return
		}
		for _, f := range own.Fields {
			if text, column := r.first(c.Mapping.names(own.Name, f.Name)); text != "" {
				c.add(r, org, own.Name, f.Name, column, []byte(text), false)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.table.Columns)) {
		p, f, _ := strings.Cut(name, ".")
		if text, column := r.first(r.table.Columns[name]); text != "" {
			c.add(r, org, p, f, column, []byte(text), false)
		}
	}
	for _, column := range r.table.Documents {
		if text := r.cells[column]; text != "" {
			c.document(r, org, own, column, text)
		}
	}
	if own != nil {
		c.draft(r, org, own.Name) // even if it says nothing
	}
	c.assistant(r, org)
}

// draft is that of the org and provider; the row is part of it from now on.
func (c *Collector) draft(r *row, org, p string) *Draft {
	key := org + "/" + p
	d := c.drafts[key]
	if d == nil {
		d = &Draft{Ref: store.Ref{Org: org, Provider: p}, Active: true, fields: map[string]found{}, digest: c.Opener.digest()}
		c.drafts[key] = d
	}
	if active, said := r.active(); said && len(r.table.Provider) > 0 && !d.said { // an agent that is off still has its org's credential
		d.Active, d.said = active, true
		fmt.Fprintf(d.digest, "active\x00%s\x00%s\x00%t\x00", r.table.Table, r.name(), active)
	}
	return d
}

// add takes one field. Sealed says whether what it stood in was sealed.
func (c *Collector) add(r *row, org, p, f, column string, text []byte, sealed bool) {
	d := c.draft(r, org, p)
	where := Problem{Table: r.table.Table, Row: r.name(), Column: column}
	fmt.Fprintf(d.digest, "%s\x00%s\x00%s\x00%s\x00%d\x00", where.Table, where.Row, column, f, len(text))
	d.digest.Write(text)
	problem := func(format string, args ...any) {
		where.Text = fmt.Sprintf(format, args...)
		d.Problems = append(d.Problems, where)
	}
	field := provider.Named(p).Field(f)
	d.secret = d.secret || field.Secret && !c.Mapping.mayBePlain(p, f)
	if !sealed {
		plain, err := c.Opener.open(string(text))
		switch {
		case err == nil:
			text = plain
		case !errors.Is(err, errNotSealed):
			problem("%s", err)
			return
		case field.Secret && !c.Mapping.mayBePlain(p, f):
			problem("is not sealed as %s; plain: [%s.%s] in the mapping takes it as it is", c.Mapping.Sealed.Parts, p, f)
			return
		}
	}
	raw := asJSON(field, text)
	if before, ok := d.fields[f]; ok {
		if string(before.raw) != string(raw) {
			d.Notes = append(d.Notes, fmt.Sprintf("%s: %s %s says otherwise than %s %s, which counts", f, where.Table, where.Row, before.where.Table, before.where.Row))
		}
		clear(raw)
		return
	}
	d.fields[f] = found{raw, where}
}

// asJSON is the field's value as a credential's JSON has it. Lists may stand as JSON, or with commas.
func asJSON(f *provider.Field, text []byte) []byte {
	trimmed := strings.TrimSpace(string(text))
	switch {
	case json.Valid([]byte(trimmed)) && trimmed[0] == '"':
		return []byte(trimmed)
	case f.Kind == provider.Object && json.Valid([]byte(trimmed)):
		return []byte(trimmed)
	case f.Kind != provider.Text && strings.HasPrefix(trimmed, "[") && json.Valid([]byte(trimmed)):
		return []byte(trimmed)
	case f.Kind == provider.List:
		items := strings.FieldsFunc(strings.Trim(trimmed, "{}"), func(r rune) bool { return r == ',' || r == ' ' })
		raw, _ := json.Marshal(items)
		return raw
	}
	raw, _ := json.Marshal(trimmed)
	return raw
}

// document takes the fields out of a JSON document: of the row's provider, or of each provider that it has a member for.
func (c *Collector) document(r *row, org string, own *provider.Provider, column, text string) {
	p := own
	if p == nil {
		p = &provider.Provider{}
	}
	fail := func(why string) {
		if own == nil {
			c.Orphans = append(c.Orphans, Problem{r.table.Table, r.name(), column, why})
			return
		}
		d := c.draft(r, org, own.Name)
		fmt.Fprintf(d.digest, "%s\x00%s\x00%s\x00%s", r.table.Table, r.name(), column, text)
		d.secret = true
		d.Problems = append(d.Problems, Problem{r.table.Table, r.name(), column, why})
	}
	var inner string
	if json.Unmarshal([]byte(text), &inner) == nil {
		text = inner // a JSON column that holds a text
	}
	plain, err := c.Opener.open(text)
	sealed := err == nil
	if errors.Is(err, errNotOpened) {
		fail(err.Error())
		return
	}
	if !sealed {
		plain = []byte(text)
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(plain, &members) != nil || members == nil {
		fail("is neither sealed as " + c.Mapping.Sealed.Parts + " nor a JSON object")
		return
	}
	if own != nil {
		c.members(r, org, p, column, members, sealed)
		return
	}
	for _, called := range slices.Sorted(maps.Keys(members)) { // the digest needs an order
		raw := members[called]
		var of map[string]json.RawMessage
		if known := c.Mapping.provider(called); known != nil && json.Unmarshal(raw, &of) == nil && of != nil {
			c.members(r, org, known, column+"."+called, of, sealed)
		}
	}
}

func (c *Collector) members(r *row, org string, p *provider.Provider, column string, members map[string]json.RawMessage, sealed bool) {
	for _, f := range p.Fields {
		for _, name := range c.Mapping.names(p.Name, f.Name) {
			raw := lookUp(members, name)
			if len(raw) == 0 || string(raw) == "null" || string(raw) == `""` {
				continue
			}
			var text string
			if json.Unmarshal(raw, &text) != nil {
				text = string(raw) // a list, an object or a number
			}
			c.add(r, org, p.Name, f.Name, column+"."+name, []byte(strings.TrimSpace(text)), sealed)
			break
		}
	}
}

// lookUp finds a member, or one of a member: "tokens.refresh_token".
func lookUp(members map[string]json.RawMessage, name string) json.RawMessage {
	if raw, ok := members[name]; ok {
		return raw
	}
	outer, inner, nested := strings.Cut(name, ".")
	var of map[string]json.RawMessage
	if !nested || json.Unmarshal(members[outer], &of) != nil {
		return nil
	}
	return lookUp(of, inner)
}

func (c *Collector) assistant(r *row, org string) {
	id, column := r.first(r.table.Assistant)
	if id == "" {
		return
	}
	name, _ := r.first(r.table.AssistantName)
	d := c.drafts["assistant "+id]
	if d == nil {
		d = &Draft{Ref: store.Ref{Org: org, Provider: "vapi"}, Assistant: id, Role: r.table.Role, Name: name, Active: true, digest: c.Opener.digest()}
		c.drafts["assistant "+id] = d
	}
	fmt.Fprintf(d.digest, "%s\x00%s\x00%s\x00%s\x00", org, id, r.table.Role, name)
	if d.Org != org {
		d.Problems = append(d.Problems, Problem{r.table.Table, r.name(), column, fmt.Sprintf("names assistant %s, which org %s names too: an assistant is one org's", id, d.Org)})
	}
}

// finish makes a credential of the fields.
func (c *Collector) finish(d *Draft) {
	d.Digest = d.digest.Sum(nil)
	if d.Assistant != "" || len(d.Problems) > 0 {
		return
	}
	p := provider.Named(d.Provider)
	for name, value := range c.Constants {
		of, f, _ := strings.Cut(name, ".")
		if _, has := d.fields[f]; of == d.Provider && !has && d.secret {
			d.fields[f] = found{asJSON(p.Field(f), []byte(value)), Problem{Text: "constants"}}
		}
	}
	text := []byte{'{'}
	for i, f := range slices.Sorted(maps.Keys(d.fields)) {
		if i > 0 {
			text = append(text, ',')
		}
		text = append(append(append(text, '"'), f...), `":`...)
		text = append(text, d.fields[f].raw...)
	}
	values, problems := p.Parse(append(text, '}'))
	clear(text)
	if len(problems) == 0 {
		d.Values = values
		return
	}
	var lacks []string
	for _, e := range problems {
		where := d.fields[e.Field].where
		if where.Table == "" {
			lacks = append(lacks, e.Field)
		}
		where.Text = e.Field + " " + e.Problem
		d.Problems = append(d.Problems, where)
	}
	if !d.secret {
		d.Missing, d.Problems = strings.Join(lacks, ", "), nil
	}
}
