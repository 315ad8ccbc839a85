package credential

import (
	"context"
	"errors"
	"time"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// How long a former credential stays beside the one that takes its place.
const (
	DefaultOverlap = 24 * time.Hour
	MaxOverlap     = 30 * 24 * time.Hour
)

var (
	// ErrStaged: another credential takes this one's place already.
	ErrStaged = errors.New("another credential is staged beside it already")
	// ErrNotStaged: no other credential takes this one's place.
	ErrNotStaged = errors.New("no credential is staged beside it")
	// ErrNotForKeys: the provider's credential is a consent, which is not replaced by a key.
	ErrNotForKeys = errors.New("the provider's credential is a consent: connect again instead")
)

// Stage makes values the org's credential and keeps the former one beside it for the overlap: a request that the provider answers 401 to
// is sent again with that. Then, or with Promote, the former one is retired; with Unstage it comes back. Besides Put's errors there are
// store.ErrNotFound, ErrStaged and ErrNotForKeys.
func (k *Keeper) Stage(ctx context.Context, by store.Actor, ref store.Ref, values provider.Values, overlap time.Duration, o PutOptions) (*store.Credential, error) {
	p := k.Providers.Named(ref.Provider)
	switch {
	case p == nil:
		return nil, ErrUnknownProvider
	case p.Exchange != nil:
		return nil, ErrNotForKeys
	}
	if problems := p.Validate(values); len(problems) > 0 {
		return nil, &InvalidError{problems}
	}
	next := &store.Credential{Ref: ref}
	for attempt := 1; ; attempt++ {
		row, _, err := k.DB.Credential(ctx, ref)
		switch {
		case err != nil:
			return nil, err
		case o.IfVersion != nil && *o.IfVersion != row.Version:
			return nil, store.ErrConflict
		case former(row) != nil:
			return nil, ErrStaged
		}
		if attempt == 1 {
			if err := o.check(ctx, p, values, next); err != nil {
				return nil, err
			}
		}
		next.Active = row.Active
		if o.Active != nil {
			next.Active = *o.Active
		}
		next.Previous = &store.Previous{Sealed: row.Sealed, KeyID: row.KeyID, SealedVersion: row.SealedVersion, Until: time.Now().Add(overlap)}
		err = k.write(ctx, by, p, next, values, row.Version)
		if !again(err, attempt, o.IfVersion) {
			return written(next, err)
		}
	}
}

// Promote retires the former credential. Errors: store.ErrNotFound, ErrNotStaged, store.ErrConflict, ErrUnreadable.
func (k *Keeper) Promote(ctx context.Context, by store.Actor, ref store.Ref, ifVersion *int64) (*store.Credential, error) {
	return k.unstage(ctx, by, ref, ifVersion, func(row *store.Credential) *store.Credential { return row })
}

// Unstage takes the newer credential back: the former one is the org's again. Errors are those of Promote.
func (k *Keeper) Unstage(ctx context.Context, by store.Actor, ref store.Ref, ifVersion *int64) (*store.Credential, error) {
	return k.unstage(ctx, by, ref, ifVersion, func(row *store.Credential) *store.Credential { return row.Former(time.Now()) })
}

// unstage makes what stays the whole credential, sealed anew for its new version.
func (k *Keeper) unstage(ctx context.Context, by store.Actor, ref store.Ref, ifVersion *int64, stays func(*store.Credential) *store.Credential) (*store.Credential, error) {
	p := k.Providers.Named(ref.Provider)
	if p == nil {
		return nil, ErrUnknownProvider
	}
	for attempt := 1; ; attempt++ {
		row, _, err := k.DB.Credential(ctx, ref)
		if err != nil {
			return nil, err
		}
		if ifVersion != nil && *ifVersion != row.Version {
			return nil, store.ErrConflict
		}
		kept := stays(row)
		if row.Previous == nil || kept == nil {
			return nil, ErrNotStaged
		}
		values, err := k.Read(kept)
		if err != nil {
			return nil, err
		}
		next := &store.Credential{Ref: ref, Active: row.Active}
		if kept == row {
			next.Verification, next.LastVerifiedAt, next.VerificationError = row.Verification, row.LastVerifiedAt, row.VerificationError
		}
		err = k.write(ctx, by, p, next, values, row.Version)
		values.Wipe()
		if !again(err, attempt, ifVersion) {
			return written(next, err)
		}
	}
}

// Retire retires every former credential whose time is over. The requests have done without it since that moment; this only clears it away.
func (k *Keeper) Retire(ctx context.Context, by store.Actor) error {
	refs, err := k.DB.Retiring(ctx, time.Now())
	if err != nil {
		return err
	}
	var errs []error
	for _, ref := range refs {
		_, err := k.unstage(ctx, by, ref, nil, func(row *store.Credential) *store.Credential {
			if row.Former(time.Now()) != nil {
				return nil // another one was staged meanwhile, and its former one has its time before it
			}
			return row
		})
		if !errors.Is(err, store.ErrNotFound) && !errors.Is(err, ErrNotStaged) && !errors.Is(err, store.ErrConflict) { // another sidecar was first
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// former is what a write of the row keeps beside it.
func former(row *store.Credential) *store.Previous {
	if row.Former(time.Now()) == nil {
		return nil
	}
	return row.Previous
}

// accounts are the ids that a row claims: those in values, and of the former credential, whose webhooks go on.
func (k *Keeper) accounts(p *provider.Provider, row *store.Credential, values provider.Values) []store.Account {
	all := p.Accounts(values)
	if old := row.Former(time.Now()); old != nil {
		if had, err := k.Read(old); err == nil { // one that cannot be opened verifies no webhook either
			all = append(all, p.Accounts(had)...)
			had.Wipe()
		}
	}
	claimed := make([]store.Account, len(all))
	for i, a := range all {
		claimed[i] = store.Account{Field: a.Field, ID: a.ID}
	}
	return claimed
}
