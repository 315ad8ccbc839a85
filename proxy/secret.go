package proxy

import (
	"errors"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// look finds the org's credential. The row is sealed; nothing secret is in memory yet. now may be a little while ago.
func (p *Proxy) look(c *call, now time.Time) *refusal {
	row, hit, err := p.store.Credential(p.ctx, store.Ref{Org: stringOf(c.org), Provider: c.route.provider.Name})
	if err != nil {
		return refusalOfStore(err, refuseMissing)
	}
	c.row, c.hit, c.looked = row, hit, now
	if !row.Active {
		return refuseInactive
	}
	return nil
}

// makeRoom sees to it that nothing which will hold a secret has to grow while it does: what append leaves behind when it moves a slice
// is memory that nobody would overwrite.
func (c *call) makeRoom() {
	plain := len(c.row.Sealed)
	if c.row.Previous != nil {
		plain = max(plain, len(c.row.Previous.Sealed))
	}
	c.plain = room(c.plain, plain)
	c.value = room(c.value, 2*plain+256)
	c.spare = room(c.spare, 8*plain+256)
	if c.route.provider.Exchange != nil {
		c.token = room(c.token, maxTokenBody)
	}
}

// headRoom is how long the head can become, and the body that is written with it.
func (c *call) headRoom(r *provider.Request) int {
	n := 1024 + len(c.head.method) + len(r.Path) + len(c.head.target) + len(c.ctx.Request.Header.RawHeaders()) + len(r.Value)
	if c.bodyRead && len(c.body) <= onePiece {
		n += len(c.body)
	}
	return n
}

// room is b, empty, with room for n bytes. What it held has been overwritten by then.
func room(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, 0, n+n/4)
	}
	return b[:0]
}

// lookAgain looks the credential up once more when it was a while ago: a body that came slowly, or a provider that was slow to connect to,
// must not have a revoked credential used. The same goes for who calls: the rules and tokens of that moment count.
func (p *Proxy) lookAgain(c *call, now time.Time) *refusal {
	const fresh = 300 * time.Millisecond
	if now.Sub(c.looked) < fresh {
		return nil
	}
	if bad := p.authenticate(c); bad != nil {
		return bad
	}
	for _, rule := range c.rules() {
		if rule == nil {
			continue
		}
		if bad := permits(rule, c); bad != nil {
			return bad
		}
	}
	hit := c.hit
	bad := p.look(c, now)
	c.hit = hit
	return bad
}

// open opens the credential into the call's own memory. Whoever calls it calls wipe as soon as the secret has been used.
func (c *call) open() (provider.Secret, *refusal) {
	row := c.row
	if c.former {
		if old := row.Former(time.Now()); old != nil {
			row = old
		}
	}
	s, plain, err := credential.Open(c.p.keys, row, c.plain[:0])
	c.plain = plain
	if err != nil {
		return s, refuseUnreadable
	}
	return s, nil
}

// wipe overwrites every place of the call that a secret is in.
func (c *call) wipe() {
	clear(c.plain[:cap(c.plain)])
	clear(c.value[:cap(c.value)])
	clear(c.spare[:cap(c.spare)])
	clear(c.token)
	clear(c.out)
	c.plain, c.value, c.token, c.out = c.plain[:0], c.value[:0], c.token[:0], c.out[:0]
	copy(c.zeros[:], zeros[:]) // the vector registers, in which copying a secret leaves its last bytes, hold zeros afterwards
}

var zeros [256]byte

// refusalOfInject is what a credential that does not fit the request looks like to the caller.
func refusalOfInject(err error) *refusal {
	var missing *provider.IncompleteError
	switch {
	case errors.Is(err, provider.ErrForeignAccount):
		return refuseForeignAccount
	case errors.As(err, &missing):
		return refuseIncompleteField(missing.Field)
	case errors.Is(err, provider.ErrIncomplete):
		return refuseIncomplete
	case errors.Is(err, provider.ErrRejected):
		return refuseRejected
	}
	return refuseUnreadable
}
