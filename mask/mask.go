// Package mask overwrites the values of named fields in JSON, where they stand: what holds a secret stays as long as it was and loses
// nothing else.
package mask

import (
	"bytes"
	"strings"
)

// Fields are JSON fields whose values are overwritten. They are never changed once they are made.
type Fields struct {
	names   []fieldName
	parents []string
}

type fieldName struct {
	parent, name string
	bytes        []byte // of name
}

// NewFields reads names: "a.b" is field b in an object that is the value of a field a.
func NewFields(dotted []string) *Fields {
	f := &Fields{}
	for _, d := range dotted {
		parent, name, ok := strings.Cut(d, ".")
		if !ok {
			f.names = append(f.names, fieldName{name: d, bytes: []byte(d)})
			continue
		}
		f.names = append(f.names, fieldName{parent, name, []byte(name)})
		f.parents = append(f.parents, parent)
	}
	return f
}

// MayBeIn says whether a body that has arrived whole could have one of the fields: most have none, and need not be read further.
func (f *Fields) MayBeIn(body []byte) bool {
	for i := range f.names {
		if bytes.Contains(body, f.names[i].bytes) {
			return true
		}
	}
	return bytes.Contains(body, unicodeEscape) // a name may be written with escapes
}

// Overwrite overwrites the fields' values in a body that has arrived whole, and says whether there were any.
func (f *Fields) Overwrite(body []byte) (found bool) {
	if !f.MayBeIn(body) {
		return false
	}
	m := f.New()
	m.Feed(body)
	return m.Found
}

var unicodeEscape = []byte(`\u`)

const (
	maxKey   = 48   // the longest name that is looked for is shorter
	maxDepth = 1024 // of what is followed; webhooks are refused before they are so deep, and no provider's answer is
)

// A Masker overwrites the values of named fields in a JSON text that arrives in pieces of any size, in place and without holding a byte
// back: a name always comes before its value. It follows the structure only as far as it must: what is a name, what is a value, and
// where a value ends. Text that is not JSON, like the "data: " of an event stream, passes between values.
type Masker struct {
	Found bool // a text was overwritten, or had no byte to be

	fields *Fields

	depth   int
	object  [maxDepth/64 + 1]uint64 // bit d: the container at depth d is an object
	marked  [maxDepth/64 + 1]uint64 // bit d: it is the value of one of the parents
	isName  bool                    // the next string is a name
	armed   bool                    // the next value is to be overwritten
	parent  bool                    // the next value is that of a parent
	within  int                     // everything down from this depth is overwritten; 0: nothing
	inText  bool
	hide    bool // the string that is read is overwritten
	escape  int  // what is still to come of an escape: 1 after the backslash, then hex digits down from 5
	unicode rune
	key     [maxKey]byte
	n       int // of key; beyond maxKey it is no name of ours
}

// New makes a Masker for one text. It may be used again for another one by assigning a new Masker to it.
func (f *Fields) New() Masker { return Masker{fields: f} }

// Feed overwrites in the next piece.
func (m *Masker) Feed(p []byte) {
	for i, c := range p {
		if m.inText {
			m.text(p, i, c)
			continue
		}
		switch c {
		case '"':
			m.inText = true
			m.n = 0
			m.hide = !m.isName && (m.armed || m.within > 0)
			m.Found = m.Found || m.hide
		case '{', '[':
			m.open(c == '{')
		case '}', ']':
			m.close()
		case ':':
			if m.isName {
				m.isName = false
				m.named()
			}
		case ',':
			m.armed, m.parent = false, false
			m.isName = m.get(&m.object, m.depth)
		}
	}
}

// text is one byte of a string.
func (m *Masker) text(p []byte, i int, c byte) {
	switch {
	case m.escape == 1:
		m.escape = 0
		if c == 'u' {
			m.escape, m.unicode = 5, 0
		} else if m.isName {
			m.add(c)
		}
	case m.escape > 1:
		m.escape--
		m.unicode = m.unicode<<4 | rune(max(unhex(c), 0))
		if m.escape == 1 {
			m.escape = 0
			if m.isName && m.unicode < 0x80 {
				m.add(byte(m.unicode))
			} else {
				m.n = maxKey + 1
			}
		}
	case c == '\\':
		m.escape = 1
	case c == '"':
		m.inText = false
		if !m.isName {
			m.armed = false
		}
		return
	case m.isName:
		m.add(c)
	}
	if m.hide {
		p[i] = '*'
	}
}

func (m *Masker) add(c byte) {
	if m.n < maxKey {
		m.key[m.n] = c
		m.n++
	} else {
		m.n = maxKey + 1
	}
}

// named looks at the name that has just ended.
func (m *Masker) named() {
	m.armed, m.parent = false, false
	if m.n > maxKey {
		return
	}
	key := m.key[:m.n]
	for i := range m.fields.names {
		f := &m.fields.names[i]
		if string(key) == f.name && (f.parent == "" || m.get(&m.marked, m.depth)) {
			m.armed = true
		}
	}
	for _, s := range m.fields.parents {
		m.parent = m.parent || string(key) == s
	}
}

func (m *Masker) open(object bool) {
	m.depth++
	m.set(&m.object, m.depth, object)
	m.set(&m.marked, m.depth, m.parent)
	if m.armed && m.within == 0 {
		m.within = m.depth
	}
	m.armed, m.parent = false, false
	m.isName = object
}

func (m *Masker) close() {
	if m.within == m.depth {
		m.within = 0
	}
	if m.depth > 0 {
		m.depth--
	}
	m.isName, m.armed, m.parent = false, false, false
}

func (m *Masker) get(bits *[maxDepth/64 + 1]uint64, d int) bool {
	return d <= maxDepth && bits[d/64]&(1<<(d%64)) != 0
}

func (m *Masker) set(bits *[maxDepth/64 + 1]uint64, d int, on bool) {
	if d > maxDepth {
		return // deeper than any provider's answer; names are not told from values there
	}
	bits[d/64] &^= 1 << (d % 64)
	if on {
		bits[d/64] |= 1 << (d % 64)
	}
}

// unhex is the value of a hex digit, or -1.
func unhex(c byte) int {
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
