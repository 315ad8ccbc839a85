package console

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"unicode/utf8"
)

// maxForm is the longest form: an agent's configuration is at most 256 KiB, each byte of which may be sent as three.
// Who is not logged in sends a token and no more.
const (
	maxForm  = 1 << 20
	maxLogin = 8 << 10
)

var errForm = errors.New("the form was not received whole, or is too large")

// A form is what a browser sent. The values are parts of its one buffer, which is overwritten when the request ends: they may be secrets,
// and a string could not be.
type form struct {
	body  []byte
	pairs []pair
}

type pair struct {
	name  string
	value []byte
}

// readForm reads an application/x-www-form-urlencoded body of at most longest bytes.
func readForm(r *http.Request, longest int64) (*form, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" || r.ContentLength < 0 || r.ContentLength > longest {
		return nil, errForm
	}
	f := &form{body: make([]byte, r.ContentLength)}
	if _, err := io.ReadFull(r.Body, f.body); err != nil {
		f.wipe()
		return nil, errForm
	}
	for rest := f.body; len(rest) > 0; {
		var one []byte
		one, rest, _ = bytes.Cut(rest, []byte("&"))
		name, value, _ := bytes.Cut(one, []byte("="))
		name, ok := unescape(name)
		value, valid := unescape(value)
		if !ok || !valid || !utf8.Valid(name) || !utf8.Valid(value) {
			f.wipe()
			return nil, errForm
		}
		// Browsers end the lines of a text with CR LF.
		f.pairs = append(f.pairs, pair{string(name), withoutReturns(value)})
	}
	return f, nil
}

func (f *form) wipe() {
	if f != nil {
		clear(f.body)
	}
}

// raw is the value of that name without white space around it; nil: there is none.
func (f *form) raw(name string) []byte {
	for _, p := range f.pairs {
		if p.name == name {
			return bytes.TrimSpace(p.value)
		}
	}
	return nil
}

// text is raw for what is no secret.
func (f *form) text(name string) string { return string(f.raw(name)) }

// all are the values of that name that are not empty.
func (f *form) all(name string) [][]byte {
	var values [][]byte
	for _, p := range f.pairs {
		if v := bytes.TrimSpace(p.value); p.name == name && len(v) > 0 {
			values = append(values, v)
		}
	}
	return values
}

// texts is all for what is no secret.
func (f *form) texts(name string) []string {
	values := []string{}
	for _, v := range f.all(name) {
		values = append(values, string(v))
	}
	return values
}

// lines are the items of a list that is typed with one on a line, or with commas.
func lines(value []byte) [][]byte {
	var items [][]byte
	for _, item := range bytes.FieldsFunc(value, func(r rune) bool { return r == '\n' || r == ',' }) {
		if item = bytes.TrimSpace(item); len(item) > 0 {
			items = append(items, item)
		}
	}
	return items
}

// unescape decodes in place.
func unescape(b []byte) ([]byte, bool) {
	out := b[:0]
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '+':
			out = append(out, ' ')
		case '%':
			if i+2 >= len(b) {
				return nil, false
			}
			high, low := hexDigit(b[i+1]), hexDigit(b[i+2])
			if high < 0 || low < 0 {
				return nil, false
			}
			out = append(out, byte(high<<4|low))
			i += 2
		default:
			out = append(out, b[i])
		}
	}
	return out, true
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

func withoutReturns(b []byte) []byte {
	out := b[:0]
	for i, c := range b {
		if c == '\r' && i+1 < len(b) && b[i+1] == '\n' {
			continue
		}
		out = append(out, c)
	}
	return out
}

// An object is JSON that is written into memory which can be overwritten.
type object struct{ b []byte }

func newObject(size int) *object { return &object{append(make([]byte, 0, size), '{')} }

func (o *object) name(name string) {
	if len(o.b) > 1 {
		o.b = append(o.b, ',')
	}
	o.quote([]byte(name))
	o.b = append(o.b, ':')
}

// raw adds a member whose value is JSON.
func (o *object) raw(name string, value []byte) { o.name(name); o.b = append(o.b, value...) }

// text adds a string.
func (o *object) text(name string, value []byte) { o.name(name); o.quote(value) }

// list adds a list of strings.
func (o *object) list(name string, items [][]byte) {
	o.name(name)
	o.b = append(o.b, '[')
	for i, item := range items {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.quote(item)
	}
	o.b = append(o.b, ']')
}

// value adds what is no secret.
func (o *object) value(name string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		b = []byte("null") // only what cannot be written: it is ours
	}
	o.raw(name, b)
}

// quote appends a JSON string. s is valid UTF-8.
func (o *object) quote(s []byte) {
	const digits = "0123456789abcdef"
	o.b = append(o.b, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			o.b = append(o.b, '\\', c)
		case c < ' ':
			o.b = append(o.b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		default:
			o.b = append(o.b, c)
		}
	}
	o.b = append(o.b, '"')
}

// end is the whole object.
func (o *object) end() []byte { o.b = append(o.b, '}'); return o.b }
