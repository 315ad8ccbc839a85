package admin

import (
	"context"
	"errors"
	"net/http"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// problemVerify is for a sidecar that cannot ask providers.
var problemVerify = &Problem{Status: http.StatusNotImplemented, Code: "not_available", Detail: "this sidecar cannot ask the provider; nothing was changed: leave out verify"}

// checked is how a write that wants to be verified first is written; without that wish it is as it was.
func (a *API) checked(o credential.PutOptions, wanted bool) (credential.PutOptions, error) {
	if !wanted {
		return o, nil
	}
	if a.o.Verifier == nil {
		return o, problemVerify
	}
	o.Check = a.o.Verifier.Check
	return o, nil
}

// refusedByProvider is the problem of a credential that was to be valid before it is written. Nothing was changed.
func refusedByProvider(v provider.Verdict) *Problem {
	if v.State == provider.Invalid {
		return &Problem{Status: http.StatusUnprocessableEntity, Code: "credential_invalid", Detail: "nothing was changed: " + v.Reason}
	}
	return &Problem{
		Status: http.StatusServiceUnavailable, Code: "verification_unproven",
		Detail: "nothing was changed: whether the credential is valid could not be found out (" + v.Reason + "): try again, or leave out verify", retryAfter: 10,
	}
}

// A verified credential is a credential as it is shown, and what the provider has just said of it.
type verified struct {
	integration
	Outcome provider.State `json:"outcome"`
	Detail  string         `json:"detail"` // empty: there is nothing to say
}

func (a *API) verifyIntegration(c *call) error {
	ref, _, err := c.ref()
	if err != nil {
		return err
	}
	if _, err := c.query(); err != nil {
		return err
	}
	if err := c.readIfAny(); err != nil {
		return err
	}
	v, err := a.verifyCredential(c.r.Context(), c.by, ref)
	if err != nil {
		return err
	}
	c.etag(v.Version)
	return c.json(http.StatusOK, v)
}

// verifyCredential asks the provider about an org's credential and stores what it says.
func (a *API) verifyCredential(ctx context.Context, by store.Actor, ref store.Ref) (verified, error) {
	if a.o.Verifier == nil {
		return verified{}, problemVerify
	}
	row, verdict, err := a.o.Verifier.Verify(ctx, by, ref)
	if err != nil {
		return verified{}, noCredential(err, ref)
	}
	return verified{a.show(row), verdict.State, verdict.Reason}, nil
}

// showVerification adds what is known of a credential's validity.
func (a *API) showVerification(s *integration, row *store.Credential) {
	switch row.Verification {
	case "":
	case store.Reconnect:
		s.Verification, s.Reconnect = ptr(store.Invalid), connectPath(row.Ref)
	default:
		s.Verification = ptr(row.Verification)
	}
	s.Suspect = a.o.Verifier != nil && a.o.Verifier.Suspected(row)
	if row.Previous != nil {
		s.FormerUntil = moment(row.Previous.Until)
	}
}

func ptr[T any](v T) *T { return &v }

// rotationProblem turns what staging says into answers.
func rotationProblem(err error, ref store.Ref) error {
	switch {
	case errors.Is(err, credential.ErrStaged):
		return &Problem{Status: http.StatusConflict, Code: "rotation_underway", Detail: "a new credential is taking the place of a former one already: promote it or take it back first"}
	case errors.Is(err, credential.ErrNotStaged):
		return missing("no new credential is taking the place of a former one")
	case errors.Is(err, credential.ErrNotForKeys):
		return &Problem{Status: http.StatusConflict, Code: "consent_needed", Detail: "this provider's credential is a consent: connect again instead"}
	}
	return noCredential(err, ref)
}

// connectPath is where to ask an org for its consent.
func connectPath(ref store.Ref) string {
	return "/api/orgs/" + ref.Org + "/integrations/" + ref.Provider + "/connect"
}
