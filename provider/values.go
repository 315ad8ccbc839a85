package provider

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// Values are a credential's fields by name, those that are set. They hold secrets, and so cannot be printed; see Wipe.
type Values map[string]Value

// A Value is the value of one field: one of the three, by the field's Kind.
type Value struct {
	Text   string
	List   []string // not nil for a list
	Object []byte   // compact JSON

	// mem is the memory of Text and List where Parse or DecodeValues made it, so that Wipe can overwrite it: the strings are views of
	// it, never handed out but in this Value.
	mem []byte
}

// Wipe overwrites the memory of values that came from Parse or DecodeValues, and empties v. Strings taken out of v are void then;
// those of Masked and Accounts are copies and stay.
func (v Values) Wipe() {
	for _, one := range v {
		clear(one.mem)
		clear(one.Object)
	}
	clear(v)
}

// Equal says whether two values are the same, wherever their memory is.
func (v Value) Equal(w Value) bool {
	return v.Text == w.Text && slices.Equal(v.List, w.List) && bytes.Equal(v.Object, w.Object)
}

// TextOf is a text that is a copy of b.
func TextOf(b []byte) Value { return textValue(bytes.Clone(b)) }

// textValue is a text in memory of its own.
func textValue(mem []byte) Value { return Value{Text: view(mem), mem: mem} }

// view is a string over memory that is not changed as long as the string is in use.
func view(mem []byte) string { return unsafe.String(unsafe.SliceData(mem), len(mem)) }

// Encode appends the compact form that is sealed, and that Secret reads. Equal values have equal forms. dst is grown first, so that no
// half of it stays behind in memory that nobody overwrites.
func (v Values) Encode(dst []byte) []byte {
	n := 1
	for name, one := range v {
		n += 2 + len(name) + 2*binary.MaxVarintLen32 + len(one.Text) + len(one.Object)
		for _, item := range one.List {
			n += binary.MaxVarintLen32 + len(item)
		}
	}
	dst = append(slices.Grow(dst, n), formVersion)
	for _, name := range slices.Sorted(maps.Keys(v)) {
		one := v[name]
		dst = append(append(dst, byte(len(name))), name...)
		switch {
		case one.Object != nil:
			dst = append(appendSize(append(dst, formObject), len(one.Object)), one.Object...)
		case one.List != nil:
			size := 0
			for _, item := range one.List {
				size += sizeLen(len(item)) + len(item)
			}
			dst = appendSize(append(dst, formList), size)
			for _, item := range one.List {
				dst = append(appendSize(dst, len(item)), item...)
			}
		default:
			dst = append(appendSize(append(dst, formText), len(one.Text)), one.Text...)
		}
	}
	return dst
}

func appendSize(dst []byte, n int) []byte { return binary.AppendUvarint(dst, uint64(n)) }

func sizeLen(n int) int {
	l := 1
	for ; n >= 0x80; n >>= 7 {
		l++
	}
	return l
}

var errEncoding = errors.New("not the encoding of a credential")

// DecodeValues reads what Encode wrote. It copies, so that b may be overwritten.
func DecodeValues(b []byte) (Values, error) {
	if len(b) == 0 || b[0] != formVersion {
		return nil, errEncoding
	}
	v := Values{}
	for rest := bytes.Clone(b[1:]); len(rest) > 0; {
		e, next, ok := cutEntry(rest)
		_, twice := v[string(e.name)]
		if !ok || twice {
			v.Wipe()
			return nil, errEncoding
		}
		one := Value{mem: e.content}
		switch e.form {
		case formText:
			one.Text = view(e.content)
		case formObject:
			one.Object, one.mem = e.content, nil
		case formList:
			one.List = []string{}
			for items := e.content; len(items) > 0; {
				var item []byte
				if item, items, ok = cutSized(items); !ok {
					break
				}
				one.List = append(one.List, view(item))
			}
		default:
			ok = false
		}
		v[string(e.name)] = one
		if !ok {
			v.Wipe()
			return nil, errEncoding
		}
		rest = next
	}
	return v, nil
}

// The length from which a secret's last characters are shown, and how many.
const (
	minShown = 12
	shown    = 4
)

// Masked is what may be shown of v, by field: of a secret "…" and its last four characters, of one shorter than twelve only "…". What is
// no field of the provider's is left out.
func (p *Provider) Masked(v Values) map[string]any {
	m := make(map[string]any, len(v))
	for name, one := range v {
		f := p.Field(name)
		if f == nil {
			continue
		}
		show := hidePassword
		if f.Secret {
			show = mask
		}
		switch {
		case one.Object != nil && !f.Secret:
			m[name] = json.RawMessage(bytes.Clone(one.Object))
		case one.List != nil:
			list := make([]string, len(one.List))
			for i, item := range one.List {
				list[i] = show(item)
			}
			m[name] = list
		default:
			m[name] = show(one.Text)
		}
	}
	return m
}

// Concealed are the names of the fields alone, for values of a provider that is not configured any more.
func (v Values) Concealed() map[string]any {
	m := make(map[string]any, len(v))
	for name := range v {
		m[name] = "…"
	}
	return m
}

func mask(secret string) string {
	if utf8.RuneCountInString(secret) < minShown {
		return "…"
	}
	at := len(secret)
	for range shown {
		_, n := utf8.DecodeLastRuneInString(secret[:at])
		at -= n
	}
	return "…" + secret[at:]
}

var password = regexp.MustCompile(`^([a-z]+://[^/?#:@]*):[^/?#]*@`)

// hidePassword is a copy of text without the password of a URL: a webhook's URL may have one.
func hidePassword(text string) string {
	return strings.Clone(password.ReplaceAllString(text, "$1:…@"))
}

// An Account is a provider's own id of something that belongs to one org, in the form in which webhooks carry it.
type Account struct{ Field, ID string }

// Accounts are the ids in v that shared webhook paths are resolved by, each once.
func (p *Provider) Accounts(v Values) []Account {
	var all []Account
	add := func(f *Field, id string) {
		if a := (Account{f.Name, strings.Clone(f.Account(id))}); !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	for i := range p.Fields {
		f := &p.Fields[i]
		if f.Account == nil {
			continue
		}
		one, ok := v[f.Name]
		if ok && one.List == nil {
			add(f, one.Text)
		}
		for _, item := range one.List {
			add(f, item)
		}
	}
	return all
}

// String and the methods below keep Values and a Value out of logs, errors and JSON.
func (v Values) String() string               { return hidden }
func (v Values) GoString() string             { return hidden }
func (v Values) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, hidden) }
func (v Values) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

func (v Value) String() string               { return hidden }
func (v Value) GoString() string             { return hidden }
func (v Value) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, hidden) }
func (v Value) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }
