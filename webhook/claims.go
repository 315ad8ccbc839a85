package webhook

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/store"
)

// A Memory keeps the keys of messages that the app answers at once, in all sidecars on a store (store.DB is one). A key is claimed while
// the app is asked, for store.ClaimLease and no longer than the sidecar lives, and confirmed before the answer goes back.
type Memory interface {
	ClaimSeen(ctx context.Context, key string) (store.Claim, error)
	RenewClaims(ctx context.Context, keys []string) error
	ConfirmSeen(ctx context.Context, key string, until time.Time) (duplicate bool, err error)
	Unclaim(ctx context.Context, key string, until time.Time) error
}

var _ Memory = (*store.DB)(nil)

// A claim is one message's hold on its key.
type claim struct {
	key       string
	until     time.Time     // how long it is remembered once it is answered
	confirmed bool          // and no copy is answered any more
	claimed   time.Time     // when the store last said that it is this sidecar's; zero: never. Guarded by claims.mu
	over      chan struct{} // closed when it is known what became of it
}

// claims are those of this sidecar. Its goroutine is owned by the Server.
type claims struct {
	memory Memory
	log    zerolog.Logger

	mu    sync.Mutex
	held  map[string]*claim // :: key → the message that is being answered
	owing map[string]*claim // :: key → one that was answered while the store could not be told
}

const (
	confirmWait = time.Second            // that an answer is held back at most until the store has its key
	look        = 100 * time.Millisecond // how often others' claims are looked at, and how often the store is told what it missed
)

func newClaims(m Memory, log zerolog.Logger) *claims {
	return &claims{memory: m, log: log, held: map[string]*claim{}, owing: map[string]*claim{}}
}

// take claims the key of a message. While another one of the same key is being answered it waits for what becomes of that: if its sidecar
// dies, or the app does not answer it, this one is welcome. Nil: it was answered before; an error: that could not be found out, or not in time.
func (s *claims) take(ctx context.Context, key string, until, deadline time.Time) (*claim, error) {
	mine := &claim{key: key, until: until}
	for {
		over, answered := s.hold(mine)
		switch {
		case answered:
			return nil, nil
		case over != nil:
			if err := await(ctx, deadline, over); err != nil {
				return nil, err
			}
			continue
		}
		found, err := s.ask(ctx, mine, deadline)
		switch {
		case err != nil || found == store.Seen:
			return nil, err
		case found == store.Fresh:
			return mine, nil
		}
		if err := await(ctx, deadline, time.After(look)); err != nil {
			return nil, err
		}
	}
}

// ask has the store give this sidecar the key of a message that is held, or lets go of it.
func (s *claims) ask(ctx context.Context, mine *claim, deadline time.Time) (found store.Claim, err error) {
	fresh := false
	defer func() {
		if !fresh { // also when it panicked
			s.end(mine)
		}
	}()
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	asked := time.Now()
	if found, err = s.memory.ClaimSeen(ctx, mine.key); err == nil && found == store.Fresh {
		s.mu.Lock()
		mine.claimed = asked
		s.mu.Unlock()
		fresh = true
	}
	return found, err
}

// await waits for something on what becomes of the same message.
func await[T any](ctx context.Context, deadline time.Time, something <-chan T) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	select {
	case <-something:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for what becomes of the same message: %w", ctx.Err())
	}
}

// hold enters a message, unless one of the same key is here: then it says when that is over, or that it was answered.
func (s *claims) hold(mine *claim) (over <-chan struct{}, answered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owing[mine.key] != nil {
		return nil, true
	}
	if other := s.held[mine.key]; other != nil {
		return other.over, false
	}
	mine.over = make(chan struct{})
	s.held[mine.key] = mine
	return nil, false
}

// end lets go of a message, and those of its key that wait.
func (s *claims) end(c *claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[c.key] == c {
		delete(s.held, c.key)
		close(c.over)
	}
}

// confirm makes the store remember a message that is about to be answered. While the store cannot be reached, the answer of the app is
// worth more: the key is kept here, and the store is told later. It says whether another sidecar has answered it meanwhile.
func (s *claims) confirm(c *claim) (duplicate bool) {
	ctx, cancel := context.WithTimeout(context.Background(), confirmWait)
	defer cancel()
	duplicate, err := s.memory.ConfirmSeen(ctx, c.key, c.until)
	if err != nil {
		s.log.Warn().Err(err).Msg("the store could not be told that a webhook was answered; it will be")
		s.mu.Lock()
		s.owing[c.key] = c
		s.mu.Unlock()
	}
	c.confirmed = !duplicate // else what the store has is not this one's to give up
	s.end(c)
	return duplicate
}

// give gives a claim up: the message was not answered, and is welcome again.
func (s *claims) give(c *claim) {
	defer s.end(c)
	s.mu.Lock()
	delete(s.owing, c.key)
	lapsed := time.Since(c.claimed) >= store.ClaimLease
	s.mu.Unlock()
	switch {
	case c.confirmed:
		s.forget(c.key, c.until)
	case !lapsed: // else it may be another sidecar's by now
		s.forget(c.key, time.Time{})
	}
}

func (s *claims) forget(key string, until time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if err := s.memory.Unclaim(ctx, key, until); err != nil {
		s.log.Warn().Err(err).Msg("forgetting a webhook that was not answered")
	}
}

// keep renews what is held, and tells the store what it missed, until ctx ends. A store that takes its time over the one does not hold up the
// other.
func (s *claims) keep(ctx context.Context) {
	var both sync.WaitGroup
	renew, pay := s.guarded(s.renew), s.guarded(s.pay)
	both.Go(func() { every(ctx, store.ClaimLease/4, renew) })
	both.Go(func() {
		every(ctx, look, pay)
		pay(context.WithoutCancel(ctx))
	})
	both.Wait()
}

// guarded turns a panic into a line in the log: it is tried again at the next tick.
func (s *claims) guarded(do func(context.Context)) func(context.Context) {
	return func(ctx context.Context) {
		defer func() {
			if v := recover(); v != nil {
				logPanic(&s.log, v, "", "panic while keeping what the app is asked about")
			}
		}()
		do(ctx)
	}
}

func every(ctx context.Context, d time.Duration, do func(context.Context)) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do(ctx)
		}
	}
}

// renew makes the store hold for longer what is held here.
func (s *claims) renew(ctx context.Context) {
	keys := s.keys()
	if len(keys) == 0 {
		return
	}
	now := time.Now()
	err := s.memory.RenewClaims(ctx, keys)
	if err == nil {
		s.renewed(keys, now)
	} else if ctx.Err() == nil {
		s.log.Warn().Err(err).Msg("the claims on webhooks that are being answered could not be renewed")
	}
}

// keys are those to renew: not of who only asks yet, which would keep alive the claim of a sidecar that has died.
func (s *claims) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]string, 0, len(s.held))
	for key, c := range s.held {
		if !c.claimed.IsZero() {
			keys = append(keys, key)
		}
	}
	return keys
}

// renewed notes that the claims were this sidecar's at a time.
func (s *claims) renewed(keys []string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		if c := s.held[key]; c != nil && !c.claimed.IsZero() {
			c.claimed = at
		}
	}
}

// pay tells the store what it missed, as far as it can be reached.
func (s *claims) pay(ctx context.Context) {
	s.mu.Lock()
	owing := make([]*claim, 0, len(s.owing))
	for _, c := range s.owing {
		owing = append(owing, c)
	}
	s.mu.Unlock()
	for _, c := range owing {
		bounded, cancel := context.WithTimeout(ctx, confirmWait)
		others, err := s.memory.ConfirmSeen(bounded, c.key, c.until)
		cancel()
		if err != nil {
			return
		}
		s.mu.Lock()
		given := s.owing[c.key] != c
		if !given {
			delete(s.owing, c.key)
		}
		s.mu.Unlock()
		if given && !others { // its answer was cut meanwhile
			s.forget(c.key, c.until)
		}
	}
}
