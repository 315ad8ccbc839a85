package store

import (
	"testing"
	"time"
)

func TestDeliveryListings(t *testing.T) {
	for name, test := range map[string]func(*testing.T, engine){
		"Redeliver":      testRedeliver,
		"Listing":        testDeliveryListing,
		"Sweep":          testSweep,
		"GroupsComeFree": testGroupsComeFree,
	} {
		t.Run(name, func(t *testing.T) { onBoth(t, test) })
	}
}

func testRedeliver(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	dead := accept(t, d, delivery("a", 0))
	accept(t, d, delivery("a", 1))
	leased, _ := lease(t, d, "one")
	ok(t, d.FinishDelivery(ctx, "one", leased[0], Outcome{State: Dead, Problem: "no"}))
	ok(t, d.Redeliver(ctx, by, dead.ID, ""))
	leased, bodies := lease(t, d, "one")
	same(t, bodies, []string{"a 0", "a 1"}) // neither waits for the other
	if leased[0].ID != dead.ID || leased[0].Attempts != 1 || leased[0].Group != "" {
		t.Fatalf("%+v", leased[0])
	}
	ok(t, d.FinishDelivery(ctx, "one", leased[0], Outcome{State: Delivered}))
	const elsewhere = "unix:/run/app.sock:/hooks"
	ok(t, d.Redeliver(ctx, by, dead.ID, elsewhere))
	targets, err := d.DueTargets(ctx)
	ok(t, err)
	same(t, targets, []string{elsewhere}) // what goes to the app is under way

	ok(t, d.FinishDelivery(ctx, "one", leased[1], Outcome{State: Pending, Retry: time.Hour}))
	if _, bodies = lease(t, d, "one"); bodies != nil {
		t.Fatalf("%q", bodies)
	}
	ok(t, d.Redeliver(ctx, by, leased[1].ID, "")) // need not wait for its time
	_, bodies = lease(t, d, "one")
	same(t, bodies, []string{"a 1"})

	is(t, d.Redeliver(ctx, by, "wd_none", ""), ErrNotFound)
	events, err := d.Events(ctx, EventFilter{Action: "webhook.redeliver"})
	ok(t, err)
	if len(events) != 3 || events[0].Org != "acme" || events[0].Target != dead.ID || events[0].Actor != by || events[0].Detail != "vapi, was dead" {
		t.Fatalf("%+v", events)
	}
}

func testDeliveryListing(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	var ids []string
	for i := range 5 {
		v := delivery("", i)
		if i%2 == 1 {
			v.Org = "globex"
		}
		ids = append(ids, accept(t, d, v).ID)
	}
	leased, _ := lease(t, d, "one")
	ok(t, d.FinishDelivery(ctx, "one", leased[0], Outcome{State: Dead, Problem: "no"}))
	list := func(f DeliveryFilter) (got []string) {
		t.Helper()
		for {
			rows, next, err := d.Deliveries(ctx, f)
			ok(t, err)
			for _, v := range rows {
				if v.Body != nil || v.Header != nil || v.BodySize == 0 {
					t.Fatalf("%+v", v)
				}
				got = append(got, v.ID)
			}
			if f.After = next; next == "" {
				return got
			}
		}
	}
	same(t, list(DeliveryFilter{Limit: 2}), []string{ids[4], ids[3], ids[2], ids[1], ids[0]})
	same(t, list(DeliveryFilter{Org: "globex", Limit: 1}), []string{ids[3], ids[1]})
	same(t, list(DeliveryFilter{State: Dead}), []string{ids[0]})
	same(t, list(DeliveryFilter{State: Pending, Org: "acme"}), []string{ids[4], ids[2]})
	same(t, list(DeliveryFilter{Org: "\x00"}), []string(nil))
	_, _, err := d.Deliveries(ctx, DeliveryFilter{After: "x"})
	is(t, err, ErrCursor)
}

func testSweep(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	for i := range 3 {
		accept(t, d, delivery("", i))
	}
	leased, _ := lease(t, d, "one")
	ok(t, d.FinishDelivery(ctx, "one", leased[0], Outcome{State: Delivered}))
	ok(t, d.FinishDelivery(ctx, "one", leased[1], Outcome{State: Dead}))
	_, err := d.ConfirmSeen(ctx, "over", time.Now().Add(-time.Second))
	ok(t, err)
	_, err = d.ConfirmSeen(ctx, "kept", time.Now().Add(time.Minute))
	ok(t, err)
	n, err := d.Sweep(ctx, time.Now().Add(-time.Minute))
	ok(t, err)
	same(t, n, int64(1)) // the key that has run out
	n, err = d.Sweep(ctx, time.Now().Add(time.Second))
	ok(t, err)
	same(t, n, int64(1))
	rows, _, err := d.Deliveries(ctx, DeliveryFilter{})
	ok(t, err)
	if len(rows) != 2 {
		t.Fatalf("%d rows", len(rows))
	}
	claimFinds(t, d, "kept", Seen)
}

// A row that somebody deletes by hand does not hold up its group for ever.
func testGroupsComeFree(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	accept(t, d, delivery("a", 0))
	accept(t, d, delivery("a", 1))
	accept(t, d, delivery("a", 2))
	_, err := d.w.ExecContext(forEvery(ctx), "DELETE FROM webhook_deliveries WHERE next_attempt_at IS NOT NULL")
	ok(t, err)
	_, bodies := lease(t, d, "one")
	same(t, bodies, []string(nil))
	_, err = d.Sweep(ctx, time.Now().Add(-time.Minute))
	ok(t, err)
	_, bodies = lease(t, d, "one")
	same(t, bodies, []string{"a 1"})
}
