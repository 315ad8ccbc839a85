package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	oneDelivery  = "SELECT " + deliveryColumns + " FROM webhook_deliveries WHERE id = $1"
	lockDelivery = "SELECT org_id, provider, state, target, group_key FROM webhook_deliveries WHERE id = $1"

	redeliverNow = "UPDATE webhook_deliveries SET next_attempt_at = $1, updated_at = $2 WHERE id = $3 AND state = 'pending' AND next_attempt_at IS NOT NULL"
	// It leaves its group: that has gone on without it, and must not wait for it again.
	redeliver = `UPDATE webhook_deliveries SET state = 'pending', attempts = 0, next_attempt_at = $1, lease_until = 0, lease_owner = '',
		group_key = '', target = $2, updated_at = $3 WHERE id = $4 AND state = $5`

	sweepDelivered = `DELETE FROM webhook_deliveries WHERE seq IN
		(SELECT seq FROM webhook_deliveries WHERE state = 'delivered' AND updated_at < $1 ORDER BY updated_at LIMIT $2)`
	// It passes by what a claim holds: a batch of claims may wait for it, and would wait for ever if it waited for them.
	sweepSeen = "DELETE FROM webhook_seen WHERE key IN (SELECT key FROM webhook_seen WHERE until < $1 ORDER BY until LIMIT $2 /*lock*/)"
)

// sweepBatch is how many rows a transaction of Sweep deletes: on SQLite others wait for it.
const sweepBatch = 500

// Delivery reads one delivery, without header and body.
func (d *DB) Delivery(ctx context.Context, id string) (*Delivery, error) {
	if !storable(id) {
		return nil, ErrNotFound
	}
	var v *Delivery
	err := d.read(ctx, readTimeout, func(ctx context.Context) error {
		v = &Delivery{}
		return d.r.QueryRowContext(ctx, oneDelivery, id).Scan(v.columns()...)
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

// A DeliveryFilter says which deliveries to list. Empty fields match all.
type DeliveryFilter struct {
	State State
	Org   string
	After string // the cursor that the last page gave
	Limit int    // 0: 100; at most 1000
}

// ErrCursor: a cursor is not one that the listing gave.
var ErrCursor = errors.New("the cursor is not one that this listing gave")

// Deliveries lists deliveries, newest first, without header and body.
func (d *DB) Deliveries(ctx context.Context, f DeliveryFilter) (list []*Delivery, next string, err error) {
	limit := page(f.Limit)
	var where []string
	var args []any
	add := func(condition string, arg any) {
		args = append(args, arg)
		where = append(where, condition+strconv.Itoa(len(args)))
	}
	switch f.State { // literally: the indexes are for one state each
	case "":
	case Pending:
		where = append(where, "state = 'pending'")
	case Delivered:
		where = append(where, "state = 'delivered'")
	case Dead:
		where = append(where, "state = 'dead'")
	default:
		return nil, "", errors.New("listing deliveries: there is no such state")
	}
	if f.Org != "" {
		add("org_id = $", clean(f.Org))
	}
	if f.After != "" {
		seq, err := strconv.ParseInt(f.After, 10, 64)
		if err != nil {
			return nil, "", ErrCursor
		}
		add("seq < $", seq)
	}
	query := "SELECT seq, " + deliveryColumns + " FROM webhook_deliveries"
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	args = append(args, limit+1)
	query += " ORDER BY seq DESC LIMIT $" + strconv.Itoa(len(args))

	type row struct {
		seq int64
		v   *Delivery
	}
	var rows []row
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		rows = nil
		return d.list(ctx, func(r *sql.Rows) error {
			one := row{v: &Delivery{}}
			err := r.Scan(append([]any{&one.seq}, one.v.columns()...)...)
			rows = append(rows, one)
			return err
		}, query, args...)
	})
	if err != nil {
		return nil, "", err
	}
	rows, next = cut(rows, limit, func(r row) string { return strconv.FormatInt(r.seq, 10) })
	for _, r := range rows {
		list = append(list, r.v)
	}
	return list, next, nil
}

// Redeliver makes a delivery due now. One that is done, delivered or dead, has all its attempts again, under the same id; target, unless
// empty, is where it goes from now on. One that waits for an earlier one of its group goes on waiting.
func (d *DB) Redeliver(ctx context.Context, by Actor, id, target string) error {
	if !storable(id) {
		return ErrNotFound
	}
	return d.write(ctx, func(t *tx) error {
		now, err := d.hold(t, "")
		if err != nil {
			return err
		}
		var org, provider, state, old, group string
		if err := t.row(lockDelivery, id).Scan(&org, &provider, &state, &old, &group); err != nil {
			return err
		}
		if State(state) == Pending {
			_, err = t.exec(redeliverNow, micros(now), micros(t.now), id)
		} else {
			if target == "" {
				target = old
			}
			var n int64
			if n, err = t.exec(redeliver, micros(now), target, micros(t.now), id, state); err == nil && n == 0 {
				err = ErrConflict
			}
		}
		if err != nil {
			return err
		}
		return t.audit(by, "webhook.redeliver", org, id, fmt.Sprintf("%s, was %s", provider, state))
	})
}

// Sweep deletes what was delivered before a time and the seen keys that have run out, and lets groups go on that wait for a row that
// somebody else has taken out of the table. It returns how many rows it deleted.
func (d *DB) Sweep(ctx context.Context, deliveredBefore time.Time) (deleted int64, err error) {
	for _, s := range []struct {
		query  string
		before time.Time
	}{{sweepDelivered, deliveredBefore}, {sweepSeen, time.Now()}} {
		for n := int64(sweepBatch); n == sweepBatch; deleted += n {
			err := d.write(ctx, func(t *tx) (err error) {
				n, err = t.exec(d.locking(s.query), micros(s.before), sweepBatch)
				return err
			})
			if err != nil {
				return deleted, err
			}
		}
	}
	if deleted > 0 {
		d.removed()
	}
	return deleted, d.freeGroups(ctx)
}

func (d *DB) freeGroups(ctx context.Context) error {
	var stuck []string
	err := d.read(ctx, listTimeout, func(ctx context.Context) error {
		stuck = nil
		return d.list(ctx, func(r *sql.Rows) error {
			var group string
			err := r.Scan(&group)
			stuck = append(stuck, group)
			return err
		}, stuckGroups, sweepBatch)
	})
	for i := 0; i < len(stuck) && err == nil; i++ {
		err = d.write(ctx, func(t *tx) error {
			now, err := d.hold(t, stuck[i])
			if err == nil {
				_, err = t.exec(nextOfGroup, micros(now), stuck[i])
			}
			return err
		})
	}
	return err
}
