package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// A Claim is what is known of the key of a message that is answered at once, and not taken in.
type Claim int

// What ClaimSeen finds.
const (
	Fresh    Claim = iota + 1 // nobody has dealt with it: it is the caller's now
	UnderWay                  // somebody else is dealing with it
	Seen                      // it was dealt with
)

// ClaimLease is how long a claim holds without RenewClaims: what a sidecar had claimed when it was killed is free after that.
const ClaimLease = 2 * time.Second

// On PostgreSQL a claim is a row of webhook_seen that runs out soon, until it is confirmed; each of these is a transaction by itself that
// does not wait for the disk: a row outlives the sidecar that wrote it, and need not outlive the server.
//
// On SQLite there is one sidecar, and claims are in its memory: they end with it. Only while one hands over to the next are there two; then
// of two that deal with the same message at the same moment, the second finds out at its end. While there is one it keeps what is confirmed
// itself for a moment, too: keyLog. Where the disk is full, room that was set aside before takes what becomes of a key: keyReserve.
const (
	// A key that ran out is as good as one never seen.
	claimSeen = `INSERT INTO webhook_seen (key, until) VALUES ($1, $2)
		ON CONFLICT (key) DO UPDATE SET until = excluded.until WHERE webhook_seen.until <= $3`
	seenUntil  = "SELECT until FROM webhook_seen WHERE key = $1"
	forgetSeen = "DELETE FROM webhook_seen WHERE key = $1 AND until = $2"

	pgNow   = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
	pgClaim = "WITH c AS MATERIALIZED (SELECT " + pgNow + ` AS now, set_config('synchronous_commit', 'off', true) AS relaxed)
		INSERT INTO webhook_seen (key, until) SELECT a.key, c.now + $3::bigint FROM c, unnest($1::bytea[], $2::bigint[]) AS a (key, until) WHERE relaxed = 'off'
		ON CONFLICT (key) DO UPDATE SET until = excluded.until WHERE webhook_seen.until <= excluded.until - $3::bigint RETURNING key`
	pgClaimed = "SELECT until <= " + pgNow + " + $2::bigint FROM webhook_seen WHERE key = $1"
	// The rows are locked in the order of their keys, as those of a batch are (keyBatch.write): two that lock several never wait for each other.
	pgRenew = "WITH c AS MATERIALIZED (SELECT " + pgNow + ` AS now, set_config('synchronous_commit', 'off', true) AS relaxed),
		k AS MATERIALIZED (SELECT key FROM webhook_seen WHERE key = ANY($1::bytea[]) ORDER BY key FOR UPDATE)
		UPDATE webhook_seen AS w SET until = c.now + $2::bigint FROM c, k WHERE relaxed = 'off' AND w.key = k.key AND w.until <= c.now + $2::bigint`
	pgConfirm = `WITH c AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true) AS relaxed)
		INSERT INTO webhook_seen (key, until) SELECT a.key, a.until FROM c, unnest($1::bytea[], $2::bigint[]) AS a (key, until) WHERE relaxed = 'off'
		ON CONFLICT (key) DO UPDATE SET until = excluded.until WHERE webhook_seen.until <= ` + pgNow + " + $3::bigint RETURNING key"
	pgUnclaim = "DELETE FROM webhook_seen WHERE key = $1 AND (until = $2 OR until <= " + pgNow + " + $3::bigint)"
)

// ClaimSeen claims the key of a message that is to be answered: of several callers at the same time, in all sidecars, one gets Fresh. The
// claim holds for ClaimLease; ConfirmSeen makes it last, Unclaim gives it up.
func (d *DB) ClaimSeen(ctx context.Context, key string) (Claim, error) {
	if d.lite != nil {
		return d.claimLite(ctx, key)
	}
	fresh, err := d.pg.claims.take(ctx, d, key, time.Time{})
	if err != nil {
		return 0, err
	}
	if fresh {
		return Fresh, nil
	}
	found := Seen
	err = d.read(forNone(ctx), readTimeout, func(ctx context.Context) error {
		var underWay bool
		err := d.r.QueryRowContext(ctx, pgClaimed, []byte(key), ClaimLease.Microseconds()).Scan(&underWay)
		if errors.Is(err, sql.ErrNoRows) {
			underWay, err = true, nil // it was: the next to ask finds it free
		}
		if underWay {
			found = UnderWay
		}
		return err
	})
	return found, err
}

// RenewClaims makes claims hold for another ClaimLease. One that was lost stays lost.
func (d *DB) RenewClaims(ctx context.Context, keys []string) error {
	if d.lite != nil {
		d.lite.claims.renew(keys)
		return nil
	}
	raw := make([][]byte, len(keys))
	for i, key := range keys {
		raw[i] = []byte(key)
	}
	return d.exec(ctx, pgRenew, raw, ClaimLease.Microseconds())
}

// ConfirmSeen keeps a key until a time: its message was dealt with. When it returns without an error that survives the end of this
// process. It says whether somebody else has confirmed it meanwhile: then the claim was lost.
func (d *DB) ConfirmSeen(ctx context.Context, key string, until time.Time) (duplicate bool, err error) {
	if d.lite != nil {
		return d.confirmLite(ctx, key, until)
	}
	kept, err := d.pg.confirms.take(ctx, d, key, until)
	return err == nil && !kept, err
}

// Unclaim gives up a claim, and forgets that it was confirmed until the given time: the message was not dealt with, and is welcome again.
// What others have claimed and confirmed since stays.
func (d *DB) Unclaim(ctx context.Context, key string, until time.Time) error {
	if d.lite != nil {
		return d.unclaimLite(ctx, key, until)
	}
	return d.exec(ctx, pgUnclaim, []byte(key), micros(until), ClaimLease.Microseconds())
}

// seen keeps the key of a delivery that is taken in, and says whether one of the same key was dealt with before.
func (d *DB) seen(t *tx, key string, until time.Time) (duplicate bool, err error) {
	if d.lite != nil {
		if d.lite.claims.holds(key) {
			return false, ErrConflict
		}
		found, err := d.lite.keyLog.told(key), error(nil)
		if found == askSQLite || found == unheard {
			found, err = d.lite.keyLog.askOthers(key)
		}
		switch {
		case err != nil:
			return false, err
		case found == kept:
			return true, nil
		case found == leaving:
			return false, ErrConflict
		}
	}
	n, err := t.exec(claimSeen, []byte(key), micros(until), micros(t.now))
	if n > 0 || err != nil || d.lite != nil {
		return n == 0 && err == nil, err
	}
	var underWay bool
	if err := t.row(pgClaimed, []byte(key), ClaimLease.Microseconds()).Scan(&underWay); err != nil {
		return false, err
	}
	if underWay {
		return false, ErrConflict
	}
	return true, nil
}

// exec runs one statement as a transaction of its own, on PostgreSQL: it costs one round trip.
func (d *DB) exec(ctx context.Context, query string, args ...any) error {
	return d.once(ctx, func(ctx context.Context) error {
		_, err := d.w.ExecContext(ctx, query, args...)
		return err
	})
}

// once runs what is one statement again only if it was not sent.
func (d *DB) once(ctx context.Context, run func(context.Context) error) error {
	bounded, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		err := run(bounded)
		again := err != nil && (deadlocked(err) || outdated(err) || pgconn.SafeToRetry(err) || errors.Is(err, driver.ErrBadConn))
		if err == nil || attempt == maxAttempts || bounded.Err() != nil || !again {
			return failure(ctx, bounded, err)
		}
	}
}
