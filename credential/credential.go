// Package credential turns an org's fields into a sealed row and back.
//
// Open is the hot path: one row, opened into the request's scratch memory for the time of that request. The Keeper is the slow one:
// everything that changes a credential goes through it, so that in one place the fields are checked against the provider's table, sealed
// for exactly this org, provider and version, and written only if nobody else has written in between.
package credential

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// ErrUnreadable: the row cannot be opened with the keys at hand, or what it holds is not a credential. It wraps the cause, which names
// keys and never values.
var ErrUnreadable = errors.New("credential cannot be opened")

// ErrUnknownProvider: there is no provider of that name.
var ErrUnknownProvider = errors.New("unknown provider")

// An InvalidError lists every field that is missing, unknown or malformed. It quotes no value of a secret.
type InvalidError struct{ Fields []provider.FieldError }

func (e *InvalidError) Error() string {
	var b strings.Builder
	b.WriteString("invalid credential")
	for i, f := range e.Fields {
		b.WriteString([]string{": ", "; "}[min(i, 1)])
		b.WriteString(f.Field)
		b.WriteByte(' ')
		b.WriteString(f.Problem)
	}
	return b.String()
}

// Open opens row c into scratch and returns the Secret, which lives in it, together with the memory to hand in the next time: scratch
// itself, or a larger one when it was too small. The caller wipes the Secret when the request has been written. Nothing is allocated
// once scratch has grown to the size of the largest credential seen. The only error is an ErrUnreadable.
func Open(k *seal.Keyring, c *store.Credential, scratch []byte) (provider.Secret, []byte, error) {
	plain, scratch, err := open(k, c, scratch)
	if err != nil {
		return provider.Secret{}, scratch, err
	}
	return provider.Open(plain), scratch, nil
}

// open lays the context out at the start of scratch and opens the row behind it.
func open(k *seal.Keyring, c *store.Credential, scratch []byte) (plain, grown []byte, err error) {
	scratch = c.AppendContext(scratch[:0])
	n := len(scratch)
	if need := n + len(c.Sealed); cap(scratch) < need {
		// The old memory holds nothing secret: what was opened into it before has been wiped, and now it holds the context.
		scratch = append(make([]byte, 0, need+need/2), scratch...)
	}
	plain, err = k.Open(scratch[n:n:cap(scratch)], c.Sealed, scratch[:n])
	if err != nil {
		return nil, scratch, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return plain, scratch, nil
}
