package webhook

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"sync"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// verify finds whose the delivery is, checks it with that org's secret and asserts the org again. Whatever is wrong on the way, the same
// work is done to the end with a credential that nobody has.
func (s *Server) verify(c *call) (verdict, *refusal) {
	ctx, cancel := context.WithTimeout(s.ctx, lookTimeout)
	defer cancel()
	named := c.org != ""
	if !named {
		org, err := s.candidate(ctx, c)
		if isDown(err) {
			return verdict{}, refuseStore
		}
		c.org = org
	}
	row, why, err := s.credential(ctx, c)
	if err != nil {
		return verdict{}, refuseStore
	}
	v, bad := s.check(c, row)
	if bad != nil {
		return verdict{}, bad
	}
	if old := row.Former(time.Now()); old != nil && !v.ok {
		// Another credential is taking its place, and what the provider signs with changes when the provider is told, not when we are.
		if was, bad := s.check(c, old); bad == nil && was.ok {
			v = was
		}
	}
	switch {
	case why != "":
		c.reason = why
	case !v.ok:
		c.reason = v.reason
	case c.said.problem != "" && !(named && c.said.problem == string(notJSON)):
		c.reason = c.said.problem // a signed body that is no JSON at all is the app's to judge; it names nobody else
	default:
		c.reason, err = s.assert(ctx, c)
		if isDown(err) {
			return verdict{}, refuseStore
		}
		c.verified = c.reason == ""
	}
	return v, nil
}

// check holds the delivery against one credential.
func (s *Server) check(c *call, row *store.Credential) (verdict, *refusal) {
	secret, _, err := credential.Open(s.o.Keys, row, nil)
	if err != nil {
		s.log.Error().Err(err).Str("org", c.org).Str("provider", c.source.provider.Name).Msg("the credential that a webhook is verified with cannot be opened")
		return verdict{}, refuseUnreadable
	}
	defer secret.Wipe()
	return verifiers[c.source.provider.Name](&c.message, secret), nil
}

// lookTimeout bounds all that a delivery asks the store before it is verified.
const lookTimeout = 2 * time.Second

// credential is the sealed row to verify with. Where there is none that counts, it is the one that nobody has, and why says so.
func (s *Server) credential(ctx context.Context, c *call) (row *store.Credential, why string, err error) {
	name := c.source.provider.Name
	unknown := s.unknown[name]
	org := c.org
	switch {
	case org == "":
		org, why = "-", "no org has an id that the payload names"
	case !store.IsOrg(org):
		org, why = "-", "the org in the path is malformed"
	}
	row, _, err = s.o.Store.Credential(ctx, store.Ref{Org: org, Provider: name})
	switch {
	case errors.Is(err, store.ErrNotFound) || why != "" && err == nil:
		if why == "" {
			why = "the org has no credential with this provider"
		}
		return unknown, why, nil
	case err != nil:
		return nil, "", err
	case !row.Active:
		return unknown, "the org's credential is disabled", nil
	}
	return row, "", nil
}

// maxLookups is how many ids of an unverified payload are looked up.
const maxLookups = 6

// candidate is the org of the first id in the payload that has one; empty: none has. It is used for nothing but the choice of the secret.
func (s *Server) candidate(ctx context.Context, c *call) (string, error) {
	if c.said.problem != "" {
		return "", nil
	}
	left := maxLookups
	for _, a := range c.said.accounts {
		if left--; left < 0 {
			return "", nil
		}
		org, err := s.owners.find(ctx, c.source.provider, a)
		if err == nil || isDown(err) {
			return org, err
		}
	}
	for _, id := range c.said.assistants {
		if left--; left < 0 {
			return "", nil
		}
		a, err := s.o.Store.Assistant(ctx, id)
		if err == nil {
			return a.Org, nil
		}
		if isDown(err) {
			return "", err
		}
	}
	return "", nil
}

// assert looks at every id of a payload that verified, and refuses one that is another org's: the org's secret proves that the org sent
// it, not that the call or the assistant in it is its own. It keeps the first assistant that is mapped.
func (s *Server) assert(ctx context.Context, c *call) (reason string, err error) {
	for _, a := range c.said.accounts {
		org, err := s.owners.find(ctx, c.source.provider, a)
		switch {
		case isDown(err):
			return "", err
		case err == nil && org != c.org:
			return "an account id in the payload belongs to another org", nil
		}
	}
	for _, id := range c.said.assistants {
		a, err := s.o.Store.Assistant(ctx, id)
		switch {
		case isDown(err):
			return "", err
		case err != nil:
		case a.Org != c.org:
			return "an assistant in the payload belongs to another org", nil
		case c.assistant == "":
			c.assistant = id
		}
	}
	return "", nil
}

// owners remember for a second which org an account id belongs to, and not beyond a change: a look-up that began before one is not kept.
type owners struct {
	ask func(ctx context.Context, provider, field, id string) (string, error)

	mu    sync.Mutex
	known map[ownerKey]owner
	gen   uint64
}

type ownerKey struct{ provider, field, id string }

type owner struct {
	org   string // empty: nobody's
	until time.Time
}

const (
	ownerTTL  = time.Second
	maxOwners = 4096
)

func newOwners(ask func(ctx context.Context, provider, field, id string) (string, error)) *owners {
	return &owners{ask: ask, known: map[ownerKey]owner{}}
}

func (o *owners) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gen++
	clear(o.known)
}

// find is the org that has the account; store.ErrNotFound if none has.
func (o *owners) find(ctx context.Context, p *provider.Provider, a account) (string, error) {
	f := p.Field(a.field)
	key := ownerKey{p.Name, a.field, f.Account(a.id)}
	o.mu.Lock()
	have, ok := o.known[key]
	gen := o.gen
	o.mu.Unlock()
	if !ok || time.Now().After(have.until) {
		org, err := o.ask(ctx, key.provider, key.field, key.id)
		if isDown(err) {
			return "", err
		}
		have = owner{org, time.Now().Add(ownerTTL)}
		o.mu.Lock()
		if o.gen == gen {
			if len(o.known) >= maxOwners {
				clear(o.known)
			}
			o.known[key] = have
		}
		o.mu.Unlock()
	}
	if have.org == "" {
		return "", store.ErrNotFound
	}
	return have.org, nil
}

// unknownSecret is one that nobody has. It is made anew by every process, and what is made with it never verifies anything.
var unknownSecret = func() []byte {
	var b [24]byte
	_, _ = rand.Read(b[:])
	return []byte(base64.StdEncoding.EncodeToString(b[:]))
}()

// unknownCredentials are sealed rows like those of orgs, so that a delivery for an unknown org takes the same way and the same time.
func unknownCredentials(keys *seal.Keyring) map[string]*store.Credential {
	all := map[string]*store.Credential{}
	for _, src := range sources {
		name := src.provider.Name
		secret := unknownSecret
		if _, ok := src.provider.Webhook.Scheme.(provider.StampedECDSA); ok {
			secret = unknownPublicKey
		}
		values := provider.Values{src.provider.Webhook.Secret: {Text: string(secret)}}
		row := &store.Credential{Ref: store.Ref{Org: "-", Provider: name}, SealedVersion: 1, Version: 1}
		row.Sealed = keys.Seal(nil, values.Encode(nil), row.AppendContext(nil))
		all[name] = row
	}
	return all
}

// tidy keeps of what a payload says about itself only what can stand in a log and a listing.
func (id *identity) tidy() {
	for _, text := range []*string{&id.typ, &id.group} {
		ok := len(*text) <= maxID
		for i := range len(*text) {
			ok = ok && (*text)[i] > ' ' && (*text)[i] < 0x7f
		}
		if !ok {
			*text = ""
		}
	}
}
