package provider

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What no credential comes near. A credential is opened for every request, so its size is everyone's time.
const (
	maxCredential = 64 << 10 // bytes of JSON
	maxText       = 8 << 10  // bytes of one text or item
	maxItems      = 1000
)

// wholeCredential is the Field of a problem that is not one field's: what the API and the command line call the whole.
const wholeCredential = "credentials"

// Parse reads a credential: one JSON object with a member for each field that is set; null is not set. It reports everything that is
// wrong at once: what is no JSON, unknown, repeated, of the wrong type, malformed or missing. The Values are nil then. data may be
// overwritten afterwards.
func (p *Provider) Parse(data []byte) (Values, []FieldError) {
	members, errs := membersOf(data, "field of "+p.Name, p.Fields)
	if members == nil {
		return nil, errs
	}
	v := Values{}
	unread := map[string]bool{}
	for i := range p.Fields {
		f := &p.Fields[i]
		raw, ok := members[f.Name]
		if !ok || string(raw) == "null" {
			continue
		}
		one, problem := f.read(raw)
		switch {
		case problem != "":
			errs = append(errs, FieldError{f.Name, problem})
			unread[f.Name] = true
		case one.List == nil || len(one.List) > 0: // an empty list is as good as none
			v[f.Name] = one
		}
	}
	errs = append(errs, p.validate(v, unread)...)
	if len(errs) > 0 {
		v.Wipe()
		return nil, errs
	}
	return v, nil
}

// membersOf are the JSON values by the fields' names; nil if data is no object. what says what a member is: "field of twilio".
func membersOf(data []byte, what string, fields []Field) (map[string][]byte, []FieldError) {
	whole := func(problem string) []FieldError { return []FieldError{{wholeCredential, problem}} }
	if len(data) > maxCredential {
		return nil, whole(fmt.Sprintf("must not be larger than %d KiB", maxCredential>>10))
	}
	if problem, at := syntaxProblem(data); problem != "" {
		if at > 0 {
			problem += fmt.Sprintf(": see byte %d", at)
		}
		return nil, whole(problem)
	}
	if data = bytes.TrimSpace(data); data[0] != '{' {
		return nil, whole(fmt.Sprintf(`must be a JSON object, like {%q: %q}`, fields[0].Name, fields[0].Example))
	}
	members := map[string][]byte{}
	var errs []FieldError
	eachMember(data, func(name string, raw []byte) {
		if _, twice := members[name]; twice {
			errs = append(errs, misnamed(name, "stands twice: keep one of them", "holds a name twice"))
			return
		}
		members[name] = raw
		if named(fields, name) == nil {
			errs = append(errs, unknown(name, what, fields))
		}
	})
	return members, errs
}

// A name that is echoed has letters only, and few: an unknown one may be a secret that was put in the wrong place.
var harmless = pattern(`^[A-Za-z_-]{1,32}$`)

func misnamed(name, problem, other string) FieldError {
	if harmless.MatchString(name) {
		return FieldError{name, problem}
	}
	return FieldError{wholeCredential, other}
}

// unknown says which fields there are, or which one was meant.
func unknown(name, what string, fields []Field) FieldError {
	squash := func(s string) string { return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(s)) }
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.Name
		if squash(f.Name) == squash(name) {
			return misnamed(name, fmt.Sprintf("is not a %s: write %s", what, f.Name), fmt.Sprintf("holds a name that must be written %s", f.Name))
		}
	}
	known := "; known are " + strings.Join(names, ", ")
	return misnamed(name, "is not a "+what+known, "holds a name that is not a "+what+known)
}

// read takes a field's value out of JSON and checks its type only.
func (f *Field) read(raw []byte) (one Value, problem string) {
	switch raw[0] {
	case '"':
		if t, ok := unquote(raw); ok && (f.Kind == Text || f.Kind == TextOrList) {
			return textValue(t), ""
		}
	case '[':
		if f.Kind == List || f.Kind == TextOrList {
			if one, ok := readList(raw); ok {
				return one, ""
			}
		}
	case '{':
		if f.Kind == Object {
			var b bytes.Buffer
			b.Grow(len(raw))
			_ = json.Compact(&b, raw) // valid JSON always compacts
			return Value{Object: b.Bytes()}, ""
		}
	}
	return Value{}, "must be " + f.shape()
}

// readList reads a list of strings into one piece of memory.
func readList(raw []byte) (one Value, ok bool) {
	one.List = []string{}
	one.mem = make([]byte, 0, len(raw)) // never grows, so that the views of it stay good
	ok = true
	eachElement(raw, func(raw []byte) {
		t, isText := unquote(raw)
		ok = ok && isText
		at := len(one.mem)
		one.mem = append(one.mem, t...)
		one.List = append(one.List, view(one.mem[at:]))
		clear(t)
	})
	if !ok {
		clear(one.mem)
	}
	return one, ok
}

// shape says what a value must be, behind "must be".
func (f *Field) shape() string {
	switch f.Kind {
	case List:
		return fmt.Sprintf("a list of strings, like [%q]", f.Example)
	case TextOrList:
		return "a string or a list of strings"
	case Object:
		return "a JSON object, like " + f.Example
	case Flag:
		return "true or false"
	case Number:
		return fmt.Sprintf("a whole number from %d to %d", f.Min, f.Max)
	}
	return "a string"
}

// Validate reports everything that is wrong with v: what is unknown, malformed or missing.
func (p *Provider) Validate(v Values) []FieldError {
	var errs []FieldError
	for name := range v {
		if p.Field(name) == nil {
			errs = append(errs, unknown(name, "field of "+p.Name, p.Fields))
		}
	}
	slices.SortFunc(errs, func(a, b FieldError) int { return strings.Compare(a.Field, b.Field) })
	return append(errs, p.validate(v, nil)...)
}

// validate leaves out the unread fields, whose problem is known already, and lets them count as set.
func (p *Provider) validate(v Values, unread map[string]bool) []FieldError {
	var errs []FieldError
	for i := range p.Fields {
		f := &p.Fields[i]
		one, set := v[f.Name]
		switch {
		case unread[f.Name]:
		case set:
			errs = append(errs, f.validate(one)...)
		case f.Required:
			errs = append(errs, FieldError{f.Name, "is missing: " + p.Title + " cannot be used without it"})
		}
	}
	if p.Check == nil {
		return errs
	}
	for name := range unread {
		v[name] = Value{Text: "?"}
	}
	for _, e := range p.Check(v) {
		if !unread[e.Field] {
			errs = append(errs, e)
		}
	}
	for name := range unread {
		delete(v, name)
	}
	return errs
}

func (f *Field) validate(one Value) []FieldError {
	say := func(problem string) []FieldError { return []FieldError{{f.Name, problem}} }
	switch {
	case one.Object != nil:
		if f.Kind != Object {
			return say("must be " + f.shape())
		}
		return f.validateMembers(one.Object)
	case one.List != nil:
		if f.Kind != List && f.Kind != TextOrList {
			return say("must be " + f.shape())
		}
		if len(one.List) > maxItems {
			return say(fmt.Sprintf("has more than %d items", maxItems))
		}
		var errs []FieldError
		for i, item := range one.List {
			if problem := f.pasted(item); problem != "" {
				errs = append(errs, FieldError{f.Name, fmt.Sprintf("item %d %s", i+1, problem)})
			}
		}
		return errs
	case f.Kind == List || f.Kind == Object:
		return say("must be " + f.shape())
	}
	if problem := f.pasted(one.Text); problem != "" {
		return say(problem)
	}
	return nil
}

// pasted is problem for what people copy from somewhere.
func (f *Field) pasted(text string) string {
	if strings.TrimSpace(text) != text {
		return "begins or ends with white space: remove it"
	}
	return f.problem(text)
}

// problem says what is wrong with a text; "" if nothing is.
func (f *Field) problem(text string) string {
	switch {
	case text == "":
		return "is empty: leave it out or give a value"
	case len(text) > maxText:
		return fmt.Sprintf("is longer than %d bytes", maxText)
	case !utf8.ValidString(text):
		return "is not UTF-8"
	case strings.ContainsFunc(text, unicode.IsControl):
		return "contains a control character, like a line break: remove it"
	case len(f.Options) > 0 && !slices.Contains(f.Options, text):
		return "must be " + oneOf(f.Options)
	case f.Pattern != nil && !f.Pattern.MatchString(text):
		return "must be " + f.PatternHelp
	}
	return ""
}

func oneOf(options []string) string {
	last := len(options) - 1
	return strings.Join(options[:last], ", ") + " or " + options[last]
}

// validateMembers checks every member of an object against the field's Members.
func (f *Field) validateMembers(object []byte) []FieldError {
	var errs []FieldError
	seen := map[string]bool{}
	eachMember(object, func(name string, raw []byte) {
		m := named(f.Members, name)
		problem := ""
		switch {
		case m == nil:
			e := unknown(name, "member of "+f.Name, f.Members)
			if e.Field == wholeCredential {
				e.Field = f.Name
			} else {
				e.Field = f.Name + "." + e.Field
			}
			errs = append(errs, e)
			return
		case seen[name]:
			problem = "stands twice: keep one of them"
		default:
			problem = m.memberProblem(raw)
		}
		seen[name] = true
		if problem != "" {
			errs = append(errs, FieldError{f.Name + "." + name, problem})
		}
	})
	return errs
}

func (f *Field) memberProblem(raw []byte) string {
	switch f.Kind {
	case Flag:
		if s := string(raw); s == "true" || s == "false" {
			return ""
		}
	case Number:
		if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil && n >= f.Min && n <= f.Max {
			return ""
		}
	case List:
		if raw[0] == '[' {
			return f.itemsProblem(raw)
		}
	case Object:
		if raw[0] == '{' && onlyTexts(raw) {
			return ""
		}
	default:
		t, ok := unquote(raw)
		if ok && len(t) == 0 && f.Options == nil && (f.Pattern == nil || f.Pattern.Match(t)) {
			return "" // as good as left out: an empty prefix is the default
		}
		if ok {
			return f.problem(string(t))
		}
	}
	return "must be " + f.shape()
}

// itemsProblem is memberProblem of a list.
func (f *Field) itemsProblem(raw []byte) (problem string) {
	n := 0
	eachElement(raw, func(raw []byte) {
		n++
		t, ok := unquote(raw)
		switch {
		case problem != "":
		case !ok:
			problem = "must be " + f.shape()
		default:
			if found := f.pasted(string(t)); found != "" {
				problem = fmt.Sprintf("item %d %s", n, found)
			}
		}
	})
	switch {
	case n == 0:
		return "has no item: leave it out or give one"
	case n > maxItems:
		return fmt.Sprintf("has more than %d items", maxItems)
	}
	return problem
}

// onlyTexts says whether every member of an object is a text: such an object as a member has names of the caller's own.
func onlyTexts(object []byte) bool {
	all := true
	eachMember(object, func(_ string, raw []byte) {
		_, ok := unquote(raw)
		all = all && ok
	})
	return all
}
