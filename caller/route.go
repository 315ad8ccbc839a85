package caller

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// A Route is one compiled glob like "POST /2010-04-01/Accounts/*/Messages.json".
//
// A "*" stands for one path segment or, beside other characters, for any part of one; a closing "/**" for any rest, also none; the
// method "*" for any. Both sides are compared with their percent-encoded unreserved characters (RFC 3986, 2.3) decoded and the hex
// digits of other escapes in upper case; a trailing slash and ".json" are optional on both. Case matters.
//
// A "*" never stands for an encoded slash or backslash, since a provider that decodes before it routes would see two segments there.
type Route struct {
	method   string // "": any
	segments []segment
	rest     bool // a closing "/**"
}

// A segment is what stands between two slashes of a glob.
type segment struct {
	any   bool   // a lone "*"
	plain string // its bytes, if it has neither stars nor escapes: the fast way
	glob  []char
}

// A char is one character of a path: a byte as it stands, or a byte with escaped set where it is percent-encoded and reserved. So
// "%2F" is not "/", and "%41" is "A".
type char uint16

const (
	escaped char = 0x100
	star    char = 0x200
)

// maxGlob bounds a glob's length, so that the cost of a comparison is bounded too.
const maxGlob = 1024

// ParseRoute reads "METHOD /path/glob".
func ParseRoute(s string) (Route, error) {
	method, path, ok := strings.Cut(strings.TrimSpace(s), " ")
	path = strings.TrimSpace(path)
	switch {
	case !ok:
		return Route{}, errors.New(`must be "METHOD /path", as "POST /v1/messages" or "* /v1/**"`)
	case len(s) > maxGlob:
		return Route{}, fmt.Errorf("is longer than %d bytes", maxGlob)
	case strings.ContainsAny(path, " \t"):
		return Route{}, errors.New(`must be one method and one path: "METHOD /path"`)
	case method != "*" && !isMethod(method):
		return Route{}, fmt.Errorf("%q is no method: letters, or * for any", method)
	case !strings.HasPrefix(path, "/"):
		return Route{}, errors.New("the path must begin with /")
	case strings.ContainsAny(path, "?#"):
		return Route{}, errors.New("the query takes no part in it: end the path before ? or #")
	case AmbiguousPath([]byte(path)):
		return Route{}, errors.New("no path with an empty segment, . or .. is ever allowed")
	}
	r := Route{method: strings.ToUpper(method)}
	if method == "*" {
		r.method = ""
	}
	path = string(trimTail([]byte(path)))
	if p, ok := strings.CutSuffix(path, "/**"); ok {
		path, r.rest = p, true
	}
	for path != "" {
		s, next, more := strings.Cut(path[1:], "/")
		if strings.Contains(s, "**") {
			return Route{}, errors.New("** may only stand as the last segment; * is one segment")
		}
		r.segments = append(r.segments, newSegment(s))
		if !more {
			break
		}
		path = "/" + next
	}
	return r, nil
}

func newSegment(s string) segment {
	if s == "*" {
		return segment{any: true}
	}
	seg := segment{plain: s}
	for i := 0; i < len(s); {
		var c char
		c, i = nextChar([]byte(s), i)
		if c == '*' {
			c = star
		}
		if c >= escaped {
			seg.plain = ""
		}
		seg.glob = append(seg.glob, c)
	}
	if strings.Contains(s, "%") {
		seg.plain = ""
	}
	return seg
}

func isMethod(s string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; (c < 'a' || c > 'z') && s[i] != '-' {
			return false
		}
	}
	return s != ""
}

// Match says whether the request is such a one; path as sent, without the query. Ask AmbiguousPath first.
func (r *Route) Match(method, path []byte) bool {
	if r.method != "" && r.method != string(method) {
		return false
	}
	if len(path) > 0 && path[0] != '/' {
		return false // "*", as in OPTIONS *
	}
	path = trimTail(path)
	for i := range r.segments {
		if len(path) == 0 {
			return false
		}
		s := path[1:]
		path = nil
		if end := bytes.IndexByte(s, '/'); end >= 0 {
			s, path = s[:end], s[end:]
		}
		if !r.segments[i].match(s) {
			return false
		}
	}
	return r.rest || len(path) == 0
}

func (g *segment) match(s []byte) bool {
	switch {
	case g.any:
		return len(s) > 0 && !hasSeparator(s)
	case g.plain != "" && g.plain == string(s):
		return true
	}
	// The usual two pointers: on a mismatch, the last star takes one character more. It never has to go back to an earlier star.
	i, j := 0, 0          // in s and in the glob
	starI, starJ := 0, -1 // where the last star's run ends, and what follows the star
	for i < len(s) {
		c, next := nextChar(s, i)
		switch {
		case j < len(g.glob) && g.glob[j] == star:
			j++
			starI, starJ = i, j
		case j < len(g.glob) && g.glob[j] == c:
			i, j = next, j+1
		case starJ >= 0:
			taken, after := nextChar(s, starI)
			if isSeparator(taken) {
				return false
			}
			starI = after
			i, j = starI, starJ
		default:
			return false
		}
	}
	for j < len(g.glob) && g.glob[j] == star {
		j++
	}
	return j == len(g.glob)
}

// AmbiguousPath says whether the path has a segment that some server may take for another path: an empty one (but for one trailing
// slash), or one that reads "." or "..", however it is encoded. An encoded slash, a backslash and ";" end a segment here, because
// there are servers for which they do. So does a path that begins with anything but a slash. Where rules or secret routes apply, such
// a request is refused.
func AmbiguousPath(path []byte) bool {
	if len(path) == 0 {
		return false
	}
	if path[0] != '/' {
		return true
	}
	// Most paths have none of these, and a few scans by the standard library say so in a quarter of the time.
	if bytes.IndexByte(path, '%') < 0 && bytes.IndexByte(path, ';') < 0 && bytes.IndexByte(path, '\\') < 0 &&
		!bytes.Contains(path, slashDot) && !bytes.Contains(path, slashSlash) {
		return false
	}
	dots, other := 0, false // of the current segment's name
	named := false          // its name has ended at a ";"
	bad := func() bool { return !other && dots <= 2 }
	for i := 1; i < len(path); {
		var c char
		c, i = nextChar(path, i)
		switch {
		case c == '/' || isSeparator(c):
			if bad() {
				return true
			}
			dots, other, named = 0, false, false
		case named:
		case c == ';' || c == ';'|escaped:
			named = true
		case c == '.':
			dots++
		default:
			other = true
		}
	}
	if dots == 0 && !other && !named {
		return len(path) > 1 && path[len(path)-1] != '/' // a trailing slash is fine, a trailing %2F is not
	}
	return bad()
}

var slashDot, slashSlash = []byte("/."), []byte("//")

// trimTail takes off what is optional: one trailing slash, then ".json" unless the segment is nothing else.
func trimTail(path []byte) []byte {
	end := len(path)
	if end > 0 && path[end-1] == '/' {
		end--
	}
	at := end
	for i := len(".json") - 1; i >= 0; i-- {
		var c char
		if c, at = prevChar(path[:at]); c != char(".json"[i]) {
			return path[:end]
		}
	}
	if at == 0 || path[at-1] == '/' {
		return path[:end]
	}
	return path[:at]
}

// nextChar is the character at i, and where the next one begins. A "%" that no two hex digits follow stands for itself.
func nextChar(p []byte, i int) (char, int) {
	if p[i] == '%' && i+2 < len(p) {
		if c, ok := unescape(p[i+1], p[i+2]); ok {
			return c, i + 3
		}
	}
	return char(p[i]), i + 1
}

// prevChar is the last character, and where it begins. Going backwards finds the same characters: "%" is no hex digit, so that an
// escape cannot begin inside another.
func prevChar(p []byte) (char, int) {
	n := len(p)
	if n == 0 {
		return 0, 0
	}
	if n >= 3 && p[n-3] == '%' {
		if c, ok := unescape(p[n-2], p[n-1]); ok {
			return c, n - 3
		}
	}
	return char(p[n-1]), n - 1
}

func unescape(hi, lo byte) (char, bool) {
	h, l := unhex(hi), unhex(lo)
	if h > 15 || l > 15 {
		return 0, false
	}
	b := h<<4 | l
	if isAlnum(b) || b == '-' || b == '.' || b == '_' || b == '~' {
		return char(b), true
	}
	return char(b) | escaped, true
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0xFF
}

func isSeparator(c char) bool { return c == '\\' || c == '/'|escaped || c == '\\'|escaped }

func hasSeparator(s []byte) bool {
	if bytes.IndexByte(s, '%') < 0 {
		return bytes.IndexByte(s, '\\') >= 0
	}
	for i := 0; i < len(s); {
		var c char
		if c, i = nextChar(s, i); isSeparator(c) {
			return true
		}
	}
	return false
}
