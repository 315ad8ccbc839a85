package webhook

import (
	"bytes"
	"crypto/sha256"
	"regexp"
	"time"

	"github.com/keyward/keyward/provider"
)

// Vapi (docs.vapi.ai/server-url/server-authentication) has no scheme of its own: each org's setting says what arrives. webhook_auth is
// that setting.

func verifyVapi(m *message, s provider.Secret) verdict {
	auth, err := provider.ParseWebhookAuth(s.Field("webhook_auth"))
	if err != nil {
		return no("webhook_auth cannot be read")
	}
	if auth.Type == "hmac" {
		return verifyVapiHMAC(m, s, &auth)
	}
	return verifyVapiSecret(m, s, &auth)
}

// verifyVapiSecret checks a shared secret, bare or as a bearer token. The sum of the body is what tells one message from another.
func verifyVapiSecret(m *message, s provider.Secret, auth *provider.WebhookAuth) verdict {
	given, okHeader := m.head.one(auth.Header)
	if auth.Type == "bearer" && is([]byte(auth.Header), "authorization") {
		const scheme = "Bearer "
		var fits bool
		given, fits = bytes.CutPrefix(given, []byte(scheme)) // to the letter, as Vapi writes it: there is one proof, and not one for each case
		okHeader = okHeader && fits && len(given) > 0
	}
	secrets, known := secretsOf(s, "webhook_secret")
	ok := false
	for _, secret := range secrets {
		if same(secret, given) {
			ok = true
		}
	}
	// With a key that is the same for all of the org's secrets: a message is the same one while a secret is replaced.
	once := mac(sha256.New, []byte("vapi body"), m.body)
	switch {
	case !known:
		return no(noSecret)
	case !okHeader:
		return no(badHeader)
	case !ok:
		return no(badSignature)
	}
	return verdict{ok: true, once: once, hide: auth.Header}
}

func verifyVapiHMAC(m *message, s provider.Secret, auth *provider.WebhookAuth) verdict {
	algorithm := algorithms[auth.Algorithm]
	if algorithm == nil {
		return no("webhook_auth cannot be read")
	}
	given, okHeader := m.head.one(auth.SignatureHeader)
	var stamp, id []byte
	okStamp, okID := true, true
	var at time.Time
	if auth.IncludeTimestamp {
		if stamp, okStamp = m.head.one(auth.TimestampHeader); okStamp {
			at, okStamp = instant(stamp, true)
		}
	}
	if auth.MessageIDHeader != "" {
		id, okID = m.head.one(auth.MessageIDHeader)
	}
	payload, signs := fill(auth.PayloadFormat, map[string][]byte{
		"{body}": m.body, "{timestamp}": stamp, "{method}": []byte(m.method), "{url}": []byte(m.url), "{svix-id}": id,
	})

	secrets, known := secretsOf(s, "webhook_secret")
	ok := false
	var once []byte
	for _, secret := range secrets {
		key, usable := secret, true
		if auth.SecretIsBase64 {
			if key = decodeBase64(secret); len(key) == 0 {
				key, usable = unknownSecret, false
			}
		}
		sum := mac(algorithm, key, payload...)
		text := inHex(sum)
		if auth.Encoding == "base64" {
			text = inBase64(sum)
		}
		fits := same(append([]byte(auth.Prefix), text...), given)
		if auth.Prefix == "" && auth.Encoding != "base64" && same(append([]byte("v1"), text...), given) {
			fits = true // seen in live traffic, although the plan names no prefix
		}
		if fits && usable {
			ok, once = true, sum
		}
	}
	tolerance := time.Duration(auth.ToleranceSeconds) * time.Second
	switch {
	case !known:
		return no(noSecret)
	case !okHeader || !okID:
		return no(badHeader)
	case !okStamp:
		return no(badTimestamp)
	case auth.IncludeTimestamp && !within(at, m.now, tolerance, tolerance):
		return no(staleOrFuture)
	case !signs["{body}"]:
		return no("payload_format does not sign the body")
	case !ok:
		return no(badSignature)
	}
	v := verdict{ok: true, once: once}
	if signs["{svix-id}"] && len(id) > 0 {
		v.once = bytes.Clone(id)
	} else if signs["{timestamp}"] && auth.IncludeTimestamp {
		v.until = at.Add(tolerance)
	}
	return v
}

var placeholder = regexp.MustCompile(`\{[a-z-]+\}`)

// fill puts the values into a template, without copying the body, and says which of them it has.
func fill(format string, values map[string][]byte) (parts [][]byte, has map[string]bool) {
	has = map[string]bool{}
	end := 0
	for _, at := range placeholder.FindAllStringIndex(format, -1) {
		name := format[at[0]:at[1]]
		v, known := values[name]
		if !known {
			continue
		}
		has[name] = true
		parts = append(parts, []byte(format[end:at[0]]), v)
		end = at[1]
	}
	return append(parts, []byte(format[end:])), has
}
