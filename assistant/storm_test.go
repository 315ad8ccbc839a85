package assistant

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/storetest"
	"github.com/keyward/keyward/standin"
	"github.com/keyward/keyward/store"
)

// A sidecar is a manager that dies now and then, at the worst of moments, and is started again.
type mortal struct {
	w      *world
	share  float64 // of the times that it comes by such a moment
	deaths atomic.Int64

	mu sync.Mutex
	m  *Manager
}

func (w *world) mortal(share float64) *mortal {
	s := &mortal{w: w, share: share}
	s.start()
	return s
}

func (s *mortal) start() {
	m := s.w.manager(func(o *Options) { o.lease = 2 * time.Second }) // what the dead have claimed comes free in time
	var once sync.Once
	m.o.crash = func(string) {
		if rand.Float64() >= s.share {
			return
		}
		// As a process that is killed: nothing is given back, nobody is told, and what goes on ends.
		once.Do(func() {
			s.deaths.Add(1)
			m.cancel()
			s.start()
		})
		runtime.Goexit()
	}
	s.mu.Lock()
	s.m = m
	s.mu.Unlock()
}

// ensure asks the sidecar that is there until one says that it is done. Who was served by one that died hears nothing, and asks again.
func (s *mortal) ensure(ctx context.Context, org, role string) error {
	for {
		s.mu.Lock()
		m := s.m
		s.mu.Unlock()
		patient, cancel := context.WithTimeout(ctx, 5*time.Second)
		stop := context.AfterFunc(m.ctx, cancel)
		_, err := m.Ensure(patient, by, org, role)
		stop()
		cancel()
		var e *Error
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("never done: %w", err)
		case errors.As(err, &e) && e.Status < 500 && e.Status != 429:
			return err
		}
		time.Sleep(rand.N(20 * time.Millisecond))
	}
}

// weather is what may go wrong at Vapi: requests that are not done, and requests that are done though nobody hears of it.
func (w *world) weather() {
	for _, f := range []standin.Fault{
		{Method: "POST", Share: 0.15, Status: 500},
		{Method: "POST", Share: 0.15, Status: 429},
		{Method: "POST", Share: 0.15, Acts: true, Close: true},
		{Method: "POST", Share: 0.15, Acts: true, Close: true, Reset: true},
		{Method: "POST", Share: 0.10, Acts: true, Status: 502},
		{Method: "POST", Share: 0.10, Close: true},
		{Method: "POST", Share: 0.10, Cut: 10},
		{Method: "GET", Share: 0.05, Status: 500},
		{Method: "GET", Share: 0.05, Close: true},
		{Method: "GET", Share: 0.05, Cut: 5},
		{Method: "GET", Share: 0.05, Status: 429},
		{Method: "PATCH", Share: 0.20, Acts: true, Close: true},
		{Method: "DELETE", Share: 0.20, Status: 500},
		{Share: 0.20, Delay: 20 * time.Millisecond},
	} {
		f.Provider, f.Path = standin.Vapi, "/assistant"
		w.vapi.Fail(f)
	}
}

// Two hundred who ask at once, through two sidecars that die on one store, of a Vapi that fails at random: one assistant, mapped right.
func TestStormOnOneAssistant(t *testing.T) {
	t.Parallel() // as its rounds: a storm waits most of its time, for what the dead have claimed
	rounds := 3
	if os.Getenv("KEYWARD_TORTURE") != "" {
		rounds = 50
	}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, storetest.Postgres(t), "acme")
			w.weather()
			sidecars := []*mortal{w.mortal(0.3), w.mortal(0.3)}
			ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
			defer cancel()
			var all sync.WaitGroup
			for i := range 200 {
				all.Go(func() {
					if err := sidecars[i%2].ensure(ctx, "acme", store.Inbound); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			w.holds("acme", store.Inbound)
			t.Logf("%d deaths, Vapi was asked to make one %d times", sidecars[0].deaths.Load()+sidecars[1].deaths.Load(), w.count("POST"))

			// The next day, in good weather, it is still there.
			w.vapi.Mend()
			if r := w.ensure(w.manager(), "acme", store.Inbound); r.Outcome == Created {
				t.Errorf("%+v", r)
			}
			w.holds("acme", store.Inbound)
		})
	}
}

// Every org's every role, while configurations change: exactly two assistants for each org.
func TestStormOnManyAssistants(t *testing.T) {
	t.Parallel()
	const orgs, askers = 12, 4
	names := make([]string, orgs)
	for i := range names {
		names[i] = fmt.Sprintf("org-%02d", i)
	}
	w := newWorld(t, storetest.Postgres(t), names...)
	w.weather()
	sidecars := []*mortal{w.mortal(0.1), w.mortal(0.1)}
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for _, org := range names {
		for _, role := range []string{store.Inbound, store.Outbound} {
			for i := range askers {
				all.Go(func() {
					if i == 0 {
						w.agent(org, role, fmt.Sprintf(`{"firstMessage":"%s of %s"}`, role, org))
					}
					if err := sidecars[i%2].ensure(ctx, org, role); err != nil {
						t.Errorf("%s %s: %v", org, role, err)
					}
				})
			}
		}
	}
	all.Wait()
	w.vapi.Mend()
	m := w.manager()
	for _, org := range names {
		for _, role := range []string{store.Inbound, store.Outbound} {
			r := w.ensure(m, org, role)
			id := w.holds(org, role)
			if r.ID != id || w.remote(org, id)["firstMessage"] != role+" of "+org {
				t.Errorf("%s %s: %+v %v", org, role, r, w.remote(org, id))
			}
		}
		if n := len(w.vapi.Made(org, standin.Vapi, "assistant")); n != 2 {
			t.Errorf("%s has %d assistants", org, n)
		}
	}
	t.Logf("%d deaths, Vapi was asked to make one %d times for %d assistants", sidecars[0].deaths.Load()+sidecars[1].deaths.Load(), w.count("POST"), 2*orgs)
}

// An answer that comes after all patience: Vapi makes the one that was given up, beside the one that was made instead. The look that
// follows removes it, though nobody asks.
func TestALateAssistantIsRemovedByItself(t *testing.T) {
	w := newWorld(t, sqliteURL(t), "acme")
	var arrive func()
	slow := func(o *Options) {
		o.Ask, arrive = w.late(o.Ask)
		o.later = 3 * time.Second
	}
	first := w.ensure(w.manager(slow), "acme", store.Inbound)
	arrive()
	if n := w.count("POST"); n != 2 {
		t.Fatalf("%d were asked for", n)
	}
	for end := time.Now().Add(time.Minute); len(w.vapi.Made("acme", standin.Vapi, "assistant")) > 1; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the late one stays")
		}
	}
	if id := w.holds("acme", store.Inbound); id != first.ID {
		t.Errorf("%s was removed, and the late one, %s, stays", first.ID, id)
	}
}

// A claim that is lost in the middle of it all: who has lost it registers nothing.
func TestALostClaimIsTakenAnew(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		w := newWorld(t, url, "acme")
		m := w.manager(func(o *Options) { o.lease = 300 * time.Millisecond })
		var once sync.Once
		m.o.crash = func(point string) {
			if point != "after it was made" {
				return
			}
			once.Do(func() { // as if this process had stood still: its lease ran out, and somebody else had the claim meanwhile
				mine := &store.AssistantClaim{Org: "acme", Role: store.Inbound, Owner: m.owner}
				if err := w.db.ReleaseClaim(context.Background(), mine); err != nil {
					t.Error(err)
				}
				c, err := w.db.ClaimAssistant(context.Background(), "acme", store.Inbound, "thief", time.Second)
				if err != nil {
					t.Errorf("the claim could not be taken: %v", err)
					return
				}
				time.AfterFunc(200*time.Millisecond, func() { _ = w.db.ReleaseClaim(context.Background(), c) })
			})
		}
		if r := w.ensure(m, "acme", store.Inbound); r.Outcome != Found {
			t.Errorf("%+v", r)
		}
		w.holds("acme", store.Inbound)
		if n := w.count("POST"); n != 1 {
			t.Errorf("made %d times", n)
		}
	})
}

// In good weather nobody even tries to make a second one.
func TestTwoSidecarsMakeOne(t *testing.T) {
	engines(t, func(t *testing.T, url string) {
		w := newWorld(t, url, "acme")
		w.vapi.Fail(standin.Fault{Provider: standin.Vapi, Delay: 50 * time.Millisecond})
		managers := []*Manager{w.manager(), w.manager()}
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() { w.ensure(managers[i%2], "acme", store.Inbound) })
		}
		all.Wait()
		w.holds("acme", store.Inbound)
		if n := w.count("POST"); n != 1 {
			t.Errorf("made %d times", n)
		}
		if n := w.count("GET /assistant/"); n > 20 {
			t.Errorf("200 who asked at once had Vapi asked %d times", n)
		}
	})
}
