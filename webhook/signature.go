package webhook

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"time"

	"github.com/keyward/keyward/provider"
)

// A message is a delivery as it arrived: what signatures are made of.
type message struct {
	method   string
	url      string // as the sender knows it: the public URL of the listener and the request's target; Twilio's may be the org's own
	rawQuery string
	head     *head
	body     []byte
	now      time.Time
}

// A verdict says whether a message is from who it claims to be from. Why not is for the log alone.
type verdict struct {
	ok     bool
	reason string

	// once names the message among all of the org's, for the record that keeps it from being taken twice: the sender's own id where the
	// signature covers one, else what proves the message. Nothing that can be changed without breaking the proof may be part of it.
	once  []byte
	until time.Time // when a copy would not verify any more; zero: never, as far as the scheme goes

	hide string // the header that held the secret itself; empty: none did
}

func no(reason string) verdict { return verdict{reason: reason} }

// Reasons that several schemes give.
const (
	noSecret      = "the credential has no webhook secret"
	badSignature  = "the signature does not fit"
	badHeader     = "the signature header is missing, empty or stands more than once"
	badTimestamp  = "the timestamp is missing, not a number or stands more than once"
	staleOrFuture = "the timestamp is out of tolerance"
)

// A verifier checks a message with an org's credential. It takes the same time whether the secret fits or not, and has the same work to
// do where there is none. It keeps nothing of the secret.
type verifier func(m *message, s provider.Secret) verdict

// verifiers check each provider's deliveries, by its scheme.
var verifiers = func() map[string]verifier {
	all := map[string]verifier{}
	for _, p := range provider.All {
		if p.Webhook != nil {
			all[p.Name] = verifierOf(p)
		}
	}
	return all
}()

// verifierOf is how a provider's scheme is verified; nil for one that is nowhere.
func verifierOf(p *provider.Provider) verifier {
	field := p.Webhook.Secret
	switch scheme := p.Webhook.Scheme.(type) {
	case provider.StandardWebhooks:
		return func(m *message, s provider.Secret) verdict { return verifyStandard(m, s, field) }
	case provider.StampedHMAC:
		return func(m *message, s provider.Secret) verdict { return verifyStamped(m, s, field, &scheme) }
	case provider.StampedECDSA:
		return func(m *message, s provider.Secret) verdict { return verifyECDSA(m, s, field, &scheme) }
	case provider.SharedToken:
		return func(m *message, s provider.Secret) verdict { return verifyToken(m, s, field, &scheme) }
	}
	return ownVerifiers[p.Name]
}

// ownVerifiers are the schemes that one provider alone has.
var ownVerifiers = map[string]verifier{provider.Vapi.Name: verifyVapi, provider.Twilio.Name: verifyTwilio}

// maxSecrets is how many secrets are tried: two while one is being replaced, and a few forgotten ones.
const maxSecrets = 8

// secretsOf are the org's secrets for a scheme, without empty ones: an empty secret verifies nothing. With none left it is one that
// nobody knows, so that the work is the same, and ok is false.
func secretsOf(s provider.Secret, fields ...string) (secrets [][]byte, ok bool) {
	for _, name := range fields {
		for all := s.Items(name); all.Next() && len(secrets) < maxSecrets; {
			if len(all.Item) > 0 {
				secrets = append(secrets, all.Item)
			}
		}
		if len(secrets) > 0 {
			return secrets, true
		}
	}
	return [][]byte{unknownSecret}, false
}

// mac is an HMAC of the parts, one after the other.
func mac(algorithm func() hash.Hash, key []byte, parts ...[]byte) []byte {
	h := hmac.New(algorithm, key)
	for _, p := range parts {
		_, _ = h.Write(p)
	}
	return h.Sum(nil)
}

// algorithms are those of Vapi's HMACAuthenticationPlan.
var algorithms = map[string]func() hash.Hash{"sha256": sha256.New, "sha512": sha512.New, "sha1": sha1.New}

// same compares in a time that depends on neither of the two, their lengths included.
func same(a, b []byte) bool {
	x, y := sha256.Sum256(a), sha256.Sum256(b)
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// inHex and inBase64 render a sum. What was received is compared with the rendering, not decoded: two texts for one sum would be two
// signatures for one message.
func inHex(sum []byte) []byte    { return hex.AppendEncode(nil, sum) }
func inBase64(sum []byte) []byte { return base64.StdEncoding.AppendEncode(nil, sum) }

// decodeBase64 takes either alphabet, padded or not, as Node's decoder does; nil if it is neither.
func decodeBase64(b []byte) []byte {
	b = bytes.TrimRight(b, "=")
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if key, err := e.AppendDecode(nil, b); err == nil {
			return key
		}
	}
	return nil
}

// maxSeconds is where seconds since 1970 end and milliseconds begin: the year 5138, or 1973.
const maxSeconds = 1e11

// instant reads a timestamp in seconds, or in milliseconds where they are taken. It must be a plain number, written in one way only.
func instant(v []byte, millis bool) (time.Time, bool) {
	n, ok := number(v)
	switch {
	case !ok || v[0] == '0' || n > maxSeconds && !millis:
		return time.Time{}, false
	case n > maxSeconds:
		return time.UnixMilli(n), n < 1000*maxSeconds
	}
	return time.Unix(n, 0), true
}

// within says whether at is at most the given times away from now.
func within(at, now time.Time, past, future time.Duration) bool {
	return !at.Before(now.Add(-past)) && !at.After(now.Add(future))
}
