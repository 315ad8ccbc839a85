package proxy

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
	"github.com/valyala/fasthttp"
	"golang.org/x/sync/singleflight"
)

const (
	earlyRenewal  = time.Minute     // a token is renewed this long before it ends
	rejectedFor   = 5 * time.Second // how long a rejected credential is not asked for again
	exchangeLimit = 20 * time.Second
	maxTokenBody  = 8 << 10 // of the token endpoint's answer, and so of a token
)

// exchanges keeps the short-lived tokens that credentials were traded for (Google's access tokens): sealed, under a key that lives and
// dies with this process, so that a token too is plain only while a request is written.
type exchanges struct {
	p       *Proxy
	keys    *seal.Keyring
	rotated func(ctx context.Context, row *store.Credential, field string, value []byte) (int64, error)
	flight  singleflight.Group
	mu      sync.RWMutex
	tokens  map[store.Ref]*minted
}

// minted is one token, or the knowledge that there is none to be had. It is never changed once it is in the map.
type minted struct {
	from    int64 // version of the credential that it was minted from
	version int64 // version since a replaced refresh token was stored; else the same
	sealed  []byte
	until   time.Time
	bad     *refusal
	refused atomic.Int64 // when the provider last answered 401 to this token although it was new, in Unix nanoseconds
}

func newExchanges(p *Proxy, rotated func(context.Context, *store.Credential, string, []byte) (int64, error)) *exchanges {
	return &exchanges{p: p, keys: seal.Generate(), rotated: rotated, tokens: map[store.Ref]*minted{}}
}

// exchanged is the token for the call's credential, in the call's own memory.
func (p *Proxy) exchanged(c *call) ([]byte, *refusal) {
	x := p.minted
	ref := c.row.Ref
	m := c.mint // the request is built a second time
	if m == nil || m.version != c.row.Version && m.from != c.row.Version {
		m = x.known(ref, c.row.Version, time.Now())
	}
	if m == nil {
		// One exchange at a time for a credential; all who wait share it. The key has the version: who comes after a change does not
		// join an exchange of the old credential.
		v, _, _ := x.flight.Do(ref.Org+"\x00"+ref.Provider+"\x00"+strconv.FormatInt(c.row.Version, 10), func() (any, error) {
			if m := x.known(ref, c.row.Version, time.Now()); m != nil {
				return m, nil
			}
			return x.mint(c.row, c.route.provider), nil
		})
		m = v.(*minted)
	}
	if m.bad != nil {
		return nil, m.bad
	}
	token, err := x.keys.Open(c.token[:0], m.sealed, nil)
	if err != nil {
		return nil, refuseUnreadable
	}
	c.token, c.mint = token, m
	return token, nil
}

func (x *exchanges) known(ref store.Ref, version int64, now time.Time) *minted {
	x.mu.RLock()
	m := x.tokens[ref]
	x.mu.RUnlock()
	if m == nil || m.version != version && m.from != version || !now.Before(m.until) {
		return nil
	}
	return m
}

// forget drops the token that the call used: the provider did not take it. A newer one, renewed by someone else meanwhile, stays. If the
// provider has just refused a new token too, another one would not help: it says no.
func (x *exchanges) forget(c *call) bool {
	if c.mint == nil {
		return false
	}
	if c.renewed {
		c.mint.refused.Store(time.Now().UnixNano())
	}
	if time.Since(time.Unix(0, c.mint.refused.Load())) < rejectedFor {
		return false
	}
	x.mu.Lock()
	if x.tokens[c.row.Ref] == c.mint {
		delete(x.tokens, c.row.Ref)
	}
	x.mu.Unlock()
	c.mint = nil
	return true
}

// sweep drops what has ended.
func (x *exchanges) sweep(now time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for ref, m := range x.tokens {
		if !now.Before(m.until) {
			delete(x.tokens, ref)
		}
	}
}

func (x *exchanges) wipe() {
	x.mu.Lock()
	clear(x.tokens)
	x.mu.Unlock()
	x.keys.Wipe()
}

// mint trades the credential for a token and keeps it. A refresh token that the provider replaced is stored before the new token is
// used: the old one may already be void.
func (x *exchanges) mint(row *store.Credential, prov *provider.Provider) *minted {
	m := &minted{from: row.Version, version: row.Version}
	t, bad := x.trade(row, prov)
	for range maxSuccessors {
		if bad != refuseRejected {
			break
		}
		next := x.successor(row)
		if next == nil {
			break
		}
		row, m.version = next, next.Version
		t, bad = x.trade(row, prov)
	}
	defer func() { clear(t.Access); clear(t.Refresh) }()
	switch {
	case bad == refuseRejected:
		x.p.suspect(row, fasthttp.StatusUnauthorized)
		m.bad, m.until = bad, time.Now().Add(rejectedFor)
	case bad != nil:
		m.bad = bad // not kept: the next request asks again
		return m
	default:
		m.sealed = x.keys.Seal(nil, t.Access, nil)
		m.until = time.Now().Add(max(t.Life-earlyRenewal, time.Second))
		if len(t.Refresh) > 0 && x.rotated != nil {
			version, err := x.rotated(x.p.ctx, row, prov.Exchange.RefreshField, t.Refresh)
			if err != nil {
				x.p.log.Error().Str("org", row.Org).Str("provider", row.Provider).Msg("storing a replaced refresh token did not succeed; the org may have to consent again")
			} else {
				m.version = version
			}
		}
	}
	x.mu.Lock()
	x.tokens[row.Ref] = m
	x.mu.Unlock()
	return m
}

// maxSuccessors bounds how often a refresh token may be another sidecar's by the time that it is traded: each time, it was new a moment ago.
const maxSuccessors = 4

// successor is what took the place of a credential that the provider rejects: another sidecar may have traded the same refresh token a
// moment before, was given a new one, and is about to store it. Nil: nothing did.
func (x *exchanges) successor(row *store.Credential) *store.Credential {
	const patience, look = 3 * time.Second, 50 * time.Millisecond // the other one's question to the provider may take its time; then a change is here within the second
	for range patience / look {
		next, _, err := x.p.store.Credential(x.p.ctx, row.Ref)
		switch {
		case err != nil || !next.Active:
			return nil
		case next.SealedVersion > row.SealedVersion:
			return next
		}
		select {
		case <-time.After(look):
		case <-x.p.ctx.Done():
			return nil
		}
	}
	return nil
}

// trade asks the provider's token endpoint.
func (x *exchanges) trade(row *store.Credential, prov *provider.Provider) (t provider.Token, bad *refusal) {
	ex := prov.Exchange
	s, _, err := credential.Open(x.p.keys, row, nil)
	if err != nil {
		return t, refuseUnreadable
	}
	if len(s.Field(ex.RefreshField)) == 0 { // the org has yet to give its consent
		s.Wipe()
		return t, refuseIncompleteField(ex.RefreshField)
	}
	ctx, cancel := context.WithTimeout(x.p.ctx, exchangeLimit)
	defer cancel()
	form := ex.Form(make([]byte, 0, 3*len(row.Sealed)+512), s) // percent-encoded it is at most three times as long
	s.Wipe()
	r, _, err := x.p.ask(ctx, &provider.Question{
		Provider: prov, Host: ex.Host, Method: "POST", Path: ex.Path, Type: "application/x-www-form-urlencoded", Body: form,
	})
	defer clear(r.Body)
	switch {
	case errors.As(err, &bad):
		return t, bad
	case err != nil:
		return t, refuseUnreachable
	case len(r.Body) > maxTokenBody:
		return t, refuseProtocol
	}
	t, err = ex.Read(r.Status, r.Body)
	switch {
	case errors.Is(err, provider.ErrRejected):
		return t, refuseRejected
	case err != nil:
		x.p.log.Warn().Str("org", row.Org).Str("provider", row.Provider).Int("status", r.Status).Msg("token endpoint gave no token")
		return t, refuseNoToken
	}
	return t, nil
}
