package store

import (
	"testing"
	"time"
)

// Who reads for long keeps the log from beginning anew, and must not keep writers waiting with it.
func TestLongReadersDoNotHoldWritersUp(t *testing.T) {
	e := engine{"sqlite", engines[0].url(t)}
	d, ctx := e.open(t), t.Context()
	if _, err := d.MigrateUp(ctx); err != nil {
		t.Fatal(err)
	}
	reader, err := d.r.Conn(ctx)
	ok(t, err)
	defer func() { _ = reader.Close() }()
	_, err = reader.ExecContext(ctx, "BEGIN")
	ok(t, err)
	var n int
	ok(t, reader.QueryRowContext(ctx, "SELECT count(*) FROM webhook_seen").Scan(&n))
	confirms(t, d, "before", time.Now().Add(time.Minute))

	restarted := make(chan bool)
	go func() { restarted <- restart(ctx, d.r) }()
	began := time.Now()
	for i := 0; time.Since(began) < 20*restartPatience; i++ {
		ok(t, quick(t, 10*restartPatience, func() error {
			confirms(t, d, string(rune('a'+i%26)), time.Now().Add(-time.Second)) // over already: welcome again
			return nil
		}))
		time.Sleep(time.Millisecond)
	}
	if <-restarted {
		t.Error("the log has begun anew under a reader")
	}
	_, err = reader.ExecContext(ctx, "ROLLBACK")
	ok(t, err)
	eventually(t, "the log begins anew when nobody reads", func() bool { return restart(ctx, d.r) })
}
