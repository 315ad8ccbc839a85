package proxy

import (
	"bytes"
	"fmt"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/mask"
	"github.com/keyward/keyward/provider"
)

// A secretTable is what one provider's routes hand out: compiled once from the provider's own tables.
type secretTable struct {
	routes []secretRoute
	fields []secretFields
}

type secretRoute struct {
	host  string // the first label; empty: any
	route caller.Route
}

type secretFields struct {
	secretRoute
	names *mask.Fields
	maybe bool
}

func newSecretTables(providers []*provider.Provider) (map[*provider.Provider]*secretTable, error) {
	all := map[*provider.Provider]*secretTable{}
	for _, p := range providers {
		t := &secretTable{}
		for _, s := range p.SecretRoutes {
			r, err := newSecretRoute(s.Method, s.Host, s.Path)
			if err != nil {
				return nil, fmt.Errorf("secret route of %s: %w", p.Name, err)
			}
			t.routes = append(t.routes, r)
		}
		for _, f := range p.SecretFields {
			r, err := newSecretRoute("", f.Host, f.Path)
			if err != nil {
				return nil, fmt.Errorf("secret fields of %s: %w", p.Name, err)
			}
			t.fields = append(t.fields, secretFields{r, mask.NewFields(f.Names), f.Maybe})
		}
		all[p] = t
	}
	return all, nil
}

func newSecretRoute(method, host, path string) (secretRoute, error) {
	if method == "" {
		method = "*"
	}
	r, err := caller.ParseRoute(method + " " + path)
	return secretRoute{host, r}, err
}

func (r *secretRoute) match(method, path []byte, host string) bool {
	if r.host != "" && !(len(host) > len(r.host) && host[:len(r.host)] == r.host && host[len(r.host)] == '.') {
		return false
	}
	return r.route.Match(method, path)
}

// guardSecrets refuses a route that exists to hand out a secret, and notes which fields of the answer are overwritten. A path that two
// readers could read in two ways is refused wherever such a route could be meant.
func (p *Proxy) guardSecrets(c *call) *refusal {
	c.mask = nil
	if c.rule.SecretRoutes() && (c.narrow == nil || c.narrow.SecretRoutes()) {
		return nil
	}
	t := p.secrets[c.route.provider]
	if len(t.routes)+len(t.fields) == 0 {
		return nil
	}
	if caller.AmbiguousPath(c.route.path) {
		return refusePath
	}
	host := hostOf(c)
	c.plainPath = appendPlainPath(c.plainPath[:0], c.route.path)
	method := c.head.method
	if c.head.overrides || hasParam(c.route.query, "$httpmethod") {
		method = anyMethod
	}
	for i := range t.routes {
		if r := &t.routes[i]; r.match(method, c.plainPath, host) || string(method) == "*" && r.match(post, c.plainPath, host) {
			return refuseSecretRoute
		}
	}
	for i := range t.fields {
		if f := &t.fields[i]; f.match(method, c.plainPath, host) {
			c.mask, c.readable = f.names, !f.maybe
			break // the most particular ones come first
		}
	}
	return nil
}

var (
	anyMethod = []byte("*")
	post      = []byte("POST")
)

var refuseSecretRoute = &refusal{status: 403, code: "secret_route", detail: "this route hands out a reusable secret; the caller's rule does not have secret_routes: true"}

// appendPlainPath appends the path as a provider may read it: unreserved characters decoded, in lower case.
func appendPlainPath(dst, path []byte) []byte {
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) {
			hi, lo := unhex(path[i+1]), unhex(path[i+2])
			if d := byte(hi<<4 | lo); hi >= 0 && lo >= 0 && isUnreserved(d) {
				c = d
				i += 2
			}
		}
		dst = append(dst, lower(c))
	}
	return dst
}

func isUnreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || bytes.IndexByte([]byte("-._~"), c) >= 0
}
