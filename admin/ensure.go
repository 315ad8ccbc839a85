package admin

import (
	"context"
	"net/http"

	"github.com/keyward/keyward/store"
)

// Assistants is what makes, looks at and removes the Vapi assistants of orgs' agents. Nil functions: this sidecar does not. Their errors
// say how they are answered (see told), or are the store's.
type Assistants struct {
	Ensure func(ctx context.Context, by store.Actor, org, role string) (a store.Assistant, outcome string, err error)
	Get    func(ctx context.Context, org, role string) (AssistantState, error)
	// Delete removes them if the one that Get says has the version; 0: whatever it has.
	Delete func(ctx context.Context, by store.Actor, org, role string, version int64) (ids []string, err error)
}

// An AssistantState is what is there of an org's assistant.
type AssistantState struct {
	store.Assistant
	Exists       bool // at Vapi
	AsConfigured bool // by the agent
}

var problemNoAssistants = &Problem{Status: http.StatusNotImplemented, Code: "not_available", Detail: "this sidecar does not manage assistants"}

func (a *API) ensureAssistant(c *call) error {
	org, role, err := c.agentRef()
	if err != nil {
		return err
	}
	if _, err := c.query(); err != nil {
		return err
	}
	if err := c.readIfAny(); err != nil {
		return err
	}
	m, outcome, err := a.ensure(c.r.Context(), c.by, org, role)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, struct {
		assistant
		Outcome string `json:"outcome"`
	}{showAssistant(m), outcome})
}

// ensure makes the org's assistant for a role be there as the agent is configured.
func (a *API) ensure(ctx context.Context, by store.Actor, org, role string) (*store.Assistant, string, error) {
	if a.o.Assistants.Ensure == nil {
		return nil, "", problemNoAssistants
	}
	m, outcome, err := a.o.Assistants.Ensure(ctx, by, org, role)
	return &m, outcome, err
}

func (a *API) showAgentsAssistant(c *call) error {
	org, role, err := c.agentRef()
	if err != nil {
		return err
	}
	if _, err := c.query(); err != nil {
		return err
	}
	if a.o.Assistants.Get == nil {
		return problemNoAssistants
	}
	s, err := a.o.Assistants.Get(c.r.Context(), org, role)
	if err != nil {
		return err
	}
	c.etag(s.Version)
	return c.json(http.StatusOK, struct {
		assistant
		Exists       bool `json:"exists"`
		AsConfigured bool `json:"as_configured"`
	}{showAssistant(&s.Assistant), s.Exists, s.AsConfigured})
}

func (a *API) deleteAgentsAssistant(c *call) error {
	org, role, err := c.agentRef()
	if err != nil {
		return err
	}
	if _, err := c.query(); err != nil {
		return err
	}
	_, expect, err := c.expected()
	if err != nil {
		return err
	}
	if a.o.Assistants.Delete == nil {
		return problemNoAssistants
	}
	if _, err := a.o.Assistants.Delete(c.r.Context(), c.by, org, role, expect); err != nil {
		return err
	}
	c.status(http.StatusNoContent)
	return nil
}
