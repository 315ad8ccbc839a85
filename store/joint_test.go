package store

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"
)

// Those that come while the disk is busy share the next transaction, and one that fails fails alone.
func TestTogether(t *testing.T) {
	e := engine{"sqlite", engines[0].url(t)}
	d, ctx := e.open(t), t.Context()
	if _, err := d.MigrateUp(ctx); err != nil {
		t.Fatal(err)
	}
	size := func() (frames int64) {
		var busy, moved int64
		ok(t, d.w.QueryRowContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &frames, &moved))
		return frames
	}
	size()
	bad := errors.New("bad")
	errs := atOnce(60, func(i int) error {
		if i == 7 {
			return d.together(ctx, false, func(x *tx) error {
				if _, err := d.seen(x, "half", time.Now().Add(time.Hour)); err != nil {
					return err
				}
				return bad
			})
		}
		_, err := d.AcceptDelivery(context.Background(), &Delivery{Org: "acme", Target: app, Body: bytes.Repeat([]byte{'x'}, 100)})
		return err
	})
	for i, err := range errs {
		if (i == 7) != errors.Is(err, bad) || i != 7 && err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if leased, _ := lease(t, d, "one"); len(leased) != 59 {
		t.Errorf("%d accepted", len(leased))
	}
	claimFinds(t, d, "half", Fresh) // nothing of what failed is there
	// Who gives up while waiting gets its answer at once, and is not written.
	d.joint.mu.Lock()
	d.joint.busy = true
	d.joint.mu.Unlock()
	gone, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := d.AcceptDelivery(gone, &Delivery{Org: "acme", Target: app}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if d.joint.busy = false; len(d.joint.waiting) > 0 {
		t.Error("still in the queue")
	}
}
