package proxy

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/store"
)

// A tokenRules keeps the compiled rules of caller tokens. Readers take no lock: the map is replaced, never changed.
type tokenRules struct {
	known []string // providers
	mu    sync.Mutex
	now   atomic.Pointer[map[[32]byte]*compiled]
}

// compiled is a rule and the row that it was made from.
type compiled struct {
	row  *store.Token
	rule *caller.Rule
}

func (t *tokenRules) rule(row *store.Token) (*caller.Rule, *refusal) {
	if m := t.now.Load(); m != nil {
		if c := (*m)[row.Hash]; c != nil && (c.row == row || sameRule(c.row, row)) {
			return c.rule, nil
		}
	}
	rule, err := caller.NewRule(row.Name, row.Orgs, row.Providers, row.Allow, row.Rate, row.SecretRoutes, t.known)
	if err != nil {
		return nil, refuseCaller // a row that this version cannot read grants nothing
	}
	t.change(func(m map[[32]byte]*compiled) { m[row.Hash] = &compiled{row, rule} })
	return rule, nil
}

// drop forgets a token that is no longer known.
func (t *tokenRules) drop(hash [32]byte) {
	if m := t.now.Load(); m == nil || (*m)[hash] == nil {
		return
	}
	t.change(func(m map[[32]byte]*compiled) { delete(m, hash) })
}

func (t *tokenRules) change(fn func(map[[32]byte]*compiled)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := map[[32]byte]*compiled{}
	if m := t.now.Load(); m != nil {
		for k, v := range *m {
			next[k] = v
		}
	}
	fn(next)
	t.now.Store(&next)
}

// sameRule says whether two rows grant the same: then the compiled rule, and what is left of its rate, stays.
func sameRule(a, b *store.Token) bool {
	return a.Name == b.Name && a.Rate == b.Rate && a.SecretRoutes == b.SecretRoutes &&
		slices.Equal(a.Orgs, b.Orgs) && slices.Equal(a.Providers, b.Providers) && slices.Equal(a.Allow, b.Allow)
}
