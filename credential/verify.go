package credential

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// A Verifier asks providers whether they honour the orgs' credentials: when somebody wants to know, when a provider refused one to an app,
// and every now and then. It is made by NewVerifier and is safe for concurrent use.
type Verifier struct {
	o  VerifierOptions
	mu sync.Mutex
	// watched are the credentials that a provider refused, until that is looked into, and for a while after it.
	watched map[store.Ref]watched
	queue   chan store.Ref
}

// VerifierOptions are what a Verifier works with.
type VerifierOptions struct {
	Keeper *Keeper
	// Ask asks a provider, and overwrites what is secret in the question. It reaches nobody but the provider.
	Ask func(context.Context, *provider.Question) (provider.Reply, error)
	Log zerolog.Logger
	// Off says which credentials are not to be used here, whatever the store says: only who asks for it has them verified. Nil: none.
	Off func(store.Ref) bool
	// Every is how long a verdict on an active credential stands before Run asks again; 0: for ever.
	Every time.Duration
}

// NewVerifier makes one. It does nothing in the background until Run.
func NewVerifier(o VerifierOptions) *Verifier {
	if o.Off == nil {
		o.Off = func(store.Ref) bool { return false }
	}
	return &Verifier{o: o, watched: map[store.Ref]watched{}, queue: make(chan store.Ref, maxQueue)}
}

// verifyLimit is how long a provider may take for all that it is asked about one credential.
const verifyLimit = 25 * time.Second

// Check is the provider's verdict on fields that are stored nowhere yet. A refresh token that the provider replaced on the way is
// replaced in values too. It fits into PutOptions.
func (v *Verifier) Check(ctx context.Context, p *provider.Provider, values provider.Values) provider.Verdict {
	ctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	verdict, refresh := v.probe(ctx, p, func() (provider.Secret, error) { return provider.Open(values.Encode(nil)), nil })
	if len(refresh) > 0 {
		values[p.Exchange.RefreshField] = provider.TextOf(refresh)
		clear(refresh)
	}
	return verdict
}

// verifyAttempts bounds how often a credential is asked about anew because it was changed meanwhile.
const verifyAttempts = 5

// Verify asks about an org's credential and stores the outcome; Unproven is stored nowhere: what was known stays known. It returns the row
// as it then is. Errors: store.ErrNotFound, store.ErrUnavailable, store.ErrConflict (others kept changing it), ErrUnreadable.
func (v *Verifier) Verify(ctx context.Context, by store.Actor, ref store.Ref) (*store.Credential, provider.Verdict, error) {
	p := v.o.Keeper.Providers.Named(ref.Provider)
	if p == nil {
		return nil, provider.Verdict{}, ErrUnknownProvider
	}
	ctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	for attempt := 1; ; attempt++ {
		row, verdict, err := v.verify(ctx, by, p, ref)
		if !errors.Is(err, store.ErrConflict) || attempt == verifyAttempts {
			return row, verdict, err
		}
	}
}

func (v *Verifier) verify(ctx context.Context, by store.Actor, p *provider.Provider, ref store.Ref) (*store.Credential, provider.Verdict, error) {
	k := v.o.Keeper
	row, _, err := k.DB.Credential(ctx, ref)
	if err != nil {
		return nil, provider.Verdict{}, err
	}
	open := func() (provider.Secret, error) {
		s, _, err := Open(k.Keys, row, nil)
		return s, err
	}
	first, err := open()
	first.Wipe()
	if err != nil {
		return row, provider.Verdict{}, err
	}
	verdict, refresh := v.probe(ctx, p, open)
	// What the provider replaced must be kept, and what it said must be, even if whoever asked has gone.
	ctx = context.WithoutCancel(ctx)
	if len(refresh) > 0 {
		next, err := k.ReplaceField(ctx, by, ref, p.Exchange.RefreshField, refresh, row.SealedVersion)
		clear(refresh)
		if err != nil {
			return row, verdict, err
		}
		row = next
	}
	if verdict.State == provider.Unproven {
		return row, verdict, k.DB.AddEvent(ctx, store.Event{
			Actor: by, Action: "credential.verify", Org: ref.Org, Target: ref.Provider, Result: string(verdict.State), Detail: verdict.Reason,
		})
	}
	if err := k.DB.SetVerified(ctx, by, ref, row.Version, verification(verdict)); err != nil {
		return row, verdict, err
	}
	row, _, err = k.DB.Credential(ctx, ref)
	return row, verdict, err
}

// verification is how a verdict is stored. What a restricted key may not do is no error.
func verification(v provider.Verdict) store.Verification {
	kept := store.Verification{At: time.Now(), State: string(v.State)}
	if v.State == provider.Invalid {
		kept.Problem = v.Reason
	}
	if v.Reconnect {
		kept.State = store.Reconnect
	}
	return kept
}

// probe asks what the provider's Probe says, of a secret that open opens anew for each question, since asking uses it up. refresh is a new
// refresh token, in memory of the caller's.
func (v *Verifier) probe(ctx context.Context, p *provider.Provider, open func() (provider.Secret, error)) (verdict provider.Verdict, refresh []byte) {
	lost := provider.Verdict{State: provider.Unproven, Reason: "the credential could not be opened"}
	var token []byte
	if p.Exchange != nil {
		s, err := open()
		if err != nil {
			return lost, nil
		}
		t, err := v.trade(ctx, p, s)
		defer clear(t.Access)
		var rejected *provider.RejectedError
		switch {
		case errors.As(err, &rejected):
			return rejected.Verdict(), nil
		case err != nil:
			return noAnswer(err), nil
		}
		token, refresh = t.Access, t.Refresh
	}
	s, err := open()
	if err != nil {
		return lost, refresh
	}
	paths := p.Probe.Paths(s)
	s.Wipe()
	var all []provider.Verdict
	for _, path := range paths {
		s, err := open()
		if err != nil {
			return lost, refresh
		}
		r, err := v.o.Ask(ctx, &provider.Question{Provider: p, Method: "GET", Path: path, Secret: s, Token: append([]byte(nil), token...)})
		one, more := noAnswer(err), false
		if err == nil {
			one, more = p.Probe.Read(r.Status, r.Body)
		}
		clear(r.Body)
		all = append(all, one)
		if !more {
			break
		}
	}
	return provider.Fold(all), refresh
}

// trade trades a secret for a token, and uses it up.
func (v *Verifier) trade(ctx context.Context, p *provider.Provider, s provider.Secret) (provider.Token, error) {
	ex := p.Exchange
	if len(s.Field(ex.RefreshField)) == 0 {
		s.Wipe()
		return provider.Token{}, &provider.IncompleteError{Field: ex.RefreshField}
	}
	form := ex.Form(make([]byte, 0, 3*s.Len()+512), s)
	s.Wipe()
	r, err := v.o.Ask(ctx, &provider.Question{
		Provider: p, Host: ex.Host, Method: "POST", Path: ex.Path, Type: "application/x-www-form-urlencoded", Body: form,
	})
	defer clear(r.Body)
	if err != nil {
		return provider.Token{}, err
	}
	return ex.Read(r.Status, r.Body)
}

// noAnswer is the verdict when the provider could not be asked. The error's text is not repeated: it may be about what was asked with.
func noAnswer(err error) provider.Verdict {
	v := provider.Verdict{State: provider.Unproven, Reason: "the provider did not answer as expected"}
	var no *provider.NoAnswerError
	var missing *provider.IncompleteError
	switch {
	case errors.As(err, &no):
		v.Reason = no.Detail
	case errors.As(err, &missing):
		v.Reason = missing.Error() + ", without which the provider cannot be asked"
	}
	return v
}
