package provider

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Mint is a token that the provider's SDKs sign by themselves, with a secret that the app must not have: whoever may mint it asks for
// it at POST /keyward/mint/NAME, and it is signed here. It is a JSON Web Token (RFC 7519) with HMAC-SHA256.
type Mint struct {
	Name string // in the path, like "twilio-access-token"; no other provider's
	Help string // what it is for: whole sentences

	Key   string   // the credential's field that signs
	Needs []string // the fields without which there is none, Key among them
	Mend  string   // how an org comes by them, behind "has no …: "

	Identity bool          // it is somebody's, who must be named
	Grants   []Grant       // what it can be good for
	Usual    string        // the grant of a request that names none; empty: one must be named
	Single   bool          // it has exactly one grant
	Longest  time.Duration // the longest life that the provider takes

	// Claims are header and content of a token. They are no secrets, and hold nothing of the fields that are.
	Claims func(o *Order, t Stamp, s Secret) (header, claims map[string]any)
}

// A Grant is one thing that a token is good for.
type Grant struct {
	Name    string
	Help    string
	Members []Field // what may be said of it; every one is optional
	// Whole: the token can do all that the credential can. It is minted only for callers whose rule has secret_routes: true.
	Whole bool
}

// An Order is a request for a token, read.
type Order struct {
	Identity string
	Life     time.Duration     // 0: as long as usual
	Grants   map[string][]byte // :: grant → its members, a compact JSON object that fits the grant's Members
}

// A Stamp is what makes a token one of its own.
type Stamp struct {
	ID         string // random; where the token has room for one
	From, Till int64  // Unix seconds
}

// UsualLife is that of a token that is asked for without a ttl.
const UsualLife = time.Hour

// Parse reads the body of a request for a token; an empty one is {}. It reports everything that is wrong at once, and quotes no value.
func (m *Mint) Parse(data []byte) (*Order, []FieldError) {
	if len(bytes.TrimSpace(data)) == 0 {
		data = []byte("{}")
	}
	fields := m.Fields()
	members, errs := membersOf(data, "member of a request for "+m.Name, fields)
	o := &Order{Grants: map[string][]byte{}}
	given := false
	for i := range fields {
		f := &fields[i]
		raw, ok := members[f.Name]
		if !ok || string(raw) == "null" {
			continue
		}
		if f.Name == "grants" {
			given = true
			errs = append(errs, m.readGrants(o, raw)...)
			continue
		}
		switch problem := f.memberProblem(raw); {
		case problem != "":
			errs = append(errs, FieldError{f.Name, problem})
		case f.Kind == Number:
			n, _ := strconv.ParseInt(string(raw), 10, 64) // memberProblem has looked
			o.Life = time.Duration(n) * time.Second
		default:
			t, _ := unquote(raw)
			o.Identity = string(t)
		}
	}
	if !given && m.Usual != "" {
		o.Grants[m.Usual] = []byte("{}")
	}
	if len(errs) == 0 {
		errs = m.check(o)
	}
	for i := range errs {
		if errs[i].Field == wholeCredential {
			errs[i].Field = "the body"
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return o, nil
}

// check finds what no single member shows.
func (m *Mint) check(o *Order) (errs []FieldError) {
	names := make([]string, len(m.Grants))
	for i := range m.Grants {
		names[i] = m.Grants[i].Name
	}
	switch {
	case len(o.Grants) == 0:
		errs = append(errs, FieldError{"grants", "is missing: say what the token is good for, of " + strings.Join(names, ", ")})
	case m.Single && len(o.Grants) > 1:
		errs = append(errs, FieldError{"grants", "has more than one: it must be " + oneOf(names)})
	}
	if m.Identity && o.Identity == "" {
		errs = append(errs, FieldError{"identity", "is missing: say whose token it is"})
	}
	return errs
}

func (m *Mint) readGrants(o *Order, raw []byte) (errs []FieldError) {
	fields := m.grantFields()
	if raw[0] != '{' {
		return []FieldError{{"grants", "must be " + m.Fields()[len(m.Fields())-1].shape()}}
	}
	members, errs := membersOf(raw, "grant of "+m.Name, fields)
	for i := range fields {
		f := &fields[i]
		raw, ok := members[f.Name]
		if !ok || string(raw) == "null" {
			continue
		}
		one, problem := f.read(raw)
		if problem != "" {
			errs = append(errs, FieldError{f.Name, problem})
			continue
		}
		errs = append(errs, f.validateMembers(one.Object)...)
		o.Grants[f.Name] = one.Object
	}
	for i := range errs {
		if errs[i].Field == wholeCredential {
			errs[i].Field = "grants"
		} else {
			errs[i].Field = "grants." + errs[i].Field
		}
	}
	return errs
}

// Fields are the members of a request for the token.
func (m *Mint) Fields() []Field {
	var all []Field
	if m.Identity {
		all = append(all, Field{Name: "identity", Help: "Whose token it is: the app's own name for the person or device.", Example: "alice", Required: true, Pattern: identity, PatternHelp: "at most 256 characters"})
	}
	first := m.Grants[0]
	example := fmt.Sprintf(`{"%s":{"%s":"%s"}}`, first.Name, first.Members[0].Name, first.Members[0].Example)
	if first.Members[0].Kind == List {
		example = fmt.Sprintf(`{"%s":{"%s":["%s"]}}`, first.Name, first.Members[0].Name, first.Members[0].Example)
	}
	return append(all,
		Field{
			Name: "ttl", Help: "How many seconds it lives. Default: an hour, or what the caller and the credential allow if that is less.", Example: "900",
			Kind: Number, Min: 1, Max: int64(m.Longest / time.Second),
		},
		Field{Name: "grants", Help: "What it is good for: see below.", Example: example, Kind: Object, Required: m.Usual == ""})
}

var identity = pattern(`^.{1,256}$`)

func (m *Mint) grantFields() []Field {
	fields := make([]Field, len(m.Grants))
	for i, g := range m.Grants {
		fields[i] = Field{Name: g.Name, Help: g.Help, Example: "{}", Kind: Object, Members: g.Members}
	}
	return fields
}

// Missing is the field of the credential that the token lacks; "" if there is none.
func (m *Mint) Missing(s Secret) string {
	i := slices.IndexFunc(m.Needs, func(name string) bool { return len(s.Field(name)) == 0 })
	if i < 0 {
		return ""
	}
	return m.Needs[i]
}

// Sign appends the token. The credential has all that it needs. Nothing of the key stays behind in memory but in s.
func (m *Mint) Sign(dst []byte, o *Order, t Stamp, s Secret) ([]byte, error) {
	header, claims := m.Claims(o, t, s)
	return appendJWT(dst, header, claims, s.Field(m.Key))
}

// maxTokenTTL is the field by which an org bounds the life of what is minted for it.
func maxTokenTTL() Field {
	return Field{
		Name: "max_token_ttl", Title: "Longest life of minted tokens", Help: "No token that Keyward mints with this credential lives longer. Default: what the caller's rule says.",
		Example: "15m", Pattern: pattern(`^[1-9][0-9]{0,4}[smh]$`), PatternHelp: "a time like 900s, 15m or 1h",
	}
}

// LongestToken is the credential's own bound on the life of tokens; 0: it has none. One that cannot be read bounds it to nothing.
func (s Secret) LongestToken() time.Duration {
	text := s.Field("max_token_ttl")
	if len(text) == 0 {
		return 0
	}
	d, err := time.ParseDuration(string(text))
	if err != nil || d <= 0 {
		return time.Nanosecond
	}
	return d
}
