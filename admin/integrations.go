package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// An integration is a credential as it is shown: masked.
type integration struct {
	Org               string         `json:"org"`
	Provider          string         `json:"provider"`
	Fields            map[string]any `json:"fields"`
	Version           int64          `json:"version"`
	IsActive          bool           `json:"is_active"`
	Unreadable        bool           `json:"unreadable,omitempty"` // no key at hand opens it, so fields is empty
	LastVerifiedAt    *time.Time     `json:"last_verified_at"`
	VerificationError *string        `json:"verification_error"`
	CreatedAt         *time.Time     `json:"created_at"`
	UpdatedAt         *time.Time     `json:"updated_at"`
}

// show masks a row. One that cannot be opened is shown too, or nobody could see what to replace.
func (a *API) show(row *store.Credential) integration {
	s := integration{
		Org: row.Org, Provider: row.Provider, Version: row.Version, IsActive: row.Active, Fields: map[string]any{},
		LastVerifiedAt: moment(row.LastVerifiedAt), CreatedAt: moment(row.CreatedAt), UpdatedAt: moment(row.UpdatedAt),
	}
	if row.VerificationError != "" {
		s.VerificationError = &row.VerificationError
	}
	values, err := a.o.Keeper.Read(row)
	p := provider.Named(row.Provider)
	if err != nil || p == nil {
		s.Unreadable = true
		return s
	}
	defer values.Wipe()
	s.Fields = p.Masked(values)
	return s
}

// looked records that somebody saw a credential's meta data. No record, no look.
func (a *API) looked(c *call, action, org, target string) error {
	return a.o.DB.AddEvent(c.r.Context(), store.Event{Actor: c.by, Action: action, Org: org, Target: target, Result: "ok"})
}

func (a *API) listOrgs(c *call) error {
	after, n, err := c.paged()
	if err != nil {
		return err
	}
	orgs, next, err := a.o.DB.Orgs(c.r.Context(), after, n)
	if err != nil {
		return err
	}
	type item struct {
		Org string `json:"org"`
	}
	items := make([]item, len(orgs))
	for i, org := range orgs {
		items[i].Org = org
	}
	return c.json(http.StatusOK, page{items, next})
}

// listIntegrations lists an org's credentials. An org is nothing but what is stored under its id, so one without any has an empty list.
func (a *API) listIntegrations(c *call) error {
	org, err := c.org()
	if err != nil {
		return err
	}
	after, n, err := c.paged()
	if err != nil {
		return err
	}
	rows, next, err := a.o.DB.Credentials(c.r.Context(), org, after, n)
	if err != nil {
		return err
	}
	if err := a.looked(c, "credential.list", org, ""); err != nil {
		return err
	}
	items := make([]integration, len(rows))
	for i, row := range rows {
		items[i] = a.show(row)
	}
	return c.json(http.StatusOK, page{items, next})
}

func (a *API) showIntegration(c *call) error {
	ref, _, err := c.ref()
	if err != nil {
		return err
	}
	row, _, err := a.o.DB.Credential(c.r.Context(), ref)
	if err != nil {
		return noCredential(err, ref)
	}
	if err := a.looked(c, "credential.show", ref.Org, ref.Provider); err != nil {
		return err
	}
	c.etag(row.Version)
	return c.json(http.StatusOK, a.show(row))
}

// change reads the body of PUT and PATCH.
func (c *call) change() (fields json.RawMessage, active *bool, err error) {
	var verify bool
	err = c.read(field{"credentials", &fields}, field{"is_active", &active}, field{"verify", &verify})
	if err == nil && verify {
		err = problemVerify
	}
	return fields, active, err
}

func (a *API) putIntegration(c *call) error {
	ref, p, err := c.ref()
	if err != nil {
		return err
	}
	ifVersion, err := c.ifVersion()
	if err != nil {
		return err
	}
	fields, active, err := c.change()
	if err != nil {
		return err
	}
	if len(fields) == 0 {
		return badField("credentials", "is missing")
	}
	values, problems := p.Parse(fields)
	if len(problems) > 0 {
		return invalid(problems)
	}
	defer values.Wipe()
	row, err := a.o.Keeper.Put(c.r.Context(), c.by, ref, values, credential.PutOptions{IfVersion: ifVersion, Active: active})
	return a.changed(c, row, err, ifVersion)
}

func (a *API) patchIntegration(c *call) error {
	ref, _, err := c.ref()
	if err != nil {
		return err
	}
	ifVersion, err := c.ifVersion()
	if err != nil {
		return err
	}
	fields, active, err := c.change()
	if err != nil {
		return err
	}
	row, err := a.o.Keeper.Patch(c.r.Context(), c.by, ref, credential.Patch{
		Fields: fields, PutOptions: credential.PutOptions{IfVersion: ifVersion, Active: active},
	})
	return a.changed(c, row, noCredential(err, ref), ifVersion)
}

// changed answers a write with what is there now.
func (a *API) changed(c *call, row *store.Credential, err error, ifVersion *int64) error {
	if err != nil {
		return stale(err, ifVersion)
	}
	c.etag(row.Version)
	code := http.StatusOK
	if c.r.Method == http.MethodPut && row.CreatedAt.Equal(row.UpdatedAt) {
		code = http.StatusCreated
	}
	return c.json(code, a.show(row))
}

func (a *API) deleteIntegration(c *call) error {
	ref, _, err := c.ref()
	if err != nil {
		return err
	}
	ifVersion, err := c.ifVersion()
	if err != nil {
		return err
	}
	expect, err := expected(ifVersion)
	if err != nil {
		return err
	}
	if err := a.o.DB.DeleteCredential(c.r.Context(), c.by, ref, expect); err != nil {
		return stale(noCredential(err, ref), ifVersion)
	}
	c.status(http.StatusNoContent)
	return nil
}

// expected is a precondition as the store's deletions take it: 0 is none.
func expected(ifVersion *int64) (int64, error) {
	switch {
	case ifVersion == nil:
		return 0, nil
	case *ifVersion == 0:
		return 0, badRequest("If-None-Match makes no sense for a deletion")
	}
	return *ifVersion, nil
}

// noCredential says which credential is not there.
func noCredential(err error, ref store.Ref) error {
	if errors.Is(err, store.ErrNotFound) {
		return missing(fmt.Sprintf("org %s has no credential with %s", ref.Org, ref.Provider))
	}
	return err
}
