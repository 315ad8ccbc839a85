package credential

import (
	"context"
	"errors"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// A provider that answers 401 may mean the credential, or one thing that it may not do; an app that does this thing all day must not have
// its provider asked all day. So a credential is looked into once, and then left alone for a while, however often it is refused.
const (
	maxQueue    = 256
	maxWatched  = 10_000
	settleDown  = 15 * time.Minute // after a verdict
	lookAgain   = time.Minute      // after none
	hesitation  = 2 * time.Second  // at most, before asking: of many sidecars that see the same 401, the first to ask does for all
	patrolPause = time.Second      // between two credentials of a round, on average
)

// watched is what is known of a credential that was refused.
type watched struct {
	sealed  int64     // the content that was refused; another is another matter
	seen    time.Time // when it was refused
	until   time.Time // until when further refusals say nothing new
	pending bool      // it has yet to be looked into
}

// Suspect notes that the provider answered 401 to a request with the row's credential, and has Run look into it. It returns at once.
func (v *Verifier) Suspect(row *store.Credential) {
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	w, ok := v.watched[row.Ref]
	if ok && (w.sealed > row.SealedVersion || w.sealed == row.SealedVersion && (w.pending || now.Before(w.until))) {
		return
	}
	if !ok && len(v.watched) >= maxWatched {
		v.sweep(now)
		if len(v.watched) >= maxWatched {
			return
		}
	}
	if !w.pending {
		select {
		case v.queue <- row.Ref:
		default:
			return // the next refusal asks for it again
		}
	}
	v.watched[row.Ref] = watched{sealed: row.SealedVersion, seen: now, pending: true}
}

// Suspected says whether the credential was refused and that has yet to be looked into.
func (v *Verifier) Suspected(row *store.Credential) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	w := v.watched[row.Ref]
	return w.pending && w.sealed == row.SealedVersion
}

// sweep forgets what says nothing any more. The lock is held.
func (v *Verifier) sweep(now time.Time) {
	for ref, w := range v.watched {
		if !w.pending && !now.Before(w.until) {
			delete(v.watched, ref)
		}
	}
}

// sidecar is who verifies and retires in the background.
var sidecar = store.Actor{Name: "sidecar", From: "process"}

// Run looks into what Suspect noted, verifies from time to time, and clears away former credentials, until ctx ends.
func (v *Verifier) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { v.lookInto(ctx) })
	all.Go(func() { v.patrol(ctx) })
	all.Wait()
}

func (v *Verifier) lookInto(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case ref := <-v.queue:
			if !pause(ctx, rand.N(hesitation)) { //nolint:gosec // jitter is no secret
				return
			}
			v.resolve(ctx, ref)
		}
	}
}

// resolve asks about a credential that was refused, unless another sidecar has done so since.
func (v *Verifier) resolve(ctx context.Context, ref store.Ref) {
	v.mu.Lock()
	w := v.watched[ref]
	v.mu.Unlock()
	calm := settleDown
	row, _, err := v.o.Keeper.DB.Credential(ctx, ref)
	if errors.Is(err, store.ErrNotFound) || err == nil && row.SealedVersion > w.sealed { // what was refused is there no more
		v.mu.Lock()
		delete(v.watched, ref)
		v.mu.Unlock()
		return
	}
	if err == nil && !v.o.Off(ref) && !row.LastVerifiedAt.After(w.seen) {
		var verdict provider.Verdict
		row, verdict, err = v.Verify(ctx, sidecar, ref)
		switch {
		case err != nil || verdict.State == provider.Unproven:
			calm = lookAgain
		case verdict.State == provider.Invalid:
			v.o.Log.Warn().Str("org", ref.Org).Str("provider", ref.Provider).Str("reason", verdict.Reason).Msg("a provider refused an org's credential, and does not honour it")
		}
	}
	if err != nil && ctx.Err() == nil {
		calm = lookAgain
		v.o.Log.Warn().Str("org", ref.Org).Str("provider", ref.Provider).Err(err).Msg("looking into a refused credential did not succeed")
	}
	if row != nil {
		w.sealed = max(w.sealed, row.SealedVersion) // a refresh token may have been replaced on the way
	}
	w.pending, w.until = false, time.Now().Add(calm)
	v.mu.Lock()
	v.watched[ref] = w
	v.mu.Unlock()
}

// patrol retires and verifies, in rounds that begin at no fixed time.
func (v *Verifier) patrol(ctx context.Context) {
	every := min(max(v.o.Every/20, time.Second), time.Hour) // of the rounds; a twentieth late is not late
	tick := min(every, time.Minute)
	if v.o.Every == 0 {
		tick = time.Minute
	}
	next := time.Now()
	for pause(ctx, tick/2+rand.N(tick)) { //nolint:gosec // jitter is no secret
		if err := v.o.Keeper.Retire(ctx, sidecar); err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrUnavailable) {
			v.o.Log.Warn().Err(err).Msg("clearing away a former credential did not succeed")
		}
		if v.o.Every > 0 && !time.Now().Before(next) {
			v.round(ctx)
			next = time.Now().Add(every)
		}
	}
}

// round verifies, one after the other, what has not been for long. A provider that cannot be asked is left alone for the rest of it.
func (v *Verifier) round(ctx context.Context) {
	const patience = 3
	gap := min(patrolPause, max(v.o.Every/20, time.Millisecond))
	unproven := map[string]int{} // :: provider → how many in a row
	err := v.o.Keeper.DB.EachCredential(ctx, func(row *store.Credential) error {
		if !row.Active || v.o.Off(row.Ref) || !v.due(row, time.Now()) || unproven[row.Provider] >= patience {
			return ctx.Err()
		}
		if !pause(ctx, gap/2+rand.N(gap)) { //nolint:gosec // jitter is no secret
			return ctx.Err()
		}
		now, _, err := v.o.Keeper.DB.Credential(ctx, row.Ref)
		if err != nil || !now.Active || !v.due(now, time.Now()) {
			return ctx.Err() // gone, changed, or another sidecar was first
		}
		_, verdict, err := v.Verify(ctx, sidecar, row.Ref)
		if err == nil && verdict.State == provider.Unproven {
			unproven[row.Provider]++
		} else {
			unproven[row.Provider] = 0
		}
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrUnavailable) {
		v.o.Log.Warn().Err(err).Msg("verifying credentials in the background broke off")
	}
}

// due says whether a credential's turn has come: each has its own time, so that those that were set together are not asked about together.
func (v *Verifier) due(row *store.Credential, now time.Time) bool {
	last := row.LastVerifiedAt
	if row.UpdatedAt.After(last) {
		last = row.UpdatedAt
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(row.Org + "/" + row.Provider)) // never fails
	share := time.Duration(h.Sum32() % 1000)             // of up to a fifth more
	return now.Sub(last) > v.o.Every+v.o.Every/5*share/1000
}

// pause waits, and says whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
