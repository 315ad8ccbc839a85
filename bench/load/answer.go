package load

import (
	"bytes"
	"errors"
	"fmt"
)

// An answer is read into one buffer, of which only what says where it ends is looked at.
type answer struct {
	buf     []byte
	n       int // filled
	scanned int // of the head, without its end
	need    int // whole length; 0: not known yet
	chunked bool
	status  int
}

func (a *answer) reset() { *a = answer{buf: a.buf} }

// room is where the next bytes go.
func (a *answer) room() []byte {
	if a.n == len(a.buf) {
		a.buf = append(a.buf, make([]byte, len(a.buf)+8192)...)
	}
	return a.buf[a.n:]
}

var (
	headEnd     = []byte("\r\n\r\n")
	lastChunk   = []byte("\r\n0\r\n\r\n")
	errNotHTTP  = errors.New("not an answer of HTTP/1.1")
	errEndless  = errors.New("an answer without length that ends with its connection")
	errOverlong = errors.New("bytes after the answer's end")
)

// more takes n new bytes and says whether the answer is whole.
func (a *answer) more(n int) (bool, error) {
	a.n += n
	for a.need == 0 && !a.chunked {
		end := bytes.Index(a.buf[max(a.scanned-3, 0):a.n], headEnd)
		if end < 0 {
			a.scanned = a.n
			return false, nil
		}
		end += max(a.scanned-3, 0) + len(headEnd)
		if err := a.head(a.buf[:end]); err != nil {
			return false, err
		}
		if a.status/100 == 1 && a.status != 101 { // 100 Continue and the like: the real one follows
			*a = answer{buf: a.buf, n: copy(a.buf, a.buf[end:a.n])}
			continue
		}
	}
	if a.chunked {
		return bytes.HasSuffix(a.buf[:a.n], lastChunk), nil
	}
	if a.n > a.need {
		return false, errOverlong
	}
	return a.n == a.need, nil
}

// head reads the status and how the body ends.
func (a *answer) head(h []byte) error {
	if len(h) < 13 || string(h[:5]) != "HTTP/" || h[8] != ' ' {
		return fmt.Errorf("%w: %.40q", errNotHTTP, h)
	}
	a.status = int(h[9]-'0')*100 + int(h[10]-'0')*10 + int(h[11]-'0')
	length := -1
	for rest := h[bytes.IndexByte(h, '\n')+1:]; len(rest) > 2; {
		line := rest[:bytes.IndexByte(rest, '\n')+1]
		rest = rest[len(line):]
		switch {
		case hasName(line, "content-length:"):
			length = 0
			for _, c := range bytes.TrimSpace(line[len("content-length:"):]) {
				length = length*10 + int(c-'0')
			}
		case hasName(line, "transfer-encoding:"):
			a.chunked = true
			return nil
		}
	}
	switch {
	case a.status == 204 || a.status == 304 || a.status/100 == 1:
		length = 0
	case length < 0:
		return errEndless
	}
	a.need = len(h) + length
	return nil
}

// hasName says whether the line is of that header; name is in lower case, with its colon.
func hasName(line []byte, name string) bool {
	if len(line) < len(name) {
		return false
	}
	for i := range len(name) {
		c := line[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}
