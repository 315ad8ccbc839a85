package store

import (
	"bytes"
	"context"
	"database/sql"
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

// Messages that are confirmed at the same moment share a transaction, and each is told what became of its own.
func TestConfirmedTogether(t *testing.T) {
	e := engine{"sqlite", engines[0].url(t)}
	d, ctx := e.open(t), t.Context()
	if _, err := d.MigrateUp(ctx); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(time.Minute)
	confirms(t, d, "known", until)
	conn, err := d.w.Conn(ctx) // nothing is written until they have all come
	ok(t, err)
	duplicates := make([]bool, 40)
	done := make(chan error, len(duplicates))
	for i := range duplicates {
		key := string(rune('A' + i))
		if i%4 == 3 {
			key = "known"
		}
		go func() {
			var err error
			duplicates[i], err = d.ConfirmSeen(ctx, key, until)
			done <- err
		}()
	}
	for n := 0; n < len(duplicates)-1; time.Sleep(time.Millisecond) { // the first of them has begun
		d.lite.confirms.mu.Lock()
		n = len(d.lite.confirms.waiting)
		d.lite.confirms.mu.Unlock()
	}
	before := frames(t, conn)
	ok(t, conn.Close())
	for range duplicates {
		ok(t, <-done)
	}
	for i, got := range duplicates {
		if want := i%4 == 3; got != want {
			t.Errorf("%d: duplicate is %t", i, got)
		}
	}
	for i := range duplicates {
		claimFinds(t, d, string(rune('A'+i)), map[bool]Claim{true: Fresh, false: Seen}[i%4 == 3])
	}
	conn, err = d.w.Conn(ctx)
	ok(t, err)
	if n := frames(t, conn) - before; n > 12 { // two transactions; each by itself they would write twice as many pages as there are keys
		t.Errorf("%d pages were written", n)
	}
	ok(t, conn.Close())
}

// frames is how many pages the log has.
func frames(t *testing.T, conn *sql.Conn) (n int64) {
	t.Helper()
	var busy, moved int64
	ok(t, conn.QueryRowContext(t.Context(), "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &n, &moved))
	return n
}

// A panic in one transaction is told to those that share it, and the next begins.
func TestWritingGoesOnAfterAPanic(t *testing.T) {
	var j joint
	func() {
		defer func() { _ = recover() }()
		_ = j.join(t.Context(), &part{}, func([]*part) { panic("x") })
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := j.join(ctx, &part{}, func([]*part) {}); err != nil {
		t.Error(err)
	}
}
