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
	ID        string // "wd_" and 26 base32 characters, the same at each attempt; AcceptDelivery sets an empty one
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

	// SeenKey makes a second delivery of the same key a duplicate until SeenUntil; empty: none is. It is not read back.
	SeenKey   string
	SeenUntil time.Time

	State         State
	Attempts      int       // made so far, the one under way included
	NextAttemptAt time.Time // zero: none is due, or it waits for an earlier one of its group
	LastError     string    // of the last attempt that failed; empty: none did
	BodySize      int64     // in bytes
	CreatedAt     time.Time
	UpdatedAt     time.Time
}

const (
	// The claim lasts: a key that ran out is as good as one never seen.
	claimSeen = `INSERT INTO webhook_seen (key, until) VALUES ($1, $2)
		ON CONFLICT (key) DO UPDATE SET until = excluded.until WHERE webhook_seen.until <= $3`
	unclaimSeen = "DELETE FROM webhook_seen WHERE key = $1"

	insertDelivery = `INSERT INTO webhook_deliveries (id, org_id, provider, type, assistant, group_key, target, method, path, raw_query,
		header, body, state, attempts, next_attempt_at, lease_until, lease_owner, last_error, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'pending', 0,
		CASE WHEN EXISTS (SELECT 1 FROM webhook_deliveries WHERE state = 'pending' AND group_key = $6 AND group_key <> '') THEN NULL
		ELSE CAST($13 AS bigint) END, 0, '', '', $14, $14)`

	// holdGroup makes what concerns the order of a group happen one after the other, so that the order of seq is that of the commits.
	// Its clock is the one that all sidecars share.
	holdGroup  = "SELECT clock_timestamp(), pg_advisory_xact_lock($1, hashtext($2))::text"
	sharedTime = "SELECT clock_timestamp()"
	groupLock  = 773749188 // any number, the same for all sidecars
)

// AcceptDelivery takes a delivery in: when it returns without an error, the delivery survives a crash, and may be acknowledged. It says
// whether one of the same SeenKey was accepted or claimed before; then nothing is taken in. An empty d.ID is set.
func (d *DB) AcceptDelivery(ctx context.Context, v *Delivery) (duplicate bool, err error) {
	if !IsOrg(v.Org) {
		return false, errors.New("accepting a delivery: the org id is malformed")
	}
	if v.ID == "" {
		v.ID = "wd_" + strings.ToLower(rand.Text())
	}
	err = d.together(ctx, func(t *tx) error {
		duplicate = false
		if v.SeenKey != "" {
			fresh, err := t.claim(v.SeenKey, v.SeenUntil)
			if duplicate = !fresh; duplicate || err != nil {
				return err
			}
		}
		now, err := d.hold(t, v.Group)
		if err != nil {
			return err
		}
		_, err = t.exec(insertDelivery, v.ID, v.Org, v.Provider, clean(v.Type), clean(v.Assistant), clean(v.Group), v.Target, clean(v.Method),
			clean(v.Path), clean(v.RawQuery), notNil(v.Header), notNil(v.Body), micros(now), micros(t.now))
		return err
	})
	return duplicate, err
}

// ClaimSeen keeps the key until a time, and says whether it was kept before: for what is answered at once and not taken in. Of several
// callers at the same time, in all sidecars, one is the first.
func (d *DB) ClaimSeen(ctx context.Context, key string, until time.Time) (duplicate bool, err error) {
	err = d.together(ctx, func(t *tx) error {
		fresh, err := t.claim(key, until)
		duplicate = !fresh
		return err
	})
	return duplicate, err
}

// Unclaim forgets a key: what came with it was not dealt with, and is welcome again.
func (d *DB) Unclaim(ctx context.Context, key string) error {
	return d.together(ctx, func(t *tx) error {
		_, err := t.exec(unclaimSeen, []byte(key))
		return err
	})
}

func (t *tx) claim(key string, until time.Time) (fresh bool, err error) {
	n, err := t.exec(claimSeen, []byte(key), micros(until), micros(t.now))
	return n > 0, err
}

// hold keeps others from changing the order of a group until the transaction ends, and returns the clock's time that all sidecars share.
func (d *DB) hold(t *tx, group string) (now time.Time, err error) {
	switch {
	case d.lite != nil: // there is one writer
		return t.now, nil
	case group == "":
		err = t.row(sharedTime).Scan(when{&now})
	default:
		var void sql.NullString
		err = t.row(holdGroup, groupLock, clean(group)).Scan(when{&now}, &void)
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
