package proxy

import (
	"github.com/keyward/keyward/store"
	"github.com/valyala/fasthttp"
)

// suspect reports a credential that the provider has just answered 401 to. That may mean little: a key that may not do this one thing, an
// account without credits. Whoever is told finds out; the answer goes to the caller as it is.
func (p *Proxy) suspect(row *store.Credential, status int) {
	if status == fasthttp.StatusUnauthorized && p.suspects != nil && row != nil {
		p.suspects(row)
	}
}
