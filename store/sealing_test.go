package store

import (
	"fmt"
	"testing"
	"time"
)

// A store with webhooks of the time before they were sealed is migrated with all that they are, and back without those that are sealed.
func TestDeliveriesOutliveTheMigration(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			d, ctx := engine{e.name, e.blank(t)}.open(t), t.Context()
			steps, err := d.steps()
			ok(t, err)
			_, err = steps.UpTo(ctx, 2)
			ok(t, err)
			before := schemaOf(t, d)
			for i, state := range []State{Pending, Delivered, Dead} {
				_, err = d.w.ExecContext(ctx, `INSERT INTO webhook_deliveries (id, org_id, provider, type, assistant, group_key, target, method, path, raw_query, header, body,
					state, attempts, next_attempt_at, lease_until, lease_owner, last_error, created_at, updated_at)
					VALUES ($1, 'acme', 'vapi', 'report', 'asst', $2, 'app', 'POST', '/p', 'q=1', $3, $4, $5, $6, $7, 0, '', 'no', 1000, 2000)`,
					fmt.Sprint("wd_", i), fmt.Sprint("g", i), []byte("A: b\r\n"), []byte("12345"), string(state), i, int64(7))
				ok(t, err)
			}
			n, err := d.MigrateUp(ctx)
			ok(t, err)
			if n < 1 {
				t.Errorf("%d steps", n)
			}
			list, _, err := d.Deliveries(ctx, DeliveryFilter{})
			ok(t, err)
			if len(list) != 3 {
				t.Fatalf("%d rows are left", len(list))
			}
			same(t, *list[0], Delivery{
				ID: "wd_2", Org: "acme", Provider: "vapi", Type: "report", Assistant: "asst", Group: "g2", Target: "app", Method: "POST", Path: "/p", RawQuery: "q=1",
				State: Dead, Attempts: 2, NextAttemptAt: time.UnixMicro(7).UTC(), LastError: "no", BodySize: 5,
				CreatedAt: time.UnixMicro(1000).UTC(), UpdatedAt: time.UnixMicro(2000).UTC(),
			})
			leased, err := d.LeaseDeliveries(ctx, "one", "app", 10, time.Minute)
			ok(t, err)
			if len(leased) != 1 || string(leased[0].Header) != "A: b\r\n" || string(leased[0].Body) != "12345" || leased[0].KeyID != "" {
				t.Errorf("leased %+v", leased)
			}
			sealed := &Delivery{Org: "acme", Target: "app", Header: []byte("sealed"), Body: []byte("sealed"), KeyID: "k1", BodySize: 3}
			_, err = d.AcceptDelivery(ctx, sealed)
			ok(t, err)
			count, err := d.DeliveryKeys(ctx)
			ok(t, err)
			same(t, count, map[string]int64{"": 3, "k1": 1})

			for range n {
				ok(t, d.MigrateDown(ctx))
			}
			same(t, schemaOf(t, d), before)
			var left int
			ok(t, d.r.QueryRowContext(ctx, "SELECT count(*) FROM webhook_deliveries").Scan(&left))
			if left != 3 {
				t.Errorf("%d rows are left after the way back", left)
			}
		})
	}
}

// A sidecar of the version before shares the store while it is replaced: what it cannot open it does not get, and the rest it does.
func TestOlderSidecarsLeaseNothingSealed(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, ctx := e.open(t), t.Context()
		for i, key := range []string{"k1", "", "k1"} {
			_, err := d.AcceptDelivery(ctx, &Delivery{ID: fmt.Sprint("wd_", i), Org: "acme", Target: "app", Body: []byte("x"), KeyID: key, BodySize: 1})
			ok(t, err)
		}
		rows, err := d.w.QueryContext(forEvery(ctx), `WITH due AS MATERIALIZED (
				SELECT seq FROM webhook_deliveries WHERE state = 'pending' AND target = $1 AND next_attempt_at <= $2 AND lease_until <= $2
				ORDER BY next_attempt_at, seq LIMIT $3
			)
			UPDATE webhook_deliveries SET lease_until = $4, lease_owner = $5, attempts = attempts + 1
			WHERE seq IN (SELECT seq FROM due) RETURNING id`, "app", micros(time.Now().Add(time.Minute)), 10, micros(time.Now().Add(time.Hour)), "host 17 ABCDEFGH")
		ok(t, err)
		var ids []string
		for rows.Next() {
			var id string
			ok(t, rows.Scan(&id))
			ids = append(ids, id)
		}
		ok(t, rows.Err())
		ok(t, rows.Close())
		same(t, ids, []string{"wd_1"})
		leased, err := d.LeaseDeliveries(ctx, "one", "app", 10, time.Minute)
		ok(t, err)
		if len(leased) != 2 || leased[0].Attempts != 1 {
			t.Errorf("%d of the sealed ones are left, after %d attempts", len(leased), leased[0].Attempts)
		}
		for _, v := range leased {
			ok(t, d.FinishDelivery(ctx, "one", v, Outcome{State: Delivered}))
		}
	})
}

// schemaOf are the columns and indexes of the deliveries, without their order.
func schemaOf(t *testing.T, d *DB) map[string]bool {
	t.Helper()
	query := "SELECT name FROM pragma_table_info('webhook_deliveries') UNION ALL SELECT sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'webhook_deliveries' AND sql IS NOT NULL"
	if d.pg != nil {
		query = "SELECT column_name FROM information_schema.columns WHERE table_name = 'webhook_deliveries' UNION ALL SELECT indexdef FROM pg_indexes WHERE tablename = 'webhook_deliveries'"
	}
	all := map[string]bool{}
	rows, err := d.r.QueryContext(t.Context(), query)
	ok(t, err)
	defer rows.Close()
	for rows.Next() {
		var s string
		ok(t, rows.Scan(&s))
		all[s] = true
	}
	ok(t, rows.Err())
	return all
}

// More rows than a page, of several keys, while others change them and take them away.
func TestResealPagesThroughAll(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, ctx := e.open(t), t.Context()
		const rows = 2300
		for first := 0; first < rows; first += 100 { // each within the time limit of a write, on a busy machine too
			ok(t, d.write(ctx, func(x *tx) error {
				for i := first; i < first+100; i++ {
					_, err := x.exec(insertDelivery, fmt.Sprint("wd_", i), "acme", "vapi", "", "", "", "app", "POST", "/", "", []byte{}, []byte("old"), int64(1), int64(1), fmt.Sprint("k", i%2), 3)
					if err != nil {
						return err
					}
				}
				return nil
			}))
		}
		other, calls := e.open(t), 0
		n, err := d.ResealDeliveries(ctx, func(keyID string) bool { return keyID == "k1" }, func(v *Delivery) bool {
			switch calls++; calls {
			case 1: // the row is gone before it is written
				_, err := other.w.ExecContext(forEvery(ctx), "DELETE FROM webhook_deliveries WHERE id = $1", v.ID)
				ok(t, err)
			case 2: // another sidecar has sealed it meanwhile
				_, err := other.w.ExecContext(forEvery(ctx), "UPDATE webhook_deliveries SET key_id = 'k2', body = $1 WHERE id = $2", []byte("theirs"), v.ID)
				ok(t, err)
			case 3:
				return false
			}
			v.KeyID, v.Body = "k2", []byte("mine")
			return true
		})
		ok(t, err)
		if n != rows/2-3 || calls != rows/2 {
			t.Errorf("%d sealed anew after %d calls", n, calls)
		}
		count, err := d.DeliveryKeys(ctx)
		ok(t, err)
		same(t, count, map[string]int64{"k0": rows / 2, "k1": 1, "k2": rows/2 - 2})
		var theirs int
		ok(t, d.r.QueryRowContext(forEvery(ctx), "SELECT count(*) FROM webhook_deliveries WHERE body = $1", []byte("theirs")).Scan(&theirs))
		if theirs != 1 {
			t.Errorf("%d of what the other sidecar has sealed are left", theirs)
		}
	})
}

// A part of a delivery is sealed for no other: no two contexts read the same.
func TestContextsOfDeliveriesDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, org := range []string{"acme", "acm"} {
		for _, provider := range []string{"vapi", "evapi"} {
			for _, id := range []string{"wd_1", "wd_11"} {
				for _, part := range []string{"head", "body"} {
					name := org + "/" + provider + "/" + id + "/" + part
					b := string((&Delivery{Org: org, Provider: provider, ID: id}).AppendContext(nil, part))
					if seen[b] != "" {
						t.Errorf("%s reads as %s", name, seen[b])
					}
					seen[b] = name
				}
			}
		}
	}
	c := Credential{Ref: Ref{"acme", "vapi"}}
	if seen[string(c.AppendContext(nil))] != "" {
		t.Error("a credential's does too")
	}
}
