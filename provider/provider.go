// Package provider says what the outside looks like: the third-party APIs that Keyward carries credentials to, as plain values.
//
// A provider is data and a few pure functions on bytes. Nothing here does I/O, reads a clock or knows the store: the proxy dials,
// the admin API validates, the console and the command line draw their forms from Fields. Adding a provider is one file and one
// line in All; the conformance test then says what is missing.
package provider

import "errors"

//go:generate go test -run ^Test(Credential|Mint)Reference$ . -update-reference

// A Provider is one third-party API: where it lives, what its credential consists of and how a request to it is authenticated.
type Provider struct {
	// Name as it stands in paths, flags and the store, like "google_calendar".
	Name string
	// Title as people write it, like "Google Calendar".
	Title string
	// Hosts that a request may be sent to with this provider's credential: exact, lower case. Nothing else is ever dialled.
	Hosts []string
	// OwnHosts are hosts that Keyward itself calls for this provider and that no caller can reach (Google's token endpoint).
	OwnHosts []string
	// Custom: a configuration says what it is, and not a file here. Its names are then no constants: only public addresses are dialled.
	Custom bool
	// DefaultHost is where a request goes that names the provider but no host: the credential's region decides. Of an empty Secret it is
	// the host that most credentials have.
	DefaultHost func(s Secret) string

	// Fields are what a credential consists of: they drive the API, the console, the command line, the docs and the masking.
	Fields []Field
	// Check finds what no single field shows (Twilio needs auth_token or an API key pair). It may be nil.
	Check func(v Values) []FieldError

	// AuthHeaders and AuthParams are every place in which the provider reads a credential of its caller: header names in their
	// canonical form, names of query parameters in lower case. They are deleted from each request before the credential goes in.
	AuthHeaders []string
	AuthParams  []string
	// AuthSubprotocols are WebSocket subprotocols in which it reads one, as browsers send it: with a dot at the end, in front of the credential
	// ("openai-insecure-api-key."); without, the credential is the next in the list ("token"). Both are deleted, the others pass.
	AuthSubprotocols []string

	// UserAgent: the provider refuses requests without a User-Agent, so one is added where the caller sends none.
	UserAgent bool

	// Inject puts the credential into the request. It appends and slices, and allocates nothing.
	Inject func(r *Request, s Secret) error
	// SecretRoutes exist to hand out reusable secrets: they are refused unless the caller's rule allows them.
	SecretRoutes []SecretRoute
	// SecretFields name what of an answer is a reusable secret: it is overwritten unless the caller's rule allows it.
	SecretFields []SecretFields
	// WebhookFields are the JSON fields of its webhooks whose values are the tenant's secrets, named as those of SecretFields: they are
	// overwritten before the app gets them where the operator says so. Nil: its webhooks have none.
	WebhookFields []string

	// Probe finds out whether the provider honours a credential.
	Probe Probe

	// Webhook says how its deliveries are verified and read. Nil: it sends none.
	Webhook *Webhook

	// Complete adds to a form body what the credential knows and the caller left out (Twilio's sender). Nil for most.
	Complete *Completion
	// Exchange trades the credential for a short-lived token that Inject then uses (Google). Nil for most.
	Exchange *Exchange
	// Mints are the tokens that its SDKs would sign by themselves and that Keyward signs instead. Nil for most.
	Mints []*Mint
	// Consent is how an org gives the consent that its credential is made of (Google). Nil for most; never without an Exchange.
	Consent *Consent
}

// All lists every provider that has a file here, in the order in which people see them. A configuration may add others: see type Custom.
var All = Set{&Twilio, &Vapi, &Resend, &ElevenLabs, &GoogleCalendar, &SendGrid, &Deepgram, &OpenAI, &Stripe}

// Named is the provider of that name that has a file here, or nil.
func Named(name string) *Provider { return All.Named(name) }

// A Set is the providers that there are in one sidecar.
type Set []*Provider

// Or is the set, or All in the place of none.
func (s Set) Or() Set {
	if s == nil {
		return All
	}
	return s
}

// Names are theirs, in order.
func (s Set) Names() []string {
	names := make([]string, 0, len(s.Or()))
	for _, p := range s.Or() {
		names = append(names, p.Name)
	}
	return names
}

// Named is the provider of that name, or nil. A nil Set is All.
func (s Set) Named(name string) *Provider {
	for _, p := range s.Or() {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Sentinels that Inject returns; the proxy turns them into its answers.
var (
	// ErrForeignAccount: the path names an account that is not the org's.
	ErrForeignAccount = errors.New("account in the path is not the org's")
	// ErrIncomplete: the credential lacks the field that this route needs. IncompleteError says which.
	ErrIncomplete = errors.New("credential lacks a field that this route needs")
	// ErrRejected: the provider no longer honours the credential (Google's invalid_grant).
	ErrRejected = errors.New("provider no longer honours the credential")
)

// A RejectedError says why, by the provider's own code, which is one of those that its Exchange knows; it is an ErrRejected.
type RejectedError struct{ Code string }

func (e *RejectedError) Error() string        { return ErrRejected.Error() + ": " + e.Code }
func (e *RejectedError) Is(target error) bool { return target == ErrRejected }

// Verdict is what that means for the credential.
func (e *RejectedError) Verdict() Verdict {
	if e.Code == "invalid_grant" {
		return Verdict{State: Invalid, Reason: "the org's consent was taken back or ran out (invalid_grant): connect again", Reconnect: true}
	}
	return Verdict{State: Invalid, Reason: "the provider does not take the OAuth client (" + e.Code + "): see client_id and client_secret"}
}

// An IncompleteError names the missing field; it is an ErrIncomplete.
type IncompleteError struct{ Field string }

func (e *IncompleteError) Error() string        { return "credential has no " + e.Field }
func (e *IncompleteError) Is(target error) bool { return target == ErrIncomplete }

// A Request is what Inject sees and changes of one request. Its slices are valid for this request only.
type Request struct {
	Method []byte // upper case as sent
	Host   string // the provider's host that it goes to
	Path   []byte // as sent, percent-encoding untouched, without the query; Inject may set it to another slice
	Token  []byte // the exchanged token, for providers with an Exchange

	// Header names the header that carries the credential, in canonical form; Inject sets it.
	Header string
	// Value is the header's value: Inject appends to it. The proxy owns the memory and overwrites it.
	Value []byte
	// Scratch is spare memory for a rewritten path, owned by the proxy; not for secrets.
	Scratch []byte
}

// A Completion adds defaults to a form body.
type Completion struct {
	// Match says whether the body of such a request is completed; path as in Request. Others stream through unread.
	Match func(method []byte, host string, path []byte) bool
	// Append appends to dst what the form body lacks, as further pairs with their leading '&' (none in front of an empty body).
	Append func(dst, body []byte, s Secret) []byte
}
