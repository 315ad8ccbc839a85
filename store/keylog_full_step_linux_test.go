package store

import (
	"errors"
	"testing"
	"time"
)

// findsAfterKill says what the next sidecar finds of a key if this one is killed now.
func (s *smallDisk) findsAfterKill(t *testing.T, key string, want Claim) {
	t.Helper()
	url := s.killed(t)
	d := holds(t, url)
	eventually(t, "what was left is moved", d.isAlone)
	claimFinds(t, d, key, want)
	ok(t, d.Close())
}

func (s *smallDisk) alone(t *testing.T) *DB {
	t.Helper()
	d := holds(t, s.url())
	_, err := d.MigrateUp(t.Context())
	ok(t, err)
	eventually(t, "it is alone", d.isAlone)
	return d
}

// On a full disk what was answered is known, and what was not is welcome, to the next sidecar and to one beside it; no message is taken in that
// could not be remembered. With room again everything goes on.
func TestKeysOnAFullDiskStepByStep(t *testing.T) {
	if !apart(t) {
		return
	}
	hasty(t)
	before := joinPatience
	joinPatience = 500 * time.Millisecond
	t.Cleanup(func() { joinPatience = before })
	disk := newSmallDisk(t)
	d := disk.alone(t)
	until := time.Now().Add(time.Hour)
	confirms(t, d, seenKey("in SQLite"), until)
	confirms(t, d, seenKey("in SQLite, stays"), until)
	eventually(t, "SQLite has it", func() bool {
		return inSQLite(t, d, seenKey("in SQLite, stays")) && inSQLite(t, d, seenKey("in SQLite"))
	})
	for i := range 200 { // as many as it takes for the log to need a page for what comes
		confirms(t, d, seenKey("in the log", i), until)
	}
	ok(t, disk.full())

	// All of these were claimed before the disk was found full.
	var claimed []int
	for i := 0; !d.isPending() && i < 1000; i++ {
		claimFinds(t, d, seenKey(i), Fresh)
		claimFinds(t, d, seenKey("given up", i), Fresh)
		ok(t, d.Unclaim(t.Context(), seenKey("given up", i), time.Time{}))
		confirms(t, d, seenKey(i), until)
		claimed = append(claimed, i)
	}
	last := claimed[len(claimed)-1]
	ok(t, disk.full())
	if !d.isPending() {
		t.Fatal("the disk was not full")
	}
	claimFinds(t, d, seenKey(last), Seen)
	disk.findsAfterKill(t, seenKey(last), Seen)
	disk.findsAfterKill(t, seenKey("new"), Fresh)
	for i := range 200 {
		ok(t, d.Unclaim(t.Context(), seenKey("in the log", i), until))
	}
	for _, key := range []string{seenKey(last), seenKey("in SQLite")} {
		ok(t, d.Unclaim(t.Context(), key, until))
		ok(t, d.Unclaim(t.Context(), key, until)) // once more, as who asks again
	}
	for _, i := range []int{0, 100, 199} {
		disk.findsAfterKill(t, seenKey("in the log", i), Fresh)
	}
	disk.findsAfterKill(t, seenKey(last), Fresh)
	disk.findsAfterKill(t, seenKey("in SQLite"), Fresh)
	disk.findsAfterKill(t, seenKey("in SQLite, stays"), Seen)
	if found, err := d.ClaimSeen(t.Context(), seenKey(last)); err == nil && found == Seen {
		t.Error("what was forgotten is refused as a copy")
	}
	if _, err := d.ClaimSeen(t.Context(), seenKey("one more")); d.isPending() && !errors.Is(err, ErrUnavailable) {
		t.Errorf("taken without room to remember it: %v", err)
	}

	// Another one begins beside it, and neither has the room to tell SQLite.
	ok(t, disk.free(100))
	other, err := Open(t.Context(), disk.url(), Options{})
	ok(t, err)
	t.Cleanup(func() { _ = other.Close() })
	ok(t, disk.full())
	ok(t, other.HoldKeys(t.Context()))
	finds := func(key string, seen bool) {
		t.Helper()
		found, err := other.ClaimSeen(t.Context(), key)
		if (found == Seen) != seen {
			t.Errorf("the other one finds %v, %v", found, err)
		}
		if found == Fresh {
			ok(t, other.Unclaim(t.Context(), key, time.Time{}))
		}
	}
	finds(seenKey("in SQLite, stays"), true)
	finds(seenKey("in SQLite"), false)
	finds(seenKey(last), false)
	finds(seenKey("in the log", 150), false)
	if len(claimed) > 1 {
		finds(seenKey(claimed[0]), true)
		ok(t, d.Unclaim(t.Context(), seenKey(claimed[0]), until))
		finds(seenKey(claimed[0]), false)
	}

	ok(t, disk.free(1000))
	for _, key := range []string{seenKey(last), seenKey("in SQLite"), seenKey("in the log", 150)} {
		eventually(t, "it is welcome", func() bool {
			found, err := d.ClaimSeen(t.Context(), key)
			return err == nil && found == Fresh
		})
		confirms(t, d, key, until)
		eventually(t, "it is known", func() bool {
			found, err := other.ClaimSeen(t.Context(), key)
			return err == nil && found == Seen
		})
	}
	eventually(t, "nothing waits", func() bool { return !d.isPending() && !other.isPending() })
	claimFinds(t, other, seenKey("in SQLite, stays"), Seen)
}
