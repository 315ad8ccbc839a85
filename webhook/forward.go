package webhook

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/keyward/keyward/store"
)

// seenFor is how long a delivery is remembered whose scheme sets no time after which a copy would not verify any more.
const seenFor = 72 * time.Hour

// hand gives a verified delivery to the app: at once where the app's answer matters, and through the store otherwise.
func (s *Server) hand(c *call, v verdict) *refusal {
	route := s.routes.Load().find(c.source.provider.Name, c.org)
	if route == nil {
		return refuseNoTarget
	}
	c.hide = v.hide
	limit, answers := c.source.answers[c.said.typ]
	if !answers {
		limit, answers = c.source.answers[""]
	}
	if !answers {
		limit = c.source.limit
	}
	if route.Mode != "" {
		answers = route.Mode == Sync
	}
	c.synced = answers
	until := v.until
	if until.IsZero() {
		until = c.message.now.Add(seenFor)
	} else {
		until = until.Add(time.Minute) // other sidecars' clocks are a little off
	}
	key := c.seenKey(v.once)
	if route.Redact {
		c.redact()
	}
	if answers {
		return s.ask(c, route, limit, key, until)
	}
	return s.accept(c, route, key, until)
}

// seenKey names a delivery among all that arrive, in the same way in every sidecar. Its parts are length-prefixed.
func (c *call) seenKey(once []byte) string {
	h := sha256.New()
	for _, part := range [][]byte{[]byte(c.source.provider.Name), []byte(c.org), once} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		_, _ = h.Write(n[:])
		_, _ = h.Write(part)
	}
	return string(h.Sum(nil))
}

// storeTimeout bounds what a delivery waits for the store to take it.
const storeTimeout = 5 * time.Second

// accept stores a delivery and acknowledges it.
func (s *Server) accept(c *call, route *parsedRoute, key string, until time.Time) *refusal {
	path, _, _ := strings.Cut(c.target, "?")
	var header bytes.Buffer
	c.writeHead(&header)
	ctx, cancel := context.WithTimeout(s.ctx, storeTimeout)
	defer cancel()
	d := &store.Delivery{
		Org: c.org, Provider: c.source.provider.Name, Type: c.said.typ, Assistant: c.assistant, Group: c.group(), Target: route.Target,
		Method: c.message.method, Path: path, RawQuery: c.message.rawQuery, Header: header.Bytes(), Body: c.message.body,
		SeenKey: key, SeenUntil: until,
	}
	duplicate, err := s.o.Accept(ctx, d)
	if err != nil {
		s.log.Error().Err(err).Str("request_id", c.id).Msg("storing a webhook; its sender is told to try again")
		return refuseStore
	}
	resp := &c.ctx.Response
	if duplicate {
		s.stats.Duplicates.Add(1)
		c.duplicate = true
		resp.Header.Set("Keyward-Duplicate", "true")
	} else {
		s.stats.Accepted.Add(1)
		resp.Header.Set("Keyward-Delivery-Id", d.ID) // what it can be asked about by
	}
	if c.source.provider.Name == "twilio" {
		resp.Header.SetContentType("text/xml") // Twilio takes an empty answer for a mistake
		resp.SetBodyString(`<?xml version="1.0" encoding="UTF-8"?><Response/>`)
	}
	c.acknowledge(http.StatusOK)
	c.finish()
	return nil
}

// group is what deliveries are kept in order by, apart from all other orgs' and providers'.
func (c *call) group() string {
	if c.said.group == "" {
		return ""
	}
	return c.source.provider.Name + "/" + c.org + "/" + c.said.group
}

// acknowledge sets what every answer has that is not a refusal.
func (c *call) acknowledge(status int) {
	c.status = status
	c.ctx.Response.SetStatusCode(status)
	c.ctx.Response.Header.Set("Keyward-Request-Id", c.id)
	if c.s.draining.Load() {
		c.ctx.SetConnectionClose()
	}
}

// unclaim forgets a message that was not answered: it is welcome again.
func (c *call) unclaim() {
	if held := c.claim; held != nil {
		c.claim = nil // it is tried once, should it panic
		c.s.claims.give(held)
	}
}

// hopByHop are the headers that are one hop's (RFC 9110, section 7.6.1), and those that the next request has of its own.
var hopByHop = []string{
	"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
	"host", "content-length", "expect",
}

// writeHead writes the lines that the app gets: the sender's, less this hop's and what proves the sender to us and is a secret, and what
// Keyward knows. Nothing from outside can stand in a Keyward header, in no spelling that an app could take for one.
func (c *call) writeHead(w lineWriter) {
	for _, f := range c.head.fields {
		if !c.drops(f.name) && !(c.traced && c.retraces(f.name)) {
			_, _ = w.Write(f.name)
			_, _ = w.WriteString(": ")
			_, _ = w.Write(f.value)
			_, _ = w.WriteString("\r\n")
		}
	}
	writeLine(w, "Keyward-Org", c.org)
	if c.assistant != "" {
		writeLine(w, "Keyward-Assistant", c.assistant)
	}
	writeLine(w, "Keyward-Provider", c.source.provider.Name)
	writeLine(w, "Keyward-Verified", "true")
	writeLine(w, "Keyward-Request-Id", c.id)
	if c.traced {
		writeLine(w, "traceparent", c.onward())
	}
}

func (c *call) drops(name []byte) bool {
	for _, list := range [][]string{hopByHop, c.source.hidden, {c.hide}} {
		for _, drop := range list {
			if is(name, drop) {
				return true
			}
		}
	}
	for _, listed := range c.head.listed {
		if bytes.EqualFold(name, listed) && !is(name, "content-type") {
			return true
		}
	}
	const ours = "keyward"
	return len(name) >= len(ours) && is(name[:len(ours)], ours)
}

// ask sends a message to the app and makes its answer ours.
func (s *Server) ask(c *call, route *parsedRoute, limit time.Duration, key string, until time.Time) *refusal {
	a := &answer{c: c, idle: s.o.IdleTimeout, until: c.start.Add(limit)}
	defer func() {
		if a.body == nil { // else the server library closes it
			a.end()
		}
	}()
	var err error
	c.claim, err = s.claims.take(s.ctx, key, until, a.until)
	switch {
	case err != nil:
		s.log.Error().Err(err).Str("request_id", c.id).Msg("recording a webhook; its sender is told to try again")
		return refuseStore
	case c.claim == nil:
		s.stats.Duplicates.Add(1)
		return refuseReplayed
	}

	c.asks()
	a.app, err = s.targets.to(route.to).ask(s.ctx, &question{
		method: c.message.method, to: route.to, query: c.message.rawQuery, lines: c.writeHead, body: c.message.body, until: a.until,
	})
	if err != nil {
		bad := a.refusal(err)
		c.answered(0, bad)
		return bad
	}
	status := a.app.StatusCode()
	c.answered(status, nil)
	if status < 200 { // it was not asked to switch protocols
		return refuseAppAnswer
	}
	return s.reply(c, a)
}

// maxWhole is how much of an answer is waited for before it goes back, so that a slow or broken one can still be told by its status.
const maxWhole = 1 << 20

// reply makes the app's answer the provider's. Audio is passed on as it is made; all else is read whole first if it is not too long.
func (s *Server) reply(c *call, a *answer) *refusal {
	out := &c.ctx.Response
	var whole []byte
	status, length := a.app.StatusCode(), a.app.left
	stream := c.said.typ == voiceRequest && c.source.provider.Name == "vapi" && length != 0 // of 204 the server library would read nothing
	if !stream {
		var err error
		if whole, err = a.begin(length); err != nil {
			return a.refusal(err)
		}
		stream = len(whole) > maxWhole
	}
	a.copyHead(&out.Header)
	a.complete, a.left = !stream, length
	c.acknowledge(status)
	switch {
	case status > 299:
		c.unclaim() // it was not acknowledged
	case !stream && s.claims.confirm(c.claim):
		return refuseReplayed
	}
	s.stats.Answered.Add(1)
	if !stream {
		out.SetBodyRaw(whole)
		a.end() // nobody writes the body any more
		c.finish()
		c.giveBack()
		return nil
	}
	if len(whole) == 0 { // a long one keeps the limit that it had
		a.moves = true
		a.move()
	}
	a.body = &rest{whole, a.app}
	out.ImmediateHeaderFlush = true
	out.SetBodyStream(a, int(max(length, -1))) // -1: chunked, also what ends with the app's connection
	return nil
}

// begin reads an answer's body whole, or a little more than maxWhole of it.
func (a *answer) begin(length int64) ([]byte, error) {
	if length < 0 || length > maxWhole {
		return io.ReadAll(io.LimitReader(a.app, maxWhole+1))
	}
	whole := make([]byte, length)
	_, err := io.ReadFull(a.app, whole)
	return whole, err
}

// copyHead gives the provider the app's headers, less its hop's and what only Keyward may say.
func (a *answer) copyHead(out *fasthttp.ResponseHeader) {
	var listed [][]byte
	for name, value := range a.app.All() {
		if is(name, "connection") {
			listed = append(listed, bytes.Split(value, []byte{','})...)
		}
	}
	for name, value := range a.app.All() {
		if !dropsFromAnswer(name, listed) {
			out.AddBytesKV(name, value)
		}
	}
}

func dropsFromAnswer(name []byte, listed [][]byte) bool {
	for _, drop := range hopByHop {
		if is(name, drop) {
			return true
		}
	}
	for _, l := range listed {
		if bytes.EqualFold(bytes.TrimSpace(l), name) {
			return true
		}
	}
	const ours = "keyward-"
	return len(name) >= len(ours) && is(name[:len(ours)], ours)
}

// An answer is the app's on its way to the provider.
type answer struct {
	c        *call
	app      *appAnswer // nil: there is none
	body     io.Reader  // what is left of it
	until    time.Time  // when it must be here
	idle     time.Duration
	moves    bool  // until counts from the last byte
	left     int64 // of the body; negative: not known
	complete bool
}

func (a *answer) end() {
	if a.app != nil {
		_ = a.app.Close()
		a.app.free()
		a.app = nil
	}
}

// move has an answer that is being made take as long as it likes, but not be silent for longer than idle.
func (a *answer) move() {
	a.until = time.Now().Add(a.idle)
	a.app.waitUntil(a.until)
}

// refusal is what an answer that did not come looks like to the provider.
func (a *answer) refusal(err error) *refusal {
	switch {
	case !time.Now().Before(a.until):
		return refuseAppSlow
	case errors.Is(err, errMalformed):
		return refuseAppAnswer
	}
	return refuseApp
}

// Read gives fasthttp the pieces of a body that it sends in chunks.
func (a *answer) Read(b []byte) (n int, err error) {
	defer func() { // fasthttp would end the connection without a word in the log
		if v := recover(); v != nil {
			a.c.s.panicked(a.c, v)
			n, err = 0, a.cut(errPanic)
		}
	}()
	if a.moves {
		a.move()
	}
	n, err = a.body.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, a.cut(err)
	}
	if a.left >= 0 {
		a.left -= int64(n)
	}
	if c := a.c.claim; (err != nil || a.left == 0) && !a.complete {
		if c != nil && a.c.s.claims.confirm(c) { // before the last bytes of it go
			return 0, a.cut(errTwice)
		}
		a.complete = true
	}
	return n, err
}

var (
	errTwice = errors.New("this message was answered before") // by another sidecar, meanwhile
	errPanic = errors.New("a mistake in the program")
)

// WriteTo sends a body of known length straight to the provider: fasthttp's writer would hold a slow one back until its buffer is full.
// The head has been flushed by then (ImmediateHeaderFlush).
func (a *answer) WriteTo(io.Writer) (total int64, err error) {
	b := make([]byte, 16<<10)
	for {
		n, err := a.Read(b)
		if n > 0 {
			m, werr := a.c.conn.Write(b[:n])
			total += int64(m)
			if werr != nil {
				a.complete = false
				return total, werr
			}
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// cut makes sure that a cut answer cannot be taken for a whole one.
func (a *answer) cut(err error) error {
	a.c.code = codeCut
	a.c.conn.reset()
	return err
}

// Close ends the call: fasthttp calls it when the body has been sent, or could not be, and nothing guards the process against a panic then.
func (a *answer) Close() error {
	a.c.s.guarded(a.c, func() {
		a.end()
		if !a.complete {
			a.c.unclaim()
		}
	})
	a.c.s.guarded(a.c, a.c.finish)
	return nil
}

// rest is what has been read of a body, then what has not.
type rest struct {
	read []byte
	io.Reader
}

func (r *rest) Read(b []byte) (int, error) {
	if len(r.read) > 0 {
		n := copy(b, r.read)
		r.read = r.read[n:]
		return n, nil
	}
	return r.Reader.Read(b)
}
