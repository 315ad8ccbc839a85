package webhook

import (
	"errors"
	"net"
	"strconv"

	"github.com/valyala/fasthttp"

	"github.com/keyward/keyward/problem"
	"github.com/keyward/keyward/store"
)

// A refusal is an answer that Keyward itself makes: a fixed value, so that no error text and no byte of a request can reach a sender.
type refusal struct {
	status     int
	code       string
	detail     string
	retryAfter int  // seconds; 0: no such header
	close      bool // the connection cannot be used further
}

// Everything that is answered without the app, in one table.
var (
	refuseVersion = &refusal{status: 400, code: "bad_request", detail: "the HTTP version is neither 1.0 nor 1.1", close: true}
	refuseTarget  = &refusal{status: 400, code: "bad_request", detail: "the request's target has a space or a control character", close: true}
	refuseShort   = &refusal{status: 400, code: "bad_request", detail: "the body ended before its end", close: true}

	// refuseUnverified is the same whatever the reason, and in the same time.
	refuseUnverified = &refusal{status: 401, code: "webhook_unverified", detail: "the delivery could not be verified"}

	refusePath       = &refusal{status: 404, code: "not_found", detail: "webhooks are taken at /webhooks/PROVIDER/ORG, and at /webhooks/PROVIDER for vapi, twilio and elevenlabs", close: true}
	refuseMethod     = &refusal{status: 405, code: "method_not_allowed", detail: "webhooks are sent with POST", close: true}
	refuseSlow       = &refusal{status: 408, code: "bad_request", detail: "the request did not arrive in time", close: true}
	refuseReplayed   = &refusal{status: 409, code: "replayed", detail: "this message was answered before"}
	refuseBodySize   = &refusal{status: 413, code: "body_too_large", detail: "the body is over the configured limit", close: true}
	refuseHeadSize   = &refusal{status: 431, code: "headers_too_large", detail: "the head is over the configured limit", close: true}
	refusePanic      = &refusal{status: 500, code: "internal_error", detail: "the sidecar could not take the delivery; its log says more", close: true}
	refuseApp        = &refusal{status: 502, code: "target_unreachable", detail: "the app could not be reached, or closed the connection without an answer"}
	refuseAppAnswer  = &refusal{status: 502, code: "target_protocol", detail: "the app's answer is not valid HTTP"}
	refuseNoTarget   = &refusal{status: 503, code: "no_target", detail: "nothing says where webhooks go: set --webhook-target", retryAfter: 60}
	refuseStore      = &refusal{status: 503, code: "store_unavailable", detail: "the store cannot be reached", retryAfter: 1}
	refuseBusy       = &refusal{status: 503, code: "busy", detail: "too many long bodies are being received", retryAfter: 1, close: true}
	refuseUnreadable = &refusal{status: 503, code: "credential_unreadable", detail: "the delivery cannot be verified with the keys at hand", retryAfter: 60}
	refuseAppSlow    = &refusal{status: 504, code: "target_timeout", detail: "the app did not answer in time"}
)

func refuseHead(e *headError) *refusal {
	r := &refusal{status: e.status, code: "bad_request", detail: e.detail, close: true}
	if e.status == fasthttp.StatusRequestHeaderFieldsTooLarge {
		r.code = "headers_too_large"
	}
	return r
}

// refuseUnparsed answers what fasthttp could not read as a request.
func (s *Server) refuseUnparsed(ctx *fasthttp.RequestCtx, err error) {
	c := s.begin(ctx)
	var small *fasthttp.ErrSmallBuffer
	var ne net.Error
	switch {
	case errors.As(err, &small):
		c.refuse(refuseHeadSize)
	case errors.As(err, &ne) && ne.Timeout():
		c.refuse(refuseSlow)
	default:
		c.refuse(&refusal{status: 400, code: "bad_request", detail: "the head is not valid HTTP/1.1", close: true})
	}
}

// isDown says whether err means that the store cannot be asked, as opposed to that it said no.
func isDown(err error) bool { return err != nil && !errors.Is(err, store.ErrNotFound) }

// refuse answers with a refusal and ends the call.
func (c *call) refuse(r *refusal) {
	c.s.stats.Refused.Add(1)
	c.s.refusals.add(r.code, c.reason)
	if r.status >= 500 {
		c.s.stats.Failed.Add(1)
		c.unclaim()
	}
	if r.close && r != refusePanic {
		c.discard()
	}
	r.write(&c.ctx.Response, c.id)
	if c.s.draining.Load() {
		c.ctx.SetConnectionClose()
	}
	c.status, c.code = r.status, r.code
	c.finish()
}

// write makes the refusal the answer: RFC 9457 problem+json and the header that tells it from the app's.
func (r *refusal) write(resp *fasthttp.Response, requestID string) {
	resp.Reset()
	resp.SetStatusCode(r.status)
	resp.Header.SetContentType(problem.ContentType)
	resp.Header.Set("Keyward-Error", r.code)
	resp.Header.Set("Keyward-Request-Id", requestID)
	if r == refuseMethod {
		resp.Header.Set("Allow", fasthttp.MethodPost)
	}
	if r.retryAfter > 0 {
		resp.Header.Set("Retry-After", strconv.Itoa(r.retryAfter))
	}
	if r.close {
		resp.SetConnectionClose()
	}
	resp.SetBodyRaw(problem.Append(make([]byte, 0, 320), r.status, r.code, r.detail, requestID))
}
