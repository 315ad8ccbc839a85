package store

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// killedFull is a store as somebody leaves it who was killed on a full disk: the log says that a message was answered, the reserve that it was
// not after all.
func killedFull(t *testing.T, key string) (d *DB, until time.Time) {
	t.Helper()
	d, err := Open(t.Context(), newFile(t), Options{})
	ok(t, err)
	t.Cleanup(func() { _ = d.Close() })
	_, err = d.MigrateUp(t.Context())
	ok(t, err)
	dir, err := d.lite.folder(d.lite.path + ".keys")
	ok(t, err)
	defer dir.Close()
	until = time.Now().Add(time.Hour)
	f, err := d.lite.openKeyFile(dir, logNames[0])
	ok(t, err)
	ok(t, f.write(0, logKey([]byte(key)), micros(until)))
	ok(t, f.f.Close())
	leaves(t, d, map[string]int64{key: -micros(until)})
	return d, until
}

// keeps has a store be kept by hand, as one that was just started.
func keeps(t *testing.T, d *DB) *keyKeeper {
	t.Helper()
	k := &keyKeeper{d: d, l: &d.lite.keyLog, filled: make(chan error, 1)}
	ok(t, k.open())
	t.Cleanup(k.close)
	return k
}

// Of two that start after a kill, the one may get the log that was left and the other the reserve.
func TestLogAndReserveTakenOverByTwo(t *testing.T) {
	t.Parallel()
	key := seenKey("cut")
	d, _ := killedFull(t, key)
	heir := keeps(t, d)
	other, err := Open(t.Context(), "sqlite:"+d.lite.path, Options{})
	ok(t, err)
	t.Cleanup(func() { _ = other.Close() })
	k := keeps(t, other)
	ok(t, k.first(t.Context()))
	if found, err := other.ClaimSeen(t.Context(), key); err != nil || found == Seen {
		t.Errorf("what was not answered is refused as a copy: %v", err)
	}
	ok(t, k.moveAll(t.Context()))
	if inSQLite(t, other, key) {
		t.Error("SQLite has it for answered")
	}
	eventually(t, "both have joined", func() bool {
		ok(t, heir.step(t.Context()))
		return heir.joined && !d.isPending()
	})
	claimFinds(t, other, key, Fresh)
}

// Who got the reserve and cannot join keeps it until somebody has taken over the log.
func TestReserveOfOneThatCannotJoin(t *testing.T) {
	t.Parallel()
	key := seenKey("cut")
	d, _ := killedFull(t, key)
	next, err := os.OpenFile(filepath.Join(d.lite.path+".keys", "next"), os.O_RDWR|os.O_CREATE, 0o600)
	ok(t, err)
	defer next.Close()
	ok(t, syscall.Flock(int(next.Fd()), syscall.LOCK_EX))
	k := keeps(t, d)
	for range 5 {
		ok(t, k.step(t.Context()))
	}
	ok(t, k.moveAll(t.Context()))
	if !d.isPending() {
		t.Error("nobody knows any more that it is forgotten")
	}
	ok(t, next.Close())
	eventually(t, "it has joined", func() bool {
		ok(t, k.step(t.Context()))
		return k.joined && !d.isPending()
	})
	claimFinds(t, d, key, Fresh)
	if left := leftOf(t, k, key); left > 0 || inSQLite(t, d, key) {
		t.Error("the next one would refuse it as a copy")
	}
}

// Who could not read what others have left is not in force without it.
func TestWhatIsLeftAndCannotBeReadIsReadAgain(t *testing.T) {
	t.Parallel()
	d, k := stepped(t)
	path := filepath.Join(k.dir.Name(), reserveName(1))
	ok(t, os.Symlink("/nowhere", path))
	k.suspend()
	failed := 0
	for range 10 {
		if err := k.step(t.Context()); err != nil {
			failed++
		}
		time.Sleep(5 * time.Millisecond)
	}
	if failed == 0 || d.isAlone() {
		t.Errorf("it failed %d times, in force: %v", failed, d.isAlone())
	}
	ok(t, os.Remove(path))
	answered, until := seenKey("answered"), time.Now().Add(time.Hour)
	leaves(t, d, map[string]int64{answered: micros(until)})
	eventually(t, "it is alone", func() bool {
		ok(t, k.step(t.Context()))
		return d.isAlone()
	})
	claimFinds(t, d, answered, Seen)
}
