package proxy

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"time"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/store"
)

// authenticate finds out who calls: the rule of the unix socket's peer, a token, or both, and then the token narrows the rule. A token
// that nobody knows is refused wherever it stands, also beside one that is good: it is somebody's mistake or somebody's guess.
func (p *Proxy) authenticate(c *call) *refusal {
	c.rule, c.narrow, c.hashed = nil, nil, false
	if c.at.unix {
		if rules := p.rules.Load(); c.conn.from != rules {
			c.conn.rule, c.conn.from = rules.Match(c.conn.peer), rules
		}
		if caller.Nobody(c.conn.peer.UID) {
			return refuseCaller
		}
		c.rule = c.conn.rule
	}
	var found *caller.Rule
	var token string // its id
	var bad *refusal
	tryHash := func(hash [32]byte) {
		rule, id, r := p.tokenRule(p.ctx, hash)
		if r != nil {
			bad = r
		} else if found == nil {
			found, token = rule, id
			c.hash, c.hashed = hash, true
		}
	}
	try := func(b []byte) {
		switch {
		case bad != nil || !bytes.HasPrefix(b, tokenPrefix):
		case !caller.IsToken(b):
			bad = refuseCaller
		default:
			tryHash(caller.HashToken(b))
		}
	}
	h := &c.head
	if v := c.conn.via; v != nil && v.byToken {
		tryHash(v.token)
	}
	if h.keywardToken != nil {
		if !bytes.HasPrefix(h.keywardToken, tokenPrefix) {
			return refuseCaller
		}
		try(h.keywardToken)
	}
	eachSecret(h.proxyAuth, &c.basic, try)
	eachSecret(h.authorization, &c.basic, try)
	try(h.apiKey)
	try(h.googKey)
	for _, name := range p.places {
		for i := range h.fields[:h.n] {
			if f := &h.fields[i]; equalFold(f.name, name) {
				eachSecret(f.value, &c.basic, try)
			}
		}
	}
	if bad != nil {
		return bad
	}
	if found != nil {
		p.usage.Token(token, c.start)
	}
	switch {
	case found == nil:
	case c.rule == nil:
		c.rule = found
	default:
		c.narrow = found
	}
	if c.rule == nil {
		return refuseCaller
	}
	return nil
}

var tokenPrefix = []byte("kwt")

// eachSecret calls fn with what could be a token in an Authorization value: the credential of Bearer, user and password of Basic.
func eachSecret(v []byte, buf *[]byte, fn func([]byte)) {
	i := bytes.IndexByte(v, ' ')
	if i < 0 {
		fn(v)
		return
	}
	scheme, rest := v[:i], trimSpace(v[i+1:])
	if !equalFold(scheme, "basic") {
		fn(rest)
		return
	}
	b := (*buf)[:0]
	b, err := base64.StdEncoding.AppendDecode(b, rest)
	if err != nil {
		b, err = base64.RawStdEncoding.AppendDecode(b[:0], rest)
	}
	*buf = b
	if err != nil {
		return
	}
	user, password, _ := bytes.Cut(b, []byte(":"))
	fn(user)
	fn(password)
}

// tokenRule is the rule of the caller token with that hash, and the token's id. The compiled rule is kept beside the row that it was made from, so that its
// rate holds over all requests.
func (p *Proxy) tokenRule(ctx context.Context, hash [32]byte) (rule *caller.Rule, id string, bad *refusal) {
	row, err := p.store.Token(ctx, hash)
	if err != nil {
		if errors.Is(err, store.ErrNotFound) {
			p.tokens.drop(hash)
		}
		return nil, "", refusalOfStore(err, refuseCaller)
	}
	rule, bad = p.tokens.rule(row)
	return rule, row.ID, bad
}

// stillKnown asks again for the one who was authenticated: whether the token, or else the peer's rule, would let a request in now. It counts for no use
// of the token.
func (p *Proxy) stillKnown(ctx context.Context, c *call) *refusal {
	if c.hashed {
		_, _, bad := p.tokenRule(ctx, c.hash)
		return bad
	}
	if p.rules.Load().Match(c.conn.peer) == nil {
		return refuseCaller
	}
	return nil
}

// allowed asks the caller's rules, before any credential is touched.
func (p *Proxy) allowed(c *call) *refusal {
	if r := permits(c.rule, c); r != nil {
		return r
	}
	if c.narrow != nil {
		if r := permits(c.narrow, c); r != nil {
			return r
		}
	}
	return c.takeRate()
}

// takeRate counts the call against the rates of those who make it.
func (c *call) takeRate() *refusal {
	for _, rule := range c.rules() {
		if rule == nil {
			continue
		}
		if ok, wait := rule.Take(c.start); !ok {
			return refuseRate(int((wait + time.Second - 1) / time.Second))
		}
	}
	return nil
}

// rules are those that hold for the call; nil in the second place: one alone does.
func (c *call) rules() [2]*caller.Rule { return [...]*caller.Rule{c.rule, c.narrow} }

func permits(rule *caller.Rule, c *call) *refusal {
	switch {
	case !rule.AllowsOrg(c.org):
		return refuseOrg
	case !rule.AllowsProvider(c.route.provider.Name):
		return refuseProvider
	case !rule.HasAllow():
		return nil
	case c.route.mint != nil:
		return c.route.mint.permits(rule, c.head.method)
	case caller.AmbiguousPath(c.route.path):
		return refusePath
	case !rule.AllowsRoute(c.head.method, c.route.path), c.head.overrides, hasParam(c.route.query, "$httpmethod"):
		return refuseRoute // a method that is overridden at the provider is not the one that was allowed
	}
	return nil
}

// refusalOfStore tells a row that does not exist from a store that cannot say.
func refusalOfStore(err error, missing *refusal) *refusal {
	if errors.Is(err, store.ErrNotFound) {
		return missing
	}
	return refuseStore
}
