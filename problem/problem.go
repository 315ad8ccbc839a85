// Package problem writes the answers that Keyward itself makes on the ways of requests, out and in alike: RFC 9457 problem details with
// Keyward's code and the request's id.
package problem

import (
	"net/http"
	"strconv"
)

// ContentType is that of every such answer.
const ContentType = "application/problem+json"

// Append appends the JSON of a problem to dst. Code and detail are constants of ours in printable ASCII, and the id is of ours too: no byte
// of a request takes part.
func Append[T ~string | ~[]byte](dst []byte, status int, code, detail string, requestID T) []byte {
	dst = append(dst, `{"type":"urn:keyward:error:`...)
	dst = append(dst, code...)
	dst = append(dst, `","title":`...)
	dst = strconv.AppendQuote(dst, http.StatusText(status))
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, `,"detail":`...)
	dst = strconv.AppendQuote(dst, detail) // of printable ASCII, Go's quoting is JSON's
	dst = append(dst, `,"code":"`...)
	dst = append(dst, code...)
	dst = append(dst, `","request_id":"`...)
	dst = append(dst, requestID...)
	return append(dst, `"}`...)
}
