package proxy

import (
	"bytes"
)

// Limits of a request's head.
const (
	maxHeaders     = 100
	maxConnOptions = 8 // names listed in Connection
)

// A field is one header line: name and value as received, without surrounding white space.
type field struct{ name, value []byte }

// A head is what a request's head says, in slices of the connection's read buffer: valid for this request only. It is read from the
// raw bytes and not from a parsed map, so that what is checked and what is forwarded are the same bytes.
type head struct {
	said
	fields [maxHeaders]field
}

// said is the part of a head that is reset for each request.
type said struct {
	method, target []byte
	n              int // fields

	host                           []byte
	org, assistant, upstream       []byte
	keywardToken, proxyAuth        []byte
	authorization, apiKey, googKey []byte
	origin, fetchSite, upgrade     []byte
	contentType, contentEncoding   []byte
	parent, state                  []byte // traceparent and tracestate

	listed  [maxConnOptions][]byte // the names that Connection lists, "close" and "keep-alive" left out
	nListed int

	length    int64 // Content-Length; -1: none
	chunked   bool
	expect    bool
	close     bool // Connection lists close
	userAgent bool
	hostSeen  bool
	overrides bool // a header asks the provider to take the request for one of another method
	parents   bool // traceparent stands twice: it says nothing
	repeated  bool // a Keyward header, or one with a credential, stands twice
}

// headError says what is wrong with a head, in words for the one who sent it.
type headError struct {
	status int
	reason string // in a word, to count it by
	detail string
}

func (e *headError) Error() string { return e.detail }

func badHead(reason, detail string) *headError {
	headReasons = append(headReasons, reason)
	return &headError{400, reason, detail}
}

// headReasons are what heads are refused for, as they are counted. It is complete when the program begins.
var headReasons = []string{"too_many_headers", "too_long", "version", "malformed"}

var (
	errBareLF       = badHead("bare_line_end", "a line of the head ends in a bare LF, or holds a bare CR")
	errFold         = badHead("folded_header", "a header is folded over several lines (obsolete line folding)")
	errName         = badHead("header_name", "a header name has a byte that is not allowed in one")
	errUnderscore   = badHead("underscore_name", "a header name with an underscore reads like a sensitive one; write it with hyphens")
	errValue        = badHead("header_value", "a header value has a control character")
	errHostTwice    = badHead("host_repeated", "Host stands more than once")
	errHostMissing  = badHead("host_missing", "Host is missing")
	errHostBytes    = badHead("host_malformed", "Host has a byte that is not allowed in one")
	errLength       = badHead("content_length", "Content-Length is not one plain number")
	errLengthTwice  = badHead("content_length_repeated", "Content-Length stands more than once")
	errCoding       = badHead("transfer_encoding", "Transfer-Encoding is not exactly \"chunked\"")
	errLengthCoding = badHead("length_and_encoding", "Content-Length and Transfer-Encoding stand together")
	errCoding10     = badHead("transfer_encoding_in_1_0", "Transfer-Encoding stands in an HTTP/1.0 request")
	errTrailers     = badHead("trailers", "request trailers are not accepted")
	errExpect       = badHead("expect", "Expect is not \"100-continue\"")
	errRepeated     = badHead("credential_repeated", "a Keyward header or one with a credential stands more than once")
	errListed       = badHead("connection_list", "Connection lists too many names")
	errTarget       = badHead("target", "the request target has a byte that is not allowed in one")
	errMethod       = badHead("method", "the method is not a token")
	errTooMany      = &headError{431, "too_many_headers", "more than 100 headers"}
)

// scan reads the raw header block, which ends in an empty line, of a request with the given method and target. It keeps nothing of
// an earlier request.
func (h *head) scan(method, target, raw []byte, http10 bool) *headError {
	h.said = said{length: -1, method: method, target: target}
	if len(method) == 0 || !isToken(method) {
		return errMethod
	}
	for _, c := range target {
		if c <= ' ' || c == 0x7f {
			return errTarget
		}
	}
	for len(raw) > 0 {
		end := bytes.IndexByte(raw, '\n')
		if end < 1 || raw[end-1] != '\r' {
			return errBareLF
		}
		line := raw[:end-1]
		raw = raw[end+1:]
		if len(line) == 0 {
			break
		}
		if h.n == maxHeaders {
			return errTooMany
		}
		if line[0] == ' ' || line[0] == '\t' {
			return errFold
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 || !isToken(line[:colon]) {
			return errName
		}
		f := field{line[:colon], trimSpace(line[colon+1:])}
		for _, c := range f.value {
			if c < ' ' && c != '\t' || c == 0x7f {
				if c == '\r' {
					return errBareLF
				}
				return errValue
			}
		}
		h.fields[h.n] = f
		h.n++
		if err := h.note(f); err != nil {
			return err
		}
	}
	switch {
	case !h.hostSeen && !http10:
		return errHostMissing
	case h.chunked && h.length >= 0:
		return errLengthCoding
	case h.chunked && http10:
		return errCoding10
	case h.repeated:
		return errRepeated
	}
	return nil
}

// note keeps what Keyward itself needs to know of one header.
func (h *head) note(f field) *headError {
	switch len(f.name) {
	case 4:
		if equalFold(f.name, "host") {
			if h.hostSeen {
				return errHostTwice
			}
			h.hostSeen = true
			h.host = f.value
			return checkHost(f.value)
		}
	case 6:
		switch {
		case equalFold(f.name, "origin"):
			h.origin = orEmpty(f.value)
		case equalFold(f.name, "expect"):
			if !equalFold(f.value, "100-continue") {
				return errExpect
			}
			h.expect = true
		}
	case 7:
		switch {
		case equalFold(f.name, "upgrade"):
			h.upgrade = f.value
		case equalFold(f.name, "trailer"):
			return errTrailers
		}
	case 10:
		switch {
		case equalFold(f.name, "connection"):
			return h.list(f.value)
		case equalFold(f.name, "tracestate"):
			h.state = f.value
		case equalFold(f.name, "xi-api-key"):
			h.once(&h.apiKey, f.value)
		case equalFold(f.name, "user-agent"):
			h.userAgent = len(f.value) > 0
		}
	case 11:
		switch {
		case equalFold(f.name, "keyward-org"):
			h.once(&h.org, f.value)
		case equalFold(f.name, "traceparent"):
			h.parents = h.parent != nil
			h.parent = orEmpty(f.value)
		}
	case 12:
		if equalFold(f.name, "content-type") {
			h.contentType = f.value
		}
	case 13:
		switch {
		case equalFold(f.name, "x-http-method"):
			h.overrides = true
		case equalFold(f.name, "authorization"):
			h.once(&h.authorization, f.value)
		case equalFold(f.name, "keyward-token"):
			h.once(&h.keywardToken, f.value)
		}
	case 14:
		switch {
		case equalFold(f.name, "content-length"):
			return h.setLength(f.value)
		case equalFold(f.name, "x-goog-api-key"):
			h.once(&h.googKey, f.value)
		case equalFold(f.name, "sec-fetch-site"):
			h.fetchSite = orEmpty(f.value)
		}
	case 16:
		switch {
		case equalFold(f.name, "keyward-upstream"):
			h.once(&h.upstream, f.value)
		case equalFold(f.name, "content-encoding"):
			h.contentEncoding = f.value
		}
	case 17:
		switch {
		case equalFold(f.name, "x-method-override"):
			h.overrides = true
		case equalFold(f.name, "transfer-encoding"):
			if h.chunked || !equalFold(f.value, "chunked") {
				return errCoding
			}
			h.chunked = true
		case equalFold(f.name, "keyward-assistant"):
			h.once(&h.assistant, f.value)
		}
	case 19:
		if equalFold(f.name, "proxy-authorization") {
			h.once(&h.proxyAuth, f.value)
		}
	case 22:
		h.overrides = h.overrides || equalFold(f.name, "x-http-method-override")
	}
	if bytes.IndexByte(f.name, '_') >= 0 && sensitiveWithUnderscore(f.name) {
		return errUnderscore
	}
	return nil
}

// once keeps a value that may stand only once: with two of them, which one counts would be a guess.
func (h *head) once(dst *[]byte, v []byte) {
	if *dst != nil {
		h.repeated = true
	}
	*dst = orEmpty(v)
}

// orEmpty keeps an empty value apart from one that is not there.
func orEmpty(v []byte) []byte {
	if v == nil {
		return empty
	}
	return v
}

var empty = []byte{}

func (h *head) setLength(v []byte) *headError {
	if h.length >= 0 {
		return errLengthTwice
	}
	if len(v) == 0 || len(v) > 18 {
		return errLength
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return errLength
		}
		n = n*10 + int64(c-'0')
	}
	h.length = n
	return nil
}

// list keeps the names that Connection lists: they are this hop's and go no further.
func (h *head) list(v []byte) *headError {
	for len(v) > 0 {
		var name []byte
		if i := bytes.IndexByte(v, ','); i >= 0 {
			name, v = v[:i], v[i+1:]
		} else {
			name, v = v, nil
		}
		name = trimSpace(name)
		if equalFold(name, "close") {
			h.close = true
			continue
		}
		if len(name) == 0 || equalFold(name, "keep-alive") {
			continue
		}
		if h.nListed == maxConnOptions {
			return errListed
		}
		h.listed[h.nListed] = name
		h.nListed++
	}
	return nil
}

// isListed says whether Connection lists the header.
func (h *head) isListed(name []byte) bool {
	for _, l := range h.listed[:h.nListed] {
		if len(l) == len(name) && bytes.EqualFold(l, name) {
			return true
		}
	}
	return false
}

// body says whether the request has one.
func (h *head) body() bool { return h.chunked || h.length > 0 }

// webSocket says whether the request asks for an upgrade to WebSocket (RFC 6455, section 4.1).
func (h *head) webSocket() bool {
	if !equalFold(h.upgrade, "websocket") || len(h.method) != 3 || string(h.method) != "GET" {
		return false
	}
	return h.isListed(upgradeName)
}

var upgradeName = []byte("upgrade")

// checkHost refuses what would make "host" mean two things to two readers.
func checkHost(v []byte) *headError {
	for _, c := range v {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case c == '.', c == '-', c == '_', c == ':', c == '[', c == ']':
		default:
			return errHostBytes
		}
	}
	return nil
}

// sensitiveWithUnderscore says whether a name would be a sensitive one if its underscores were hyphens: some servers and gateways
// (CGI, WSGI) read them as the same.
func sensitiveWithUnderscore(name []byte) bool {
	var buf [64]byte
	if len(name) > len(buf) {
		return false
	}
	for i, c := range name {
		if c == '_' {
			c = '-'
		}
		buf[i] = lower(c)
	}
	n := buf[:len(name)]
	for _, p := range sensitivePrefixes {
		if bytes.HasPrefix(n, p) {
			return true
		}
	}
	return false
}

var sensitivePrefixes = prefixes("keyward-", "x-org", "x-tenant", "x-vapi-", "x-goog-", "x-twilio-", "xi-api-key", "x-api-key", "x-forwarded-", "x-real-",
	"proxy-", "content-length", "content-type", "content-encoding", "transfer-encoding", "keep-alive", "user-agent", "set-cookie", "sec-", "idempotency-key", "svix-")

func prefixes(s ...string) [][]byte {
	out := make([][]byte, len(s))
	for i := range s {
		out[i] = []byte(s[i])
	}
	return out
}
