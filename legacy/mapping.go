package legacy

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/keyward/keyward/provider"
)

// A Mapping says where the old tables keep what.
type Mapping struct {
	Version   int                         `yaml:"version"`   // 1
	Sealed    Format                      `yaml:"sealed"`    // how the app sealed its secrets
	Plain     []string                    `yaml:"plain"`     // secret fields that the app may have kept unsealed, as vapi.public_key; "*": all
	Providers map[string][]string         `yaml:"providers"` // ours → what the tables call it; case does not count
	Names     map[string]map[string]Names `yaml:"names"`     // provider → field → the names that it may have in documents, and as a column of a provider's row
	Constants map[string]string           `yaml:"constants"` // provider.field → env:NAME, file:PATH or a text, for what the app kept once for all orgs
	Tables    []Table                     `yaml:"tables"`    // where two say the same field, the first counts
}

// A Table is one of the old tables. Of each list of names the first that exists, and holds something, counts.
type Table struct {
	Table     string           `yaml:"table"`
	ID        Names            `yaml:"id"` // names a row in the report; absent: the org
	Org       Names            `yaml:"org"`
	Provider  Names            `yaml:"provider"`  // of a table with a row for each provider
	Active    Names            `yaml:"active"`    // true or false, or a word
	Changed   Names            `yaml:"changed"`   // of two rows for the same, the one that was changed last counts
	Documents Names            `yaml:"documents"` // JSON, sealed or not; all of them are read
	Columns   map[string]Names `yaml:"columns"`   // provider.field → columns

	Assistant     Names  `yaml:"assistant"` // a Vapi assistant of the org
	AssistantName Names  `yaml:"assistant_name"`
	Role          string `yaml:"role"` // of that assistant
}

// A Format says how the app wrote what it sealed.
type Format struct {
	Parts string `yaml:"parts"` // iv:tag:ciphertext, or the three in another order
	Key   string `yaml:"key"`   // how the key's text becomes 32 bytes: auto (hex, base64 or 32 characters), hex, base64, text, or sha256 of the text
}

// Names is one name or several.
type Names []string

// UnmarshalYAML reads a text or a list.
func (n *Names) UnmarshalYAML(unmarshal func(any) error) error {
	var one string
	if unmarshal(&one) == nil {
		*n = Names{one}
		return nil
	}
	var all []string
	if err := unmarshal(&all); err != nil {
		return errors.New("must be a name or a list of names")
	}
	*n = all
	return nil
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$`)

// Check finds what is wrong with the mapping, all at once.
func (m *Mapping) Check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if m.Version != 1 {
		bad("version: must be 1")
	}
	if _, err := order(m.Sealed.Parts); err != nil {
		bad("sealed: parts: %w", err)
	}
	if !slices.Contains([]string{"auto", "hex", "base64", "text", "sha256"}, m.Sealed.Key) {
		bad("sealed: key: must be auto, hex, base64, text or sha256")
	}
	field := func(where, name string) {
		p, f, _ := strings.Cut(name, ".")
		if known := provider.Named(p); known == nil || known.Field(f) == nil {
			bad("%s: %q is no field of a provider, as twilio.auth_token", where, name)
		}
	}
	for _, name := range m.Plain {
		if name != "*" {
			field("plain", name)
		}
	}
	for name := range m.Providers {
		if provider.Named(name) == nil {
			bad("providers: %q is none of Keyward's", name)
		}
	}
	for p, fields := range m.Names {
		for f := range fields {
			field("names", p+"."+f)
		}
	}
	for name := range m.Constants {
		field("constants", name)
	}
	if len(m.Tables) == 0 {
		bad("tables: there is none")
	}
	for _, t := range m.Tables {
		if !identifier.MatchString(t.Table) {
			bad("tables: %q: must be a table's name", t.Table)
		}
		if len(t.Org) == 0 {
			bad("tables: %s: org: names no column", t.Table)
		}
		if len(t.Provider) == 0 && len(t.Columns) == 0 && len(t.Documents) == 0 && len(t.Assistant) == 0 {
			bad("tables: %s: has neither provider nor columns, documents or assistant", t.Table)
		}
		for name := range t.Columns {
			field("tables: "+t.Table+": columns", name)
		}
		for _, c := range t.columns(nil) {
			if !identifier.MatchString(c) || strings.Contains(c, ".") {
				bad("tables: %s: %q: must be a column's name", t.Table, c)
			}
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// columns are all that the table may have and the mapping knows.
func (t *Table) columns(m *Mapping) []string {
	all := slices.Concat(t.ID, t.Org, t.Provider, t.Active, t.Changed, t.Documents, t.Assistant, t.AssistantName)
	for _, f := range slices.Sorted(maps.Keys(t.Columns)) {
		all = append(all, t.Columns[f]...)
	}
	if m != nil && len(t.Provider) > 0 {
		for _, p := range provider.All {
			for _, f := range p.Fields {
				all = append(all, m.names(p.Name, f.Name)...)
			}
		}
	}
	var once []string
	for _, c := range all {
		if !slices.Contains(once, c) {
			once = append(once, c)
		}
	}
	return once
}

// names are what a field may be called: by its own name at least.
func (m *Mapping) names(p, f string) []string {
	return append([]string{f}, m.Names[p][f]...)
}

// provider is ours for what the tables call it; nil: none.
func (m *Mapping) provider(name string) *provider.Provider {
	name = strings.ToLower(strings.TrimSpace(name))
	for _, p := range provider.All {
		if p.Name == name || slices.ContainsFunc(m.Providers[p.Name], func(other string) bool { return strings.EqualFold(other, name) }) {
			return p
		}
	}
	return nil
}

// mayBePlain says whether a secret field is taken although the app did not seal it.
func (m *Mapping) mayBePlain(p, f string) bool {
	return slices.Contains(m.Plain, "*") || slices.Contains(m.Plain, p+"."+f)
}
