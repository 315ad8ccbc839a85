package provider

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

const hidden = "[secret]"

// A Secret is one opened credential, alive for one request: the fields in the compact form that Values.Encode makes, so that looking
// one up is a scan that allocates nothing. It cannot be printed. Whoever opened it overwrites it with Wipe.
type Secret struct{ b []byte }

// Open wraps the plain text of a sealed credential. The Secret refers to b and does not copy it. What is no credential has no fields.
func Open(b []byte) Secret { return Secret{b} }

// IsZero says whether it is no credential at all.
func (s Secret) IsZero() bool { return len(s.b) == 0 }

// Len is how many bytes it takes up: more than all its fields together.
func (s Secret) Len() int { return len(s.b) }

// Wipe overwrites the secret's memory.
func (s Secret) Wipe() { clear(s.b) }

// Field is the text of a field, or an object's JSON; nil when it is not set or is a list. It is valid until Wipe and must not be changed.
func (s Secret) Field(name string) []byte {
	form, content := s.find(name)
	if form == formList {
		return nil
	}
	return content
}

// Items iterates over a list; a text is a list of one.
//
//	for all := s.Items("webhook_secret"); all.Next(); { use(all.Item) }
func (s Secret) Items(name string) Items {
	switch form, content := s.find(name); form {
	case formText:
		return Items{rest: content, single: true}
	case formList:
		return Items{rest: content}
	}
	return Items{}
}

// Has says whether item is one of a list. It does not take constant time: it is for ids, not for secrets.
func (s Secret) Has(name string, item []byte) bool {
	for all := s.Items(name); all.Next(); {
		if bytes.Equal(all.Item, item) {
			return true
		}
	}
	return false
}

// Items is where an iteration over a list stands. Item is valid after a Next that was true, until the Secret's Wipe.
type Items struct {
	Item   []byte
	rest   []byte
	single bool
}

// Next moves on to the next item and says whether there is one.
func (i *Items) Next() bool {
	if i.single {
		i.single = false
		i.Item, i.rest = i.rest, nil
		return true
	}
	var ok bool
	i.Item, i.rest, ok = cutSized(i.rest)
	return ok
}

// The compact form: a version byte, then each field as
//
//	length of the name (1 byte) · name · form (1 byte) · length of the content (uvarint) · content
//
// A list's content is its items, each behind its length (uvarint). Sealed rows hold it, so it is only ever added to.
const (
	formVersion = 1

	formText   = 't'
	formList   = 'l'
	formObject = 'o'
)

type entry struct {
	name    []byte
	form    byte
	content []byte
}

// find is cutEntry in a loop, written out: it runs several times for every request, and this takes a quarter of the time.
func (s Secret) find(name string) (form byte, content []byte) {
	b := s.b
	if len(b) == 0 || b[0] != formVersion {
		return 0, nil
	}
	for i := 1; i < len(b); {
		at := i + 1 + int(b[i]) // of the form
		if at+2 > len(b) {
			break
		}
		start, size := at+2, uint64(b[at+1])
		if size >= 0x80 {
			var used int
			if size, used = binary.Uvarint(b[at+1:]); used <= 0 {
				break
			}
			start = at + 1 + used
		}
		if size > uint64(len(b)-start) {
			break
		}
		end := start + int(size)
		if string(b[i+1:at]) == name {
			return b[at], b[start:end:end]
		}
		i = end
	}
	return 0, nil
}

// cutEntry takes the first entry off b; not ok at the end, and where b is no such form.
func cutEntry(b []byte) (e entry, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < int(b[0])+2 {
		return entry{}, b, false
	}
	n := int(b[0])
	content, rest, ok := cutSized(b[n+2:])
	if !ok {
		return entry{}, b, false
	}
	return entry{b[1 : 1+n], b[1+n], content}, rest, true
}

// cutSized takes a length and as many bytes off b.
func cutSized(b []byte) (content, rest []byte, ok bool) {
	n, used := binary.Uvarint(b)
	if used <= 0 || n > uint64(len(b)-used) {
		return nil, b, false
	}
	end := used + int(n)
	return b[used:end:end], b[end:], true
}

// String and the methods below keep a Secret out of logs, errors and JSON.
func (s Secret) String() string               { return hidden }
func (s Secret) GoString() string             { return hidden }
func (s Secret) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, hidden) }
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
