package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
)

// A bulk envelope is: format version (0x02), length of the key id, key id, salt (24 random bytes), cipher text, tag. Its key is
// HKDF-Expand of the keyring's key with SHA-256, "keyward bulk" and the salt (RFC 5869, section 2.3: that key is uniform, and needs no
// extraction). It seals this once, and so its nonce is fixed. Salts are long enough to be drawn at random for ever: no count of them is
// kept, and none comes off the 2³² that the key may seal by itself.
const (
	bulkVersion = 0x02
	saltSize    = 24
)

const bulkInfo = "keyward bulk"

// SealBulk is Seal for what there is much of: its envelopes are 12 bytes longer, cost about a microsecond more, and do not wear the key out.
// Open opens them.
func (k *Keyring) SealBulk(dst, plaintext, context []byte) []byte {
	p := k.ring.Load().primary
	if p == nil {
		panic("seal: the keyring was wiped")
	}
	a := newAAD(bulkVersion, p.id, context)
	defer a.free()
	var salt [saltSize]byte
	_, _ = rand.Read(salt[:])
	dst = append(dst, bulkVersion, byte(len(p.id)))
	dst = append(dst, p.id...)
	dst = append(dst, salt[:]...)
	erasing(func() { dst = p.derived(salt[:]).Seal(dst, noNonce[:], plaintext, a.b) })
	return dst
}

// openBulk opens what follows the key id.
func (k *key) openBulk(dst, box, additional []byte) (out []byte, err error) {
	erasing(func() { out, err = k.derived(box[:saltSize]).Open(dst, noNonce[:], box[saltSize:], additional) })
	return out, err
}

var noNonce [nonceSize]byte

// derived is the cipher of one bulk envelope.
func (k *key) derived(salt []byte) cipher.AEAD {
	b, err := hkdf.Expand(sha256.New, k.material()[:], bulkInfo+string(salt), keySize)
	if err != nil {
		panic(err) // the length is right
	}
	defer clear(b)
	block, err := aes.NewCipher(b)
	if err != nil {
		panic(err) // the size is right
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // it is AES
	}
	return aead
}
