package torture

import (
	"fmt"
	"slices"
	"strings"
)

// A vector is one hostile stretch of bytes and what must become of it.
type vector struct {
	name, raw string
	verdict   verdict
	statuses  []int  // of a refusal
	wants     []seen // what the upstream must see, in order, if it is accepted
	headers   []string
	unixOnly  bool
	// unfinished: to a reader that waits for the end of a line, a head or a body it has not come yet; the caller then closes its side.
	unfinished bool
}

type verdict int

const (
	refused  verdict = iota // one of statuses, then the connection is closed, and nothing is forwarded
	denied                  // the same, but the connection may stay: the head is valid, the request is not allowed
	accepted                // forwarded as exactly what wants says
	either                  // refused with 400, or forwarded as exactly what wants says
)

// The head that vectors start from.
const (
	hostLine = "Host: api.resend.com\r\n"
	orgLine  = "Keyward-Org: acme\r\n"
	smuggled = "GET /smuggled HTTP/1.1\r\n" + hostLine + "Keyward-Org: globex\r\n\r\n"
)

// get is a valid request with further lines, each without its CRLF.
func get(lines ...string) string { return head("GET /v HTTP/1.1", lines...) }

// post is the same with something behind the head.
func post(behind string, lines ...string) string { return head("POST /v HTTP/1.1", lines...) + behind }

func head(requestLine string, lines ...string) string {
	var b strings.Builder
	b.WriteString(requestLine + "\r\n" + hostLine + orgLine)
	for _, l := range lines {
		b.WriteString(l + "\r\n")
	}
	return b.String() + "\r\n"
}

// vectors is the table, made by one line per vector in the files beside this one.
type vectors []vector

func (v *vectors) add(x vector) { *v = append(*v, x) }

// refuse: a malformed head is 400 and closes.
func (v *vectors) refuse(name, raw string) { v.refuseAs(name, raw, 400) }

func (v *vectors) refuseAs(name, raw string, statuses ...int) {
	v.add(vector{name: name, raw: raw, verdict: refused, statuses: statuses})
}

func (v *vectors) deny(name, raw string, statuses ...int) {
	v.add(vector{name: name, raw: raw, verdict: denied, statuses: statuses})
}

// accept: forwarded once, as method, target and body say; each of headers is "Name=value", or "!Name" for one that must not arrive.
func (v *vectors) accept(name, raw, method, target, body string, headers ...string) {
	v.add(vector{name: name, raw: raw, verdict: accepted, wants: []seen{{Method: method, Target: target, Body: body}}, headers: headers})
}

// either: a reader may take it or refuse it, but may not take it for something else.
func (v *vectors) either(name, raw, method, target, body string) {
	v.add(vector{name: name, raw: raw, verdict: either, statuses: []int{400}, wants: []seen{{Method: method, Target: target, Body: body}}})
}

// several: pipelined requests are answered in order.
func (v *vectors) several(name, raw string, wants ...seen) {
	v.add(vector{name: name, raw: raw, verdict: accepted, wants: wants})
}

// cut: what is not whole is refused when the caller will not send more.
func (v *vectors) cut(name, raw string) {
	v.add(vector{name: name, raw: raw, verdict: refused, statuses: []int{400}, unfinished: true})
}

// onUnix marks the vector added last as one for the unix socket alone: over TCP a token's line would change what it counts.
func (v *vectors) onUnix() { (*v)[len(*v)-1].unixOnly = true }

// allVectors is the whole list.
func allVectors() vectors {
	var v vectors
	v.lengths()
	v.codings()
	v.chunks()
	v.lines()
	v.names()
	v.values()
	v.requestLines()
	v.targets()
	v.hosts()
	v.hopByHop()
	v.keyward()
	v.limits()
	v.pipelines()
	slices.SortStableFunc(v, func(a, b vector) int { return strings.Compare(group(a.name), group(b.name)) })
	return v
}

func group(name string) string { g, _, _ := strings.Cut(name, ":"); return g }

// lengths: Content-Length.
func (v *vectors) lengths() {
	const b = "hello"
	v.accept("length: plain", post(b, "Content-Length: 5"), "POST", "/v", b)
	v.accept("length: zero", post("", "Content-Length: 0"), "POST", "/v", "")
	v.accept("length: none on POST", post(""), "POST", "/v", "")
	v.accept("length: on GET", head("GET /v HTTP/1.1", "Content-Length: 5")+b, "GET", "/v", b)
	v.accept("length: on DELETE", head("DELETE /v HTTP/1.1", "Content-Length: 5")+b, "DELETE", "/v", b)
	v.accept("length: name in lower case", post(b, "content-length: 5"), "POST", "/v", b)
	v.accept("length: name in mixed case", post(b, "cOnTeNt-LeNgTh: 5"), "POST", "/v", b)
	v.accept("length: spaces around", post(b, "Content-Length:   5  "), "POST", "/v", b)
	v.accept("length: tabs around", post(b, "Content-Length:\t5\t"), "POST", "/v", b)
	v.accept("length: no space", post(b, "Content-Length:5"), "POST", "/v", b)
	v.accept("length: body looks like a request", post(smuggled, fmt.Sprintf("Content-Length: %d", len(smuggled))), "POST", "/v", smuggled)
	v.either("length: leading zeros", post(b, "Content-Length: 005"), "POST", "/v", b)
	for _, bad := range []string{
		"+5", "-5", "-0", "0x5", "5.0", "5e0", "5 5", "5,5", "5, 5", "5,6", "5;", "5;a=b", "", " ", "five", "5a", "a5", "٥", "5_0", "\"5\"", "'5'", "5\t5",
		"9223372036854775808", "18446744073709551621", "18446744073709551616", "99999999999999999999999999", "-123456789123456789123456789", "4294967301x",
	} {
		v.refuse(fmt.Sprintf("length: %q", bad), post(b+smuggled, "Content-Length: "+bad))
	}
	v.refuse("length: twice the same", post(b, "Content-Length: 5", "Content-Length: 5"))
	v.refuse("length: twice, short first", post(b+smuggled, "Content-Length: 0", "Content-Length: 5"))
	v.refuse("length: twice, long first", post(b+smuggled, "Content-Length: 5", "Content-Length: 0"))
	v.refuse("length: twice, in other case", post(b+smuggled, "Content-Length: 5", "content-length: 50"))
	v.refuse("length: twice, second empty", post(b, "Content-Length: 5", "Content-Length:"))
	v.refuse("length: twice, first empty", post(b, "Content-Length:", "Content-Length: 5"))
	v.refuse("length: with an underscore", post(b, "Content_Length: 5"))
	v.refuse("length: with an underscore beside a good one", post(b, "Content-Length: 5", "Content_Length: 50"))
	v.refuse("length: space before the colon", post(b+smuggled, "Content-Length : 5"))
	v.refuse("length: tab before the colon", post(b+smuggled, "Content-Length\t: 5"))
	v.cut("length: body shorter than said", post("hel", "Content-Length: 5"))
	v.refuse("length: vertical tab", post(b, "Content-Length: \v5"))
	v.refuse("length: form feed", post(b, "Content-Length: 5\f"))
	v.refuse("length: non-breaking space", post(b, "Content-Length: \u00a05"))
	v.refuse("length: NUL behind", post(b, "Content-Length: 5\x00"))
	v.refuse("length: bare CR behind", post(b+smuggled, "Content-Length: 5\r\rX: y"))
}

// codings: Transfer-Encoding, alone and against Content-Length.
func (v *vectors) codings() {
	const b, chunked = "hello", "5\r\nhello\r\n0\r\n\r\n"
	const coding = "Transfer-Encoding: chunked"
	for _, ok := range []string{coding, "transfer-encoding: chunked", "Transfer-Encoding:chunked", "Transfer-Encoding:  chunked  ", "Transfer-Encoding:\tchunked"} {
		v.accept(fmt.Sprintf("coding: %q", ok), post(chunked, ok), "POST", "/v", b)
	}
	for _, cased := range []string{"Chunked", "CHUNKED", "cHuNkEd"} {
		v.accept("coding: "+cased, post(chunked, "Transfer-Encoding: "+cased), "POST", "/v", b)
	}
	v.accept("coding: chunked on GET", head("GET /v HTTP/1.1", coding)+chunked, "GET", "/v", b)
	v.accept("coding: chunked on PATCH", head("PATCH /v HTTP/1.1", coding)+chunked, "PATCH", "/v", b)
	v.accept("coding: body looks like a request", post(fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(smuggled), smuggled), coding), "POST", "/v", smuggled)

	// TE.CL and CL.TE, in both orders, with bodies that mean two things to two readers.
	for _, body := range []string{chunked, "0\r\n\r\n" + smuggled, "5c\r\n" + smuggled + "\r\n0\r\n\r\n", b} {
		v.refuse(fmt.Sprintf("coding: CL.TE %.12q", body), post(body, fmt.Sprintf("Content-Length: %d", len(body)), coding))
		v.refuse(fmt.Sprintf("coding: TE.CL %.12q", body), post(body, coding, "Content-Length: 4"))
	}
	v.refuse("coding: TE beside CL 0", post(chunked, coding, "Content-Length: 0"))
	v.refuse("coding: TE beside an empty CL", post(chunked, coding, "Content-Length:"))
	v.refuse("coding: CL beside an obfuscated TE", post("0\r\n\r\n"+smuggled, "Content-Length: 5", "Transfer-Encoding: xchunked"))

	for _, te := range []string{
		"xchunked", "chunkedx", "chunk", "identity", "gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "chunked,", ", chunked", ",chunked", "chunked,identity",
		"identity, chunked", "chunked;q=1", "chunked; ext", "chunked\x00", "\x00chunked", "\vchunked", "chunked\v", "\fchunked", "chunked\x7f", "\"chunked\"", "'chunked'",
		"chu nked", "chunked chunked", "chunKed\u212a", "chun\u212aed", "cow", "", "nonsense", "deflate", "compress", "br", "trailers", "chunked\u00a0", "ch\xffunked", "0", "[chunked]",
	} {
		v.refuseAs(fmt.Sprintf("coding: %q", te), post("0\r\n\r\n"+smuggled, "Transfer-Encoding: "+te), 400, 501)
	}
	v.refuseAs("coding: twice chunked", post("0\r\n\r\n"+smuggled, coding, coding), 400, 501)
	v.refuseAs("coding: chunked then identity", post("0\r\n\r\n"+smuggled, coding, "Transfer-Encoding: identity"), 400, 501)
	v.refuseAs("coding: identity then chunked", post("0\r\n\r\n"+smuggled, "Transfer-Encoding: identity", coding), 400, 501)
	v.refuseAs("coding: cow then chunked", post("0\r\n\r\n"+smuggled, "Transfer-encoding: cow", coding), 400, 501)
	v.refuseAs("coding: chunked then cow", post("0\r\n\r\n"+smuggled, coding, "Transfer-encoding: cow"), 400, 501)
	v.refuse("coding: space before the colon", post("0\r\n\r\n"+smuggled, "Transfer-Encoding : chunked"))
	v.refuse("coding: tab before the colon", post("0\r\n\r\n"+smuggled, "Transfer-Encoding\t: chunked"))
	v.refuse("coding: space in front of the name", post("0\r\n\r\n"+smuggled, " Transfer-Encoding: chunked"))
	v.refuse("coding: tab in front of the name", post("0\r\n\r\n"+smuggled, "\tTransfer-Encoding: chunked"))
	v.refuse("coding: folded", post("0\r\n\r\n"+smuggled, "Transfer-Encoding:\r\n chunked"))
	v.refuse("coding: folded with a tab", post("0\r\n\r\n"+smuggled, "Transfer-Encoding:\r\n\tchunked"))
	v.refuse("coding: bare LF in front", post("0\r\n\r\n"+smuggled, "X: y\nTransfer-Encoding: chunked"))
	v.refuse("coding: bare CR in front", post("0\r\n\r\n"+smuggled, "X: y\rTransfer-Encoding: chunked"))
	v.refuse("coding: bare LF behind", post("0\r\n\r\n"+smuggled, "Transfer-Encoding: chunked\nX: y"))
	v.refuse("coding: with an underscore", post("0\r\n\r\n"+smuggled, "Transfer_Encoding: chunked"))
	v.refuse("coding: with an underscore beside CL", post(b, "Content-Length: 5", "Transfer_Encoding: chunked"))
	v.refuse("coding: NUL in the name", post("0\r\n\r\n"+smuggled, "Transfer\x00Encoding: chunked"))
	v.refuse("coding: name ends in NUL", post("0\r\n\r\n"+smuggled, "Transfer-Encoding\x00: chunked"))
	v.refuse("coding: byte over 127 in the name", post("0\r\n\r\n"+smuggled, "Transfer\x82Encoding: chunked"))
	v.refuse("coding: no colon", post("0\r\n\r\n"+smuggled, "Transfer-Encoding chunked"))
	v.refuse("coding: equals for a colon", post("0\r\n\r\n"+smuggled, "Transfer-Encoding=chunked"))
	v.refuse("coding: in HTTP/1.0", head("POST /v HTTP/1.0", coding)+chunked)
	v.refuse("coding: in HTTP/1.0 beside CL", head("POST /v HTTP/1.0", coding, "Content-Length: 5")+chunked)
}
