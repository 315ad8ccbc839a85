package proxy

import "bytes"

// A headWatch looks at the bytes of a request's head as they come from the socket, before the server library has read them. The library
// takes a bare LF for the end of a line in the request line, and waits for more where one stands between headers; here both end the
// request at once. It sees every request that does not arrive together with the one before it; of one that does, the headers are
// checked all the same (see scan).
type headWatch struct {
	fresh  bool // nothing of the next request has been read
	inHead bool
	line   int                   // bytes of the current line
	lines  int                   // that have ended
	last   byte                  // the byte before
	begin  [len(codingName)]byte // of the current line, in lower case
	asked  int                   // bytes of connectName that the request line begins with
	body   chunkWatch
}

// codingName begins the line that says that a body is chunked.
const codingName = "transfer-encoding:"

// connectName begins the request line of a CONNECT.
const connectName = "connect "

func (w *headWatch) idle() { *w = headWatch{fresh: true} }

// connects says whether a CONNECT is read, or was last: also of a head that cannot be parsed.
func (w *headWatch) connects() bool { return w.asked == len(connectName) }

// active is told that a request begins. If nothing was read since the last one ended, its beginning came along with that.
func (w *headWatch) active() { w.fresh = false }

// look checks what has just been read, a line at a time.
func (w *headWatch) look(p []byte) *headError {
	if w.fresh {
		*w = headWatch{inHead: true}
	}
	if !w.inHead {
		return w.body.look(p)
	}
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		part := p
		if end >= 0 {
			part = p[:end]
		}
		if len(part) > 0 {
			w.asks(part)
			if cr := bytes.IndexByte(part, '\r'); w.last == '\r' || cr >= 0 && cr < len(part)-1 {
				return errBareLF // a CR that no LF follows
			}
			w.begins(part)
			w.line += len(part)
			w.last = part[len(part)-1]
		}
		if end < 0 {
			return nil
		}
		p = p[end+1:]
		if w.last != '\r' {
			return errBareLF
		}
		if w.line == 1 && w.lines > 0 { // its '\r' alone
			w.inHead = false
			return w.body.look(p)
		}
		if w.line > len(codingName) && string(w.begin[:]) == codingName {
			w.body.state = chunkSizes
		}
		if w.line > 1 {
			w.lines++ // empty lines in front of the request line do not count (RFC 9112, section 2.2)
		}
		w.line, w.last = 0, '\n'
	}
	return nil
}

// asks keeps how far the request line begins as that of a CONNECT.
func (w *headWatch) asks(part []byte) {
	for i, at := 0, w.line; w.lines == 0 && w.asked == at && i < len(part) && at < len(connectName) && lower(part[i]) == connectName[at]; i, at = i+1, at+1 {
		w.asked++
	}
}

// begins keeps how the current line begins, up to where it differs from codingName.
func (w *headWatch) begins(part []byte) {
	for i, at := 0, w.line; i < len(part) && at < len(codingName); i, at = i+1, at+1 {
		w.begin[at] = lower(part[i])
		if w.begin[at] != codingName[at] {
			return
		}
	}
}
