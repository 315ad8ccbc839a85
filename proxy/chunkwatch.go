package proxy

// A chunkWatch holds the framing of a chunked body (RFC 9112, section 7.1) to the letter, as the bytes come from the socket: the server
// library takes spaces behind a size, anything in an extension, and a bare LF at the end. Two readers that disagree about where a body
// ends disagree about where the next request begins.
type chunkWatch struct {
	state  chunkState
	left   uint64 // of the chunk's data
	digits int
	ext    int
}

type chunkState uint8

const (
	chunkNone  chunkState = iota // not a chunked body, or its end was seen
	chunkSizes                   // hex digits
	chunkExt                     // an extension, up to CR
	chunkLF                      // the LF of a size's line
	chunkData
	chunkCR  // behind the data
	chunkLF2 // behind that
	chunkEnd // behind the last size: CR, or a trailer, which is refused elsewhere
	chunkLF3
)

// maxExtension is the longest chunk extension; nobody uses them.
const maxExtension = 256

var errChunk = badHead("chunk", "the chunked body's framing is not valid")

// look checks the next bytes of the body.
func (w *chunkWatch) look(p []byte) *headError {
	for len(p) > 0 && w.state != chunkNone {
		c := p[0]
		if w.state == chunkData {
			n := min(w.left, uint64(len(p)))
			w.left -= n
			p = p[n:]
			if w.left == 0 {
				w.state = chunkCR
			}
			continue
		}
		p = p[1:]
		switch w.state {
		case chunkSizes:
			d := unhex(c)
			switch {
			case d >= 0 && w.digits < 15:
				w.left, w.digits = w.left<<4|uint64(d), w.digits+1
			case c == '\r' && w.digits > 0:
				w.state = chunkLF
			case c == ';' && w.digits > 0:
				w.state, w.ext = chunkExt, 0
			default:
				return errChunk
			}
		case chunkExt:
			w.ext++
			switch {
			case c == '\r':
				w.state = chunkLF
			case c < ' ' || c == 0x7f || w.ext > maxExtension:
				return errChunk
			}
		case chunkLF:
			switch {
			case c != '\n':
				return errChunk
			case w.left == 0:
				w.state = chunkEnd
			default:
				w.state = chunkData
			}
		case chunkCR, chunkEnd:
			switch {
			case c == '\r' && w.state == chunkCR:
				w.state = chunkLF2
			case c == '\r':
				w.state = chunkLF3
			case w.state == chunkEnd && c != '\n':
				w.state = chunkNone // a trailer
			default:
				return errChunk
			}
		case chunkLF2, chunkLF3:
			if c != '\n' {
				return errChunk
			}
			next := chunkNone
			if w.state == chunkLF2 {
				next = chunkSizes
			}
			*w = chunkWatch{state: next}
		}
	}
	return nil
}
