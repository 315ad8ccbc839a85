package admin

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/keyward/keyward/provider"
)

// outline is the API's description, OpenAPI 3.1, written by hand but for what the providers say themselves: see describe. Every request and
// answer of this package's tests is held against it, and its paths against the table of routes.
//
//go:embed openapi.json
var outline []byte

func (a *API) openAPI(c *call) error {
	if _, err := c.query(); err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.status(http.StatusOK)
	_, _ = c.w.Write(a.document) // the client is gone: nobody to tell
	return nil
}

// describe puts the providers into the outline: their names, and a schema for the credential of each.
func describe(all provider.Set) []byte {
	var names, refs []string
	var schemas bytes.Buffer
	for i, p := range all {
		name := schemaName(p)
		names = append(names, `"`+p.Name+`"`)
		refs = append(refs, `{"$ref": "#/components/schemas/`+name+`"}`)
		if i > 0 {
			schemas.WriteString(",\n      ")
		}
		s := object(p.Fields)
		s.Title, s.Type = p.Title, "object" // the credential as a whole is never null
		schemas.WriteString(`"` + name + `": `)
		schemas.Write(bytes.TrimSpace(encode(s)))
	}
	doc := outline
	for mark, text := range map[string]string{
		`"PROVIDER"`: strings.Join(names, ", "), `"CREDENTIAL"`: strings.Join(refs, ", "), `"CREDENTIALS": {}`: schemas.String(),
	} {
		doc = bytes.ReplaceAll(doc, []byte(mark), []byte(text))
	}
	return doc
}

// schemaName is "GoogleCalendarCredential" of google_calendar.
func schemaName(p *provider.Provider) string {
	var b strings.Builder
	for word := range strings.SplitSeq(p.Name, "_") {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String() + "Credential"
}

// A schema is a JSON Schema, as far as fields need it.
type schema struct {
	Type        any      `json:"type,omitempty"`
	Title       string   `json:"title,omitempty"`
	Closed      *bool    `json:"additionalProperties,omitempty"`
	Required    []string `json:"required,omitempty"`
	AnyOf       []schema `json:"anyOf,omitempty"`
	Items       *schema  `json:"items,omitempty"`
	Pattern     string   `json:"pattern,omitempty"`
	Enum        []any    `json:"enum,omitempty"`
	Minimum     *int64   `json:"minimum,omitempty"`
	Maximum     *int64   `json:"maximum,omitempty"`
	Properties  members  `json:"properties,omitempty"`
	Description string   `json:"description,omitempty"`
	WriteOnly   bool     `json:"writeOnly,omitempty"`
}

// members are an object's, in their order.
type members []member

type member struct {
	name   string
	schema schema
}

func (m members) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, one := range m {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, encode(one.name)...), ':'), encode(one.schema)...)
	}
	return append(b, '}'), nil
}

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // texts, numbers and lists always can be
	return b.Bytes()
}

func object(fields []provider.Field) schema {
	closed := false
	s := schema{Type: []string{"object", "null"}, Closed: &closed}
	for i := range fields {
		f := &fields[i]
		if f.Required {
			s.Required = append(s.Required, f.Name)
		}
		s.Properties = append(s.Properties, member{f.Name, fieldSchema(f)})
	}
	return s
}

// fieldSchema is what a field's value may be; null is as good as left out.
func fieldSchema(f *provider.Field) schema {
	text := schema{Type: "string"}
	if f.Pattern != nil {
		text.Pattern = f.Pattern.String()
	}
	for _, o := range f.Options {
		text.Enum = append(text.Enum, o)
	}
	orNull := func(kind string) any {
		if f.Required {
			return kind
		}
		return []string{kind, "null"}
	}
	s := schema{}
	switch f.Kind {
	case provider.List:
		s = schema{Type: orNull("array"), Items: &text}
	case provider.TextOrList:
		s = schema{AnyOf: []schema{text, {Type: "array", Items: &text}, {Type: "null"}}}
	case provider.Object:
		s = object(f.Members)
	case provider.Flag:
		s = schema{Type: orNull("boolean")}
	case provider.Number:
		s = schema{Type: orNull("integer"), Minimum: &f.Min, Maximum: &f.Max}
	default:
		s = text
		s.Type = orNull("string")
		if s.Enum != nil && !f.Required {
			s.Enum = append(s.Enum, nil)
		}
	}
	s.Description, s.WriteOnly = f.Help, f.Secret
	return s
}
