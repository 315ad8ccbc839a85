package proxy

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
	body   chunkWatch
}

// codingName begins the line that says that a body is chunked.
const codingName = "transfer-encoding:"

func (w *headWatch) idle() { w.fresh, w.inHead, w.body = true, false, chunkWatch{} }

// active is told that a request begins. If nothing was read since the last one ended, its beginning came along with that.
func (w *headWatch) active() { w.fresh = false }

// look checks what has just been read.
func (w *headWatch) look(p []byte) *headError {
	if w.fresh {
		*w = headWatch{inHead: true}
	}
	if !w.inHead {
		return w.body.look(p)
	}
	for i, c := range p {
		switch {
		case c == '\n' && w.last != '\r':
			return errBareLF
		case c == '\n':
			if w.line == 1 && w.lines > 0 { // its '\r' alone
				w.inHead = false
				return w.body.look(p[i+1:])
			}
			if w.line > len(codingName) && string(w.begin[:]) == codingName {
				w.body.state = chunkSizes
			}
			if w.line > 1 {
				w.lines++ // empty lines in front of the request line do not count (RFC 9112, section 2.2)
			}
			w.line = 0
		default:
			if w.last == '\r' && w.line > 0 {
				return errBareLF
			}
			if w.line < len(codingName) {
				w.begin[w.line] = lower(c)
			}
			w.line++
		}
		w.last = c
	}
	return nil
}
