package proxy

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/keyward/keyward/provider"
)

// inflight bounds how many requests wait for one provider, and for one org at it, so that a provider that has become slow, or one org's
// flood, does not take every connection there is. Both bounds are shares of the connections that a listener takes.
type inflight struct {
	providers map[*provider.Provider]*atomic.Int64
	orgs      [1 << 12]atomic.Int64 // :: org and provider, hashed → requests under way; two in one place share its bound
	seed      maphash.Seed
}

// The shares: of MaxConns, half for a provider, and an eighth for an org at it.
const (
	providerShare = 2
	orgShare      = 8
)

func newInflight(providers []*provider.Provider) *inflight {
	f := &inflight{providers: map[*provider.Provider]*atomic.Int64{}, seed: maphash.MakeSeed()}
	for _, p := range providers {
		f.providers[p] = &atomic.Int64{}
	}
	return f
}

// enter counts a request in, or refuses it.
func (p *Proxy) enter(c *call) *refusal {
	f := p.inflight
	all := f.providers[c.route.provider]
	own := &f.orgs[(maphash.Bytes(f.seed, c.org)^maphash.String(f.seed, c.route.provider.Name))%uint64(len(f.orgs))]
	c.counted = [2]*atomic.Int64{all, own}
	n, m := all.Add(1), own.Add(1)
	if most := int64(p.limits.Load().MaxConns); most > 0 && (n > max(most/providerShare, 1) || m > max(most/orgShare, 1)) {
		return refuseBusy
	}
	return nil
}

// leave counts a request out.
func (c *call) leave() {
	for i, n := range c.counted {
		if n != nil {
			n.Add(-1)
			c.counted[i] = nil
		}
	}
}

var refuseBusy = &refusal{status: 429, code: "rate_limited", detail: "too many requests for this org or provider are under way", retryAfter: 1}
