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
	"sync/atomic"
	"time"

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
	var header []byte
	for _, f := range c.forwarded() {
		header = append(append(append(append(header, f.name...), ": "...), f.value...), "\r\n"...)
	}
	ctx, cancel := context.WithTimeout(s.ctx, storeTimeout)
	defer cancel()
	d := &store.Delivery{
		Org: c.org, Provider: c.source.provider.Name, Type: c.said.typ, Assistant: c.assistant, Group: c.group(), Target: route.Target,
		Method: c.message.method, Path: path, RawQuery: c.message.rawQuery, Header: header, Body: c.message.body,
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
	if c.claim != nil {
		c.s.claims.give(c.claim)
		c.claim = nil
	}
}

// hopByHop are the headers that are one hop's (RFC 9110, section 7.6.1), and those that the next request has of its own.
var hopByHop = []string{
	"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
	"host", "content-length", "expect",
}

// forwarded are the headers that the app gets: the sender's, less this hop's and what proves the sender to us and is a secret, and what
// Keyward knows. Nothing from outside can stand in a Keyward header, in no spelling that an app could take for one.
func (c *call) forwarded() []field {
	all := make([]field, 0, len(c.head.fields)+6)
	for _, f := range c.head.fields {
		if !c.drops(f.name) && !(c.traced && c.retraces(f.name)) {
			all = append(all, f)
		}
	}
	add := func(name, value string) {
		if value != "" {
			all = append(all, field{[]byte(name), []byte(value)})
		}
	}
	add("Keyward-Org", c.org)
	add("Keyward-Assistant", c.assistant)
	add("Keyward-Provider", c.source.provider.Name)
	add("Keyward-Verified", "true")
	add("Keyward-Request-Id", c.id)
	if c.traced {
		add("traceparent", c.onward())
	}
	return all
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
	ctx, cancel := context.WithCancel(s.ctx)
	a := &answer{c: c, cancel: cancel, idle: s.o.IdleTimeout}
	a.timer = time.AfterFunc(time.Until(c.start.Add(limit)), func() { a.late.Store(true); cancel() })
	var err error
	c.claim, err = s.claims.take(ctx, key, until)
	if c.claim == nil {
		a.end()
	}
	switch {
	case err != nil:
		s.log.Error().Err(err).Str("request_id", c.id).Msg("recording a webhook; its sender is told to try again")
		return refuseStore
	case c.claim == nil:
		s.stats.Duplicates.Add(1)
		return refuseReplayed
	}

	c.asks()
	req := (&http.Request{
		Method: c.message.method, URL: route.to.url(c.message.rawQuery), Host: route.to.host, Header: c.header(),
		Body: io.NopCloser(bytes.NewReader(c.message.body)), ContentLength: int64(len(c.message.body)),
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(c.message.body)), nil },
	}).WithContext(ctx)
	if len(c.message.body) == 0 {
		req.Body, req.GetBody = http.NoBody, nil
	}
	resp, err := s.targets.to(route.to).RoundTrip(req) //nolint:bodyclose // redirects are answers; the answer's body is closed where it has been sent, by a.end
	if err != nil {
		a.end()
		bad := a.refusal(err)
		c.answered(0, bad)
		return bad
	}
	c.answered(resp.StatusCode, nil)
	a.body = resp.Body
	if resp.StatusCode == http.StatusSwitchingProtocols || resp.StatusCode < 200 {
		a.end()
		return refuseAppAnswer
	}
	return s.reply(c, a, resp)
}

// header is what the app is sent. c.asks has been called.
func (c *call) header() http.Header {
	all := c.forwarded()
	h := make(http.Header, len(all)+1)
	h["User-Agent"] = nil // else there is one of Go's
	values := make([]string, len(all))
	for i, f := range all {
		name := string(f.name) // as written: case is kept
		if is(f.name, "user-agent") {
			name = "User-Agent"
		}
		values[i] = string(f.value)
		if one := values[i : i+1 : i+1]; len(h[name]) == 0 {
			h[name] = one
		} else {
			h[name] = append(h[name], one...)
		}
	}
	return h
}

// maxWhole is how much of an answer is waited for before it goes back, so that a slow or broken one can still be told by its status.
const maxWhole = 1 << 20

// reply makes the app's answer the provider's. Audio is passed on as it is made; all else is read whole first if it is not too long.
func (s *Server) reply(c *call, a *answer, resp *http.Response) *refusal {
	out := &c.ctx.Response
	var whole []byte
	stream := c.said.typ == voiceRequest && c.source.provider.Name == "vapi"
	if !stream {
		var err error
		whole, err = io.ReadAll(io.LimitReader(resp.Body, maxWhole+1))
		if err != nil {
			a.end()
			return a.refusal(err)
		}
		stream = len(whole) > maxWhole
	}
	listed := strings.Split(resp.Header.Get("Connection"), ",")
	for name, values := range resp.Header {
		if dropsFromAnswer(name, listed) {
			continue
		}
		for _, v := range values {
			out.Header.Add(name, v)
		}
	}
	a.complete, a.left = !stream, resp.ContentLength
	c.acknowledge(resp.StatusCode)
	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		c.unclaim() // it was not acknowledged
	case !stream && s.claims.confirm(c.claim):
		a.end()
		return refuseReplayed
	}
	s.stats.Answered.Add(1)
	if !stream {
		out.SetBodyRaw(whole)
		a.end()
		c.finish()
		return nil
	}
	if len(whole) == 0 && a.timer.Stop() { // a long one keeps the limit that it had
		a.timer = time.AfterFunc(a.idle, func() { a.late.Store(true); a.cancel() })
		a.moves = true
	}
	a.body = &rest{whole, resp.Body}
	out.ImmediateHeaderFlush = true
	out.SetBodyStream(a, int(resp.ContentLength)) // -1: chunked
	return nil
}

func dropsFromAnswer(name string, listed []string) bool {
	for _, drop := range hopByHop {
		if strings.EqualFold(name, drop) {
			return true
		}
	}
	for _, l := range listed {
		if strings.EqualFold(strings.TrimSpace(l), name) {
			return true
		}
	}
	return len(name) >= 8 && strings.EqualFold(name[:8], "keyward-")
}

// An answer is the app's on its way to the provider.
type answer struct {
	c        *call
	body     io.ReadCloser
	cancel   context.CancelFunc
	timer    *time.Timer
	idle     time.Duration
	moves    bool // the timer counts from the last byte
	late     atomic.Bool
	left     int64 // of the body; negative: not known
	complete bool
}

func (a *answer) end() {
	a.timer.Stop()
	a.cancel()
	if a.body != nil {
		_ = a.body.Close()
	}
}

// refusal is what an answer that did not come looks like to the provider.
func (a *answer) refusal(err error) *refusal {
	switch {
	case a.late.Load():
		return refuseAppSlow
	case strings.Contains(err.Error(), "malformed"):
		return refuseAppAnswer
	}
	return refuseApp
}

// Read gives fasthttp the pieces of a body that it sends in chunks.
func (a *answer) Read(b []byte) (int, error) {
	if a.moves {
		a.timer.Reset(a.idle)
	}
	n, err := a.body.Read(b)
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

// errTwice: another sidecar has answered the same message meanwhile.
var errTwice = errors.New("this message was answered before")

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

// Close ends the call: fasthttp calls it when the body has been sent, or could not be.
func (a *answer) Close() error {
	a.end()
	if !a.complete {
		a.c.unclaim()
	}
	a.c.finish()
	return nil
}

// rest is what has been read of a body, then what has not.
type rest struct {
	read []byte
	io.ReadCloser
}

func (r *rest) Read(b []byte) (int, error) {
	if len(r.read) > 0 {
		n := copy(b, r.read)
		r.read = r.read[n:]
		return n, nil
	}
	return r.ReadCloser.Read(b)
}
