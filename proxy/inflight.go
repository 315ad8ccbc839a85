package proxy

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/keyward/keyward/provider"
)

// inflight bounds how many requests wait for one provider, so that one that has become slow does not take every connection there is; and
// how many of one org wait for it, once the provider is busy, so that one org's flood does not take the provider's share. The bounds are
// shares of the connections that a listener takes.
type inflight struct {
	providers map[*provider.Provider]*atomic.Int64
	orgs      [1 << 16]atomic.Int64 // :: org and provider, hashed → requests under way; two in one place share its bound
	seed      maphash.Seed
}

// The shares of MaxConns: half for a provider; a quarter of it makes a provider busy, and then an eighth is an org's.
const (
	providerShare = 2
	busyShare     = 4
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
	p.measured[c.route.provider].requests.Add(1)
	all := f.providers[c.route.provider]
	own := &f.orgs[(maphash.Bytes(f.seed, c.org)^maphash.String(f.seed, c.route.provider.Name))%uint64(len(f.orgs))]
	c.counted = [2]*atomic.Int64{all, own}
	n, m := all.Add(1), own.Add(1)
	most := int64(p.limits.Load().MaxConns)
	if most > 0 && (n > max(most/providerShare, 1) || n > most/busyShare && m > max(most/orgShare, 1)) {
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
