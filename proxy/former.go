package proxy

import (
	"time"

	"github.com/keyward/keyward/provider"
	"github.com/valyala/fasthttp"
)

// While a new credential takes the place of a former one, a request that the provider answers 401 to with the new one is sent once more,
// with the former: a 401 was not acted on. So a key can be replaced here before it works at the provider, or the other way round, and no
// request of the org fails. Only what is in memory whole can be sent again; a streamed body is gone, and its 401 is the answer.

// fallBack says whether the request is to be sent again with the org's former credential.
func (p *Proxy) fallBack(c *call) bool {
	if c.row.Previous == nil || c.former || c.ctx.Response.StatusCode() != fasthttp.StatusUnauthorized {
		return false
	}
	if c.head.body() && !c.bodyRead || c.route.provider.Exchange != nil {
		return false
	}
	if p.look(c, time.Now()) != nil || c.row.Former(time.Now()) == nil { // promoted, taken back or disabled since
		return false
	}
	c.former = true
	if !p.fits(c) {
		c.former = false
		return false
	}
	p.suspect(c.row, fasthttp.StatusUnauthorized)
	c.abandon()
	if c.completed {
		c.body, c.completes, c.completed = c.body[:c.completedAt], true, false // the sender is that of the credential
	}
	return true
}

// fits says whether the former credential can be used for this request at all: it may be another account's, which the path does not name.
func (p *Proxy) fits(c *call) bool {
	defer c.wipe()
	c.makeRoom()
	s, bad := c.open()
	if bad != nil {
		return false
	}
	host := c.route.provider.DefaultHost(s)
	if c.route.to != nil {
		host = c.route.to.host
	}
	r := provider.Request{Method: c.head.method, Host: host, Path: c.route.path, Value: c.value[:0], Scratch: c.rewritten[:0]}
	err := c.route.provider.Inject(&r, s)
	c.value, c.rewritten = r.Value, r.Scratch
	return err == nil && p.at(bytesOf(host)) != nil
}
