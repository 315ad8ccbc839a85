package proxy

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// Some SDKs are given a token that the app's server signs with a secret of the provider's. The secret is here, so the token is signed here:
// POST /keyward/mint/NAME, for whoever may use the provider for the org. What there is to mint, and what a token says, are the providers'
// own (provider/mint.go); nothing leaves for the provider. A token is in no log, no audit row, no metric and no error: those have its
// fingerprint, by which one that was found somewhere can be told.

// ownSegment begins the paths that are Keyward's own.
const ownSegment = "keyward"

const (
	mintPath  = "/" + ownSegment + "/mint/"
	maxOrder  = 32 << 10 // bytes of a request for a token
	auditTime = 5 * time.Second
)

// A mintRoute is what is minted at one path.
type mintRoute struct {
	*provider.Mint
	provider *provider.Provider
	path     []byte
}

func newMintRoutes(providers []*provider.Provider) map[string]*mintRoute {
	all := map[string]*mintRoute{}
	for _, p := range providers {
		for _, m := range p.Mints {
			all[m.Name] = &mintRoute{m, p, []byte(mintPath + m.Name)}
		}
	}
	return all
}

// findMint finds what is minted at /keyward and the rest of a path.
func (p *Proxy) findMint(r *route, rest []byte) ([]byte, *refusal) {
	name, _ := strings.CutPrefix(stringOf(rest), "/mint/")
	m := p.mints[name]
	if m == nil {
		return nil, refuseNoMint
	}
	r.mint, r.provider = m, m.provider
	return m.path, nil
}

var refuseNoMint = &refusal{status: 404, code: "unknown_upstream", detail: "of the paths under /keyward there are only /keyward/mint/ and the name of a token: docs/minted-tokens.md lists them"}

// permits asks whether a rule lets its caller mint here at all: its routes name the path, or that of a grant behind it.
func (m *mintRoute) permits(rule *caller.Rule, method []byte) *refusal {
	if m.permitsGrant(rule, method, "") || slices.ContainsFunc(m.Grants, func(g provider.Grant) bool { return m.permitsGrant(rule, method, g.Name) }) {
		return nil
	}
	return refuseRoute
}

// permitsGrant asks whether a rule's routes name the path of all grants, or that of this one.
func (m *mintRoute) permitsGrant(rule *caller.Rule, method []byte, grant string) bool {
	if rule.AllowsRoute(method, m.path) {
		return true
	}
	return grant != "" && rule.AllowsRoute(method, append(append(slices.Clip(m.path), '/'), grant...))
}

// mint answers with a token.
func (p *Proxy) mint(c *call) *refusal {
	order, bad := p.readOrder(c)
	if bad != nil {
		return bad
	}
	if bad := p.lookAgain(c, time.Now()); bad != nil { // the body may have come slowly
		return bad
	}
	most := c.route.mint.Longest
	for _, rule := range [...]*caller.Rule{c.rule, c.narrow} {
		if rule == nil {
			continue
		}
		if bad := c.route.mint.grantedBy(rule, order); bad != nil {
			return bad
		}
		most = min(most, rule.MintTTL())
	}
	t, bad := p.sign(c, order, most)
	if bad != nil {
		return bad
	}
	defer clear(t.text)
	if bad := p.record(c, order, t); bad != nil {
		return bad
	}
	p.handOut(c, t)
	return nil
}

// A signed is a token that was minted.
type signed struct {
	text    []byte
	id      string // its fingerprint
	seconds int64  // that it lives
	till    int64  // Unix seconds
}

// readOrder reads what token is asked for.
func (p *Proxy) readOrder(c *call) (*provider.Order, *refusal) {
	if string(c.head.method) != fasthttp.MethodPost {
		return nil, refuseMintMethod
	}
	if c.head.body() {
		if c.head.length > maxOrder {
			return nil, refuseOrderSize
		}
		if bad := p.takeBody(c, maxOrder); bad != nil {
			return nil, bad
		}
		if !c.bodyRead {
			return nil, refuseOrderSize
		}
	}
	order, wrong := c.route.mint.Parse(c.body)
	if len(wrong) > 0 {
		return nil, refuseOrder(wrong)
	}
	return order, nil
}

var (
	refuseMintMethod = &refusal{status: 400, code: "bad_request", detail: "tokens are minted by POST, with a JSON object as the body"}
	refuseOrderSize  = &refusal{status: 413, code: "body_too_large", detail: "a request for a token has at most 32 KiB", close: true}
)

// refuseOrder says what is wrong with a request for a token: by names of ours, or harmless ones, and never by a value.
func refuseOrder(wrong []provider.FieldError) *refusal {
	const most = 8
	said := make([]string, 0, most)
	for _, e := range wrong[:min(len(wrong), most)] {
		said = append(said, e.Field+" "+e.Problem)
	}
	return &refusal{status: 400, code: "bad_request", detail: strings.Join(said, "; ")}
}

// grantedBy asks a rule for each grant of the order.
func (m *mintRoute) grantedBy(rule *caller.Rule, order *provider.Order) *refusal {
	for i := range m.Grants {
		g := &m.Grants[i]
		if _, asked := order.Grants[g.Name]; !asked {
			continue
		}
		if rule.HasAllow() && !m.permitsGrant(rule, []byte(fasthttp.MethodPost), g.Name) {
			return &refusal{status: 403, code: "route_forbidden", detail: "this caller may not mint the grant " + g.Name + ": its allow has no POST " + string(m.path) + "/" + g.Name}
		}
		if g.Whole && !rule.SecretRoutes() {
			return &refusal{status: 403, code: "secret_route", detail: "a token with the grant " + g.Name + " can do all that the credential can; the caller's rule does not have secret_routes: true"}
		}
	}
	return nil
}

// sign opens the credential and signs the token, of which nothing but itself is left in memory. most is what the caller's rules say of its
// life; the credential may say less.
func (p *Proxy) sign(c *call, order *provider.Order, most time.Duration) (t signed, bad *refusal) {
	c.makeRoom()
	defer c.wipe()
	s, bad := c.open()
	if bad != nil {
		return t, bad
	}
	m := c.route.mint
	if missing := m.Missing(s); missing != "" {
		return t, &refusal{status: 424, code: "credential_incomplete", detail: "the org's credential has no " + missing + ", which " + m.Name + " needs. " + m.Mend}
	}
	if own := s.LongestToken(); own > 0 {
		most = min(most, own)
	}
	life := order.Life
	if life == 0 {
		life = min(provider.UsualLife, most)
	}
	t.seconds = int64(life / time.Second)
	if life > most || t.seconds < 1 {
		return t, &refusal{
			status: 403, code: "route_forbidden",
			detail: "ttl is over what the caller's mint_ttl and the credential's max_token_ttl allow: at most " + strconv.Itoa(int(most/time.Second)) + " seconds",
		}
	}
	now := time.Now().Unix()
	t.till = now + t.seconds
	var err error
	if t.text, err = m.Sign(nil, order, provider.Stamp{ID: randomID(), From: now, Till: t.till}, s); err != nil {
		return t, refuseUnreadable
	}
	sum := sha256.Sum256(t.text)
	t.id = hex.EncodeToString(sum[:8])
	return t, nil
}

func randomID() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// record writes the audit row: who minted what, for whom, for how long. Whose token it is, the app's log knows by the fingerprint: rows are
// never deleted, and an identity may be a person's name.
func (p *Proxy) record(c *call, order *provider.Order, t signed) *refusal {
	if p.audit == nil {
		return refuseUnrecorded
	}
	m := c.route.mint
	var grants []string
	for i := range m.Grants {
		if _, given := order.Grants[m.Grants[i].Name]; given {
			grants = append(grants, m.Grants[i].Name)
		}
	}
	by := store.Actor{Name: "caller " + c.rule.Name(), From: c.conn.RemoteAddr().String()}
	if c.narrow != nil {
		by.Name += ", token " + c.narrow.Name()
	}
	if c.at.unix {
		by.From = fmt.Sprintf("caller socket, uid %d", c.conn.peer.UID)
	}
	ctx, cancel := context.WithTimeout(p.ctx, auditTime)
	defer cancel()
	err := p.audit(ctx, store.Event{
		Actor: by, Action: "token.mint", Org: string(c.org), Target: m.Name, Result: "ok",
		Detail: fmt.Sprintf("%s; %d s; token %s; request %s", strings.Join(grants, ", "), t.seconds, t.id, c.id[:]),
	})
	if err != nil {
		p.log.Error().Bytes("request_id", c.id[:]).Err(err).Msg("recording a minted token in the audit log did not succeed; the token was not handed out")
		return refuseUnrecorded
	}
	return nil
}

var refuseUnrecorded = &refusal{status: 503, code: "store_unavailable", detail: "the token cannot be recorded in the audit log, and so is not handed out", retryAfter: 1}

// handOut makes the token the answer.
func (p *Proxy) handOut(c *call, t signed) {
	body := make([]byte, 0, len(t.text)+160) // never grows
	body = append(append(append(body, `{"token":"`...), t.text...), `","id":"`...)
	body = append(append(body, t.id...), `","expires_at":"`...)
	body = time.Unix(t.till, 0).UTC().AppendFormat(body, time.RFC3339)
	body = append(strconv.AppendInt(append(body, `","expires_in":`...), t.seconds, 10), "}\n"...)
	resp := &c.ctx.Response
	resp.Reset()
	c.status, c.received = fasthttp.StatusOK, int64(len(body))
	resp.SetStatusCode(c.status)
	resp.Header.SetContentType("application/json")
	resp.Header.Set("Cache-Control", "no-store")
	resp.Header.SetBytesV("Keyward-Request-Id", c.id[:])
	resp.SetBodyRaw(body)
	p.stats.Minted.Add(1)
	if p.draining.Load() {
		c.ctx.SetConnectionClose()
	}
	c.end()
}
