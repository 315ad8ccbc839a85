package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"unicode/utf8"
)

// The functions here look into JSON without copying it: what encoding/json copies on its way into a map stays behind in memory as
// secrets that nobody can overwrite.

// ignored takes any JSON value and keeps nothing of it.
type ignored struct{}

func (*ignored) UnmarshalJSON([]byte) error { return nil }

// syntaxProblem says what keeps data from being JSON; "" if it is. The parser's own message would quote what it stumbled over.
func syntaxProblem(data []byte) (problem string, at int64) {
	var syntax *json.SyntaxError
	switch err := json.Unmarshal(data, &ignored{}); {
	case errors.As(err, &syntax):
		return "is not valid JSON", syntax.Offset
	case err != nil:
		return "is not valid JSON", 0
	case !utf8.Valid(data):
		return "is not UTF-8", 0
	}
	return "", 0
}

// eachMember calls fn for every member of a JSON object, in its order. data is valid JSON.
func eachMember(data []byte, fn func(name string, raw []byte)) {
	for rest := bytes.TrimLeft(data, "{ \t\r\n"); ; {
		rest = bytes.TrimLeft(rest, ", \t\r\n")
		if len(rest) == 0 || rest[0] != '"' {
			return
		}
		n := valueLen(rest)
		var name string
		_ = json.Unmarshal(rest[:n], &name) // a valid string always unmarshals
		rest = bytes.TrimLeft(rest[n:], ": \t\r\n")
		n = valueLen(rest)
		fn(name, rest[:n])
		rest = rest[n:]
	}
}

// eachElement calls fn for every element of a JSON array. data is valid JSON.
func eachElement(data []byte, fn func(raw []byte)) {
	for rest := bytes.TrimLeft(data, " \t\r\n")[1:]; ; {
		rest = bytes.TrimLeft(rest, ", \t\r\n")
		if len(rest) == 0 || rest[0] == ']' {
			return
		}
		n := valueLen(rest)
		fn(rest[:n])
		rest = rest[n:]
	}
}

// valueLen is the length of the JSON value that b begins with.
func valueLen(b []byte) int {
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return min(i+1, len(b))
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
			if depth < 0 {
				return i // a number or a word, and what encloses it ends here
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return i
			}
		}
	}
	return len(b)
}

// text is a JSON string's content in memory of its own.
type text []byte

func (t *text) UnmarshalText(b []byte) error {
	*t = bytes.Clone(b)
	return nil
}

// unquote is the content of a JSON string; not ok if raw is none.
func unquote(raw []byte) (t text, ok bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return nil, false
	}
	err := json.Unmarshal(raw, &t)
	return t, err == nil
}
