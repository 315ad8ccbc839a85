package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/store"
)

// An integration is a credential as it is shown: masked.
type integration struct {
	Org               string         `json:"org"`
	Provider          string         `json:"provider"`
	Fields            map[string]any `json:"fields"`
	Version           int64          `json:"version"`
	IsActive          bool           `json:"is_active"`
	Unreadable        bool           `json:"unreadable,omitempty"`   // no key at hand opens it, so fields is empty
	Unconfigured      bool           `json:"unconfigured,omitempty"` // no such provider is configured any more: it can be deleted
	LastVerifiedAt    *time.Time     `json:"last_verified_at"`
	VerificationError *string        `json:"verification_error"`
	Verification      *string        `json:"verification"`           // what the provider said then: valid, valid_restricted or invalid
	Suspect           bool           `json:"suspect,omitempty"`      // the provider has refused it since, and that is being looked into
	Reconnect         string         `json:"reconnect,omitempty"`    // the path that asks the org for a new consent, which alone mends it
	FormerUntil       *time.Time     `json:"former_until,omitempty"` // until when the credential before it stands in for it
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
	a.showVerification(&s, row)
	values, err := a.o.Keeper.Read(row)
	p := a.o.Providers.Named(row.Provider)
	s.Unreadable, s.Unconfigured = err != nil, p == nil
	if err != nil {
		return s
	}
	defer values.Wipe()
	if p == nil {
		s.Fields = values.Concealed() // nobody says any more which of them are secret
		return s
	}
	s.Fields = p.Masked(values)
	if p.Consent != nil && values[p.Exchange.RefreshField].Text == "" {
		s.Reconnect = connectPath(row.Ref) // the org has yet to consent
	}
	return s
}

// looked records that somebody saw a credential's meta data. No record, no look.
func (a *API) looked(ctx context.Context, by store.Actor, action, org, target string) error {
	return a.o.DB.AddEvent(ctx, store.Event{Actor: by, Action: action, Org: org, Target: target, Result: "ok"})
}

func (a *API) listOrgs(c *call) error {
	after, n, err := c.paged()
	if err != nil {
		return err
	}
	orgs, next, err := a.orgs(c.r.Context(), c.who, after, n)
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

// orgs lists the orgs within reach, after the cursor.
func (a *API) orgs(ctx context.Context, who identity, after string, limit int) (orgs []string, next string, err error) {
	switch {
	case who.org == "":
		return a.o.DB.Orgs(ctx, after, limit)
	case who.org > after:
		orgs = []string{who.org}
	}
	return orgs, "", nil
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
	items, next, err := a.integrations(c.r.Context(), c.by, org, after, n)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, page{items, next})
}

// integrations shows an org's credentials, masked, and records that somebody looked.
func (a *API) integrations(ctx context.Context, by store.Actor, org, after string, limit int) ([]integration, string, error) {
	rows, next, err := a.o.DB.Credentials(ctx, org, after, limit)
	if err != nil {
		return nil, "", err
	}
	if err := a.looked(ctx, by, "credential.list", org, ""); err != nil {
		return nil, "", err
	}
	items := make([]integration, len(rows))
	for i, row := range rows {
		items[i] = a.show(row)
	}
	return items, next, nil
}

func (a *API) showIntegration(c *call) error {
	ref, err := c.storedRef(a.o.DB)
	if err != nil {
		return err
	}
	if _, err := c.query(); err != nil {
		return err
	}
	shown, err := a.integration(c.r.Context(), c.by, ref)
	if err != nil {
		return err
	}
	c.etag(shown.Version)
	return c.json(http.StatusOK, shown)
}

// integration shows one credential, masked, and records that somebody looked.
func (a *API) integration(ctx context.Context, by store.Actor, ref store.Ref) (integration, error) {
	row, _, err := a.o.DB.Credential(ctx, ref)
	if err != nil {
		return integration{}, noCredential(err, ref)
	}
	if err := a.looked(ctx, by, "credential.show", ref.Org, ref.Provider); err != nil {
		return integration{}, err
	}
	return a.show(row), nil
}

// A change is what PUT and PATCH ask for.
type change struct {
	fields    json.RawMessage // of the credential, an object; empty: as they are
	active    *bool           // nil: as it is
	verify    bool            // only if the provider honours it
	ifVersion *int64          // only at this version, 0: only if there is none; nil: whatever is there
}

// change reads a request to change a credential.
func (c *call) change() (ch change, err error) {
	if ch.ifVersion, err = c.ifVersion(); err != nil {
		return ch, err
	}
	err = c.read(field{"credentials", &ch.fields}, field{"is_active", &ch.active}, field{"verify", &ch.verify})
	return ch, err
}

func (a *API) putIntegration(c *call) error { return a.changeIntegration(c, a.putCredential) }

func (a *API) patchIntegration(c *call) error { return a.changeIntegration(c, a.patchCredential) }

func (a *API) changeIntegration(c *call, write func(context.Context, store.Actor, store.Ref, change) (*store.Credential, error)) error {
	ref, _, err := c.ref()
	if err != nil {
		return err
	}
	ch, err := c.change()
	if err != nil {
		return err
	}
	row, err := write(c.r.Context(), c.by, ref, ch)
	return a.changed(c, row, err, ch.ifVersion)
}

// putCredential makes the fields the org's whole credential.
func (a *API) putCredential(ctx context.Context, by store.Actor, ref store.Ref, ch change) (*store.Credential, error) {
	o, err := a.checked(credential.PutOptions{IfVersion: ch.ifVersion, Active: ch.active}, ch.verify)
	if err != nil {
		return nil, err
	}
	if len(ch.fields) == 0 {
		return nil, badField("credentials", "is missing")
	}
	values, problems := a.o.Providers.Named(ref.Provider).Parse(ch.fields)
	if len(problems) > 0 {
		return nil, invalid(problems)
	}
	defer values.Wipe()
	return a.o.Keeper.Put(ctx, by, ref, values, o)
}

// patchCredential replaces the fields that are named and keeps the others.
func (a *API) patchCredential(ctx context.Context, by store.Actor, ref store.Ref, ch change) (*store.Credential, error) {
	o, err := a.checked(credential.PutOptions{IfVersion: ch.ifVersion, Active: ch.active}, ch.verify)
	if err != nil {
		return nil, err
	}
	row, err := a.o.Keeper.Patch(ctx, by, ref, credential.Patch{Fields: ch.fields, PutOptions: o})
	return row, noCredential(err, ref)
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
	ref, err := c.storedRef(a.o.DB)
	if err != nil {
		return err
	}
	ifVersion, expect, err := c.expected()
	if err != nil {
		return err
	}
	if err := a.o.DB.DeleteCredential(c.r.Context(), c.by, ref, expect); err != nil {
		return stale(noCredential(err, ref), ifVersion)
	}
	c.status(http.StatusNoContent)
	return nil
}

// noCredential says which credential is not there.
func noCredential(err error, ref store.Ref) error {
	if errors.Is(err, store.ErrNotFound) {
		return missing(fmt.Sprintf("org %s has no credential with %s", ref.Org, ref.Provider))
	}
	return err
}
