package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

func loadFile(path string) (*Keyring, error) {
	text, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return parseKeyset(text)
}

// readPrivate reads a file that nobody but its owner may read. What is checked is what was opened.
func readPrivate(path string) ([]byte, error) {
	// A pipe would block for ever without O_NONBLOCK; to a file it means nothing.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, cause(err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, cause(err)
	case !st.Mode().IsRegular():
		return nil, errors.New("it is not a file")
	case st.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("its mode %04o lets others at the key: chmod 600 %s", st.Mode().Perm(), path)
	case st.Size() > maxKeyset:
		return nil, fmt.Errorf("it has %d bytes; a keyset has at most %d", st.Size(), maxKeyset)
	}
	text := make([]byte, st.Size()) // at once: a buffer that grows leaves copies behind
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(text)
		return nil, cause(err)
	}
	return text[:n], nil
}

func loadEnv(name string) (*Keyring, error) {
	value, err := takeEnv(name)
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

// WriteFile writes the keyset to a file that only its owner may read, never over an existing one (os.ErrExist). The file at path is whole
// and on the disk when it returns, or was never there.
func (k *Keyring) WriteFile(path string) error {
	r := k.ring.Load()
	if r.primary == nil {
		return errors.New("writing key file: the keyring was wiped")
	}
	text := r.appendKeyset(make([]byte, 0, 256*(1+len(r.keys)))) // with room for all: a buffer that grows leaves copies behind
	defer clear(text)
	if err := writePrivate(path, text); err != nil {
		return fmt.Errorf("writing key file %q: %w", path, err)
	}
	return nil
}

// writePrivate puts the whole file in place under another name and then links it: unlike a rename, a link fails when the path is taken.
func writePrivate(path string, text []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return cause(err)
	}
	f, err := os.CreateTemp(dir, ".keys-*") // mode 0600
	if err != nil {
		return cause(err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closing := f.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return cause(err)
	}
	if err := os.Link(f.Name(), path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("it exists, and a key is never overwritten; move it away or choose another path: %w", fs.ErrExist)
		}
		return cause(err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return cause(err)
	}
	defer func() { _ = d.Close() }()
	return cause(d.Sync())
}

// cause is a file error without the path, which the message names already.
func cause(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}
