// Package assistant makes sure that an org has the Vapi assistants that its agents' configuration describes: one for each role, never two.
//
// Vapi takes no idempotency key, so that making an assistant can go wrong in every way there is: two sidecars at once, an answer that does
// not come, a process that dies before it has written down what it made. What holds all the same is made of three things:
//
//   - A claim in the store (store.AssistantClaim): one sidecar at a time works on an org's role, for as long as its lease.
//   - A mark in the assistant: its metadata carries the claim's nonce, so that one which nobody registered is found again by listing.
//   - A note in the claim, written before an assistant is made and taken back when it is registered: whoever finds it lists before making.
//
// Within a process, those who ask for the same share a turn: the next one that begins, so that everybody gets what was configured when
// they asked. An assistant too many, which only a provider that answers long after its time can cause, is removed by the next look.
package assistant

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// Options are what a Manager works with.
type Options struct {
	Keeper *credential.Keeper
	// Ask asks a provider, and overwrites what is secret in the question. It reaches nobody but the provider.
	Ask func(context.Context, *provider.Question) (provider.Reply, error)
	// Suspect is told of a credential that Vapi answers 401 to. Nil: nobody is.
	Suspect func(*store.Credential)
	// Off says which credentials are not to be used here, whatever the store says. Nil: none.
	Off func(store.Ref) bool
	Log zerolog.Logger
	// Limit is how long a turn may take, waiting for others included; 0: 25 s.
	Limit time.Duration

	lease, settle, later time.Duration // for tests; see defaults
	crash                func(point string)
}

// defaults fills in what was not said. The times are how long a claim lasts unless it is renewed; how long an assistant that Vapi may have
// made is looked for before another is made; and after what time it is looked for once more, should Vapi have been slower than that.
func (o *Options) defaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Limit, 25*time.Second)
	def(&o.lease, 10*time.Second)
	def(&o.settle, 3*time.Second)
	def(&o.later, 45*time.Second)
	if o.Off == nil {
		o.Off = func(store.Ref) bool { return false }
	}
	if o.crash == nil {
		o.crash = func(string) {}
	}
}

// A Manager makes, changes and removes assistants. It is made by New, ended by Close, and safe for concurrent use.
type Manager struct {
	o      Options
	db     *store.DB
	owner  string // of claims: this process
	ctx    context.Context
	cancel context.CancelFunc
	owned  sync.WaitGroup

	mu     sync.Mutex
	queues map[key]*queue
	later  map[key]bool // roles that are looked at once more
	closed bool
}

// A key is an org's role.
type key struct{ org, role string }

// New makes a Manager.
func New(o Options) *Manager {
	o.defaults()
	m := &Manager{o: o, db: o.Keeper.DB, owner: rand.Text(), queues: map[key]*queue{}, later: map[key]bool{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Close ends what is under way and waits for it. What Vapi was asked for and has not answered is found by whoever asks next.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.owned.Wait()
}

// A Result is an org's assistant and what was done to have it.
type Result struct {
	store.Assistant
	Outcome Outcome
}

// An Outcome is what Ensure did.
type Outcome string

// The outcomes.
const (
	Unchanged Outcome = "unchanged" // it was there as configured
	Updated   Outcome = "updated"   // it was there, and was changed to what is configured
	Created   Outcome = "created"
	Found     Outcome = "found" // it had been made, and was not registered
)

// An Error is why an assistant cannot be had, in words for whoever asked. The status and the code are those of the admin API.
type Error struct {
	Status     int
	Code       string
	Detail     string
	RetryAfter time.Duration // 0: trying again makes no sense by itself
	cause      error
}

func (e *Error) Error() string { return e.Detail }
func (e *Error) Unwrap() error { return e.cause }

// Problem is the error as the admin API answers it.
func (e *Error) Problem() (status int, code, detail string, retryAfter time.Duration) {
	return e.Status, e.Code, e.Detail, e.RetryAfter
}

var (
	errNoAgent = &Error{Status: 404, Code: "not_found", Detail: "the org has no such agent: configure it first (PUT /api/orgs/ORG/agents/ROLE)"}
	errBusy    = &Error{Status: 503, Code: "assistant_busy", Detail: "another sidecar is at work on this assistant, or Vapi takes its time: try again", RetryAfter: 2 * time.Second}
	errClosed  = &Error{Status: 503, Code: "draining", Detail: "the sidecar is stopping", RetryAfter: time.Second}
	errStale   = &Error{Status: 412, Code: "version_conflict", Detail: "the assistant's mapping was changed since it was read: read it again and send its current version"}
	errTaken   = &Error{Status: 409, Code: "conflict", Detail: "the assistant that was found at Vapi is mapped to another org: remove that mapping, or the assistant"}
)

// A queue is the turns of an org's role: one that runs, and one that all share who ask meanwhile.
type queue struct{ next *turn }

// A turn is one run of ensure.
type turn struct {
	by     store.Actor
	done   chan struct{}
	result Result
	err    error
}

// Ensure makes the org's assistant for a role be there, as the agent is configured, and be mapped to the org. It does so whatever else
// happens at the same time, and it goes on when ctx ends, for others may wait for it. Errors are *Error or the store's.
func (m *Manager) Ensure(ctx context.Context, by store.Actor, org, role string) (Result, error) {
	if !store.IsOrg(org) {
		return Result{}, errNoAgent
	}
	t := m.join(by, key{org, role})
	if t == nil {
		return Result{}, errClosed
	}
	select {
	case <-t.done:
		return t.result, t.err
	case <-ctx.Done():
		return Result{}, &Error{Status: errBusy.Status, Code: errBusy.Code, Detail: errBusy.Detail, RetryAfter: errBusy.RetryAfter, cause: ctx.Err()}
	}
}

// join is the next turn that begins.
func (m *Manager) join(by store.Actor, k key) *turn {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	q := m.queues[k]
	if q == nil {
		q = &queue{}
		m.queues[k] = q
		m.owned.Go(func() { m.run(k, q) })
	}
	if q.next == nil {
		q.next = &turn{by: by, done: make(chan struct{})}
	}
	return q.next
}

// run runs turns until nobody asks for another.
func (m *Manager) run(k key, q *queue) {
	for {
		m.mu.Lock()
		t := q.next
		q.next = nil
		if t == nil {
			delete(m.queues, k)
		}
		m.mu.Unlock()
		if t == nil {
			return
		}
		ctx, cancel := context.WithTimeout(m.ctx, m.o.Limit)
		t.result, t.err = m.ensure(ctx, t.by, k)
		cancel()
		if m.ctx.Err() != nil && t.err != nil {
			t.err = errClosed
		}
		close(t.done)
	}
}

// ensure works under the claim, and begins anew when it was lost.
func (m *Manager) ensure(ctx context.Context, by store.Actor, k key) (Result, error) {
	var r Result
	err := m.claimed(ctx, k, func(ctx context.Context, c *store.AssistantClaim) error {
		w := &work{Manager: m, by: by, claim: c}
		var err error
		r, err = w.ensure(ctx)
		if !c.Unsettled.IsZero() && m.ctx.Err() == nil {
			m.lookLater(k)
		}
		return err
	})
	return r, err
}

// claimed calls fn with the claim, which is renewed meanwhile; fn's context ends with it. When the claim was lost, fn is called again with
// a new one.
func (m *Manager) claimed(ctx context.Context, k key, fn func(context.Context, *store.AssistantClaim) error) error {
	for {
		c, err := m.claim(ctx, k)
		if err != nil {
			return err
		}
		err = m.holding(ctx, c, fn)
		switch {
		case errors.Is(err, store.ErrConflict) && ctx.Err() == nil:
			continue
		case errors.Is(err, store.ErrUnavailable): // which may be for want of time too
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
			return &Error{Status: errBusy.Status, Code: errBusy.Code, Detail: errBusy.Detail, RetryAfter: errBusy.RetryAfter, cause: err}
		}
		return err
	}
}

// claim takes the claim as soon as nobody else has it.
func (m *Manager) claim(ctx context.Context, k key) (*store.AssistantClaim, error) {
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 300*time.Millisecond) {
		c, err := m.db.ClaimAssistant(ctx, k.org, k.role, m.owner, m.o.lease)
		if !errors.Is(err, store.ErrConflict) {
			return c, err
		}
		if !pause(ctx, jitter(wait)) {
			return nil, errBusy
		}
	}
}

// holding calls fn while the claim is renewed, and then gives it back.
func (m *Manager) holding(ctx context.Context, c *store.AssistantClaim, fn func(context.Context, *store.AssistantClaim) error) error {
	inner, lost := context.WithCancelCause(ctx)
	var renewing sync.WaitGroup
	until := c.Until // fn writes there
	renewing.Go(func() {
		for pause(inner, m.o.lease/3) {
			next, err := m.db.RenewClaim(inner, c, m.o.lease)
			switch {
			case err == nil:
				until = next
			case errors.Is(err, store.ErrConflict), !time.Now().Before(until):
				lost(store.ErrConflict)
				return
			}
		}
	})
	err := fn(inner, c)
	if cause := context.Cause(inner); err != nil && errors.Is(cause, store.ErrConflict) {
		err = cause
	}
	lost(nil)
	renewing.Wait()
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if e := m.db.ReleaseClaim(after, c); e != nil {
		m.o.Log.Warn().Err(e).Str("org", c.Org).Str("role", c.Role).Msg("giving back the claim on an assistant did not succeed; it ends by itself")
	}
	return err
}

// lookLater has another turn once Vapi, however slow, must have done what it was asked for.
func (m *Manager) lookLater(k key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.later[k] {
		return
	}
	m.later[k] = true
	m.owned.Go(func() {
		if !pause(m.ctx, m.o.later) {
			return
		}
		m.mu.Lock()
		delete(m.later, k)
		m.mu.Unlock()
		ctx, cancel := context.WithTimeout(m.ctx, m.o.Limit)
		defer cancel()
		if _, err := m.Ensure(ctx, sidecar, k.org, k.role); err != nil && m.ctx.Err() == nil {
			m.o.Log.Warn().Err(err).Str("org", k.org).Str("role", k.role).Msg("looking for an assistant that Vapi may have made late did not succeed; the next ensure does it")
		}
	})
}

// sidecar is who looks later.
var sidecar = store.Actor{Name: "sidecar", From: "process"}
