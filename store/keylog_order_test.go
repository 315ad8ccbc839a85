package store

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// stepped is a store whose keys are kept by hand: nothing is done but what a test does.
func stepped(t *testing.T) (*DB, *keyKeeper) {
	t.Helper()
	d, err := Open(t.Context(), newFile(t), Options{})
	ok(t, err)
	t.Cleanup(func() { _ = d.Close() })
	_, err = d.MigrateUp(t.Context())
	ok(t, err)
	k := &keyKeeper{d: d, l: &d.lite.keyLog, filled: make(chan error, 1)}
	ok(t, k.open())
	t.Cleanup(k.close)
	ok(t, k.first(t.Context()))
	eventually(t, "it is alone", func() bool {
		ok(t, k.step(t.Context()))
		return d.isAlone()
	})
	return d, k
}

// unwritten has a key that is in the log be forgotten while the log cannot be written.
func unwritten(t *testing.T, d *DB, key string, until time.Time) {
	t.Helper()
	l := &d.lite.keyLog
	l.mu.Lock()
	whole := l.fresh.f
	broken, err := os.Open(whole.Name()) // for reading
	ok(t, err)
	l.fresh.f = broken
	l.mu.Unlock()
	ok(t, d.Unclaim(t.Context(), key, until))
	l.mu.Lock()
	l.fresh.f = whole
	l.mu.Unlock()
	ok(t, broken.Close())
	if !d.isPending() {
		t.Fatal("it is not in the reserve")
	}
}

// leftOf is what the next sidecar would find of a key in the log and the reserve, if this one was killed now.
func leftOf(t *testing.T, k *keyKeeper, key string) int64 {
	t.Helper()
	all := &keyFile{keys: map[logKey]int64{}}
	for _, name := range append(logNames[:], reserveName(0)) {
		f, err := k.d.lite.openKeyFile(k.dir, name)
		ok(t, err)
		all.add(f.keys)
		ok(t, f.f.Close())
	}
	return all.keys[logKey([]byte(key))]
}

// That a key is forgotten stays in the reserve until the log that has it is emptied, not only the one that had its turn before.
func TestWhatIsForgottenStaysAsLongAsTheLogHasIt(t *testing.T) {
	t.Parallel()
	for _, taken := range []bool{false, true} {
		d, k := stepped(t)
		until := time.Now().Add(time.Hour)
		confirms(t, d, seenKey("before"), until)
		if taken { // what somebody left is being moved, and no file of the log
			confirms(t, d, seenKey("cut"), until)
			unwritten(t, d, seenKey("cut"), until)
			ok(t, k.takeOver(false))
		} else {
			k.l.mu.Lock()
			k.turn()
			k.l.mu.Unlock()
			confirms(t, d, seenKey("cut"), until)
			unwritten(t, d, seenKey("cut"), until)
		}
		for k.l.moving != nil {
			ok(t, k.moveSome(t.Context()))
			if left := leftOf(t, k, seenKey("cut")); left > 0 {
				t.Fatalf("taken over: %v: the next one would refuse it as a copy", taken)
			}
		}
		ok(t, k.moveAll(t.Context()))
		claimFinds(t, d, seenKey("cut"), Fresh)
		if d.isPending() {
			t.Error("it is in the reserve for ever")
		}
		if left := leftOf(t, k, seenKey("cut")); left > 0 {
			t.Error("the next one would refuse it as a copy at the end")
		}
	}
}

// Who reads what another one has written down never finds kept what that one has forgotten, also while it moves both to SQLite.
func TestWhatIsForgottenElsewhereIsNeverFoundKept(t *testing.T) {
	t.Parallel()
	dir := folderOf(t, t.TempDir())
	r, err := openReserve(&lite{}, dir)
	ok(t, err)
	f, err := (&lite{}).openKeyFile(dir, logNames[0])
	ok(t, err)
	ok(t, os.WriteFile(filepath.Join(dir.Name(), logNames[1]), make([]byte, 1000*recordSize), 0o600)) // takes its time
	until := micros(time.Now().Add(time.Hour))
	key := func(i int64) logKey { return logKey([]byte(seenKey(i))) }
	var forgot atomic.Int64
	var over atomic.Bool
	var wait sync.WaitGroup
	wait.Go(func() {
		defer over.Store(true)
		for i := int64(1); i < 5000; i++ {
			ok := errors.Join(f.write(0, key(i), until), r.put(key(i), -until))
			forgot.Store(i)
			if ok = errors.Join(ok, f.empty(), r.empty(r.puts)); ok != nil {
				t.Error(ok)
			}
		}
	})
	o := keyOthers{dir: dir, mine: -1}
	defer o.close()
	for !over.Load() {
		i := forgot.Load()
		if found, forgotten, err := o.read(key(i), true); err != nil || found != 0 && found != forgotten {
			t.Fatalf("%v: kept until %d, forgotten %d", err, found, forgotten)
		}
	}
	wait.Wait()
}

// Who goes on without having joined wants to, also as long as SQLite cannot be told what it has put in its reserve.
func TestWhoDoesNotJoinWantsTo(t *testing.T) {
	t.Parallel()
	d, err := Open(t.Context(), newFile(t), Options{})
	ok(t, err)
	t.Cleanup(func() { _ = d.Close() })
	k := &keyKeeper{d: d, l: &d.lite.keyLog, filled: make(chan error, 1)}
	ok(t, k.open())
	t.Cleanup(k.close)
	k.l.mu.Lock() // as first leaves it where others are before it
	k.l.apart = true
	ok(t, k.l.setAside(logKey([]byte(seenKey("answered"))), micros(time.Now().Add(time.Hour)), true))
	k.l.mu.Unlock()
	for range 3 { // there is no table yet
		if err := k.step(t.Context()); err == nil && k.l.moving == nil {
			t.Fatal("SQLite has it")
		}
	}
	next, err := os.OpenFile(filepath.Join(k.dir.Name(), "next"), os.O_RDWR, 0)
	ok(t, err)
	defer next.Close()
	if free, err := lock(next, syscall.LOCK_EX); err != nil || free {
		t.Errorf("nobody wants to join: %v", err)
	}
}

// Claims that nobody gave up take no room for ever.
func TestClaimsThatNobodyGaveUpAreDropped(t *testing.T) {
	t.Parallel()
	d, _ := newAlone(t)
	c := &d.lite.claims
	c.mu.Lock()
	c.until, c.swept = map[string]time.Time{}, time.Time{}
	for i := range reserveRecords {
		c.until[seenKey("given up by nobody", i)] = time.Now().Add(-sweepEvery)
	}
	c.until[seenKey("late")] = time.Now().Add(-ClaimLease)
	c.mu.Unlock()
	claimFinds(t, d, seenKey("new"), Fresh)
	if n := c.count(); n != 2 {
		t.Errorf("%d claims", n)
	}
}

// What comes to a reserve whose emptying was cut short is found by others, too.
func TestReserveThatWasEmptiedInPart(t *testing.T) {
	t.Parallel()
	dir := folderOf(t, t.TempDir())
	until := micros(time.Now().Add(time.Hour))
	key := func(what string) logKey { return logKey([]byte(seenKey(what))) }
	before, err := openReserve(&lite{}, dir)
	ok(t, err)
	ok(t, errors.Join(before.put(key("emptied"), until), before.put(key("left"), until)))
	_, err = before.f.WriteAt(make([]byte, recordSize), 0)
	ok(t, errors.Join(err, before.f.Close()))
	r, err := openReserve(&lite{}, dir)
	ok(t, err)
	defer r.f.Close()
	ok(t, r.put(key("new"), -until))
	o := keyOthers{dir: dir, mine: -1}
	defer o.close()
	for what, want := range map[string][2]int64{"emptied": {}, "left": {until}, "new": {0, until}} {
		kept, forgotten, err := o.read(key(what), false)
		if ok(t, err); kept != want[0] || forgotten != want[1] {
			t.Errorf("%s: kept until %d, forgotten %d", what, kept, forgotten)
		}
	}
	ok(t, r.empty(r.puts))
	if kept, _, err := o.read(key("left"), false); err != nil || kept != 0 {
		t.Errorf("it is not emptied: %v", err)
	}
}

// isPending says whether something waits in the reserve.
func (d *DB) isPending() bool {
	d.lite.keyLog.mu.Lock()
	defer d.lite.keyLog.mu.Unlock()
	return d.lite.keyLog.reserve.pending()
}
