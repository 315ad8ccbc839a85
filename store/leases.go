package store

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"
)

// Every pending delivery that may be attempted, now or later, has a next_attempt_at. One that waits for an earlier one of its group has
// none, and gets one when that is done: whoever looks for what is due sees only what can be done, however long the queue is.
const (
	// The targets are few, and the deliveries may be many: the index is looked at once or twice for each target.
	dueTargets = `WITH RECURSIVE t (target) AS (
			SELECT (SELECT target FROM webhook_deliveries WHERE state = 'pending' ORDER BY target LIMIT 1)
			UNION ALL
			SELECT (SELECT d.target FROM webhook_deliveries AS d WHERE d.state = 'pending' AND d.target > t.target ORDER BY d.target LIMIT 1)
			FROM t WHERE t.target IS NOT NULL
		)
		SELECT target FROM t WHERE target IS NOT NULL
		AND EXISTS (SELECT 1 FROM webhook_deliveries AS d WHERE d.state = 'pending' AND d.target = t.target AND d.next_attempt_at <= $1
			AND d.lease_until <= $1)`

	leaseDue = `WITH due AS MATERIALIZED (
			SELECT seq FROM webhook_deliveries WHERE state = 'pending' AND target = $1 AND next_attempt_at <= $2 AND lease_until <= $2
			ORDER BY next_attempt_at, seq LIMIT $3 /*lock*/
		)
		UPDATE webhook_deliveries SET lease_until = $4, lease_owner = $5, attempts = attempts + 1
		WHERE seq IN (SELECT seq FROM due) RETURNING seq, header, body, ` + deliveryColumns

	renewLease = `UPDATE webhook_deliveries SET lease_until = $1 WHERE id = $2 AND lease_owner = $3 AND state = 'pending'`

	// Who lost the lease may still say that the app took it, but not that it did not.
	finishDone = `UPDATE webhook_deliveries SET state = $1, last_error = CASE WHEN $2 = '' THEN last_error ELSE $2 END,
		next_attempt_at = NULL, lease_until = 0, lease_owner = '', updated_at = $3
		WHERE id = $4 AND state = 'pending' AND ($1 = 'delivered' OR lease_owner = $5)`
	finishLater = `UPDATE webhook_deliveries SET last_error = CASE WHEN $1 = '' THEN last_error ELSE $1 END, next_attempt_at = $2,
		attempts = attempts - $3, lease_until = 0, lease_owner = '', updated_at = $4 WHERE id = $5 AND state = 'pending' AND lease_owner = $6`

	nextOfGroup = `UPDATE webhook_deliveries SET next_attempt_at = $1 WHERE next_attempt_at IS NULL AND state = 'pending'
		AND seq = (SELECT min(seq) FROM webhook_deliveries WHERE state = 'pending' AND group_key = $2)`
	stuckGroups = `SELECT d.group_key FROM (SELECT min(seq) AS seq FROM webhook_deliveries WHERE state = 'pending' AND group_key <> '' GROUP BY group_key)
		AS head JOIN webhook_deliveries AS d ON d.seq = head.seq WHERE d.next_attempt_at IS NULL LIMIT $1`
)

const deliveryColumns = `id, org_id, provider, type, assistant, group_key, target, method, path, raw_query, state, attempts,
	next_attempt_at, last_error, coalesce(body_size, length(body)), created_at, updated_at, key_id`

// opener is how an owner is stored that can open what is sealed: step 3 of the schema lets no other lease that.
func opener(owner string) string { return "opener " + owner }

// DueTargets lists the targets that a pending delivery can be sent to now.
func (d *DB) DueTargets(ctx context.Context) (targets []string, err error) {
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		targets = nil
		now := time.Now()
		if d.pg != nil {
			var void, off sql.NullString
			if err := d.r.QueryRowContext(ctx, sharedTime, false).Scan(when{&now}, &void, &off); err != nil {
				return err
			}
		}
		return d.list(ctx, func(r *sql.Rows) error {
			var target string
			err := r.Scan(&target)
			targets = append(targets, target)
			return err
		}, dueTargets, micros(now))
	})
	return targets, err
}

// locking has a query pass by the rows that others hold, where it says so. On SQLite one transaction writes at a time.
func (d *DB) locking(query string) string {
	if d.pg == nil {
		return query
	}
	return strings.Replace(query, "/*lock*/", "FOR UPDATE SKIP LOCKED", 1)
}

// LeaseDeliveries takes up to n deliveries to a target that are due, for this owner alone until the lease ends: of each group only the
// oldest that is not done. Their Attempts count the one that now begins. Several owners share the work without waiting for each other.
func (d *DB) LeaseDeliveries(ctx context.Context, owner, target string, n int, lease time.Duration) (leased []*Delivery, err error) {
	query := d.locking(leaseDue)
	err = d.writeRelaxed(ctx, func(t *tx) error {
		leased = nil
		now, err := d.hold(t, "")
		if err != nil {
			return err
		}
		rows, err := t.tx.QueryContext(t.ctx, query, target, micros(now), n, micros(now.Add(lease)), opener(owner))
		if err != nil {
			return err
		}
		defer rows.Close()
		order := map[string]int64{} // :: id → seq
		for rows.Next() {
			var seq int64
			v := &Delivery{}
			if err := rows.Scan(append([]any{&seq, &v.Header, &v.Body}, v.columns()...)...); err != nil {
				return err
			}
			order[v.ID] = seq
			leased = append(leased, v)
		}
		slices.SortFunc(leased, func(a, b *Delivery) int { return cmp.Compare(order[a.ID], order[b.ID]) })
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return leased, nil
}

// columns are the places for deliveryColumns.
func (v *Delivery) columns() []any {
	return []any{
		&v.ID, &v.Org, &v.Provider, &v.Type, &v.Assistant, &v.Group, &v.Target, &v.Method, &v.Path, &v.RawQuery, &v.State, &v.Attempts,
		micro{&v.NextAttemptAt},
		&v.LastError, &v.BodySize,
		micro{&v.CreatedAt},
		micro{&v.UpdatedAt},
		&v.KeyID,
	}
}

// RenewLeases makes the owner's leases end later. One that the owner has lost stays lost.
func (d *DB) RenewLeases(ctx context.Context, owner string, ids []string, lease time.Duration) error {
	return d.writeRelaxed(ctx, func(t *tx) error {
		now, err := d.hold(t, "")
		if err != nil {
			return err
		}
		for _, id := range slices.Sorted(slices.Values(ids)) { // sorted: two that lock rows in different orders would wait for each other
			if _, err := t.exec(renewLease, micros(now.Add(lease)), id, opener(owner)); err != nil {
				return err
			}
		}
		return nil
	})
}

// An Outcome is what became of an attempt. The zero Outcome gives the delivery back as if it had not been attempted.
type Outcome struct {
	State   State         // Delivered, Dead, or Pending: to be tried again
	Retry   time.Duration // Pending: after so long
	Problem string        // why it failed; no body, no header
}

// FinishDelivery ends the lease of a delivery with what became of it, and lets the next of its group go, unless it is to be tried again.
// ErrConflict: the lease was lost, and the outcome with it; but that the app took it is kept in any case.
func (d *DB) FinishDelivery(ctx context.Context, owner string, v *Delivery, o Outcome) error {
	return d.together(ctx, true, func(t *tx) error {
		if o.State != Delivered && o.State != Dead {
			return d.retryLater(t, owner, v, o)
		}
		now, err := d.hold(t, v.Group)
		if err != nil {
			return err
		}
		n, err := t.exec(finishDone, string(o.State), clean(o.Problem), micros(t.now), v.ID, opener(owner))
		switch {
		case err != nil:
			return err
		case n == 0:
			return ErrConflict
		case v.Group == "":
			return nil
		}
		_, err = t.exec(nextOfGroup, micros(now), clean(v.Group))
		return err
	})
}

func (d *DB) retryLater(t *tx, owner string, v *Delivery, o Outcome) error {
	now, err := d.hold(t, "")
	if err != nil {
		return err
	}
	back := 0
	if o.State == "" {
		back = 1
	}
	n, err := t.exec(finishLater, clean(o.Problem), micros(now.Add(o.Retry)), back, micros(t.now), v.ID, opener(owner))
	if err == nil && n == 0 {
		err = ErrConflict
	}
	return err
}
