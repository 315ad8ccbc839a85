package provider

import "time"

// A Webhook says how a provider's deliveries prove who sent them and what they say about themselves. It is data: package webhook knows
// how each scheme works, so that a provider with a scheme that is there already needs no code there.
type Webhook struct {
	Scheme Scheme
	// Secret is the credential's field that a delivery is verified with.
	Secret string

	// Type and Group are where a JSON body says what it is about, and what deliveries are kept in order by: "type", "data.id";
	// "[].event" is that of the first element of a list. Empty: it does not say.
	Type, Group string
	// Account is the place of an id by which a shared path is resolved, and AccountField the credential's field that lists such ids.
	// Empty: the org stands in the path.
	Account, AccountField string

	// Sample is the JSON body of a made-up delivery, SampleType its usual type. {type}, {id} (32 hex digits), {now} (seconds), {time} (RFC
	// 3339) and {FIELD} of the credential are filled in.
	Sample, SampleType string
}

// A Scheme is one of the types below.
type Scheme interface{ scheme() }

type (
	// StandardWebhooks is that of standardwebhooks.com and of Svix: headers with an id, a timestamp and a list of "v1," signatures, each the
	// base64 of an HMAC-SHA256 over id "." timestamp "." body. The secret is base64 behind "whsec_".
	StandardWebhooks struct{}

	// StampedHMAC is one header "t=SECONDS,VERSION=HEX", with the HMAC-SHA256 of SECONDS "." body. The secret is used as it is typed.
	StampedHMAC struct {
		Header, Version string        // in lower case: "stripe-signature", "v1"
		Past, Future    time.Duration // how far off the timestamp may be
	}

	// StampedECDSA is a header with the base64 of an ECDSA signature (P-256, SHA-256, ASN.1) over timestamp and body, and one with the
	// timestamp in seconds. The field holds the public key: base64 of its DER form.
	StampedECDSA struct {
		Header, Timestamp string // in lower case
		Past, Future      time.Duration
	}

	// SharedToken is a header that holds the secret itself, or with Basic, a secret of the form USER:PASSWORD as RFC 7617 writes it. The app
	// does not get that header. IDs are the headers that tell deliveries apart; none: their bodies do. TypeHeader has the type.
	SharedToken struct {
		Header     string // in lower case
		Basic      bool
		IDs        []string
		TypeHeader string
	}

	// OwnScheme is one that no other provider has: package webhook has a file for it.
	OwnScheme struct{}
)

func (StandardWebhooks) scheme() {}
func (StampedHMAC) scheme()      {}
func (StampedECDSA) scheme()     {}
func (SharedToken) scheme()      {}
func (OwnScheme) scheme()        {}
