package store

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// isFilling says whether the filter is being made anew.
func (d *DB) isFilling() bool {
	d.lite.keyLog.mu.Lock()
	defer d.lite.keyLog.mu.Unlock()
	return d.lite.keyLog.filter.all != nil && d.lite.keyLog.filter.next != nil
}

// No key is missed, also while the filter is made anew because it is full.
func TestKeyFilterMissesNone(t *testing.T) {
	least, atOnce := leastKeys, keysAtOnce
	leastKeys, keysAtOnce = 500, 20 // which takes a while
	t.Cleanup(func() { leastKeys, keysAtOnce = least, atOnce })
	d, url := newAlone(t)
	until := time.Now().Add(time.Hour)
	keys, during := 0, 0 // while it is made anew
	for ; during < 300; keys++ {
		if d.isFilling() {
			during++
		}
		confirms(t, d, seenKey(keys), until)
		if keys%10 == 0 {
			time.Sleep(5 * time.Millisecond)
		}
		if back := seenKey(keys / 2); d.lite.keyLog.find(back) == unheard {
			t.Fatalf("%d of %d is unheard of", keys/2, keys)
		}
		if keys > 1e6 {
			t.Fatal("the filter is not made anew")
		}
	}
	eventually(t, "SQLite has all", func() bool { return inSQLite(t, d, seenKey(keys-1)) })
	eventually(t, "there is room again", func() bool {
		d.lite.keyLog.mu.Lock()
		defer d.lite.keyLog.mu.Unlock()
		return d.lite.keyLog.filter.room > 0 && d.lite.keyLog.filter.next == nil
	})
	wrong := 0
	for i := range keys {
		claimFinds(t, d, seenKey(i), Seen)
		if d.lite.keyLog.find(seenKey("new", i)) != unheard {
			wrong++
		}
	}
	if wrong > keys/20 {
		t.Errorf("SQLite is asked for %d of %d new ones", wrong, keys)
	}
	ok(t, d.Close())
	again := holds(t, url)
	eventually(t, "it is alone", again.isAlone)
	for i := range keys {
		claimFinds(t, again, seenKey(i), Seen)
	}
}

// What is kept here while the filter is made anew is in it, though SQLite gets it only later.
func TestKeyFilterKnowsWhatIsKept(t *testing.T) {
	t.Parallel()
	d, _ := newAlone(t)
	l := &d.lite.keyLog
	const keys = 100
	for i := range keys {
		confirms(t, d, seenKey(i), time.Now().Add(time.Hour))
	}
	l.mu.Lock()
	l.filter.room = 0 // it is full
	l.mu.Unlock()
	eventually(t, "SQLite has all, and the filter is new", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.fresh.keys) == 0 && l.moving == nil && l.filter.next == nil && l.filter.room > 0
	})
	for i := range keys {
		claimFinds(t, d, seenKey(i), Seen)
	}
}

// No key is missed that SQLite is being told when the log comes into force: by a confirmation that waits for its turn, or in a transaction that is not
// over.
func TestKeyFilterKnowsWhatSQLiteIsBeingTold(t *testing.T) {
	t.Parallel()
	d, _ := newAlone(t)
	l := &d.lite.keyLog
	l.mu.Lock()
	l.on, l.filter = false, keyFilter{} // as before it was alone
	l.mu.Unlock()
	until := time.Now().Add(time.Hour)
	var wait sync.WaitGroup
	ok(t, d.writeRelaxed(t.Context(), func(tx *tx) error {
		if duplicate, err := d.seen(tx, seenKey("taken in"), until); err != nil || duplicate {
			return fmt.Errorf("duplicate: %v, %w", duplicate, err)
		}
		wait.Go(func() {
			if duplicate, err := d.ConfirmSeen(context.Background(), seenKey("answered"), until); err != nil || duplicate {
				t.Errorf("%v, duplicate: %v", err, duplicate)
			}
		})
		time.Sleep(3 * keepEvery) // the filter is made meanwhile
		return nil
	}))
	wait.Wait()
	eventually(t, "it is alone", d.isAlone)
	claimFinds(t, d, seenKey("taken in"), Seen)
	claimFinds(t, d, seenKey("answered"), Seen)
}
