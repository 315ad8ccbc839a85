package caller

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
)

// A caller token is "kwt" and 43 characters 0-9A-Za-z: 256 random bits in base 62, fixed width. Letters and digits only, since
// twilio-go refuses others in a password. A token of the admin API is the same with "kwa": neither passes for the other, and whoever finds
// one in the wrong place sees what it opens.
const (
	tokenPrefix = "kwt"
	adminPrefix = "kwa"
	tokenDigits = 43 // 62^43 > 2^256 > 62^42
	tokenLen    = len(tokenPrefix) + tokenDigits

	base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// NewToken makes a token, and the hash that is stored in its place. The token itself is to be shown once and then forgotten.
func NewToken() (token string, hash [32]byte) { return newToken(tokenPrefix) }

// NewAdminToken makes a token of the admin API in the same way.
func NewAdminToken() (token string, hash [32]byte) { return newToken(adminPrefix) }

func newToken(prefix string) (token string, hash [32]byte) {
	var bits [32]byte
	_, _ = rand.Read(bits[:]) // never fails: the program ends if the system has no randomness
	b := encodeToken(prefix, bits)
	return string(b[:]), sha256.Sum256(b[:])
}

func encodeToken(prefix string, bits [32]byte) (b [tokenLen]byte) {
	var words [8]uint32 // the number, most significant word first
	for i := range words {
		words[i] = binary.BigEndian.Uint32(bits[4*i:])
	}
	copy(b[:], prefix)
	for i := tokenLen - 1; i >= len(prefix); i-- {
		var rest uint64
		for j, w := range words {
			rest = rest<<32 | uint64(w)
			words[j] = uint32(rest / 62)
			rest %= 62
		}
		b[i] = base62[rest]
	}
	return b
}

// IsToken says whether b has the form of a caller token; not whether there is one.
func IsToken(b []byte) bool { return isToken(tokenPrefix, b) }

// IsAdminToken says whether b has the form of a token of the admin API.
func IsAdminToken(b []byte) bool { return isToken(adminPrefix, b) }

func isToken(prefix string, b []byte) bool {
	if len(b) != tokenLen || string(b[:len(prefix)]) != prefix {
		return false
	}
	for _, c := range b[len(prefix):] {
		if !isAlnum(c) {
			return false
		}
	}
	return true
}

// HashToken is what a token is stored and found by.
func HashToken(b []byte) [32]byte { return sha256.Sum256(b) }

func isAlnum(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}
