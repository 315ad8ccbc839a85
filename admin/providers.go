package admin

import (
	"net/http"

	"github.com/keyward/keyward/provider"
)

// A providerItem is a provider as it is shown.
type providerItem struct {
	Name   string      `json:"name"`
	Title  string      `json:"title"`
	Hosts  []string    `json:"hosts"`
	Fields []fieldItem `json:"fields"`
	Mints  []mintItem  `json:"mints"` // never null
}

// A mintItem is a kind of token that POST /keyward/mint/NAME makes of the provider's credential.
type mintItem struct {
	Name   string   `json:"name"`
	Help   string   `json:"help"`
	Needs  []string `json:"needs"` // fields of the credential
	Grants []string `json:"grants"`
}

// A fieldItem is one field of a credential as it is shown: what a form needs to know.
type fieldItem struct {
	Name        string      `json:"name"`
	Title       string      `json:"title"`
	Help        string      `json:"help"`
	Example     string      `json:"example"`
	Type        string      `json:"type"`
	Secret      bool        `json:"secret"`
	Required    bool        `json:"required"`
	Pattern     string      `json:"pattern,omitempty"` // RE2
	PatternHelp string      `json:"pattern_help,omitempty"`
	Options     []string    `json:"options,omitempty"`
	Min         *int64      `json:"min,omitempty"`
	Max         *int64      `json:"max,omitempty"`
	Members     []fieldItem `json:"members,omitempty"`
}

// types are the kinds of fields in the words of the API.
var types = map[provider.Kind]string{
	provider.Text: "string", provider.List: "list", provider.TextOrList: "string_or_list", provider.Object: "object",
	provider.Flag: "boolean", provider.Number: "integer",
}

// listProviders says what each provider's credential consists of, straight from the table that everything else is driven by.
func (a *API) listProviders(c *call) error {
	if _, err := c.query(); err != nil {
		return err
	}
	items := make([]providerItem, len(a.o.Providers))
	for i, p := range a.o.Providers {
		items[i] = providerItem{p.Name, p.Title, p.Hosts, showFields(p.Fields), showMints(p.Mints)}
	}
	return c.json(http.StatusOK, page{items, ""})
}

func showMints(mints []*provider.Mint) []mintItem {
	items := make([]mintItem, len(mints))
	for i, m := range mints {
		items[i] = mintItem{m.Name, m.Help, m.Needs, make([]string, len(m.Grants))}
		for j := range m.Grants {
			items[i].Grants[j] = m.Grants[j].Name
		}
	}
	return items
}

func showFields(fields []provider.Field) []fieldItem {
	items := make([]fieldItem, len(fields))
	for i, f := range fields {
		items[i] = fieldItem{
			Name: f.Name, Title: f.Title, Help: f.Help, Example: f.Example, Type: types[f.Kind], Secret: f.Secret, Required: f.Required,
			PatternHelp: f.PatternHelp, Options: f.Options,
		}
		if f.Pattern != nil {
			items[i].Pattern = f.Pattern.String()
		}
		if f.Kind == provider.Number {
			items[i].Min, items[i].Max = &f.Min, &f.Max
		}
		if len(f.Members) > 0 {
			items[i].Members = showFields(f.Members)
		}
	}
	return items
}
