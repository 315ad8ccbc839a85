package proxy

import (
	"strconv"

	"github.com/valyala/fasthttp"

	"github.com/keyward/keyward/problem"
)

// A refusal is an answer that Keyward itself makes. Refusals are fixed values, so that refusing costs no allocation and no error text
// of ours, nor a request's bytes, can reach a client by accident.
type refusal struct {
	status     int
	code       string
	detail     string
	reason     string // in a word, where a code has several; for the log
	retryAfter int    // seconds; 0: no such header
	close      bool   // the connection cannot be used further
	challenge  bool   // proxy credentials are asked for
	head       string // what is wrong with the request's head, in a word, to count it by; empty: nothing is
}

func (r *refusal) Error() string { return r.code + ": " + r.detail }

// Everything that Keyward answers by itself, in one table (docs/outbound.md says when each is made).
var (
	refuseOrgRequired = &refusal{status: 400, code: "org_required", detail: "no org: send Keyward-Org or Keyward-Assistant, or put /org/ORG in front of the path"}
	refuseOrgName     = &refusal{status: 400, code: "bad_request", detail: "malformed org id: a letter or digit, then up to 63 letters, digits or . _ -"}
	refuseAssistantID = &refusal{status: 400, code: "bad_request", detail: "malformed assistant id: 1 to 128 letters, digits or . _ -"}
	refuseOrgConflict = &refusal{status: 400, code: "org_conflict", detail: "two sources name different orgs: header, assistant, path prefix or listener"}
	refuseConnect     = &refusal{status: 403, code: "route_forbidden", detail: "CONNECT is not answered without --intercept; send the request itself to this address", close: true}
	refuseVersion     = &refusal{status: 400, code: "bad_request", detail: "the HTTP version is neither 1.0 nor 1.1", close: true, head: "version"}
	refuseTargetForm  = &refusal{status: 400, code: "bad_request", detail: "the request target is neither a path nor an absolute http URL", close: true}
	refusePath        = &refusal{status: 400, code: "bad_request", detail: "the path has an empty, \".\" or \"..\" segment, and a rule applies to it"}
	refuseUpgrade     = &refusal{status: 400, code: "bad_request", detail: "an upgrade to WebSocket cannot have a body, HTTP/1.0 or Connection: close"}

	refuseSlow      = &refusal{status: 400, code: "bad_request", detail: "the request did not arrive in time", close: true}
	refuseMalformed = &refusal{status: 400, code: "bad_request", detail: "the request is not valid HTTP/1.1, or ended too early", close: true, head: "malformed"}

	refuseCaller = &refusal{status: 401, code: "caller_unauthenticated", detail: "no rule fits this peer, and no valid caller token came with the request"}

	refuseOrg            = &refusal{status: 403, code: "org_forbidden", detail: "this caller may not act for this org"}
	refuseProvider       = &refusal{status: 403, code: "provider_forbidden", detail: "this caller may not use this provider"}
	refuseRoute          = &refusal{status: 403, code: "route_forbidden", detail: "this caller may not use this method and path"}
	refuseForeignAccount = &refusal{status: 403, code: "foreign_account", detail: "the account named in the request is not the org's; a subaccount must be listed in the credential's subaccounts"}
	refuseBrowser        = &refusal{status: 403, code: "browser_request", detail: "requests made by web pages are refused"}
	refuseHost           = &refusal{status: 403, code: "host_forbidden", detail: "Host is neither loopback nor a provider's"}

	refuseUpstream  = &refusal{status: 404, code: "unknown_upstream", detail: "the request names no host of a known provider"}
	refuseAssistant = &refusal{status: 404, code: "unknown_assistant", detail: "no org is mapped to this assistant"}

	refuseBodySize = &refusal{status: 413, code: "body_too_large", detail: "the body is over the configured limit", close: true}
	refuseHeadSize = &refusal{status: 431, code: "headers_too_large", detail: "the head is over the configured limit", close: true, head: "too_long"}

	refuseMissing    = &refusal{status: 424, code: "credential_missing", detail: "the org has no credential with this provider"}
	refuseInactive   = &refusal{status: 424, code: "credential_inactive", detail: "the org's credential with this provider is disabled"}
	refuseUnreadable = &refusal{status: 424, code: "credential_unreadable", detail: "the org's credential cannot be opened with the keys at hand"}
	refuseIncomplete = &refusal{status: 424, code: "credential_incomplete", detail: "the org's credential lacks a field that this route needs"}
	refuseRejected   = &refusal{status: 424, code: "credential_rejected", detail: "the provider no longer honours the org's credential"}

	refuseUnreachable = &refusal{status: 502, code: "upstream_unreachable", detail: "the provider could not be reached, or closed the connection without an answer", reason: "other"}
	refusePrivate     = &refusal{status: 502, code: "upstream_unreachable", detail: "the provider's name resolves to an address of this machine or of a private network, where no credential is sent; --upstream HOST=URL says otherwise", reason: "private_address"}
	refuseTLS         = &refusal{status: 502, code: "upstream_tls", detail: "the provider's certificate or TLS could not be verified", reason: "other"}
	refuseProtocol    = &refusal{status: 502, code: "upstream_protocol", detail: "the provider's answer is not valid HTTP"}
	refuseTimeout     = &refusal{status: 504, code: "upstream_timeout", detail: "the provider did not answer in time", reason: "answer"}

	refuseStore    = &refusal{status: 503, code: "store_unavailable", detail: "the store cannot be reached and nothing is cached for this request", retryAfter: 1}
	refuseDraining = &refusal{status: 503, code: "draining", detail: "the sidecar is stopping, and begins nothing that may last", retryAfter: 1, close: true}
	refusePanic    = &refusal{status: 500, code: "internal_error", detail: "the sidecar could not handle the request; its log says more", close: true}
)

// codes are those of all refusals, to count them by.
var codes = []string{
	"bad_request", "org_conflict", "org_required", "caller_unauthenticated", "org_forbidden", "provider_forbidden", "route_forbidden", "foreign_account",
	"secret_route", "browser_request", "host_forbidden", "unknown_upstream", "unknown_assistant", "body_too_large", "headers_too_large",
	"credential_missing", "credential_inactive", "credential_unreadable", "credential_incomplete", "credential_rejected", "rate_limited", "caller_gone",
	"internal_error", "upstream_unreachable", "upstream_tls", "upstream_protocol", "upstream_timeout", "store_unavailable", "draining",
	"misdirected_request", "ca_unavailable",
}

// refuseRate is a 429 that says when to come back.
func refuseRate(seconds int) *refusal {
	return &refusal{status: 429, code: "rate_limited", detail: "over the caller's rate", retryAfter: max(seconds, 1)}
}

// refuseIncompleteField names the missing field of the credential; field names are ours, not a client's.
func refuseIncompleteField(name string) *refusal {
	r := *refuseIncomplete
	r.detail = "the org's credential has no " + name + ", which this route needs"
	return &r
}

func refuseHead(e *headError) *refusal {
	if e.status == fasthttp.StatusRequestHeaderFieldsTooLarge {
		return &refusal{status: e.status, code: "headers_too_large", detail: e.detail, close: true, head: e.reason}
	}
	return &refusal{status: e.status, code: "bad_request", detail: e.detail, close: true, head: e.reason}
}

// write makes the refusal the answer: RFC 9457 problem+json and the header that tells it from a provider's.
func (r *refusal) write(resp *fasthttp.Response, requestID []byte) {
	resp.Reset()
	resp.SetStatusCode(r.status)
	resp.Header.SetContentType(problem.ContentType)
	resp.Header.Set("Keyward-Error", r.code)
	resp.Header.SetBytesV("Keyward-Request-Id", requestID)
	if r.retryAfter > 0 {
		resp.Header.Set("Retry-After", strconv.Itoa(r.retryAfter))
	}
	if r.challenge {
		resp.Header.Set("Proxy-Authenticate", `Basic realm="keyward"`)
	}
	if r.close {
		resp.SetConnectionClose()
	}
	resp.SetBodyRaw(problem.Append(make([]byte, 0, 320), r.status, r.code, r.detail, requestID))
}
