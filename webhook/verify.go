package webhook

import (
	"bytes"
	"crypto/sha256"
	"time"

	"github.com/keyward/keyward/provider"
)

// standardTolerance is what the libraries of Svix and of Standard Webhooks take, both ways.
const standardTolerance = 5 * time.Minute

// maxSignatures is how many signatures of one header are looked at.
const maxSignatures = 16

// verifyStandard verifies Standard Webhooks (docs.svix.com/receiving/verifying-payloads/how-manual, standardwebhooks.com): several
// signatures stand in one header while a secret is replaced.
func verifyStandard(m *message, s provider.Secret, field string) verdict {
	prefix := "webhook-" // the names of Standard Webhooks
	for _, name := range []string{"svix-id", "svix-timestamp", "svix-signature"} {
		if _, n := m.head.get(name); n > 0 {
			prefix = "svix-"
		}
	}
	id, okID := m.head.one(prefix + "id")
	stamp, okStamp := m.head.one(prefix + "timestamp")
	header, okHeader := m.head.one(prefix + "signature")
	at, isTime := instant(stamp, false)

	secrets, known := secretsOf(s, field)
	ok := false
	for _, secret := range secrets {
		key := decodeBase64(bytes.TrimPrefix(secret, []byte("whsec_")))
		usable := len(key) > 0
		if !usable {
			key = unknownSecret
		}
		sum := mac(sha256.New, key, id, dot, stamp, dot, m.body)
		want := append([]byte("v1,"), inBase64(sum)...)
		for i, given := range bytes.Split(header, []byte{' '}) {
			if i == maxSignatures {
				break
			}
			if same(want, given) && usable {
				ok = true
			}
		}
	}
	switch {
	case !known:
		return no(noSecret)
	case !okHeader || !okID:
		return no(badHeader)
	case !okStamp || !isTime:
		return no(badTimestamp)
	case !within(at, m.now, standardTolerance, standardTolerance):
		return no(staleOrFuture)
	case !ok:
		return no(badSignature)
	}
	return verdict{ok: true, once: bytes.Clone(id)} // the id stays the same when it is tried again, with a new timestamp
}

var dot = []byte{'.'}

// verifyStamped verifies "t=…,v0=…": timestamp and signatures in one header. What it does not know there it leaves out.
func verifyStamped(m *message, s provider.Secret, field string, scheme *provider.StampedHMAC) verdict {
	version := []byte(scheme.Version + "=")
	header, okHeader := m.head.one(scheme.Header)
	var stamp []byte
	var given [][]byte
	stamps := 0
	for i, part := range bytes.Split(header, []byte{','}) {
		if i == maxSignatures {
			break
		}
		if v, ok := bytes.CutPrefix(part, []byte("t=")); ok {
			stamp = v
			stamps++
		} else if bytes.HasPrefix(part, version) {
			given = append(given, part)
		} else if len(part) == 0 {
			okHeader = false
		}
	}
	at, isTime := instant(stamp, false)

	secrets, known := secretsOf(s, field)
	ok := false
	for _, secret := range secrets {
		sum := mac(sha256.New, secret, stamp, dot, m.body)
		want := append(bytes.Clone(version), inHex(sum)...)
		for _, g := range given {
			if same(want, g) {
				ok = true
			}
		}
	}
	switch {
	case !known:
		return no(noSecret)
	case !okHeader || len(given) == 0:
		return no(badHeader)
	case stamps != 1 || !isTime:
		return no(badTimestamp)
	case !within(at, m.now, scheme.Past, scheme.Future):
		return no(staleOrFuture)
	case !ok:
		return no(badSignature)
	}
	// What is signed, not a signature: while a secret is being replaced there are two, and a copy may have either.
	once := mac(sha256.New, []byte("stamped"), stamp, dot, m.body)
	return verdict{ok: true, once: once, until: at.Add(scheme.Past)}
}

// verifyToken verifies a header that is the secret itself.
func verifyToken(m *message, s provider.Secret, field string, scheme *provider.SharedToken) verdict {
	given, okHeader := m.head.one(scheme.Header)
	secrets, known := secretsOf(s, field)
	ok := false
	var once []byte
	for _, secret := range secrets {
		sum := mac(sha256.New, secret, m.body)
		want := secret
		if scheme.Basic {
			want = append([]byte("Basic "), inBase64(secret)...)
		}
		if same(want, given) {
			ok, once = true, sum
		}
	}
	switch {
	case !known:
		return no(noSecret)
	case !okHeader:
		return no(badHeader)
	case !ok:
		return no(badSignature)
	}
	parts := make([][]byte, 0, len(scheme.IDs)+1)
	for _, name := range scheme.IDs {
		id, ok := m.head.one(name)
		if !ok {
			return no("a header that tells deliveries apart is missing or stands more than once")
		}
		parts = append(parts, id)
	}
	return verdict{ok: true, once: bytes.Join(append(parts, once), []byte{0}), hide: scheme.Header}
}
