package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"strings"
	"time"
)

// A State is how far a delivery has come.
type State string

// The states of a delivery.
const (
	Pending   State = "pending"   // the app has not taken it yet
	Delivered State = "delivered" // the app answered 2xx
	Dead      State = "dead"      // the last attempt failed; it is kept, and can be redelivered
)

// A Delivery is a verified webhook that was acknowledged and is the app's until the app has taken it. Header and Body may hold secrets
// of the tenant: they are in no listing and no log.
type Delivery struct {
	ID        string // "wd_" and 26 base32 characters, the same at each attempt; AcceptDelivery sets an empty one (NewDeliveryID)
	Org       string
	Provider  string
	Type      string // of the message, as the provider names it; may be empty
	Assistant string // may be empty
	Group     string // deliveries of one group reach the app in the order of their acceptance (a call, a message); empty: in any
	Target    string // where it goes: http://HOST:PORT/PATH or unix:SOCKET:PATH

	Method   string
	Path     string // as the provider asked for it; the app is asked for the target's
	RawQuery string // appended to the target's path
	Header   []byte // as on the wire: lines of "Name: value\r\n"
	Body     []byte
	// KeyID is the key that sealed the last three, into Header (with RawQuery, which is empty) and Body. Empty: they are as they came.
	KeyID string

	// SeenKey makes a second delivery of the same key a duplicate until SeenUntil; empty: none is. It is not read back.
	SeenKey   string
	SeenUntil time.Time

	State         State
	Attempts      int       // made so far, the one under way included
	NextAttemptAt time.Time // zero: none is due, or it waits for an earlier one of its group
	LastError     string    // of the last attempt that failed; empty: none did
	BodySize      int64     // in bytes, as it came
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

const (
	insertDelivery = `INSERT INTO webhook_deliveries (id, org_id, provider, type, assistant, group_key, target, method, path, raw_query,
		header, body, state, attempts, next_attempt_at, lease_until, lease_owner, last_error, created_at, updated_at, key_id, body_size)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'pending', 0,
		CASE WHEN $6 <> '' AND EXISTS (SELECT 1 FROM webhook_deliveries WHERE state = 'pending' AND group_key = $6) THEN NULL
		ELSE CAST($13 AS bigint) END, 0, '', '', $14, $14, $15, $16)`

	// holdGroup makes what concerns the order of a group happen one after the other, so that the order of seq is that of the commits.
	// Its clock is the one that all sidecars share. The third column makes a relaxed transaction one.
	holdGroup  = "SELECT clock_timestamp(), pg_advisory_xact_lock($1, hashtext($2))::text, CASE WHEN $3::bool THEN set_config('synchronous_commit', 'off', true) END"
	sharedTime = "SELECT clock_timestamp(), ''::text, CASE WHEN $1::bool THEN set_config('synchronous_commit', 'off', true) END"
	groupLock  = 773749188 // any number, the same for all sidecars
)

// AcceptDelivery takes a delivery in: when it returns without an error, the delivery survives a crash of the host, and may be acknowledged.
// It says whether one of the same SeenKey was dealt with before; then nothing is taken in. ErrConflict: that is being found out at this
// moment, by who claimed the key. An empty d.ID is set.
func (d *DB) AcceptDelivery(ctx context.Context, v *Delivery) (duplicate bool, err error) {
	if !IsOrg(v.Org) {
		return false, errors.New("accepting a delivery: the org id is malformed")
	}
	if v.ID == "" {
		v.ID = NewDeliveryID()
	}
	if v.KeyID == "" {
		v.BodySize = int64(len(v.Body))
	}
	err = d.together(ctx, false, func(t *tx) error {
		duplicate = false
		if v.SeenKey != "" {
			var err error
			if duplicate, err = d.seen(t, v.SeenKey, v.SeenUntil); duplicate || err != nil {
				return err
			}
		}
		now, err := d.hold(t, v.Group)
		if err != nil {
			return err
		}
		_, err = t.exec(insertDelivery, v.ID, v.Org, v.Provider, clean(v.Type), clean(v.Assistant), clean(v.Group), v.Target, clean(v.Method),
			clean(v.Path), clean(v.RawQuery), notNil(v.Header), notNil(v.Body), micros(now), micros(t.now), v.KeyID, v.BodySize)
		return err
	})
	return duplicate, err
}

// NewDeliveryID is an id that no other delivery has.
func NewDeliveryID() string { return "wd_" + strings.ToLower(rand.Text()) }

// hold keeps others from changing the order of a group until the transaction ends, and returns the clock's time that all sidecars share.
func (d *DB) hold(t *tx, group string) (now time.Time, err error) {
	var void, off sql.NullString
	switch {
	case d.lite != nil: // there is one writer
		return t.now, nil
	case group == "":
		err = t.row(sharedTime, t.relaxed).Scan(when{&now}, &void, &off)
	default:
		err = t.row(holdGroup, groupLock, clean(group), t.relaxed).Scan(when{&now}, &void, &off)
	}
	return now, err
}

// micros is a time as the webhooks' tables keep it.
func micros(t time.Time) int64 { return t.UnixMicro() }

// A micro scans what micros made; NULL and 0 are the zero time.
type micro struct{ t *time.Time }

func (m micro) Scan(v any) error {
	var n sql.NullInt64
	if err := n.Scan(v); err != nil {
		return err
	}
	*m.t = time.Time{}
	if n.Int64 != 0 {
		*m.t = time.UnixMicro(n.Int64).UTC()
	}
	return nil
}

// notNil is a value for a column that takes no NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
