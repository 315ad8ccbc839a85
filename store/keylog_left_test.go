package store

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// folderOf is a folder until the end of the test.
func folderOf(t *testing.T, path string) *os.Root {
	t.Helper()
	dir, err := openFolder(path)
	ok(t, err)
	t.Cleanup(func() { _ = dir.Close() })
	return dir
}

// leaves puts records in a reserve that nobody has, as who is killed leaves it.
func leaves(t *testing.T, d *DB, keys map[string]int64) {
	t.Helper()
	r, err := openReserve(&lite{}, folderOf(t, d.lite.path+".keys"))
	ok(t, err)
	for key, until := range keys {
		ok(t, r.put(logKey([]byte(key)), until))
	}
	ok(t, r.f.Close())
}

// A reserve that cannot be looked at is not one that nobody has had.
func TestReserveThatCannotBeLookedAt(t *testing.T) {
	t.Parallel()
	dir := folderOf(t, t.TempDir())
	k := &keyKeeper{l: &keyLog{reserve: &keyReserve{}}, dir: dir}
	if f, err := k.leftReserve(1, true); f != nil || err != nil {
		t.Errorf("one that nobody has had: %v, %v", f, err)
	}
	ok(t, dir.Close())
	if f, err := k.leftReserve(1, true); f != nil || err == nil {
		t.Errorf("one that cannot be looked at: %v, %v", f, err)
	}
}

// Of one that wanted to join, did not get to, went on by itself and was killed, what it left in its reserve counts for who is alone still.
func TestKeysOfOneThatNeverJoined(t *testing.T) {
	t.Parallel()
	d, url := newAlone(t)
	until := time.Now().Add(time.Hour)
	confirms(t, d, seenKey("cut"), until)
	eventually(t, "SQLite has it", func() bool { return inSQLite(t, d, seenKey("cut")) })
	blocker, err := Open(t.Context(), url, Options{})
	ok(t, err)
	t.Cleanup(func() { _ = blocker.Close() })
	tx, err := blocker.w.BeginTx(t.Context(), nil)
	ok(t, err)
	confirms(t, d, seenKey("waits"), until)
	next, err := os.OpenFile(filepath.Join(d.lite.path+".keys", "next"), os.O_RDWR, 0)
	ok(t, err)
	eventually(t, "it wants to join", func() bool {
		got, err := lock(next, syscall.LOCK_EX)
		ok(t, err)
		return got
	})
	eventually(t, "room is made for it", func() bool { return !d.isAlone() })
	leaves(t, d, map[string]int64{seenKey("cut"): -micros(until), seenKey("answered"): micros(until)})
	ok(t, next.Close())
	for range 2 {
		claimFinds(t, d, seenKey("answered"), Seen)
		claimFinds(t, d, seenKey("cut"), UnderWay)
		time.Sleep(busyTimeout / 2) // until giving SQLite what there is has failed
	}
	time.Sleep(time.Second)
	ok(t, tx.Rollback())
	eventually(t, "it is alone again", d.isAlone)
	eventually(t, "it is welcome", func() bool {
		found, err := d.ClaimSeen(t.Context(), seenKey("cut"))
		ok(t, err)
		return found == Fresh
	})
	for _, key := range []string{"answered", "waits"} {
		claimFinds(t, d, seenKey(key), Seen)
		eventually(t, "SQLite has it", func() bool { return inSQLite(t, d, seenKey(key)) })
	}
}

// Who was held up for so long that somebody may have come and gone asks SQLite what it does not know.
func TestKeysOfOneThatCameAndWent(t *testing.T) {
	t.Parallel()
	d, url := newAlone(t)
	other, err := Open(t.Context(), url, Options{})
	ok(t, err)
	t.Cleanup(func() { _ = other.Close() })
	l := &d.lite.keyLog
	until := time.Now().Add(time.Hour)
	l.mu.Lock() // it does not get to do anything
	confirms(t, other, seenKey("of the other"), until)
	confirms(t, other, seenKey("cut"), until)
	leaves(t, d, map[string]int64{seenKey("in its reserve"): micros(until), seenKey("cut"): -micros(until)})
	l.trust = time.Now()
	l.mu.Unlock()
	v := delivery("", 1)
	v.SeenKey, v.SeenUntil = seenKey("cut"), until
	eventually(t, "it is taken in", func() bool {
		duplicate, err := d.AcceptDelivery(t.Context(), v)
		if duplicate || err != nil && !errors.Is(err, ErrConflict) {
			t.Fatalf("what was not answered: %v, duplicate: %v", err, duplicate)
		}
		return err == nil
	})
	for range 100 {
		claimFinds(t, d, seenKey("of the other"), Seen)
		claimFinds(t, d, seenKey("in its reserve"), Seen)
		time.Sleep(3 * time.Millisecond)
	}
	eventually(t, "it is alone again", d.isAlone)
	claimFinds(t, d, seenKey("of the other"), Seen)
	claimFinds(t, d, seenKey("in its reserve"), Seen)
}
