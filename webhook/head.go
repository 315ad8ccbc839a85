package webhook

import (
	"bytes"
	"strings"
)

const maxHeaders = 100

// A field is one header line: name and value as received, without surrounding white space.
type field struct{ name, value []byte }

// A head is what a request's head says, in slices of the connection's read buffer. It is read from the raw bytes and not from a parsed
// map, so that what is verified and what is forwarded are the same bytes.
type head struct {
	fields []field
	host   []byte
	length int64 // Content-Length; -1: none

	chunked bool
	listed  [][]byte // names in Connection: this hop's, they go no further
}

// headError says what is wrong with a head, in words for the one who sent it.
type headError struct {
	status int
	detail string
}

// scan reads a raw header block that ends in an empty line. What two servers could read in two ways is refused: behind a public proxy
// it would be a way past it.
func (h *head) scan(raw []byte, http10 bool) *headError {
	*h = head{fields: h.fields[:0], length: -1}
	hostSeen := false
	for len(raw) > 0 {
		end := bytes.IndexByte(raw, '\n')
		if end < 1 || raw[end-1] != '\r' {
			return &headError{400, "a line of the head ends in a bare LF"}
		}
		line := raw[:end-1]
		raw = raw[end+1:]
		if len(line) == 0 {
			break
		}
		if len(h.fields) == maxHeaders {
			return &headError{431, "more than 100 headers"}
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 || !isToken(line[:colon]) {
			return &headError{400, "a header line does not begin with a name"} // obsolete folding included
		}
		f := field{line[:colon], bytes.Trim(line[colon+1:], " \t")}
		for _, c := range f.value {
			if c < ' ' && c != '\t' || c == 0x7f {
				return &headError{400, "a header value has a control character"}
			}
		}
		h.fields = append(h.fields, f)
		switch {
		case is(f.name, "host"):
			if hostSeen || !isHost(f.value) {
				return &headError{400, "Host stands twice or has a byte that is not allowed in one"}
			}
			hostSeen, h.host = true, f.value
		case is(f.name, "content-length"):
			n, ok := number(f.value)
			if h.length >= 0 || !ok {
				return &headError{400, "Content-Length is not one plain number"}
			}
			h.length = n
		case is(f.name, "transfer-encoding"):
			if h.chunked || http10 || !is(f.value, "chunked") {
				return &headError{400, "Transfer-Encoding is not exactly \"chunked\""}
			}
			h.chunked = true
		case is(f.name, "trailer"):
			return &headError{400, "request trailers are not accepted"}
		case is(f.name, "expect"):
			if !is(f.value, "100-continue") {
				return &headError{400, "Expect is not \"100-continue\""}
			}
		case is(f.name, "connection"):
			for _, name := range bytes.Split(f.value, []byte{','}) {
				if name = bytes.Trim(name, " \t"); len(name) > 0 {
					h.listed = append(h.listed, name)
				}
			}
		}
	}
	switch {
	case !hostSeen && !http10:
		return &headError{400, "Host is missing"}
	case h.chunked && h.length >= 0:
		return &headError{400, "Content-Length and Transfer-Encoding stand together"}
	}
	return nil
}

// one is the value of a header that stands exactly once and is not empty. Which of two counts would be a guess, so neither does.
func (h *head) one(name string) ([]byte, bool) {
	v, n := h.get(name)
	return v, n == 1 && len(v) > 0
}

// get is the last value of a header, and how often it stands.
func (h *head) get(name string) (v []byte, n int) {
	for _, f := range h.fields {
		if is(f.name, name) {
			v = f.value
			n++
		}
	}
	return v, n
}

// is compares without regard to case.
func is(b []byte, s string) bool { return len(b) == len(s) && strings.EqualFold(string(b), s) }

func number(v []byte) (n int64, ok bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func isHost(v []byte) bool {
	for _, c := range v {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			return false
		}
	}
	return true
}

// isToken holds for names of headers (RFC 9110, section 5.6.2).
func isToken(b []byte) bool {
	for _, c := range b {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return len(b) > 0
}
