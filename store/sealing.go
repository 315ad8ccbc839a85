package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
)

const (
	keysOfDeliveries = "SELECT key_id, count(*) FROM webhook_deliveries GROUP BY key_id"
	deliveriesByKey  = "SELECT seq, key_id FROM webhook_deliveries WHERE seq > $1 ORDER BY seq LIMIT $2"
	sealedDelivery   = "SELECT header, body, " + deliveryColumns + " FROM webhook_deliveries WHERE seq = $1"
	replaceSealed    = `UPDATE webhook_deliveries SET raw_query = $1, header = $2, body = $3, key_id = $4, body_size = $5
		WHERE seq = $6 AND key_id = $7`
)

// AppendContext appends what a part of the delivery ("head" or "body") is sealed for, length-prefixed: opening it as the other part,
// another table's row, another org's, another provider's or another delivery's fails. The keyring adds format version and key id.
func (v *Delivery) AppendContext(dst []byte, part string) []byte {
	for _, p := range [...]string{"webhook_deliveries", v.Org, v.Provider, v.ID, part} {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(p)))
		dst = append(dst, p...)
	}
	return dst
}

// DeliveryKeys counts the deliveries by the key that sealed them; "" are those that no key did. A key that is counted here is still needed.
func (d *DB) DeliveryKeys(ctx context.Context) (count map[string]int64, err error) {
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		count = map[string]int64{}
		return d.list(ctx, func(r *sql.Rows) error {
			var id string
			var n int64
			err := r.Scan(&id, &n)
			count[id] = n
			return err
		}, keysOfDeliveries)
	})
	return count, err
}

// ResealDeliveries calls seal for every delivery that was sealed by a key for which stale is true, and writes what seal has made of
// RawQuery, Header, Body, KeyID and BodySize; false: it is left as it is. It reads in pages, and may be called while deliveries come and go.
func (d *DB) ResealDeliveries(ctx context.Context, stale func(keyID string) bool, seal func(*Delivery) bool) (replaced int, err error) {
	const n = 1000
	for last := int64(-1); ; {
		seqs, next, rows, err := d.staleDeliveries(ctx, last, n, stale)
		if err != nil {
			return replaced, err
		}
		for _, seq := range seqs {
			done, err := d.resealDelivery(ctx, seq, stale, seal)
			if err != nil {
				return replaced, err
			}
			if done {
				replaced++
			}
		}
		if last = next; rows < n {
			if replaced > 0 {
				d.removed()
			}
			return replaced, nil
		}
	}
}

// staleDeliveries looks at the next rows and returns those that are stale, the last that it looked at, and how many it did.
func (d *DB) staleDeliveries(ctx context.Context, after int64, n int, stale func(string) bool) (seqs []int64, last int64, rows int, err error) {
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		seqs, last, rows = nil, after, 0
		return d.list(ctx, func(r *sql.Rows) error {
			var keyID string
			if err := r.Scan(&last, &keyID); err != nil {
				return err
			}
			rows++
			if stale(keyID) {
				seqs = append(seqs, last)
			}
			return nil
		}, deliveriesByKey, after, n)
	})
	return seqs, last, rows, err
}

func (d *DB) resealDelivery(ctx context.Context, seq int64, stale func(string) bool, seal func(*Delivery) bool) (done bool, err error) {
	var v *Delivery
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		v = &Delivery{}
		return d.r.QueryRowContext(ctx, sealedDelivery, seq).Scan(append([]any{&v.Header, &v.Body}, v.columns()...)...)
	})
	switch {
	case errors.Is(err, ErrNotFound):
		return false, nil // swept meanwhile
	case err != nil:
		return false, err
	}
	before := v.KeyID
	if !stale(before) || !seal(v) {
		return false, nil
	}
	err = d.writeRelaxed(ctx, func(t *tx) error {
		changed, err := t.exec(replaceSealed, v.RawQuery, notNil(v.Header), notNil(v.Body), v.KeyID, v.BodySize, seq, before)
		done = changed > 0 // else another sidecar has done it
		return err
	})
	return done, err
}
