package webhook

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
)

// A node is a place in a JSON document that is looked at. Everything else is skipped, checked for its brackets only: a body of 25 MiB is
// read once and no tree of it is built.
type node struct {
	key  string // of the object around it; "" at the root and for the elements of an array
	leaf int    // what a text here is, 0: not asked for
	kids []node // members that are looked at
	each bool   // an array: kids are looked at in each of its elements
}

// maxDepth is how deep a document may be nested. Deeper ones are made to hurt a parser, ours or the app's.
const maxDepth = 1000

// scanProblem is what is wrong with a document. Nothing found in one is used that has a problem.
type scanProblem string

const (
	notJSON   scanProblem = "body is not JSON"
	tooDeep   scanProblem = "body is nested too deep"
	ambiguous scanProblem = "body has a key twice with different values"
	wrongType scanProblem = "an id in the body is not a text"
)

// A scanner finds the texts at the places of a node's tree.
type scanner struct {
	b       []byte
	i       int
	found   func(leaf int, text []byte)
	problem scanProblem
}

// scan reads body, and calls found for each text at a place of root. The texts are body's own bytes where they have no escapes. A key
// that stands twice in an object makes the document ambiguous, unless both values are the same: parsers disagree on which one counts.
func scan(body []byte, root *node, found func(leaf int, text []byte)) scanProblem {
	s := scanner{b: body, found: found}
	s.space()
	s.value(root, 0)
	s.space()
	if s.i != len(s.b) {
		s.fail(notJSON)
	}
	return s.problem
}

// fail keeps the first problem and ends the scan.
func (s *scanner) fail(p scanProblem) {
	if s.problem == "" {
		s.problem = p
	}
	s.i = len(s.b) + 1
}

// peek is the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\r' || s.b[s.i] == '\t') {
		s.i++
	}
}

// value reads one value at a place that is looked at; depth is the node's, bounded by its tree.
func (s *scanner) value(n *node, depth int) {
	switch c := s.peek(); {
	case c == '{' && len(n.kids) > 0 && !n.each:
		s.object(n, depth)
	case c == '[' && n.each:
		s.array(n, depth)
	case c == '"' && n.leaf != 0:
		if text, ok := s.text(); ok {
			s.found(n.leaf, text)
		}
	case n.leaf != 0 && c != 'n':
		s.fail(wrongType)
	default:
		s.skip(depth)
	}
}

func (s *scanner) array(n *node, depth int) {
	element := node{kids: n.kids}
	s.i++
	if s.space(); s.peek() == ']' {
		s.i++
		return
	}
	for s.problem == "" {
		s.space()
		s.value(&element, depth+1)
		s.space()
		switch s.peek() {
		case ',':
			s.i++
		case ']':
			s.i++
			return
		default:
			s.fail(notJSON)
		}
	}
}

func (s *scanner) object(n *node, depth int) {
	var few [16][]byte
	seen := few[:] // :: kid → its value as it stands
	if len(n.kids) > len(few) {
		seen = make([][]byte, len(n.kids))
	}
	s.i++
	if s.space(); s.peek() == '}' {
		s.i++
		return
	}
	for s.problem == "" {
		s.space()
		key, ok := s.text()
		if s.space(); !ok || s.peek() != ':' {
			s.fail(notJSON)
			return
		}
		s.i++
		s.space()
		start, at := s.i, kid(n.kids, key)
		if at < 0 {
			s.skip(depth + 1)
		} else {
			s.value(&n.kids[at], depth+1)
		}
		if s.problem != "" {
			return
		}
		if at >= 0 {
			raw := s.b[start:s.i]
			if seen[at] != nil && !bytes.Equal(seen[at], raw) {
				s.fail(ambiguous)
				return
			}
			seen[at] = raw
		}
		s.space()
		switch s.peek() {
		case ',':
			s.i++
		case '}':
			s.i++
			return
		default:
			s.fail(notJSON)
		}
	}
}

// kid is the place of the member with that key, or -1.
func kid(kids []node, key []byte) int {
	for i := range kids {
		if kids[i].key == string(key) {
			return i
		}
	}
	return -1
}

// text reads a string.
func (s *scanner) text() ([]byte, bool) {
	start := s.i
	if s.peek() != '"' {
		return nil, false
	}
	escaped := s.quoted()
	if s.problem != "" {
		return nil, false
	}
	if !escaped {
		return s.b[start+1 : s.i-1], true
	}
	var t string
	if json.Unmarshal(s.b[start:s.i], &t) != nil {
		s.fail(notJSON)
		return nil, false
	}
	return []byte(t), true
}

// quoted passes over a string, and says whether it has escapes.
func (s *scanner) quoted() (escaped bool) {
	for s.i++; s.i < len(s.b); s.i++ {
		for s.i+8 <= len(s.b) && plain8(binary.LittleEndian.Uint64(s.b[s.i:])) {
			s.i += 8
		}
		switch c := s.peek(); {
		case c == '"':
			s.i++
			return escaped
		case c == '\\':
			escaped = true
			s.i++
			if !s.escape() {
				s.fail(notJSON)
				return escaped
			}
		case c < ' ':
			s.fail(notJSON)
			return escaped
		}
	}
	s.fail(notJSON)
	return escaped
}

// plain8 says of eight bytes of a string at once that none of them ends it, begins an escape or is a control character (Hacker's Delight,
// section 6-1: the first byte that is found is found rightly, so "none" is right).
func plain8(w uint64) bool {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	quote, slash := w^(ones*'"'), w^(ones*'\\')
	return ((quote-ones)&^quote|(slash-ones)&^slash|(w-ones*' ')&^w)&tops == 0
}

// escape passes over all of an escape but its last byte.
func (s *scanner) escape() bool {
	c := s.peek()
	if c != 'u' {
		return c != 0 && strings.IndexByte(`"\/bfnrt`, c) >= 0
	}
	for range 4 {
		s.i++
		if c := s.peek() | 0x20; !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') || s.peek() < '0' {
			return false
		}
	}
	return true
}

// skip passes over one value that nobody asked for, at whatever depth, without recursion.
func (s *scanner) skip(depth int) {
	var open [maxDepth/8 + 1]byte // a bit for each bracket that is open: set for an object
	top := 0
	for {
		s.space()
		switch c := s.peek(); {
		case c == '{' || c == '[':
			if depth+top >= maxDepth {
				s.fail(tooDeep)
				return
			}
			open[top/8] &^= 1 << (top % 8)
			if c == '{' {
				open[top/8] |= 1 << (top % 8)
			}
			top++
			s.i++
			if s.space(); s.peek() != c+2 { // '{'+2 is '}', '['+2 is ']'
				if c == '{' && !s.key() {
					return
				}
				continue
			}
			s.i++
			top--
		case c == '"':
			s.quoted()
		default:
			s.scalar()
		}
		if s.problem != "" {
			return
		}
		// A value ended: what is around it goes on or ends too.
		for more := false; !more; {
			if top == 0 {
				return
			}
			object := open[(top-1)/8]&(1<<((top-1)%8)) != 0
			s.space()
			switch c := s.peek(); {
			case c == ',':
				s.i++
				if s.space(); object && !s.key() {
					return
				}
				more = true
			case c == '}' && object, c == ']' && !object:
				s.i++
				top--
			default:
				s.fail(notJSON)
				return
			}
		}
	}
}

// key passes over a member's key and its colon.
func (s *scanner) key() bool {
	if s.peek() != '"' {
		s.fail(notJSON)
		return false
	}
	s.quoted()
	if s.space(); s.problem != "" || s.peek() != ':' {
		s.fail(notJSON)
		return false
	}
	s.i++
	return true
}

// scalar passes over a number, true, false or null.
func (s *scanner) scalar() {
	start := s.i
	for s.i < len(s.b) {
		c := s.b[s.i]
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c == '-' || c == '+' || c == '.' || c == 'E') {
			break
		}
		s.i++
	}
	switch v := s.b[start:s.i]; {
	case len(v) == 0:
		s.fail(notJSON)
	case v[0] >= 'a' && v[0] <= 'z':
		if string(v) != "true" && string(v) != "false" && string(v) != "null" {
			s.fail(notJSON)
		}
	case !isNumber(v):
		s.fail(notJSON)
	}
}

// isNumber holds for numbers (RFC 8259, section 6).
func isNumber(v []byte) bool {
	v = bytes.TrimPrefix(v, []byte{'-'})
	whole := digits(v)
	if whole == 0 || whole > 1 && v[0] == '0' {
		return false
	}
	if v = v[whole:]; len(v) > 0 && v[0] == '.' {
		n := digits(v[1:])
		if n == 0 {
			return false
		}
		v = v[1+n:]
	}
	if len(v) > 0 && v[0]|0x20 == 'e' {
		if v = v[1:]; len(v) > 0 && (v[0] == '+' || v[0] == '-') {
			v = v[1:]
		}
		n := digits(v)
		return n > 0 && n == len(v)
	}
	return len(v) == 0
}

// digits is how many v begins with.
func digits(v []byte) (n int) {
	for n < len(v) && v[n] >= '0' && v[n] <= '9' {
		n++
	}
	return n
}
