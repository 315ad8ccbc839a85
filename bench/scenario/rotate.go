package scenario

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyward/keyward/bench/provider"
	"github.com/keyward/keyward/bench/report"
)

// assistant is the resolution of a request's org by its assistant, against the org named outright.
func assistant(ctx context.Context, e *Env) error {
	s, err := e.sidecar(ctx)
	if err != nil {
		return err
	}
	if err := s.SetCredential(ctx, org, "vapi", map[string]any{"api_key": provider.KeyOf(org)}); err != nil {
		return err
	}
	const id = "asst_0123456789"
	if err := s.Do(ctx, "PUT", "/api/assistants/"+id, map[string]any{"org": org, "role": "inbound", "name": "bench"}, nil); err != nil {
		return err
	}
	request := func(who string) func([]byte) []byte {
		return same([]byte("GET /call/0123456789 HTTP/1.1\r\nHost: api.vapi.ai\r\n" + who + "\r\nX-Bench-Org: " + org + "\r\nUser-Agent: bench/1.0\r\n\r\n"))
	}
	_, err = e.inTurn(ctx, "assistant", []shape{{conns: 1}, {conns: 16}},
		s.contender(keyward, request("Keyward-Assistant: "+id)), s.contender(keyward+" hit", request("Keyward-Org: "+org)))
	return err
}

// rotations per second, each of which ends the key before it.
const rotations = 20

// rotate is a warm org whose credential is replaced all the time. The provider refuses each old key one second after its replacement was
// acknowledged, which is what is promised; a request that still brings it is an error.
func rotate(ctx context.Context, e *Env) error {
	s, err := e.sidecar(ctx)
	if err != nil {
		return err
	}
	r := &rotor{e: e, s: s}
	if err := r.replace(ctx); err != nil {
		return err
	}
	c := s.contender(keyward, same(email(org, "")))
	c.around = r.around
	_, err = e.inTurn(ctx, "rotate", []shape{{conns: 16}}, c, s.contender(keyward+" hit", same(email(org, ""))))
	return err
}

// A rotor replaces the credential.
type rotor struct {
	e          *Env
	s          *Sidecar
	generation int64
	revoking   sync.WaitGroup
	mu         sync.Mutex
	err        error
}

func (r *rotor) replace(ctx context.Context) error {
	r.generation++
	return r.s.SetCredential(ctx, org, "resend", map[string]any{"api_key": fmt.Sprintf("%s.%d", provider.KeyOf(org), r.generation)})
}

func (r *rotor) around(ctx context.Context) (func(*report.Round) error, error) {
	ctx, cancel := context.WithCancel(ctx)
	begun := r.generation
	done := make(chan error, 1)
	go func() { done <- r.run(ctx) }()
	return func(round *report.Round) error {
		cancel()
		err := <-done
		extra(round, "replaced", float64(r.generation-begun))
		r.revoking.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		return errors.Join(err, r.err)
	}, nil
}

func (r *rotor) run(ctx context.Context) error {
	for tick := time.NewTicker(time.Second / rotations); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
		old := r.generation
		if err := r.replace(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		r.revoking.Go(func() {
			time.Sleep(time.Second)
			if err := r.e.provider.Revoke(org, old); err != nil {
				r.mu.Lock()
				r.err = err
				r.mu.Unlock()
			}
		})
	}
}
