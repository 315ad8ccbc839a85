package provider

// A Kind says what a field's JSON value may be.
type Kind uint8

// The kinds of fields. Flag and Number occur only among the members of an Object.
const (
	Text       Kind = iota // a string
	List                   // a list of strings
	TextOrList             // a string, or a list of which any counts: a secret while it is being replaced
	Object                 // an object with Members
	Flag                   // true or false
	Number                 // a whole number, from Min to Max
)

// A Field is one part of a credential. The API, the console, the command line, the docs, the checks and the masking are driven by it.
type Field struct {
	Name    string // in JSON, like "auth_token"
	Title   string // as people read it, like "Auth token"
	Help    string // what it is for and where it is found: whole sentences
	Example string // a well-formed value, the first item of a list, an object's JSON; made up
	Kind    Kind

	Secret   bool // written and never shown, but for the last four characters of a long one
	Required bool // a credential without it is refused

	// Pattern holds for a text and for each item of a list; nil: any text without control characters. PatternHelp says the same in
	// words, behind "must be".
	Pattern     *Pattern
	PatternHelp string
	Options     []string // the only values there are; none: any that fit the Pattern
	Members     []Field  // of an Object; every one is optional
	Min, Max    int64    // of a Number

	// Account turns an id into the form in which the provider's webhooks carry it, for fields that shared webhook paths are resolved
	// by: each such id belongs to one org. Nil for all other fields.
	Account func(id string) string
}

// Field is the field of that name, or nil.
func (p *Provider) Field(name string) *Field { return named(p.Fields, name) }

func named(fields []Field, name string) *Field {
	for i := range fields {
		if fields[i].Name == name {
			return &fields[i]
		}
	}
	return nil
}

// A FieldError is one thing that is wrong with a credential. "Field Problem" reads as a sentence and says how to mend it; neither
// quotes a value, since whoever mistook one field for another may have put a secret anywhere.
type FieldError struct{ Field, Problem string }

// Patterns that several providers share.
var (
	// visible is what can stand in a header: a secret with a space or a line break in it was not copied whole.
	visible    = pattern(`^[!-~]+$`)
	identifier = pattern(`^[!-~]{1,128}$`)
	headerName = pattern("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$") // RFC 9110, section 5.6.2
)

const (
	visibleHelp    = "printable ASCII characters without a space"
	identifierHelp = "at most 128 printable ASCII characters without a space"
	headerNameHelp = "the name of a header"
)

// webhookSecret is the field that every provider's webhooks are verified with.
func webhookSecret(help, example string) Field {
	return Field{
		Name: "webhook_secret", Title: "Webhook secret", Help: help + " A list while it is being replaced: any of them verifies.",
		Example: example, Kind: TextOrList, Secret: true,
	}
}
