package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep a body's JSON may nest; nothing that is accepted comes near.
const maxDepth = 32

// A field of a request's object: where its value goes.
type field struct {
	name string
	into any // *json.RawMessage (a part of the body), *string, **string, *bool, **bool or *[]string
}

// read reads the body as one JSON object, strictly: every member must be one of fields, none may stand twice at any depth, null counts
// as absent. No error quotes what the body holds, but for the names of members.
func (c *call) read(fields ...field) error {
	if err := c.readBody(); err != nil {
		return err
	}
	body := bytes.TrimSpace(c.body)
	if len(body) == 0 {
		return badRequest("the body is empty: send a JSON object")
	}
	if !utf8.Valid(body) {
		return badRequest("the body is not valid UTF-8")
	}
	if !json.Valid(body) {
		return notJSON(body)
	}
	if body[0] != '{' {
		return badRequest("the body is not a JSON object")
	}
	if err := checkNames(body, 0); err != nil {
		return err
	}
	p := malformed("the request is malformed")
	eachMember(body, func(name string, raw []byte) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		switch {
		case i < 0:
			p.add(shownName(name), "is not known here; known are "+known(fields))
		case string(raw) != "null":
			if want := assign(fields[i].into, raw); want != "" {
				p.add(name, "must be "+want)
			}
		}
	})
	return p.orNil()
}

// readBody reads the whole body into memory that is overwritten when the call ends: it may hold a credential.
func (c *call) readBody() error {
	size := c.r.ContentLength
	if size > maxBody {
		return problemBodySize
	}
	if size < 0 { // chunked
		size = 4096
	}
	b := make([]byte, 0, size+1) // one more, so that the end is seen without growing
	for {
		if len(b) == cap(b) {
			grown := append(make([]byte, 0, 2*cap(b)), b...)
			clear(b)
			b = grown
		}
		n, err := c.r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		c.body = b
		var tooLarge *http.MaxBytesError
		switch {
		case err == io.EOF:
			return nil
		case errors.As(err, &tooLarge):
			return problemBodySize
		case err != nil:
			return badRequest("the body was not received whole")
		}
	}
}

func known(fields []field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	return strings.Join(names, ", ")
}

// assign stores raw and returns what it should have been, or "".
func assign(into any, raw []byte) string {
	want := ""
	switch into := into.(type) {
	case *json.RawMessage:
		*into = raw
		return ""
	case *string, **string:
		want = "a string"
	case *bool, **bool:
		want = "true or false"
	case *[]string:
		want = "a list of strings"
		if bytes.Contains(raw, []byte("null")) && slices.Contains(elements(raw), "null") {
			return want // encoding/json would read it as ""
		}
	default:
		panic("reading into another type") // a mistake of ours: it would be left unread in silence
	}
	if json.Unmarshal(raw, into) != nil {
		return want
	}
	return ""
}

// elements are the raw elements of a list.
func elements(list []byte) []string {
	var raw []json.RawMessage
	_ = json.Unmarshal(list, &raw) // no list: no elements
	all := make([]string, len(raw))
	for i, r := range raw {
		all[i] = string(r)
	}
	return all
}

// harmless are names that may be repeated in an answer: an unknown one may be a secret that was put in the wrong place.
var harmless = regexp.MustCompile(`^[A-Za-z_-]{1,32}$`)

func shownName(name string) string {
	if harmless.MatchString(name) {
		return name
	}
	return "body"
}

// checkNames refuses an object at any depth in which a name stands twice: encoding/json would silently take the last, another reader the
// first. value is valid JSON.
func checkNames(value []byte, depth int) (err error) {
	if depth > maxDepth {
		return badRequest(fmt.Sprintf("the body nests deeper than %d levels", maxDepth))
	}
	switch value[0] {
	case '{':
		seen := map[string]bool{}
		eachMember(value, func(name string, raw []byte) {
			if seen[name] && err == nil {
				err = badField(shownName(name), "stands twice")
			}
			seen[name] = true
			if err == nil {
				err = checkNames(raw, depth+1)
			}
		})
	case '[':
		eachElement(value, func(raw []byte) {
			if err == nil {
				err = checkNames(raw, depth+1)
			}
		})
	}
	return err
}

// eachMember calls fn for every member of an object, which is valid JSON. The values are parts of it, so that no copy of a secret is made.
func eachMember(object []byte, fn func(name string, raw []byte)) {
	for b := skip(object[1:], ' '); b[0] != '}'; b = skip(b, ',') {
		n := valueLen(b)
		var name string
		_ = json.Unmarshal(b[:n], &name) // it is a string
		b = skip(b[n:], ':')
		n = valueLen(b)
		fn(name, b[:n])
		b = b[n:]
	}
}

func eachElement(list []byte, fn func(raw []byte)) {
	for b := skip(list[1:], ' '); b[0] != ']'; b = skip(b, ',') {
		n := valueLen(b)
		fn(b[:n])
		b = b[n:]
	}
}

// skip passes white space, and a separator among it.
func skip(b []byte, separator byte) []byte {
	for b[0] == ' ' || b[0] == '\t' || b[0] == '\n' || b[0] == '\r' || b[0] == separator {
		b = b[1:]
	}
	return b
}

// valueLen is the length of the value that b begins with.
func valueLen(b []byte) int {
	depth, inString := 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
			if !inString && depth == 0 {
				return i + 1
			}
		case inString:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth <= 0 {
				return i + 1 + min(depth, 0) // a number that ends with what holds it
			}
		case depth == 0 && (c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			return i
		}
	}
	return len(b)
}

func notJSON(body []byte) error {
	detail := "the body is not valid JSON"
	var syntax *json.SyntaxError
	var ignored skipped
	if err := json.Unmarshal(body, &ignored); errors.As(err, &syntax) {
		detail = fmt.Sprintf("%s: see byte %d", detail, syntax.Offset) // the error's own text quotes the byte
	}
	return badRequest(detail)
}

// A skipped value is read by nobody.
type skipped struct{}

func (*skipped) UnmarshalJSON([]byte) error { return nil }
