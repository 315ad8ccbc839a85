package keysource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/keyward/keyward/seal"
)

// wrappedName is the file of a wrapped keyset in the data folder, where the source does not name one.
const wrappedName = "keys.wrapped.json"

// patience is how long a key management service is tried before a command or a start gives up on it.
const patience = 10 * time.Second

// ErrReadOnly: the source is read and never written: a variable.
var ErrReadOnly = errors.New("a variable cannot be changed from here")

// A Source is one place that keeps a keyset. It can be printed: it holds no secret.
type Source struct {
	text    string // as it was given
	env     string // the variable's name; empty: a file
	path    string // the file, wrapped or not
	service service
}

// A service wraps and unwraps data keys. It makes one attempt; its errors say nothing of what was sent, and ErrUnavailable when another
// attempt makes sense.
type service interface {
	wrap(ctx context.Context, plain []byte) ([]byte, error)
	unwrap(ctx context.Context, wrapped []byte) ([]byte, error)
}

// Parse reads what --key says. dataDir is where a wrapped keyset lies that the source does not name a file for. No error quotes the
// source: it may be a key, put in the wrong place.
func Parse(source, dataDir string) (*Source, error) {
	s := &Source{text: source}
	kind, rest, _ := strings.Cut(source, ":")
	switch kind {
	case "file":
		if rest == "" {
			return nil, errors.New("after file: comes a path, as file:/etc/keyward/keys.json")
		}
		s.path = rest
		return s, nil
	case "env":
		if !isVariable(rest) {
			return nil, errors.New("after env: comes the name of a variable, as env:KEYWARD_KEY")
		}
		s.env = rest
		return s, nil
	}
	parse := map[string]func(name string, o *options) (service, error){"awskms": parseAWS, "gcpkms": parseGCP, "hcvault": parseVault}[kind]
	if parse == nil || !strings.HasPrefix(rest, "//") {
		return nil, errors.New("must be file:PATH, env:NAME, awskms://…, gcpkms://… or hcvault://…, never the key itself")
	}
	name, query, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "?")
	o, err := readOptions(query)
	if err != nil {
		return nil, fmt.Errorf("%s://: %w", kind, err)
	}
	if s.path = o.take("keyset"); s.path == "" {
		s.path = filepath.Join(dataDir, wrappedName)
	}
	if s.service, err = parse(name, o); err == nil {
		err = o.rest()
	}
	if err != nil {
		return nil, fmt.Errorf("%s://: %w", kind, err)
	}
	return s, nil
}

func isVariable(s string) bool {
	for i, c := range []byte(s) {
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// String is the source as it was given.
func (s *Source) String() string { return s.text }

// Path is the file of the keyset, to watch for changes; empty: there is none.
func (s *Source) Path() string { return s.path }

// Wrapped says whether a key management service is asked.
func (s *Source) Wrapped() bool { return s.service != nil }

// Load reads the keyset. A file that does not exist is an os.ErrNotExist; a service that cannot be asked now is ErrUnavailable.
func (s *Source) Load(ctx context.Context) (*seal.Keyring, error) {
	if s.service == nil {
		return seal.Load(s.plain())
	}
	text, err := seal.ReadFile(s.path)
	if err != nil {
		return nil, fmt.Errorf("reading wrapped keyset %q: %w", s.path, err)
	}
	k, err := s.unwrap(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("unwrapping keyset %q: %w", s.path, err)
	}
	return k, nil
}

// plain is the source of a keyset that is not wrapped, as package seal reads it.
func (s *Source) plain() string {
	if s.env != "" {
		return "env:" + s.env
	}
	return "file:" + s.path
}

// Create writes a keyset where there is none: os.ErrExist.
func (s *Source) Create(ctx context.Context, k *seal.Keyring) error {
	if s.env != "" {
		return ErrReadOnly
	}
	text, err := s.encode(ctx, k)
	if err != nil {
		return fmt.Errorf("writing key file %q: %w", s.path, err)
	}
	defer clear(text)
	if err := seal.CreateFile(s.path, text); err != nil {
		return fmt.Errorf("writing key file %q: %w", s.path, err)
	}
	return nil
}

// Update has change change the keyset, and puts the result in the file's place at once and whole. Others that change the same file wait
// for each other. When change fails, the file stays as it is.
func (s *Source) Update(ctx context.Context, change func(*seal.Keyring) error) error {
	return s.update(ctx, s, change)
}

// Rewrap writes the keyset of s, as it is, to another source: wrapped anew, by another key, or not at all. The same file is replaced;
// another one must not exist.
func (s *Source) Rewrap(ctx context.Context, to *Source) error {
	if s.env == "" && sameFile(s.path, to.path) {
		return s.update(ctx, to, func(*seal.Keyring) error { return nil })
	}
	k, err := s.Load(ctx)
	if err != nil {
		return err
	}
	defer k.Wipe()
	return to.Create(ctx, k)
}

func (s *Source) update(ctx context.Context, to *Source, change func(*seal.Keyring) error) error {
	if s.env != "" {
		return ErrReadOnly
	}
	unlock, err := seal.LockFile(s.path)
	if err != nil {
		return fmt.Errorf("changing key file %q: %w", s.path, err)
	}
	defer unlock()
	k, err := s.Load(ctx)
	if err != nil {
		return err
	}
	defer k.Wipe()
	if err := change(k); err != nil {
		return err
	}
	text, err := to.encode(ctx, k)
	if err == nil {
		defer clear(text)
		err = seal.ReplaceFile(s.path, text)
	}
	if err != nil {
		return fmt.Errorf("writing key file %q: %w", s.path, err)
	}
	return nil
}

func sameFile(a, b string) bool {
	if a == b {
		return true
	}
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// encode is the keyset as it stands in the source's file.
func (s *Source) encode(ctx context.Context, k *seal.Keyring) ([]byte, error) {
	text, err := k.AppendKeyset(nil)
	if err != nil || s.service == nil {
		return text, err
	}
	defer clear(text)
	return s.wrap(ctx, text)
}

// collect has what passed through the libraries of a service, and JSON, overwritten now: nobody can name all the copies.
func collect() {
	runtime.GC()
	runtime.GC()
}
