package provider

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"
)

// appendJWT appends a JSON Web Token (RFC 7519) in its compact form (RFC 7515, section 7.1), signed with HMAC-SHA256.
func appendJWT(dst []byte, header, claims map[string]any, key []byte) ([]byte, error) {
	at := len(dst)
	header["alg"], header["typ"] = "HS256", "JWT"
	for i, part := range [...]map[string]any{header, claims} {
		text, err := json.Marshal(part)
		if err != nil {
			return dst, err
		}
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = base64.RawURLEncoding.AppendEncode(dst, text)
	}
	sum := appendHS256(nil, key, dst[at:])
	return base64.RawURLEncoding.AppendEncode(append(dst, '.'), sum), nil
}

// appendHS256 appends the HMAC (RFC 2104) of a message by SHA-256. That of crypto/hmac keeps the key's pads, out of which anybody can read
// the key, until the garbage is collected; these are overwritten here.
func appendHS256(dst, key, message []byte) []byte {
	const inner, outer = 0x36, 0x5c
	pad := make([]byte, sha256.BlockSize)
	defer clear(pad)
	if len(key) > len(pad) {
		sum := sha256.Sum256(key)
		copy(pad, sum[:])
		clear(sum[:])
	} else {
		copy(pad, key)
	}
	h := sha256.New() // hashes a whole block where it stands, without a copy
	defer h.Reset()
	for i := range pad {
		pad[i] ^= inner
	}
	_, _ = h.Write(pad)
	_, _ = h.Write(message)
	sum := h.Sum(nil)
	h.Reset()
	for i := range pad {
		pad[i] ^= inner ^ outer
	}
	_, _ = h.Write(pad)
	_, _ = h.Write(sum)
	return h.Sum(slices.Grow(dst, sha256.Size))
}
