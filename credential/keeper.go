package credential

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// maxAttempts bounds how often a write that named no version is tried again because others wrote in between. Each round that fails is
// another writer's success, so only a storm of writers on one single credential gets this far.
const maxAttempts = 64

// A Keeper changes credentials. It is safe for concurrent use.
type Keeper struct {
	DB   *store.DB
	Keys *seal.Keyring
	// Providers are all that there are. Nil: provider.All.
	Providers provider.Set
}

// PutOptions say what a write depends on and what it leaves alone.
type PutOptions struct {
	// IfVersion: write only if the credential has this version, 0 if there is none; otherwise store.ErrConflict. Nil: whatever is there.
	IfVersion *int64
	// Active sets whether requests may use it. Nil: a new one is active, an existing one stays as it is, so that what was disabled
	// for a reason is not enabled by a mere replacement.
	Active *bool
	// Check is asked about the fields before they are written, and only what it finds valid is: else a *RefusedError. It may replace
	// what the provider replaces on the way (a refresh token). Nil: nothing is asked.
	Check func(ctx context.Context, p *provider.Provider, values provider.Values) provider.Verdict
}

// A RefusedError is the verdict that kept a credential from being written.
type RefusedError struct{ Verdict provider.Verdict }

func (e *RefusedError) Error() string {
	return "the credential is " + string(e.Verdict.State) + ": " + e.Verdict.Reason
}

// check asks about values, and notes in next what was found out.
func (o PutOptions) check(ctx context.Context, p *provider.Provider, values provider.Values, next *store.Credential) error {
	if o.Check == nil {
		return nil
	}
	v := o.Check(ctx, p, values)
	if v.State != provider.Valid && v.State != provider.ValidRestricted {
		return &RefusedError{v}
	}
	next.Verification, next.LastVerifiedAt, next.VerificationError = string(v.State), time.Now(), ""
	return nil
}

// Put makes values the org's whole credential. Errors: ErrUnknownProvider, *InvalidError, store.ErrConflict, store.ErrClaimed (an account
// id belongs to another org) and store.ErrUnavailable. A former credential beside the one that it replaces is retired with that.
func (k *Keeper) Put(ctx context.Context, by store.Actor, ref store.Ref, values provider.Values, o PutOptions) (*store.Credential, error) {
	p := k.Providers.Named(ref.Provider)
	if p == nil {
		return nil, ErrUnknownProvider
	}
	if problems := p.Validate(values); len(problems) > 0 {
		return nil, &InvalidError{problems}
	}
	next := &store.Credential{Ref: ref}
	for attempt := 1; ; attempt++ {
		row, err := k.current(ctx, ref)
		if err != nil {
			return nil, err
		}
		if o.IfVersion != nil && *o.IfVersion != row.shown() {
			return nil, store.ErrConflict
		}
		if attempt == 1 {
			if err := o.check(ctx, p, values, next); err != nil {
				return nil, err
			}
		}
		next.Active = row.c == nil || row.c.Active
		if o.Active != nil {
			next.Active = *o.Active
		}
		err = k.write(ctx, by, p, next, values, row.latest)
		if !again(err, attempt, o.IfVersion) {
			return written(next, err)
		}
	}
}

// Patch is what a change to an existing credential consists of.
type Patch struct {
	// Fields, a JSON object, replaces the fields it names and removes those it sets to null; all others stay. Empty: no field changes.
	Fields []byte
	PutOptions
}

// Patch changes an existing credential. Besides Put's errors there are store.ErrNotFound and ErrUnreadable.
func (k *Keeper) Patch(ctx context.Context, by store.Actor, ref store.Ref, change Patch) (*store.Credential, error) {
	p := k.Providers.Named(ref.Provider)
	if p == nil {
		return nil, ErrUnknownProvider
	}
	if len(change.Fields) == 0 {
		if change.Check == nil {
			return k.setActive(ctx, by, ref, change.PutOptions)
		}
		change.Fields = []byte("{}")
	}
	for attempt := 1; ; attempt++ {
		row, values, err := k.Values(ctx, ref)
		if err != nil {
			return nil, err
		}
		if change.IfVersion != nil && *change.IfVersion != row.Version {
			values.Wipe()
			return nil, store.ErrConflict
		}
		merged, err := merge(p, values, change.Fields)
		values.Wipe()
		if err != nil {
			return nil, err
		}
		next := &store.Credential{Ref: ref, Active: row.Active, Previous: former(row)}
		if change.Active != nil {
			next.Active = *change.Active
		}
		err = change.check(ctx, p, merged, next)
		if err == nil {
			err = k.write(ctx, by, p, next, merged, row.Version)
		}
		merged.Wipe()
		if !again(err, attempt, change.IfVersion) {
			return written(next, err)
		}
	}
}

// setActive enables, disables or leaves alone, without opening anything.
func (k *Keeper) setActive(ctx context.Context, by store.Actor, ref store.Ref, o PutOptions) (*store.Credential, error) {
	var expect int64
	if o.IfVersion != nil {
		if *o.IfVersion == 0 { // "must not exist" cannot hold for a change to something that does; 0 would mean "any" to the store
			return nil, store.ErrConflict
		}
		expect = *o.IfVersion
	}
	if o.Active != nil {
		if _, err := k.DB.SetActive(ctx, by, ref, *o.Active, expect); err != nil {
			return nil, err
		}
	}
	c, _, err := k.DB.Credential(ctx, ref)
	if err == nil && o.Active == nil && o.IfVersion != nil && c.Version != expect {
		return nil, store.ErrConflict
	}
	return c, err
}

// ReplaceField replaces one field of the credential whose sealed content is that of sealedVersion (0: any): a refresh token that the
// provider rotated. The content may have been replaced while the provider answered, and then the new token belongs to nothing that is
// still there: store.ErrConflict. That the credential was merely disabled or verified in between is no conflict.
func (k *Keeper) ReplaceField(ctx context.Context, by store.Actor, ref store.Ref, field string, value []byte, sealedVersion int64) (*store.Credential, error) {
	p := k.Providers.Named(ref.Provider)
	if p == nil {
		return nil, ErrUnknownProvider
	}
	change := make([]byte, 0, 6*(len(field)+len(value))+8) // never grows
	defer func() { clear(change) }()
	change = append(appendText(append(change, '{'), field), ':')
	change = append(appendText(change, value), '}')
	for attempt := 1; ; attempt++ {
		row, values, err := k.Values(ctx, ref)
		if err != nil {
			return nil, err
		}
		if sealedVersion != 0 && row.SealedVersion != sealedVersion {
			values.Wipe()
			return nil, store.ErrConflict
		}
		merged, err := merge(p, values, change)
		values.Wipe()
		if err != nil {
			return nil, err
		}
		next := &store.Credential{
			Ref: ref, Active: row.Active, Previous: former(row),
			// The same consent, so what was found out still holds.
			Verification: row.Verification, LastVerifiedAt: row.LastVerifiedAt, VerificationError: row.VerificationError,
		}
		err = k.write(ctx, by, p, next, merged, row.Version)
		merged.Wipe()
		if !again(err, attempt, nil) {
			return written(next, err)
		}
	}
}

// Values opens an org's credential: its row and its fields, plain. What it returns must reach nothing but a seal, a request to the
// provider or provider.Masked, and the caller wipes it. The row comes with the error when only opening failed.
func (k *Keeper) Values(ctx context.Context, ref store.Ref) (*store.Credential, provider.Values, error) {
	row, _, err := k.DB.Credential(ctx, ref)
	if err != nil {
		return nil, nil, err
	}
	values, err := k.Read(row)
	return row, values, err
}

// Read opens a row that is at hand.
func (k *Keeper) Read(row *store.Credential) (provider.Values, error) {
	plain, _, err := open(k.Keys, row, nil)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	values, err := provider.DecodeValues(plain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return values, nil
}

// A state is what is there before a write.
type state struct {
	c      *store.Credential // nil: none
	latest int64             // the latest version there ever was
}

// shown is the version that a reader would see: 0 when there is none.
func (s state) shown() int64 {
	if s.c == nil {
		return 0
	}
	return s.c.Version
}

// current reads what is there. The two reads need no common transaction: the write compares with latest.
func (k *Keeper) current(ctx context.Context, ref store.Ref) (state, error) {
	c, _, err := k.DB.Credential(ctx, ref)
	switch {
	case err == nil:
		return state{c, c.Version}, nil
	case !errors.Is(err, store.ErrNotFound):
		return state{}, err
	}
	latest, _, err := k.DB.LatestVersion(ctx, ref)
	return state{nil, latest}, err
}

// write seals values as the version after latest and puts the row, unless someone else has taken that version.
func (k *Keeper) write(ctx context.Context, by store.Actor, p *provider.Provider, next *store.Credential, values provider.Values, latest int64) error {
	next.Version, next.SealedVersion = latest+1, latest+1
	next.Accounts = k.accounts(p, next, values)
	plain := values.Encode(nil)
	next.Sealed = k.Keys.Seal(nil, plain, next.AppendContext(nil))
	clear(plain)
	next.KeyID, _ = seal.SealedWith(next.Sealed)
	return k.DB.PutCredential(ctx, by, next)
}

// again says whether a write that met another one is tried anew.
func again(err error, attempt int, ifVersion *int64) bool {
	return errors.Is(err, store.ErrConflict) && ifVersion == nil && attempt < maxAttempts
}

func written(c *store.Credential, err error) (*store.Credential, error) {
	if err != nil {
		return nil, err
	}
	return c, nil
}
