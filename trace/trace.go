// Package trace knows which requests are followed from one program to the next, and as what: the W3C's Trace Context
// (https://www.w3.org/TR/trace-context-1/), the decision which of them are written down, and the records that result. It sends nothing
// anywhere: that is what package telemetry does with the records.
//
// Whether a request is traced is decided before anything is recorded of it, so that one that is not costs a comparison and no memory. Of
// a caller that says what its own trace does, the word counts; of all others a share is taken.
package trace

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"time"
)

// An ID names a trace, a SpanID one piece of work within it. Zero is none.
type (
	ID     [16]byte
	SpanID [8]byte
)

// String is the form in headers and logs: lower-case hex.
func (i ID) String() string { return hex.EncodeToString(i[:]) }

// String is the form in headers and logs: lower-case hex.
func (s SpanID) String() string { return hex.EncodeToString(s[:]) }

// A Context says which piece of work of which trace something belongs to.
type Context struct {
	Trace   ID
	Span    SpanID
	Sampled bool // whoever began the trace writes it down
}

// Valid says whether it names a trace at all.
func (c Context) Valid() bool { return c.Trace != ID{} && c.Span != SpanID{} }

// HeaderLength is how long a traceparent header is that Append writes.
const HeaderLength = 2 + 1 + 32 + 1 + 16 + 1 + 2

// Append appends the context as a traceparent header says it.
func (c Context) Append(dst []byte) []byte {
	dst = append(dst, "00-"...)
	dst = hex.AppendEncode(dst, c.Trace[:])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, c.Span[:])
	if c.Sampled {
		return append(dst, "-01"...)
	}
	return append(dst, "-00"...)
}

// Parse reads a traceparent header. A version that is not known is read as far as it is like this one, as the standard says.
func Parse(header []byte) (c Context, ok bool) {
	const sampled = 1
	if len(header) < HeaderLength || header[2] != '-' || header[35] != '-' || header[52] != '-' {
		return Context{}, false
	}
	var version, flags [1]byte
	if !decode(version[:], header[:2]) || !decode(c.Trace[:], header[3:35]) || !decode(c.Span[:], header[36:52]) || !decode(flags[:], header[53:55]) {
		return Context{}, false
	}
	switch {
	case version[0] == 0xff, version[0] == 0 && len(header) != HeaderLength, len(header) > HeaderLength && header[HeaderLength] != '-':
		return Context{}, false
	}
	c.Sampled = flags[0]&sampled != 0
	return c, c.Valid()
}

// decode reads lower-case hex: upper case is not allowed.
func decode(dst, src []byte) bool {
	for i := range dst {
		high, low := nibble(src[2*i]), nibble(src[2*i+1])
		if high|low > 0xf {
			return false
		}
		dst[i] = high<<4 | low
	}
	return true
}

func nibble(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// NewSpanID is an id that no other span has, but by a chance of 1 in 2^64. Nobody gains by guessing one.
func NewSpanID() (s SpanID) {
	for s == (SpanID{}) {
		binary.BigEndian.PutUint64(s[:], rand.Uint64()) //nolint:gosec // no secret
	}
	return s
}

func newID() (i ID) {
	for i == (ID{}) {
		binary.BigEndian.PutUint64(i[:8], rand.Uint64()) //nolint:gosec // no secret
		binary.BigEndian.PutUint64(i[8:], rand.Uint64()) //nolint:gosec // no secret
	}
	return i
}

// A Tracer decides what is traced, and takes what was recorded. A nil Tracer traces nothing.
type Tracer struct {
	share  uint64 // of 2^63
	record func(Span)
}

// New makes a Tracer that traces a share, from 0 to 1, of what nobody has decided about yet. record takes the spans: from many goroutines
// at once, and without having them wait.
func New(share float64, record func(Span)) *Tracer {
	return &Tracer{share: uint64(min(max(share, 0), 1) * (1 << 63)), record: record}
}

// Decide says whether a request is traced, and as what: a child of parent, if that is valid, else the first of its trace. What is not traced
// is to leave everything as it found it.
func (t *Tracer) Decide(parent Context) (own Context, traced bool) {
	switch {
	case t == nil:
		return Context{}, false
	case parent.Valid():
		if !parent.Sampled {
			return Context{}, false
		}
		return Context{Trace: parent.Trace, Span: NewSpanID(), Sampled: true}, true
	case t.share == 0 || rand.Uint64()>>1 >= t.share: //nolint:gosec // no secret
		return Context{}, false
	}
	return Context{Trace: newID(), Span: NewSpanID(), Sampled: true}, true
}

// Record hands a finished span over.
func (t *Tracer) Record(s Span) {
	if t != nil {
		t.record(s)
	}
}

// A Kind is which end of a request a span is about.
type Kind uint8

// The kinds of spans.
const (
	Server Kind = iota // a request that came in
	Client             // one that went out
)

// A Span is one piece of work that has ended. It holds no query, no header and no body.
type Span struct {
	Name       string
	Kind       Kind
	Own        Context
	Parent     SpanID // zero: it is the first of its trace
	Remote     bool   // the parent is another program's
	State      string // tracestate, as it came
	Start, End time.Time
	Failed     bool // in the sense of OpenTelemetry: of a server's span, 5xx; of a client's, 4xx too
	Attributes []Attribute
}

// An Attribute is one thing that is known of a span: a text, or a number where there is none.
type Attribute struct {
	Name   string
	Text   string
	Number int64
}

// Set adds an attribute, unless there is nothing to say.
func (s *Span) Set(name, text string) {
	if text != "" {
		s.Attributes = append(s.Attributes, Attribute{Name: name, Text: text})
	}
}

// SetNumber adds an attribute that is a number.
func (s *Span) SetNumber(name string, n int64) {
	s.Attributes = append(s.Attributes, Attribute{Name: name, Number: n})
}
