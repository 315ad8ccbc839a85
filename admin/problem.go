package admin

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// A Problem is an answer that says why not (RFC 9457), as the API writes it and as the Client returns it.
type Problem struct {
	Type      string         `json:"type"`
	Title     string         `json:"title"`
	Status    int            `json:"status"`
	Detail    string         `json:"detail"`
	Code      string         `json:"code"`
	RequestID string         `json:"request_id"`
	Errors    []FieldProblem `json:"errors,omitempty"`

	retryAfter int // seconds; 0: no such header
}

// A FieldProblem is what is wrong with one field of the request.
type FieldProblem struct {
	Field  string `json:"field"`
	Detail string `json:"detail"`
}

func (p *Problem) Error() string {
	msg := p.Detail
	for i, f := range p.Errors {
		msg += []string{": ", "; "}[min(i, 1)] + f.Field + " " + f.Detail
	}
	return msg
}

// The problems that the API knows. Handlers return them, or a sentinel that the table below turns into one.
var (
	problemPeer            = &Problem{Status: http.StatusForbidden, Code: "peer_forbidden", Detail: "only root and the sidecar's own user may use the admin socket"}
	problemUnauthenticated = &Problem{Status: http.StatusUnauthorized, Code: "unauthenticated", Detail: "over TCP the admin API needs an admin token, as Authorization: Bearer kwa…; keyward admin-tokens add makes one over the admin socket"}
	problemHost            = &Problem{Status: http.StatusForbidden, Code: "host_forbidden", Detail: "Host is neither loopback nor the address that was dialled"}
	problemBrowser         = &Problem{Status: http.StatusForbidden, Code: "browser_request", Detail: "requests made by other web pages are refused"}
	problemOrgRequired     = &Problem{Status: http.StatusBadRequest, Code: "org_required", Detail: "this path is short for the org of an org-bound token; an operator names the org: /api/orgs/ORG/integrations"}
	problemUnknownProvider = &Problem{Status: http.StatusNotFound, Code: "unknown_provider", Detail: "there is no such provider: GET /api/providers lists them; what is stored for one that left the configuration can be shown and deleted, and nothing else"}
	problemNoRoute         = &Problem{Status: http.StatusNotFound, Code: "not_found", Detail: "there is no such path"}
	problemMethod          = &Problem{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Detail: "the path has no such method; Allow lists those it has"}
	problemBodySize        = &Problem{Status: http.StatusRequestEntityTooLarge, Code: "body_too_large", Detail: "the body is over 1 MiB"}
	problemStale           = &Problem{Status: http.StatusPreconditionFailed, Code: "version_conflict", Detail: "it was changed since it was read: read it again and send its current version"}
	problemBusy            = &Problem{Status: http.StatusConflict, Code: "conflict", Detail: "others keep changing it: try again"}
	problemInternal        = &Problem{Status: http.StatusInternalServerError, Code: "internal_error", Detail: "the sidecar could not handle the request; its log says more"}
)

// sentinels maps the errors of the packages below to answers: the only place where that is decided.
var sentinels = []struct {
	is      error
	problem *Problem
}{
	{store.ErrNotFound, &Problem{Status: http.StatusNotFound, Code: "not_found", Detail: "there is no such thing"}},
	{store.ErrConflict, problemBusy},
	{store.ErrUnavailable, &Problem{Status: http.StatusServiceUnavailable, Code: "store_unavailable", Detail: "the store cannot be reached; nothing was changed", retryAfter: 1}},
	{credential.ErrUnknownProvider, problemUnknownProvider},
	{credential.ErrState, problemConsentUnknown},
	{credential.ErrDenied, problemConsentDenied},
	{credential.ErrCode, problemConsentCode},
	{credential.ErrGrant, problemConsentGrant},
	{credential.ErrNoClient, problemNoClient},
	{credential.ErrNoRedirect, problemNoRedirect},
	{credential.ErrNoConsent, problemNoConsent},
	{credential.ErrUnreadable, &Problem{Status: http.StatusFailedDependency, Code: "credential_unreadable", Detail: "the credential cannot be opened with the keys at hand; it can be replaced or deleted"}},
}

// problemFor turns whatever a handler returned into what the client may see.
func problemFor(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	var bad *credential.InvalidError
	if errors.As(err, &bad) {
		return invalid(bad.Fields)
	}
	if p := told(err); p != nil {
		return p
	}
	var silent *provider.NoAnswerError
	if errors.As(err, &silent) {
		return unanswered(silent)
	}
	var rejected *provider.RejectedError
	if errors.As(err, &rejected) {
		return rejectedClient(rejected)
	}
	var refused *credential.RefusedError
	if errors.As(err, &refused) {
		return refusedByProvider(refused.Verdict)
	}
	var claimed *store.ClaimedError
	if errors.As(err, &claimed) {
		return &Problem{
			Status: http.StatusConflict, Code: "account_claimed", Detail: "another org has this account with the provider",
			Errors: []FieldProblem{{claimed.Field, "belongs to another org"}},
		}
	}
	if errors.Is(err, store.ErrClaimed) {
		return &Problem{Status: http.StatusConflict, Code: "account_claimed", Detail: "another org has this account with the provider"}
	}
	for _, s := range sentinels {
		if errors.Is(err, s.is) {
			return s.problem
		}
	}
	return problemInternal
}

// told is the problem of an error of a package below that says itself how it is answered; nil: err is none.
func told(err error) *Problem {
	var says interface {
		Problem() (status int, code, detail string, retryAfter time.Duration)
	}
	if !errors.As(err, &says) {
		return nil
	}
	status, code, detail, after := says.Problem()
	return &Problem{Status: status, Code: code, Detail: detail, retryAfter: int(math.Ceil(after.Seconds()))}
}

// badRequest is a 400 about the request as a whole.
func badRequest(detail string) *Problem { return malformed(detail) }

// badField is a 400 about one field.
func badField(field, detail string) *Problem {
	p := malformed("the request is malformed")
	p.add(field, detail)
	return p
}

// malformed is a 400 that fields are added to.
func malformed(detail string) *Problem {
	return &Problem{Status: http.StatusBadRequest, Code: "bad_request", Detail: detail}
}

func (p *Problem) add(field, detail string) {
	p.Errors = append(p.Errors, FieldProblem{field, detail})
}

// orNil is no error when nothing was added.
func (p *Problem) orNil() error {
	if len(p.Errors) == 0 {
		return nil
	}
	return p
}

// invalid is a 400 about a credential's fields, all at once.
func invalid(problems []provider.FieldError) *Problem {
	p := malformed("the credential is not valid")
	for _, f := range problems {
		p.add(f.Field, f.Problem)
	}
	return p
}

// missing is a 404 that says what is not there.
func missing(detail string) *Problem {
	return &Problem{Status: http.StatusNotFound, Code: "not_found", Detail: detail}
}

// problem writes p as the answer.
func (c *call) problem(p *Problem) {
	full := *p
	full.Type, full.Title, full.RequestID = "urn:keyward:error:"+p.Code, http.StatusText(p.Status), c.id
	h := c.w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Keyward-Error", p.Code)
	h.Del("ETag")
	if p.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retryAfter))
	}
	c.status(p.Status)
	_ = json.NewEncoder(c.w).Encode(full) // the client is gone: nobody to tell
}
