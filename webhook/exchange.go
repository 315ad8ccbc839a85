package webhook

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http/httputil"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	maxAppHead  = 64 << 10              // of an answer
	maxInterim  = 8                     // answers of 1xx before the one that counts
	shortBody   = 32 << 10              // longer ones are written while the answer may come already
	brokenGrace = 50 * time.Millisecond // for the answer of an app that does not read the whole request
)

var (
	errLongHead    = errors.New("the head of the app's answer is too long")
	errManyInterim = fmt.Errorf("%w: too many answers of 1xx", errMalformed)
	errMalformed   = errors.New("the app's answer is malformed")
	errTarget      = errors.New("a byte that is not allowed in a request's target")
)

// A question is what an app is sent. It is written as it is: what it is made of was checked when it was received, or is ours.
type question struct {
	method string
	to     target
	query  string             // of the request that came in
	lines  func(w lineWriter) // writes the head's lines but for Host and Content-Length, each with its end
	body   []byte
	until  time.Time // for its answer; zero: for ever
}

// A lineWriter is a bufio.Writer or a bytes.Buffer: what goes wrong shows later.
type lineWriter interface {
	io.Writer
	io.StringWriter
}

func writeLine(w lineWriter, name, value string) {
	_, _ = w.WriteString(name)
	_, _ = w.WriteString(": ")
	_, _ = w.WriteString(value)
	_, _ = w.WriteString("\r\n")
}

func (q *question) writeHead(w *bufio.Writer) {
	_, _ = w.WriteString(q.method)
	_ = w.WriteByte(' ')
	_, _ = w.WriteString(q.to.path)
	if q.to.query != "" || q.query != "" {
		_ = w.WriteByte('?')
		_, _ = w.WriteString(q.to.query)
		if q.to.query != "" && q.query != "" {
			_ = w.WriteByte('&')
		}
		_, _ = w.WriteString(q.query)
	}
	_, _ = w.WriteString(" HTTP/1.1\r\nHost: ")
	_, _ = w.WriteString(q.to.host)
	_, _ = w.WriteString("\r\nContent-Length: ")
	_, _ = w.Write(strconv.AppendInt(w.AvailableBuffer(), int64(len(q.body)), 10))
	_, _ = w.WriteString("\r\n")
	q.lines(w)
	_, _ = w.WriteString("\r\n")
}

// isTarget says whether a text may stand in a request's target as it is.
func isTarget(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

// ask sends a question and returns when the head of its answer is there. It is sent a second time only if nothing of it was written, because
// the app had closed the connection meanwhile.
func (l *lane) ask(ctx context.Context, q *question) (*appAnswer, error) {
	if !isTarget(q.to.path) || !isTarget(q.to.query) || !isTarget(q.query) {
		return nil, errTarget
	}
	for {
		if !q.until.IsZero() && !time.Now().Before(q.until) {
			return nil, os.ErrDeadlineExceeded // no connection is tried, and closed, for it
		}
		c, err := l.take(ctx, q.until)
		if err != nil {
			return nil, err
		}
		a, err := l.exchange(ctx, c, q)
		if err == nil || !c.used || c.wrote.Load() || ctx.Err() != nil {
			return a, err
		}
	}
}

func (l *lane) exchange(ctx context.Context, c *appConn, q *question) (*appAnswer, error) {
	a := appAnswers.Get().(*appAnswer) //nolint:forcetypeassert // nothing else is put there
	a.l, a.c, a.ctx, a.ended = l, c, ctx, false
	a.stop = context.AfterFunc(ctx, func() { _ = c.Close() }) // the app sees that nobody waits any more
	begun := false
	defer func() {
		if !begun { // also when it panicked
			a.end(false)
		}
	}()
	_ = c.SetDeadline(q.until)
	c.send(q)
	if err := a.read(q.method); err != nil {
		a.end(false)
		return nil, a.why(err)
	}
	begun = true
	return a, nil
}

// send writes a question. What goes wrong shows at its answer: an app may have given one before it closed the connection.
func (c *appConn) send(q *question) {
	q.writeHead(c.bw) // here, and by no goroutine of its own: a panic in it is the caller's
	write := func() {
		_, _ = c.bw.Write(q.body)
		if err := c.bw.Flush(); err != nil { // also what went wrong before
			c.bad = err
			if grace := time.Now().Add(brokenGrace); q.until.IsZero() || grace.Before(q.until) {
				_ = c.SetReadDeadline(grace)
			}
		}
	}
	if len(q.body) <= shortBody {
		write()
		return
	}
	c.sent = make(chan struct{})
	go func() {
		defer close(c.sent)
		write()
	}()
}

// head reads the head of the answer that counts.
func (c *appConn) head(h *fasthttp.ResponseHeader) error {
	c.left = maxAppHead
	defer func() { c.left = math.MaxInt64 }()
	for range maxInterim {
		err := c.whole()
		if err == nil {
			err = h.Read(c.br)
		}
		switch status := h.StatusCode(); {
		case err != nil && c.broke != nil:
			return c.broke
		case err != nil:
			return errMalformed // the library's words may quote the app's
		case status >= 200 || status == fasthttp.StatusSwitchingProtocols:
			return nil
		}
	}
	return errManyInterim
}

// whole has the reader's buffer, which grows for a long one, hold a head up to its empty line: fasthttp's parser wants it there. Where lines
// end in LF alone, which servers may do (RFC 9112, section 2.2) and that parser would wait behind, they get their CR.
func (c *appConn) whole() error {
	seen := 0
	for n := 1; ; n = c.br.Buffered() + 1 {
		if size := c.br.Size(); n > size {
			if size >= maxAppHead {
				return errMalformed
			}
			begun, _ := c.br.Peek(c.br.Buffered())
			c.again(bytes.Clone(begun), 4*size)
		}
		if _, err := c.br.Peek(n); err != nil {
			return err
		}
		b, _ := c.br.Peek(c.br.Buffered())
		if line, _, ended := bytes.Cut(bytes.TrimLeft(b, "\r\n"), []byte{'\n'}); ended && !isStatusLine(line) {
			return errMalformed // nothing else is waited for
		}
		from := max(seen-len("\n\r\n"), 0)
		if end := headEnd(b[from:]); end >= 0 {
			end += from
			if bytes.HasSuffix(b[:end], []byte("\r\n\r\n")) {
				return nil
			}
			lines := bytes.ReplaceAll(bytes.ReplaceAll(b[:end], []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
			b = append(lines, b[end:]...)
			c.again(b, max(c.br.Size(), len(b)))
			return nil
		}
		seen = len(b)
	}
}

// isStatusLine holds for what an answer begins with. fasthttp would take the status 000 for 200.
func isStatusLine(line []byte) bool {
	version, rest, _ := bytes.Cut(bytes.TrimSuffix(line, []byte{'\r'}), []byte{' '})
	status, _, _ := bytes.Cut(bytes.TrimLeft(rest, " "), []byte{' '})
	return bytes.HasPrefix(version, []byte("HTTP/")) && len(status) == 3 && digits(status) == 3 && status[0] != '0'
}

// headEnd is behind the first empty line, with CR or without; negative: there is none.
func headEnd(b []byte) int {
	end := -1
	for _, empty := range []string{"\n\n", "\n\r\n"} {
		if i := bytes.Index(b, []byte(empty)); i >= 0 && (end < 0 || i+len(empty) < end) {
			end = i + len(empty)
		}
	}
	return end
}

// again has the reader begin with what it has given, and hold more.
func (c *appConn) again(given []byte, size int) { c.br = bufio.NewReaderSize(&rest{given, c}, size) }

// An appAnswer is an app's answer: its head, and its body as it comes. Read to its end, its connection can be used again.
type appAnswer struct {
	fasthttp.ResponseHeader
	l      *lane
	c      *appConn
	ctx    context.Context //nolint:containedctx // the question's, whose answer this is
	stop   func() bool
	keep   bool
	ended  bool
	chunks io.Reader // nil: the body is not chunked
	left   int64     // of the body; negative: not known
}

var appAnswers = sync.Pool{New: func() any {
	a := &appAnswer{}
	a.SetNoDefaultContentType(true)
	return a
}}

// free gives the memory back. The answer has ended, and nobody looks at it any more.
func (a *appAnswer) free() {
	a.Reset()
	a.SetNoDefaultContentType(true)
	a.l, a.c, a.ctx, a.stop, a.chunks = nil, nil, nil, nil, nil
	appAnswers.Put(a)
}

// read reads the head, and settles how long the body is (RFC 9112, section 6.3).
func (a *appAnswer) read(method string) error {
	if err := a.c.head(&a.ResponseHeader); err != nil {
		return err
	}
	status := a.StatusCode()
	a.keep = !a.ConnectionClose() && a.IsHTTP11() && status != fasthttp.StatusSwitchingProtocols
	a.left = int64(a.ContentLength())
	switch {
	case method == fasthttp.MethodHead, status == fasthttp.StatusNoContent, status == fasthttp.StatusNotModified:
		a.left = 0
	case a.left == -1:
		a.chunks = httputil.NewChunkedReader(a.c.br)
	case a.left < 0:
		a.keep = false
	}
	if a.left == 0 {
		a.end(a.keep)
	}
	return nil
}

func (a *appAnswer) Read(p []byte) (n int, err error) {
	switch {
	case a.left == 0:
		return 0, io.EOF
	case a.ended:
		return 0, os.ErrClosed
	case a.chunks != nil:
		switch n, err = a.chunks.Read(p); {
		case errors.Is(err, io.EOF):
			err = a.trailers()
		case err != nil && a.c.broke == nil:
			err = errMalformed
		}
	case a.left > 0:
		n, err = a.c.br.Read(p[:min(int64(len(p)), a.left)])
		a.left -= int64(n)
		switch {
		case a.left == 0:
			a.end(a.keep) // nothing else is waited for
			return n, nil
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
	default:
		n, err = a.c.br.Read(p)
	}
	switch {
	case errors.Is(err, io.EOF):
		a.left = 0
		a.end(a.keep)
	case err != nil:
		a.end(false)
		err = a.why(err)
	}
	return n, err
}

// waitUntil bounds what is still waited for.
func (a *appAnswer) waitUntil(t time.Time) {
	if !a.ended {
		_ = a.c.SetDeadline(t)
	}
}

// trailers passes over what stands behind the last chunk: fields that nobody is told, and an empty line.
func (a *appAnswer) trailers() error {
	a.c.left = maxAppHead
	defer func() { a.c.left = math.MaxInt64 }()
	for {
		line, err := a.c.br.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case errors.Is(err, bufio.ErrBufferFull):
			return errMalformed
		case err != nil:
			return err
		case len(bytes.TrimRight(line, "\r\n")) == 0:
			return io.EOF
		}
	}
}

// Close ends the exchange. What is left of the answer is not waited for.
func (a *appAnswer) Close() error {
	a.end(false)
	return nil
}

func (a *appAnswer) end(keep bool) {
	if a.ended {
		return
	}
	a.ended = true
	c := a.c
	if c.sent != nil {
		select {
		case <-c.sent:
		default:
			keep = false
			_ = c.Close()
			<-c.sent // nobody reads the question any more when this returns
		}
	}
	if !a.stop() || !keep || c.bad != nil || !a.l.put(c) {
		_ = c.Close()
	}
}

// why is what an exchange failed of, once it has ended: that nobody waits any more comes first, then what kept it from being written.
func (a *appAnswer) why(err error) error {
	switch {
	case a.ctx.Err() != nil:
		return context.Cause(a.ctx)
	case a.c.bad != nil:
		return fmt.Errorf("sending: %w", a.c.bad)
	}
	return err
}
