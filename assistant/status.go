package assistant

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/keyward/keyward/store"
)

// A Status is what is there of an org's assistant.
type Status struct {
	store.Assistant      // as it is mapped
	Exists          bool // at Vapi
	AsConfigured    bool // it is what Ensure would leave alone
}

var errNoAssistant = &Error{Status: 404, Code: "unknown_assistant", Detail: "the org has no assistant for this role: POST …/ensure makes it"}

// Get looks what is there, and changes nothing. Errors are *Error or the store's.
func (m *Manager) Get(ctx context.Context, org, role string) (Status, error) {
	w := &work{Manager: m, claim: &store.AssistantClaim{Org: org, Role: role}}
	ctx, cancel := context.WithTimeout(ctx, m.o.Limit)
	defer cancel()
	mapped, err := m.db.AssistantsOf(ctx, org, role)
	if err != nil {
		return Status{}, err
	}
	if len(mapped) == 0 {
		return Status{}, errNoAssistant
	}
	one, r, err := w.shown(ctx, mapped)
	s := Status{Assistant: *one, Exists: r != nil}
	if err != nil || r == nil {
		return s, err
	}
	agent, err := m.db.Agent(ctx, org, role)
	if errors.Is(err, store.ErrNotFound) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if want, err := want(agent, w.claim); err == nil {
		delete(want.marks, markClaim) // whose it is does not matter here
		s.AsConfigured = !want.differs(r)
	}
	return s, nil
}

// shown is the one of the mapped assistants that stands for the role: the first that is there, with what it is at Vapi; else the first.
func (w *work) shown(ctx context.Context, mapped []*store.Assistant) (*store.Assistant, *remote, error) {
	r, err := w.first(ctx, mapped)
	if err != nil || r == nil {
		return mapped[0], nil, err
	}
	i := slices.IndexFunc(mapped, func(a *store.Assistant) bool { return a.ID == r.ID })
	return mapped[i], r, nil
}

// Delete removes the org's assistants for a role, at Vapi and in the store, with what was made and never registered. The agent's
// configuration stays. version is that of the one that Get shows, and nothing is removed if it has another; 0: whatever it is. It returns the ids.
// Errors are *Error or the store's.
func (m *Manager) Delete(ctx context.Context, by store.Actor, org, role string, version int64) (ids []string, err error) {
	if !store.IsOrg(org) {
		return nil, errNoAssistant
	}
	ctx, cancel := context.WithTimeout(ctx, m.o.Limit)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	err = m.claimed(ctx, key{org, role}, func(ctx context.Context, c *store.AssistantClaim) error {
		w := &work{Manager: m, by: by, claim: c}
		ids, err = w.delete(ctx, version)
		return err
	})
	if err == nil && len(ids) == 0 {
		err = errNoAssistant
	}
	return ids, err
}

func (w *work) delete(ctx context.Context, version int64) (ids []string, err error) {
	if left := w.o.settle - time.Since(w.claim.Unsettled); left > 0 && !pause(ctx, left) { // let what was begun appear
		return nil, ctx.Err()
	}
	mapped, err := w.mapped(ctx)
	if err != nil {
		return nil, err
	}
	if version != 0 && len(mapped) > 0 {
		switch one, _, err := w.shown(ctx, mapped); {
		case err != nil:
			return nil, err
		case one.Version != version:
			return nil, errStale
		}
	}
	for _, a := range mapped {
		ids = append(ids, a.ID)
	}
	ours, err := w.ours(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range ours {
		known := false
		for _, id := range ids {
			known = known || id == r.ID
		}
		if !known {
			ids = append(ids, r.ID)
		}
	}
	for _, id := range ids {
		if err := w.remove(ctx, id); err != nil {
			return nil, err
		}
	}
	return ids, w.db.ForgetClaim(ctx, w.by, w.claim, ids)
}
