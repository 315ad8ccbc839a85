package keysource

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	rand2 "math/rand/v2"
	"strings"
	"time"

	"github.com/keyward/keyward/seal"
)

// ErrUnavailable: the key management service cannot be reached, asks to come again later or has an error of its own. What is wrapped stays
// as it is; the same will work when the service does.
var ErrUnavailable = errors.New("the key management service cannot answer now")

// What a service refuses for good.
var (
	errDenied   = errors.New("access denied: the identity that Keyward runs as may not use the key")
	errDisabled = errors.New("the key is disabled or to be deleted: enable it, or cancel its deletion")
	errNoKey    = errors.New("there is no such key: look at its name, region and project")
	errWrongKey = errors.New("it was wrapped by another key, or is damaged")
)

const (
	wrappedVersion = 1
	dataKeySize    = 32
	wrappedContext = "keyward wrapped keyset 1"
)

// A wrapped is the file of a wrapped keyset. Nothing in it is secret.
type wrapped struct {
	Version   int    `json:"version"`
	WrappedBy string `json:"wrapped_by"` // for people: what unwraps is the source
	DataKey   []byte `json:"data_key"`
	Keyset    []byte `json:"keyset"`
}

// wrap seals the text of a keyset under a data key of its own, and has the service encrypt that. Before it returns it has the service
// decrypt it again: a keyset that nobody can unwrap must not take the place of one that can be.
func (s *Source) wrap(ctx context.Context, text []byte) ([]byte, error) {
	defer collect()
	dataKey := make([]byte, dataKeySize)
	_, _ = rand.Read(dataKey) // never fails
	defer clear(dataKey)
	aead, err := newAEAD(dataKey)
	if err != nil {
		return nil, err
	}
	w := wrapped{Version: wrappedVersion, WrappedBy: s.name(), Keyset: aead.Seal(nil, nil, text, []byte(wrappedContext))}
	w.DataKey, err = try(ctx, func(ctx context.Context) ([]byte, error) { return s.service.wrap(ctx, dataKey) })
	if err != nil {
		return nil, fmt.Errorf("wrapping it by %s: %w", s.name(), err)
	}
	back, err := try(ctx, func(ctx context.Context) ([]byte, error) { return s.service.unwrap(ctx, w.DataKey) })
	defer clear(back)
	if err == nil && !bytes.Equal(back, dataKey) {
		err = errors.New("what came back is not what was wrapped")
	}
	if err != nil {
		return nil, fmt.Errorf("wrapped by %s, it could not be unwrapped again: %w", s.name(), err)
	}
	out, err := json.MarshalIndent(w, "", "  ")
	return append(out, '\n'), err
}

func (s *Source) unwrap(ctx context.Context, text []byte) (*seal.Keyring, error) {
	var w wrapped
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&w)
	switch {
	case bytes.Contains(text, []byte(`"keys"`)):
		return nil, errors.New("it is a keyset that is not wrapped: use file:PATH, or wrap it with keyward keys rewrap --to")
	case err != nil:
		return nil, errors.New("it is not a wrapped keyset") // without the cause, which may quote what stands there
	case w.Version != wrappedVersion:
		return nil, fmt.Errorf("version: must be %d; this program reads no other", wrappedVersion)
	case len(w.DataKey) == 0 || len(w.Keyset) == 0:
		return nil, errors.New("it is not a wrapped keyset: data_key or keyset is missing")
	}
	defer collect()
	dataKey, err := try(ctx, func(ctx context.Context) ([]byte, error) { return s.service.unwrap(ctx, w.DataKey) })
	defer clear(dataKey)
	if err != nil {
		if w.WrappedBy != s.name() && errors.Is(err, errWrongKey) {
			return nil, fmt.Errorf("%s: %w: it says that it was wrapped by %s", s.name(), err, printable(w.WrappedBy))
		}
		return nil, fmt.Errorf("%s: %w", s.name(), err)
	}
	if len(dataKey) != dataKeySize {
		return nil, fmt.Errorf("%s: %w", s.name(), errWrongKey)
	}
	aead, err := newAEAD(dataKey)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(make([]byte, 0, len(w.Keyset)), nil, w.Keyset, []byte(wrappedContext))
	if err != nil {
		return nil, errors.New("the keyset in it is damaged: its data key does not open it")
	}
	defer clear(plain)
	return seal.ParseKeyset(plain)
}

func newAEAD(dataKey []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(dataKey)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// name is the service and its key, without options.
func (s *Source) name() string {
	name, _, _ := strings.Cut(s.text, "?")
	return name
}

// try asks until it is answered, refused or out of patience. What cut the last attempt short is only the end of patience: the reason is
// what the service said before.
func try(ctx context.Context, ask func(context.Context) ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var reason error
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		out, err := ask(ctx)
		if err == nil || !errors.Is(err, ErrUnavailable) {
			return out, err
		}
		if reason == nil || ctx.Err() == nil {
			reason = err
		}
		select {
		case <-ctx.Done():
			return nil, reason
		case <-time.After(pause/2 + rand2.N(pause/2)): //nolint:gosec // jitter is no secret
		}
	}
}

// unavailable is an ErrUnavailable with its reason.
func unavailable(reason string) error { return fmt.Errorf("%w: %s", ErrUnavailable, reason) }

// refused is a refusal with the service's own words.
func refused(err error, words string) error {
	if words = printable(words); words != "" {
		return fmt.Errorf("%w (%s)", err, words)
	}
	return err
}

// printable is what somebody else has written, fit for one line of a log.
func printable(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.TrimSpace(s)
}
