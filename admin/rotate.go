package admin

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/store"
)

// A staging is what PUT …/next asks for: a credential that takes the place of the org's, with that beside it for a while.
type staging struct {
	change
	overlap time.Duration
}

func (c *call) staging() (s staging, err error) {
	if s.ifVersion, err = c.ifVersion(); err != nil {
		return s, err
	}
	if _, err := c.query(); err != nil {
		return s, err
	}
	after := ""
	var fields json.RawMessage
	if err := c.read(field{"credentials", &fields}, field{"verify", &s.verify}, field{"retire_after", &after}); err != nil {
		return s, err
	}
	s.fields, s.overlap = fields, credential.DefaultOverlap
	if after != "" {
		s.overlap, err = time.ParseDuration(after)
		if err != nil || s.overlap < time.Second || s.overlap > credential.MaxOverlap {
			return s, badField("retire_after", "must be a time from 1s to 720h, like 24h")
		}
	}
	if len(s.fields) == 0 {
		return s, badField("credentials", "is missing")
	}
	return s, nil
}

func (a *API) stageIntegration(c *call) error {
	ref, _, err := c.ref()
	if err != nil {
		return err
	}
	s, err := c.staging()
	if err != nil {
		return err
	}
	row, err := a.stageCredential(c.r.Context(), c.by, ref, s)
	return a.changed(c, row, rotationProblem(err, ref), s.ifVersion)
}

// stageCredential puts a new credential in the place of the org's, which stays beside it.
func (a *API) stageCredential(ctx context.Context, by store.Actor, ref store.Ref, s staging) (*store.Credential, error) {
	values, problems := a.o.Providers.Named(ref.Provider).Parse(s.fields)
	if len(problems) > 0 {
		return nil, invalid(problems)
	}
	defer values.Wipe()
	o, err := a.checked(credential.PutOptions{IfVersion: s.ifVersion}, s.verify)
	if err != nil {
		return nil, err
	}
	return a.o.Keeper.Stage(ctx, by, ref, values, s.overlap, o)
}

func (a *API) promoteIntegration(c *call) error { return a.endRotation(c, a.o.Keeper.Promote) }

func (a *API) unstageIntegration(c *call) error { return a.endRotation(c, a.o.Keeper.Unstage) }

func (a *API) endRotation(c *call, end func(context.Context, store.Actor, store.Ref, *int64) (*store.Credential, error)) error {
	ref, _, err := c.ref()
	if err != nil {
		return err
	}
	ifVersion, _, err := c.expected()
	if err != nil {
		return err
	}
	if _, err := c.query(); err != nil {
		return err
	}
	if err := c.readIfAny(); err != nil {
		return err
	}
	row, err := end(c.r.Context(), c.by, ref, ifVersion)
	if err != nil {
		return stale(rotationProblem(err, ref), ifVersion)
	}
	c.etag(row.Version)
	return c.json(http.StatusOK, a.show(row))
}
