package credential

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// A consent is asked for in two steps, between which a browser goes to the provider and comes back, to any sidecar of the store. What the
// second step must know is in the state that the browser carries: sealed, so that it is of our making, bound to the org and to who began
// it, and good for ten minutes and for one time. Nothing is stored in between, and a browser that never comes back leaves nothing behind.
const (
	consentLife    = 10 * time.Minute
	consentContext = "keyward consent, version 1" // a state opens as nothing else, and nothing else opens as a state
	maxState       = 16 << 10
)

// Consents asks for orgs' consents, and makes credentials of them.
type Consents struct{ o ConsentOptions }

// ConsentOptions are what Consents works with.
type ConsentOptions struct {
	Keeper *Keeper
	// Ask asks a provider, and overwrites what is secret in the question. It reaches nobody but the provider.
	Ask func(context.Context, *provider.Question) (provider.Reply, error)
	Log zerolog.Logger
	// Redirect is the URL that browsers come back to.
	Redirect func() string
	// Base takes the place of the provider's own origin in the URL that browsers are sent to. Empty: it is its own.
	Base string
	// ClientID and ClientSecret are the operator's own OAuth client. Empty: orgs bring theirs.
	ClientID     string
	ClientSecret []byte
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// NewConsents makes them.
func NewConsents(o ConsentOptions) *Consents {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Consents{o}
}

// Errors of a consent.
var (
	// ErrNoClient: neither the operator nor the org has an OAuth client.
	ErrNoClient = errors.New("there is no OAuth client to ask for the consent with")
	// ErrNoRedirect: browsers have nowhere to come back to.
	ErrNoRedirect = errors.New("there is no URL for browsers to come back to")
	// ErrNoConsent: the provider's credentials are no consents.
	ErrNoConsent = errors.New("the provider's credential is no consent")
	// ErrState: the state is not one that is waited for: made up, used before, over, of another browser.
	ErrState = errors.New("the consent is not one that is waited for")
	// ErrDenied: the person said no.
	ErrDenied = errors.New("the consent was refused")
	// ErrCode: the provider does not take the code.
	ErrCode = errors.New("the provider does not take the code")
	// ErrGrant: the provider granted too little: no refresh token, or none of the scopes.
	ErrGrant = errors.New("the consent does not cover what is needed")
)

// A pending consent is what the state holds.
type pending struct {
	Nonce    string    `json:"n"`
	Org      string    `json:"o"`
	Provider string    `json:"p"`
	By       string    `json:"b"` // who began it
	Token    string    `json:"t"` // the admin token that it was begun with; empty: none
	Ends     time.Time `json:"e"`
	Verifier string    `json:"v"`
	Redirect string    `json:"r"`
	ClientID string    `json:"c"`
	Scopes   []string  `json:"s"`
	Browser  []byte    `json:"w,omitempty"` // hash of what only the browser knows that it began in; empty: it may be finished in any
	Existed  bool      `json:"x"`           // the org had a credential
}

// A Started consent is where to send the browser.
type Started struct {
	URL  string
	Ends time.Time
}

// Begin begins a consent of the org with a provider, for whoever asked. token names their admin token, if they have one; browser is a
// secret that the browser will bring back with its answer, empty where nobody knows the browser yet. The org's own OAuth client, which
// its credential names, goes before the operator's.
func (c *Consents) Begin(ctx context.Context, by store.Actor, token string, ref store.Ref, browser string) (Started, error) {
	p := c.o.Keeper.Providers.Named(ref.Provider)
	switch {
	case p == nil:
		return Started{}, ErrUnknownProvider
	case p.Consent == nil:
		return Started{}, ErrNoConsent
	case c.o.Redirect() == "":
		return Started{}, ErrNoRedirect
	}
	values, existed, err := c.had(ctx, ref)
	if err != nil {
		return Started{}, err
	}
	defer values.Wipe()
	s := pending{
		Nonce: rand.Text(), Org: ref.Org, Provider: ref.Provider, By: by.Name, Token: token, Ends: c.o.Now().Add(consentLife),
		Verifier: rand.Text() + rand.Text(), Redirect: c.o.Redirect(), Existed: existed, Scopes: c.scopes(p, values),
	}
	if s.ClientID = cmp.Or(values["client_id"].Text, c.o.ClientID); s.ClientID == "" {
		return Started{}, ErrNoClient
	}
	if browser != "" {
		sum := sha256.Sum256([]byte(browser))
		s.Browser = sum[:]
	}
	plain, err := json.Marshal(s)
	if err != nil {
		return Started{}, fmt.Errorf("writing a consent's state: %w", err)
	}
	defer clear(plain)
	if err := c.note(ctx, by, ref, "begun"); err != nil {
		return Started{}, err
	}
	sum := sha256.Sum256([]byte(s.Verifier))
	return Started{p.Consent.URL(provider.ConsentRequest{
		Base: c.o.Base, ClientID: s.ClientID, Redirect: s.Redirect, Scopes: s.Scopes,
		State:     base64.RawURLEncoding.EncodeToString(c.o.Keeper.Keys.Seal(nil, plain, []byte(consentContext))),
		Challenge: base64.RawURLEncoding.EncodeToString(sum[:]),
	}), s.Ends}, nil
}

// had opens what the org has with the provider. One that cannot be opened is as good as none: a consent replaces it.
func (c *Consents) had(ctx context.Context, ref store.Ref) (values provider.Values, existed bool, err error) {
	_, values, err = c.o.Keeper.Values(ctx, ref)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, false, nil
	case errors.Is(err, ErrUnreadable):
		return nil, true, nil
	}
	return values, err == nil, err
}

func (c *Consents) scopes(p *provider.Provider, values provider.Values) []string {
	v := values["scopes"]
	if own := append(slices.Clone(v.List), strings.Fields(v.Text)...); len(own) > 0 {
		return own
	}
	return p.Consent.Scopes
}

// An Answer is what the browser came back with.
type Answer struct {
	State, Code string
	Error       string // of the provider; empty: there is a code
	Issuer      string // that the answer says it is from; empty: it does not
	Browser     string // the secret of Begin, if the browser has one
}

// Finish makes the org's credential of the answer. may says whether who began it may still do so; from is where the answer came from.
// Whatever becomes of it, the state is used up, unless it is none. It returns whose it is as soon as that is known.
func (c *Consents) Finish(ctx context.Context, a Answer, from string, may func(ctx context.Context, org, token string) error) (ref store.Ref, row *store.Credential, err error) {
	s, err := c.open(a)
	if err != nil {
		return ref, nil, err
	}
	ref = store.Ref{Org: s.Org, Provider: s.Provider}
	p := c.o.Keeper.Providers.Named(s.Provider)
	used, err := c.o.Keeper.DB.ConfirmSeen(ctx, "consent:"+s.Nonce, s.Ends.Add(time.Minute))
	if err != nil {
		return ref, nil, err
	}
	if used {
		return ref, nil, ErrState
	}
	by := store.Actor{Name: s.By, From: from}
	if err := may(ctx, s.Org, s.Token); err != nil {
		return ref, nil, c.refused(ctx, by, ref, "not_permitted", err)
	}
	switch {
	case a.Issuer != "" && a.Issuer != p.Consent.Issuer:
		return ref, nil, c.refused(ctx, by, ref, "another_issuer", ErrState)
	case a.Error != "":
		return ref, nil, c.refused(ctx, by, ref, "denied", ErrDenied)
	}
	// From here on the code is used up: a browser that goes away must not cost the org the consent that it has just given.
	row, err = c.trade(context.WithoutCancel(ctx), by, p, s, a.Code)
	if err != nil {
		return ref, nil, c.refused(ctx, by, ref, "failed", err)
	}
	return ref, row, nil
}

// refused records a consent that came to nothing, and returns why.
func (c *Consents) refused(ctx context.Context, by store.Actor, ref store.Ref, result string, why error) error {
	if err := c.note(context.WithoutCancel(ctx), by, ref, result); err != nil {
		c.o.Log.Error().Err(err).Str("org", ref.Org).Msg("recording a consent that came to nothing did not succeed")
	}
	return why
}

func (c *Consents) note(ctx context.Context, by store.Actor, ref store.Ref, result string) error {
	return c.o.Keeper.DB.AddEvent(ctx, store.Event{Actor: by, Action: "credential.consent", Org: ref.Org, Target: ref.Provider, Result: result})
}

// open reads a state that is of our making, of this browser, and not over.
func (c *Consents) open(a Answer) (*pending, error) {
	if len(a.State) == 0 || len(a.State) > maxState {
		return nil, ErrState
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(a.State)
	if err != nil {
		return nil, ErrState
	}
	plain, err := c.o.Keeper.Keys.Open(nil, sealed, []byte(consentContext))
	defer clear(plain)
	if err != nil {
		return nil, ErrState
	}
	s := &pending{}
	if err := json.Unmarshal(plain, s); err != nil {
		return nil, ErrState
	}
	if p := c.o.Keeper.Providers.Named(s.Provider); p == nil || p.Consent == nil || !c.o.Now().Before(s.Ends) {
		return nil, ErrState
	}
	if len(s.Browser) > 0 {
		sum := sha256.Sum256([]byte(a.Browser))
		if subtle.ConstantTimeCompare(sum[:], s.Browser) != 1 {
			return nil, ErrState
		}
	}
	return s, nil
}

// trade trades the code for tokens, and makes the refresh token the org's.
func (c *Consents) trade(ctx context.Context, by store.Actor, p *provider.Provider, s *pending, code string) (*store.Credential, error) {
	ref := store.Ref{Org: s.Org, Provider: s.Provider}
	values, existed, err := c.had(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer values.Wipe()
	if s.Existed && !existed {
		return nil, store.ErrConflict // it was deleted since, and that stands
	}
	secret, err := c.clientSecret(s, values)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	r, err := c.o.Ask(ctx, &provider.Question{
		Provider: p, Host: p.Exchange.Host, Method: "POST", Path: p.Exchange.Path, Type: "application/x-www-form-urlencoded",
		Body: p.Consent.AppendCode(nil, code, s.Verifier, s.Redirect, s.ClientID, secret),
	})
	defer clear(r.Body)
	if err != nil {
		return nil, err
	}
	t, err := p.Exchange.Read(r.Status, r.Body)
	defer func() { clear(t.Access); clear(t.Refresh) }()
	var rejected *provider.RejectedError
	switch {
	case errors.As(err, &rejected) && rejected.Code == "invalid_grant":
		return nil, ErrCode
	case rejected != nil:
		return nil, rejected
	case err != nil:
		return nil, &provider.NoAnswerError{Code: "upstream_protocol", Detail: "the provider's answer was no token", Sent: true}
	case len(t.Refresh) == 0:
		return nil, ErrGrant
	}
	granted, verdict := c.granted(s, t.Scope)
	if verdict.State == provider.Unproven {
		return nil, ErrGrant
	}
	return c.keep(ctx, by, p, ref, s, secret, t.Refresh, granted, verdict)
}

// clientSecret is that of the client that the consent was asked for with, in memory of its own.
func (c *Consents) clientSecret(s *pending, values provider.Values) ([]byte, error) {
	switch s.ClientID {
	case c.o.ClientID:
		return slices.Clone(c.o.ClientSecret), nil
	case values["client_id"].Text:
		return []byte(values["client_secret"].Text), nil
	}
	return nil, store.ErrConflict // the org's client is another by now
}

// granted are the scopes that the person agreed to, who may have left some out, and what that means.
func (c *Consents) granted(s *pending, scope string) ([]string, provider.Verdict) {
	granted := strings.Fields(scope)
	if scope == "" {
		granted = s.Scopes // RFC 6749, section 5.1: it is as it was asked for
	}
	got := 0
	for _, want := range s.Scopes {
		if slices.Contains(granted, want) {
			got++
		}
	}
	switch got {
	case 0:
		return granted, provider.Verdict{State: provider.Unproven}
	case len(s.Scopes):
		return granted, provider.Verdict{State: provider.Valid}
	}
	return granted, provider.Verdict{State: provider.ValidRestricted}
}

// keep writes the credential: what the org had besides the consent stays, whoever changes it at the same time.
func (c *Consents) keep(ctx context.Context, by store.Actor, p *provider.Provider, ref store.Ref, s *pending, secret, refresh []byte, scopes []string, verdict provider.Verdict) (*store.Credential, error) {
	known := PutOptions{Check: func(context.Context, *provider.Provider, provider.Values) provider.Verdict { return verdict }}
	for attempt := 1; ; attempt++ {
		version := int64(0)
		row, values, err := c.o.Keeper.Values(ctx, ref)
		switch {
		case errors.Is(err, store.ErrNotFound) && s.Existed:
			return nil, store.ErrConflict
		case errors.Is(err, store.ErrNotFound):
		case errors.Is(err, ErrUnreadable):
			version = row.Version
		case err != nil:
			return nil, err
		default:
			version = row.Version
		}
		next := provider.Values{}
		for name, v := range values {
			next[name] = v
		}
		next["client_id"] = provider.Value{Text: s.ClientID}
		next["client_secret"] = provider.TextOf(secret) // copies: Wipe below ends them
		next[p.Exchange.RefreshField] = provider.TextOf(refresh)
		next["scopes"] = provider.Value{List: scopes}
		known.IfVersion = &version
		row, err = c.o.Keeper.Put(ctx, by, ref, next, known)
		next.Wipe()
		values.Wipe()
		if !errors.Is(err, store.ErrConflict) || attempt == maxAttempts {
			return row, err
		}
	}
}
