package webhook

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// What waits in the store holds personal data, and may hold the tenant's secrets: it is sealed with the keyring as credentials are, for its
// org, provider and id. The head is the query, with its length in front, and the headers; the body is apart, so that a long one is not
// copied once more. Rows from before that are as they came, and are delivered all the same.

const (
	partHead = "head"
	partBody = "body"
)

// sealed is the delivery as it is stored. The one that it is given stays as it is, but for its id.
func sealed(keys *seal.Keyring, d *store.Delivery) *store.Delivery {
	if d.ID == "" {
		d.ID = store.NewDeliveryID()
	}
	s := *d
	head := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(d.RawQuery)+len(d.Header)), uint32(len(d.RawQuery)))
	head = append(append(head, d.RawQuery...), d.Header...)
	s.RawQuery, s.BodySize = "", int64(len(d.Body))
	for { // until both are sealed with one key, which turning keys may change in between
		s.Header = keys.SealBulk(make([]byte, 0, len(head)+envelope), head, d.AppendContext(nil, partHead))
		s.Body = keys.SealBulk(make([]byte, 0, len(d.Body)+envelope), d.Body, d.AppendContext(nil, partBody))
		of, _ := seal.SealedWith(s.Header)
		if s.KeyID, _ = seal.SealedWith(s.Body); s.KeyID == of {
			return &s
		}
	}
}

// envelope is how much longer a sealed value is at most.
const envelope = 128

// errOpen: a stored delivery cannot be read. Damaged or moved, it never will be.
var errOpen = errors.New("the stored webhook cannot be opened: it is damaged, or was sealed as another one")

// opened makes a stored delivery be as it came. The error is errOpen, or seal.ErrUnknownKey.
func opened(keys *seal.Keyring, d *store.Delivery) error {
	if d.KeyID == "" {
		return nil
	}
	head, err := keys.Open(nil, d.Header, d.AppendContext(nil, partHead))
	if err == nil {
		d.Body, err = keys.Open(nil, d.Body, d.AppendContext(nil, partBody))
	}
	switch {
	case errors.Is(err, seal.ErrUnknownKey):
		return seal.ErrUnknownKey
	case err != nil || len(head) < 4:
		return errOpen
	}
	n := binary.BigEndian.Uint32(head)
	if uint64(n) > uint64(len(head)-4) {
		return errOpen
	}
	d.RawQuery, d.Header, d.KeyID = string(head[4:4+n]), head[4+n:], ""
	return nil
}

// Reseal seals anew whatever is stored and was sealed by a retiring key, or by none, and returns how many that were. What cannot be opened
// stays as it is. Until it has been called without an error no key that store.DB.DeliveryKeys counts may be taken out of the keyring.
func Reseal(ctx context.Context, db *store.DB, keys *seal.Keyring) (resealed int, err error) {
	retiring := map[string]bool{"": true}
	for _, k := range keys.Keys() {
		if k.State == seal.Retiring {
			retiring[k.ID] = true
		}
	}
	return db.ResealDeliveries(ctx, func(keyID string) bool { return retiring[keyID] }, func(d *store.Delivery) bool {
		if opened(keys, d) != nil {
			return false
		}
		*d = *sealed(keys, d)
		return true
	})
}
