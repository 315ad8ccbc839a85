package webhook

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"

	"github.com/keyward/keyward/provider"
)

// verifyECDSA verifies a signature by the provider's private key over timestamp and body. A message has many good signatures, and from one
// anybody can make another (r, n-s): what tells deliveries apart is what was signed.
func verifyECDSA(m *message, s provider.Secret, field string, scheme *provider.StampedECDSA) verdict {
	header, okHeader := m.head.one(scheme.Header)
	stamp, okStamp := m.head.one(scheme.Timestamp)
	at, isTime := instant(stamp, false)
	signature, err := base64.StdEncoding.Strict().DecodeString(string(header))
	okHeader = okHeader && err == nil

	h := sha256.New()
	_, _ = h.Write(stamp)
	_, _ = h.Write(m.body)
	sum := h.Sum(nil)
	keys, known := secretsOf(s, field)
	ok := false
	for _, text := range keys {
		key, usable := publicKey(text)
		if ecdsa.VerifyASN1(key, sum, signature) && usable {
			ok = true
		}
	}
	switch {
	case !known:
		return no(noSecret)
	case !okHeader:
		return no(badHeader)
	case !okStamp || !isTime:
		return no(badTimestamp)
	case !within(at, m.now, scheme.Past, scheme.Future):
		return no(staleOrFuture)
	case !ok:
		return no(badSignature)
	}
	return verdict{ok: true, once: sum, until: at.Add(scheme.Past)}
}

// publicKey reads a P-256 key; one that nobody has in the place of what is none.
func publicKey(text []byte) (key *ecdsa.PublicKey, ok bool) {
	if string(text) == string(unknownSecret) {
		text = unknownPublicKey // the same work
	}
	der, err := base64.StdEncoding.DecodeString(string(text))
	if err == nil {
		var any any
		any, err = x509.ParsePKIXPublicKey(der)
		key, ok = any.(*ecdsa.PublicKey)
	}
	if err != nil || !ok || key.Curve != elliptic.P256() {
		return &unknownKey.PublicKey, false
	}
	return key, true
}

// unknownKey is thrown away with the process; nothing was ever signed with it.
var (
	unknownKey       = newUnknownKey()
	unknownPublicKey = func() []byte {
		der, _ := x509.MarshalPKIXPublicKey(&unknownKey.PublicKey) // a P-256 key always encodes
		return base64.StdEncoding.AppendEncode(nil, der)
	}()
)

func newUnknownKey() *ecdsa.PrivateKey {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // the system's randomness never fails
	return key
}
