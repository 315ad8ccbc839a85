package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/keyward/keyward/store"
)

// How much of an app's answer is read and thrown away, so that its connection can be used again, and for how long.
const (
	maxAnswer  = 256 << 10
	answerWait = time.Second
)

// deliver sends a delivery to its target once. Nil means that the app took it: any 2xx. Redirects are not followed, and are a failure:
// where webhooks go is said by the configuration alone. The error says what went wrong in words that may be stored and shown.
func (q *Queue) deliver(ctx context.Context, d *store.Delivery) (err error) {
	to, err := parseTarget(d.Target)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, q.o.Timeout)
	defer cancel()
	ours := ""
	if span, traced := q.follow(d); traced {
		ours = string(span.Own.Append(nil))
		defer func() { q.delivered(span, err) }()
	}
	until, _ := ctx.Deadline()
	answer, err := q.targets.to(to).ask(ctx, &question{
		method: d.Method, to: to, query: d.RawQuery, body: d.Body, until: until,
		lines: func(w lineWriter) { writeDelivery(w, d, ours) },
	})
	if err != nil {
		return q.why(err)
	}
	status := answer.StatusCode()
	if status == fasthttp.StatusSwitchingProtocols {
		_ = answer.Close() // the connection is the app's now, and would be read for ever
		return errors.New("the app answered 101, which is no answer to a webhook")
	}
	// What comes after the status says nothing that matters: it is read for the connection's sake, and not waited for.
	defer time.AfterFunc(answerWait, cancel).Stop()
	_, _ = io.CopyN(io.Discard, answer, maxAnswer)
	_ = answer.Close()
	answer.free()
	switch {
	case status >= 200 && status < 300:
		return nil
	case status >= 300 && status < 400:
		return fmt.Errorf("the app answered %d; redirects are not followed", status)
	}
	return fmt.Errorf("the app answered %d", status)
}

// Target is where the routes in force send a delivery of the org; empty: nowhere.
func (s *Server) Target(provider, org string) string {
	if r := s.routes.Load().find(provider, org); r != nil {
		return r.Target
	}
	return ""
}

// writeDelivery writes what was stored, as it was written, and the id. A traceparent of ours stands in the stored one's place.
func writeDelivery(w lineWriter, d *store.Delivery, traceparent string) {
	for name, value := range headers(d) {
		switch {
		case is(name, "keyward-delivery-id"):
		case traceparent != "" && is(name, "traceparent"):
			writeLine(w, string(name), traceparent)
		default:
			writeLine(w, string(name), string(value))
		}
	}
	writeLine(w, "Keyward-Delivery-Id", d.ID)
}

// headers are the lines that were stored.
func headers(d *store.Delivery) iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for rest := d.Header; len(rest) > 0; {
			line, after, _ := bytes.Cut(rest, []byte("\r\n"))
			rest = after
			if name, value, ok := bytes.Cut(line, []byte(": ")); ok && !yield(name, value) {
				return
			}
		}
	}
}

// why says what went wrong without the URL and without what the app sent.
func (q *Queue) why(err error) error {
	var op *net.OpError
	var errno syscall.Errno
	switch {
	case errors.Is(err, context.Canceled):
		return errCut
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the app did not answer within %s", q.o.Timeout)
	case errors.As(err, &op) && op.Op == "dial" && op.Timeout():
		return fmt.Errorf("the app could not be reached within %s", dialApp)
	case errors.As(err, &errno):
		if errors.As(err, &op) && op.Op == "dial" {
			return fmt.Errorf("the app could not be reached: %s", errno.Error())
		}
		return fmt.Errorf("the connection to the app broke: %s", errno.Error())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the app closed the connection without an answer")
	case errors.As(err, &op) && op.Op == "dial":
		return errors.New("the app could not be reached")
	}
	return errors.New("the app's answer is not HTTP, or the request could not be sent")
}

// errCut: the sidecar stopped before the app answered.
var errCut = errors.New("the sidecar stopped before the app answered")

// backoff is the delay after a number of attempts: doubling from first up to most. Jitter keeps what failed together from coming back
// together; it never makes the first delays shorter than they are said to be, nor any longer than the longest.
func backoff(attempts int, first, most time.Duration) time.Duration {
	d := first
	for i := 1; i < attempts && d < most; i++ {
		d *= 2
	}
	quarter := min(d, most)/4 + 1
	jitter := time.Duration(rand.Int64N(int64(quarter))) //nolint:gosec // nobody gains by guessing it
	if d >= most {
		return most - jitter
	}
	return min(d+jitter, most)
}
