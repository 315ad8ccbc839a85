package store

import (
	"context"
	"database/sql"
	"time"
)

const (
	countCredentials = "SELECT provider, is_active, count(*) FROM org_credentials GROUP BY provider, is_active"
	countOrgs        = "SELECT count(*) FROM (SELECT DISTINCT org_id FROM org_credentials) AS o"
	countPending     = "SELECT count(*) FROM webhook_deliveries WHERE state = 'pending'"
	countDead        = "SELECT count(*) FROM webhook_deliveries WHERE state = 'dead'"
	oldestPending    = "SELECT min(created_at) FROM webhook_deliveries WHERE state = 'pending'"
)

// Counts are how much of everything is stored.
type Counts struct {
	Orgs     int64            // with a credential
	Active   map[string]int64 // :: provider → credentials
	Disabled map[string]int64 // the same

	Pending int64 // webhooks that wait for the app
	Dead    int64 // webhooks that were given up
}

// Counts counts. What is written meanwhile may be counted in part.
func (d *DB) Counts(ctx context.Context) (c Counts, err error) {
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		c = Counts{Active: map[string]int64{}, Disabled: map[string]int64{}}
		if err := d.list(ctx, func(r *sql.Rows) error {
			var provider string
			var active bool
			var n int64
			err := r.Scan(&provider, &active, &n)
			if active {
				c.Active[provider] = n
			} else {
				c.Disabled[provider] = n
			}
			return err
		}, countCredentials); err != nil {
			return err
		}
		for query, into := range map[string]*int64{countOrgs: &c.Orgs, countPending: &c.Pending, countDead: &c.Dead} {
			if err := d.r.QueryRowContext(ctx, query).Scan(into); err != nil {
				return err
			}
		}
		return nil
	})
	return c, err
}

// A Backlog is what the app has not taken.
type Backlog struct {
	Pending, Dead int64
	Oldest        time.Time // when the oldest of the pending was accepted; zero: none is pending
}

// Backlog counts webhooks of all orgs and sidecars.
func (d *DB) Backlog(ctx context.Context) (b Backlog, err error) {
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		b = Backlog{}
		for query, into := range map[string]any{countPending: &b.Pending, countDead: &b.Dead, oldestPending: micro{&b.Oldest}} {
			if err := d.r.QueryRowContext(ctx, query).Scan(into); err != nil {
				return err
			}
		}
		return nil
	})
	return b, err
}
