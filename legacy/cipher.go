package legacy

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"slices"
	"strings"
)

const keySize = 32

// An Opener opens what the app sealed under its own key.
type Opener struct {
	block cipher.Block
	order [3]int // where iv, tag and ciphertext stand
	mac   []byte // key of the digests
}

// NewOpener reads the app's key. No error quotes it.
func NewOpener(f Format, key []byte) (*Opener, error) {
	raw, err := readKey(f.Key, key)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	o := &Opener{block: block}
	if o.order, err = order(f.Parts); err != nil {
		return nil, err
	}
	h := hmac.New(sha256.New, raw)
	h.Write([]byte("keyward legacy digest 1"))
	o.mac = h.Sum(nil)
	return o, nil
}

func readKey(how string, text []byte) ([]byte, error) {
	trimmed := strings.TrimSpace(string(text))
	switch how {
	case "sha256":
		sum := sha256.Sum256([]byte(trimmed))
		return sum[:], nil
	case "text":
		if len(trimmed) == keySize {
			return []byte(trimmed), nil
		}
		return nil, errors.New("must be 32 characters, as the mapping says")
	}
	if b, err := hex.DecodeString(trimmed); err == nil && len(b) == keySize && how != "base64" {
		return b, nil
	}
	if b, err := fromBase64(trimmed); err == nil && len(b) == keySize && how != "hex" {
		return b, nil
	}
	if how == "auto" && len(trimmed) == keySize {
		return []byte(trimmed), nil
	}
	return nil, errors.New("is neither 64 hexadecimal digits nor 44 characters of base64 nor 32 characters; see sealed: key: in the mapping if the app derives its key")
}

var partNames = []string{"iv", "tag", "ciphertext"}

func order(parts string) (at [3]int, err error) {
	names := strings.Split(parts, ":")
	for i, name := range partNames {
		if at[i] = slices.Index(names, name); at[i] < 0 || len(names) != len(partNames) {
			return at, errors.New("must name iv, tag and ciphertext, as iv:tag:ciphertext")
		}
	}
	return at, nil
}

var (
	errNotSealed = errors.New("is not sealed")
	errNotOpened = errors.New("cannot be opened: it was sealed under another key, or is damaged")
)

// open opens a text. What has not the form of something sealed is errNotSealed.
func (o *Opener) open(text string) ([]byte, error) {
	parts := strings.Split(text, ":")
	if len(parts) != len(o.order) {
		return nil, errNotSealed
	}
	b, ok := o.parts(parts, hex.DecodeString)
	if !ok {
		b, ok = o.parts(parts, fromBase64) // all three: a short text may look like either
	}
	if !ok {
		return nil, errNotSealed
	}
	iv, tag, sealed := b[0], b[1], b[2]
	if len(iv) < 12 || len(iv) > 16 || len(tag) < 12 || len(tag) > 16 {
		return nil, errNotSealed
	}
	if len(tag) != 16 {
		return nil, errNotOpened // shortened: whoever writes it could try them out
	}
	aead, err := cipher.NewGCMWithNonceSize(o.block, len(iv))
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, iv, slices.Concat(sealed, tag), nil)
	if err != nil {
		return nil, errNotOpened
	}
	return plain, nil
}

// parts decodes iv, tag and ciphertext.
func (o *Opener) parts(texts []string, decode func(string) ([]byte, error)) (b [3][]byte, ok bool) {
	for i, at := range o.order {
		var err error
		if b[i], err = decode(texts[at]); err != nil {
			return b, false
		}
	}
	return b, true
}

// fromBase64 reads both alphabets, with padding or without.
func fromBase64(s string) ([]byte, error) {
	s = strings.TrimRight(s, "=")
	if b, err := base64.RawStdEncoding.DecodeString(s); err == nil {
		return b, nil
	}
	return base64.RawURLEncoding.DecodeString(s)
}

// digest is of what stands in the old tables. It has a key, since some of that is short and secret.
func (o *Opener) digest() hash.Hash { return hmac.New(sha256.New, o.mac) }
