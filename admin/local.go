package admin

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/keyward/keyward/store"
)

// A Local is what is switched off in this sidecar alone, whatever the store says and whether or not it can be reached.
type Local struct {
	List func() []LocalOff
	// Set switches a credential off, or on again, and says whether that changed anything. It lasts over a restart.
	Set func(ref store.Ref, off bool) (changed bool, err error)
}

// A LocalOff is a credential that is switched off here.
type LocalOff struct {
	Org      string    `json:"org"`
	Provider string    `json:"provider"`
	Since    time.Time `json:"since"`
}

// auditPatience is how long the audit log is waited for: what is switched off is so with the store down too.
const auditPatience = time.Second

func (a *API) listLocal(c *call) error {
	if a.o.Local.List == nil {
		return problemNoRoute
	}
	if _, _, err := c.paged(); err != nil {
		return err
	}
	return c.json(http.StatusOK, map[string]any{"items": append([]LocalOff{}, a.o.Local.List()...), "next_cursor": ""})
}

func (a *API) disableLocally(c *call) error { return a.setLocal(c, true) }

func (a *API) enableLocally(c *call) error { return a.setLocal(c, false) }

// localRef is ref for what is off here, though the configuration may have lost its provider since.
func (a *API) localRef(c *call) (store.Ref, error) {
	org, err := c.org()
	if err != nil {
		return store.Ref{}, err
	}
	if a.o.Local.List != nil {
		for _, off := range a.o.Local.List() {
			if off.Org == org && off.Provider == c.r.PathValue("provider") {
				return store.Ref{Org: off.Org, Provider: off.Provider}, nil
			}
		}
	}
	return store.Ref{}, problemUnknownProvider
}

func (a *API) setLocal(c *call, off bool) error {
	if a.o.Local.Set == nil {
		return problemNoRoute
	}
	ref, _, err := c.ref()
	if errors.Is(err, problemUnknownProvider) && !off {
		ref, err = a.localRef(c)
	}
	if err != nil {
		return err
	}
	if _, err := c.query(); err != nil {
		return err
	}
	if err := c.readIfAny(); err != nil {
		return err
	}
	changed, err := a.o.Local.Set(ref, off)
	if err != nil {
		return err
	}
	action := "credential.enable-local"
	if off {
		action = "credential.disable-local"
	}
	recorded := true
	if changed {
		a.o.Log.Warn().Str("org", ref.Org).Str("provider", ref.Provider).Str("by", c.by.Name).Str("from", c.by.From).Msg(action)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.r.Context()), auditPatience)
		defer cancel()
		if err := a.o.DB.AddEvent(ctx, store.Event{
			At: time.Now(), Actor: c.by, Action: action, Org: ref.Org, Target: ref.Provider, Result: "ok", Detail: "in one sidecar alone",
		}); err != nil {
			recorded = false
			if !errors.Is(err, store.ErrUnavailable) {
				a.o.Log.Error().Err(err).Msg("the audit log has no row of it")
			}
		}
	}
	return c.json(http.StatusOK, map[string]any{"org": ref.Org, "provider": ref.Provider, "disabled_locally": off, "changed": changed, "in_audit_log": recorded})
}
