package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// maxKeyset is the largest keyset, in bytes: some thousand keys.
const maxKeyset = 1 << 20

// Load reads a key source: "file:PATH" is a keyset that only its owner may read; "env:NAME" is 32 bytes as base64 or hex, or a keyset.
// A file that does not exist is an os.ErrNotExist. The variable is taken out of the process's environment, the kernel's block included, and
// no copy of a key's text stays in memory.
func Load(source string) (*Keyring, error) {
	kind, rest, _ := strings.Cut(source, ":")
	switch {
	case kind == "file" && rest != "":
		k, err := loadFile(rest)
		if err != nil {
			return nil, fmt.Errorf("reading key file %q: %w", rest, err)
		}
		return k, nil
	case kind == "env" && isName(rest):
		k, err := loadEnv(rest)
		if err != nil {
			return nil, fmt.Errorf("reading key variable %s: %w", rest, err)
		}
		return k, nil
	}
	return nil, errors.New("key source: must be file:PATH or env:NAME, never the key itself")
}

// isName keeps a key that was put where a variable's name belongs out of the error.
func isName(s string) bool {
	for i, c := range []byte(s) {
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && (len(s) != hex.EncodedLen(keySize) || !decodes([]byte(s)))
}

func loadEnv(name string) (*Keyring, error) {
	value, err := TakeEnv(name)
	if err != nil {
		return nil, err
	}
	defer clear(value)
	text := bytes.TrimSpace(value)
	if len(text) > 0 && text[0] == '{' {
		return parseKeyset(text)
	}
	b, ok := decodeKey(text)
	defer clear(b[:])
	if !ok {
		return nil, fmt.Errorf("its %d characters are neither 32 bytes in base64 (44) or hex (64) nor a keyset; make a key with: openssl rand -base64 32", len(text))
	}
	k := &key{id: derivedID(b[:]), state: Primary}
	k.use(b)
	return newKeyring(k, []*key{k}), nil
}

// derivedID names a key that came without an id, the same on every machine. Some bytes of the SHA-256 of a random key tell nothing of it.
func derivedID(key []byte) string {
	h := sha256.New()
	h.Write([]byte("keyward key id\x00"))
	h.Write(key)
	id := "env-" + hex.EncodeToString(h.Sum(nil)[:6])
	h.Reset()
	return id
}
