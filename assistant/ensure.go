package assistant

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/keyward/keyward/store"
)

// work is what is done under one claim.
type work struct {
	*Manager
	by    store.Actor
	claim *store.AssistantClaim

	gone    []string  // ids that were mapped and are there no more
	unclear time.Time // when Vapi last left open whether it had made one
}

// ensure finds the assistant or makes it, changes it to what is wanted, and registers it.
func (w *work) ensure(ctx context.Context) (Result, error) {
	agent, err := w.db.Agent(ctx, w.claim.Org, w.claim.Role)
	if errors.Is(err, store.ErrNotFound) {
		return Result{}, errNoAgent
	}
	if err != nil {
		return Result{}, err
	}
	want, err := want(agent, w.claim)
	if err != nil {
		return Result{}, err
	}
	for {
		r, outcome, err := w.have(ctx, want)
		if err != nil {
			return Result{}, err
		}
		if want.differs(r) {
			changed, err := w.update(ctx, r.ID, want.body(r.Metadata))
			if errors.Is(err, errGone) { // somebody removed it just now
				w.gone = append(w.gone, r.ID)
				continue
			}
			if err != nil {
				return Result{}, err
			}
			r = changed
			if outcome == Unchanged {
				outcome = Updated
			}
		}
		return w.register(ctx, agent, r, outcome)
	}
}

// register writes down whose the assistant is, and that nothing unregistered is left, if that is so.
func (w *work) register(ctx context.Context, agent *store.Agent, r *remote, outcome Outcome) (Result, error) {
	w.o.crash("before it is registered")
	a := store.Assistant{ID: r.ID, Org: w.claim.Org, Role: w.claim.Role, Name: cmp.Or(agent.Name, r.Name)}
	err := w.db.SettleAssistant(ctx, w.by, w.claim, &a, w.gone, w.settled())
	if errors.Is(err, store.ErrClaimed) {
		return Result{}, errTaken
	}
	return Result{a, outcome}, err
}

// settled says whether there can be no assistant that nobody has registered: Vapi left nothing open, or so long ago that it has been done.
func (w *work) settled() bool {
	return w.unclear.IsZero() && (w.claim.Unsettled.IsZero() || time.Since(w.claim.Unsettled) > w.o.later/2)
}

// have finds the assistant or makes it.
func (w *work) have(ctx context.Context, want *wanted) (*remote, Outcome, error) {
	mapped, err := w.mapped(ctx)
	if err != nil {
		return nil, "", err
	}
	if w.claim.Unsettled.IsZero() {
		if r, err := w.first(ctx, mapped); err != nil || r != nil {
			return r, Unchanged, err
		}
	}
	for {
		r, known, err := w.find(ctx, mapped)
		if err != nil {
			return nil, "", err
		}
		if r == nil && !w.claim.Unsettled.IsZero() {
			known = true
			r, err = w.first(ctx, mapped) // mapped by hand, and not marked yet
			if err != nil {
				return nil, "", err
			}
		}
		switch {
		case r != nil && known:
			return r, Unchanged, nil
		case r != nil:
			return r, Found, nil
		}
		if left := w.o.settle - time.Since(later(w.unclear, w.claim.Unsettled)); left > 0 {
			if !pause(ctx, min(left, w.o.settle/3)) {
				return nil, "", ctx.Err()
			}
			continue
		}
		if r, err = w.make(ctx, want); err != nil || r != nil {
			return r, Created, err
		}
	}
}

// make makes an assistant. Without one and without an error, Vapi has left open whether there is one now.
func (w *work) make(ctx context.Context, want *wanted) (*remote, error) {
	before := w.claim.Unsettled
	if err := w.db.UnsettleClaim(ctx, w.claim, w.o.lease); err != nil {
		return nil, err
	}
	w.o.crash("before it is made")
	r, err := w.create(ctx, want.body(nil))
	w.o.crash("after it was made")
	switch {
	case errors.Is(err, errUnclear):
		w.unclear = time.Now()
		w.o.Log.Warn().Str("org", w.claim.Org).Str("role", w.claim.Role).Msg("vapi left open whether it made an assistant; looking for it")
		return nil, nil //nolint:nilnil // see above
	case err != nil:
		if before.IsZero() && w.unclear.IsZero() { // nothing was made
			if e := w.db.SettleAssistant(context.WithoutCancel(ctx), w.by, w.claim, nil, nil, true); e != nil && !errors.Is(e, store.ErrConflict) {
				err = errors.Join(err, e)
			}
		}
		return nil, err
	}
	if before.IsZero() && w.unclear.IsZero() {
		w.claim.Unsettled = time.Time{} // this is the one that the note was about
	}
	return r, nil
}

// mapped are the assistants that the store has for the org's role, but for those that are known to be gone.
func (w *work) mapped(ctx context.Context) ([]*store.Assistant, error) {
	rows, err := w.db.AssistantsOf(ctx, w.claim.Org, w.claim.Role)
	return slices.DeleteFunc(rows, func(a *store.Assistant) bool { return slices.Contains(w.gone, a.ID) }), err
}

// first is the first of the mapped ones that is there; nil: none is.
func (w *work) first(ctx context.Context, mapped []*store.Assistant) (*remote, error) {
	for _, a := range mapped {
		if slices.Contains(w.gone, a.ID) {
			continue
		}
		r, err := w.get(ctx, a.ID)
		if !errors.Is(err, errGone) {
			return r, err
		}
		w.gone = append(w.gone, a.ID)
	}
	return nil, nil //nolint:nilnil // none is there
}

// find looks for what was made under the claim, whoever made it, and removes all but one: the one that is mapped, else the oldest. known
// says whether it is mapped.
func (w *work) find(ctx context.Context, mapped []*store.Assistant) (r *remote, known bool, err error) {
	all, err := w.ours(ctx)
	if err != nil || len(all) == 0 {
		return nil, false, err
	}
	isMapped := func(r *remote) bool {
		return slices.ContainsFunc(mapped, func(a *store.Assistant) bool { return a.ID == r.ID })
	}
	slices.SortFunc(all, func(a, b *remote) int {
		rank := func(r *remote) int {
			if isMapped(r) {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.CreatedAt, b.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	for _, surplus := range all[1:] {
		w.o.Log.Warn().Str("org", w.claim.Org).Str("role", w.claim.Role).Str("assistant", surplus.ID).Msg("removing an assistant that vapi made too late")
		if err := w.remove(ctx, surplus.ID); err != nil {
			return nil, false, err
		}
		if isMapped(surplus) {
			w.gone = append(w.gone, surplus.ID)
		}
	}
	whole, err := w.get(ctx, all[0].ID) // a list may show less of it
	if errors.Is(err, errGone) {
		return nil, false, nil
	}
	return whole, isMapped(all[0]), err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
