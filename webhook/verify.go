package webhook

import (
	"bytes"
	"crypto/sha256"
	"time"

	"github.com/keyward/keyward/provider"
)

// Resend signs with Svix (docs.svix.com/receiving/verifying-payloads/how-manual, standardwebhooks.com): base64 of
// HMAC-SHA256(key, id "." timestamp "." body), several in one header while a secret is replaced.

// svixTolerance is what Svix's libraries take, both ways.
const svixTolerance = 5 * time.Minute

// maxSignatures is how many signatures of one header are looked at.
const maxSignatures = 16

func verifySvix(m *message, s provider.Secret) verdict {
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

	secrets, known := secretsOf(s, "webhook_secret")
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
	case !within(at, m.now, svixTolerance, svixTolerance):
		return no(staleOrFuture)
	case !ok:
		return no(badSignature)
	}
	return verdict{ok: true, once: bytes.Clone(id)} // the id stays the same when Svix tries again, with a new timestamp
}

var dot = []byte{'.'}

// ElevenLabs (elevenlabs.io/docs, post-call webhooks): "t=…,v0=…" with the hex of HMAC-SHA256(secret, t "." body). The secret is used as
// it is typed.

const (
	elevenLabsPast   = 30 * time.Minute
	elevenLabsFuture = 5 * time.Minute // their SDKs set no bound here
)

func verifyElevenLabs(m *message, s provider.Secret) verdict {
	header, okHeader := m.head.one("elevenlabs-signature")
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
		} else if bytes.HasPrefix(part, []byte("v0=")) {
			given = append(given, part)
		} else if len(part) == 0 {
			okHeader = false
		}
	}
	at, isTime := instant(stamp, false)

	secrets, known := secretsOf(s, "webhook_secret")
	ok := false
	var once []byte
	for _, secret := range secrets {
		sum := mac(sha256.New, secret, stamp, dot, m.body)
		want := append([]byte("v0="), inHex(sum)...)
		for _, g := range given {
			if same(want, g) {
				ok, once = true, sum
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
	case !within(at, m.now, elevenLabsPast, elevenLabsFuture):
		return no(staleOrFuture)
	case !ok:
		return no(badSignature)
	}
	return verdict{ok: true, once: once, until: at.Add(elevenLabsPast)}
}

// Google's push notifications (developers.google.com/calendar/api/guides/push) carry no signature: the token that was set when the
// channel was opened is all the proof there is. They are told apart by channel and message number.
func verifyChannel(m *message, s provider.Secret) verdict {
	given, okHeader := m.head.one("x-goog-channel-token")
	secrets, known := secretsOf(s, "channel_token")
	ok := false
	var once []byte
	for _, secret := range secrets {
		sum := mac(sha256.New, secret, m.body)
		if same(secret, given) {
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
	channel, okChannel := m.head.one("x-goog-channel-id")
	n, okNumber := m.head.one("x-goog-message-number")
	if !okChannel || !okNumber {
		return no("the channel id or the message number is missing or stands more than once")
	}
	return verdict{ok: true, once: bytes.Join([][]byte{channel, n, once}, []byte{0})}
}
