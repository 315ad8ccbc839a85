package store

import (
	"os"
	"testing"
	"time"
)

// A key that could not be written down is nobody's, also when its file has its turn before that is known: SQLite would have it for answered.
func TestKeysThatWereNotWrittenAreNotMoved(t *testing.T) {
	t.Parallel()
	d, _ := newAlone(t)
	l := &d.lite.keyLog
	l.mu.Lock()
	f := l.fresh
	broken, err := os.Open(f.f.Name()) // for reading
	ok(t, err)
	l.mu.Unlock()
	until := time.Now().Add(time.Hour)
	file, at, _ := l.enter(seenKey("slow"), until)
	if file != f {
		t.Fatal("the files took turns")
	}
	eventually(t, "the files take turns", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.fresh != f
	})
	time.Sleep(3 * keepEvery)
	unwritable := &keyFile{f: broken, keys: f.keys}
	unwritable.writes.Add(1)
	is(t, l.written(unwritable, at, seenKey("slow"), until), ErrUnavailable)
	f.writes.Done()
	eventually(t, "what was there is moved", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.moving == nil
	})
	if inSQLite(t, d, seenKey("slow")) {
		t.Error("SQLite has it for answered")
	}
	claimFinds(t, d, seenKey("slow"), Fresh)
	ok(t, broken.Close())
}

// What waits for SQLite is bounded also where the same messages are answered and forgotten again and again.
func TestKeysThatComeAndGoAreBounded(t *testing.T) {
	before := maxFresh
	maxFresh = 100
	t.Cleanup(func() { maxFresh = before })
	d, url := newAlone(t)
	blocker, err := Open(t.Context(), url, Options{})
	ok(t, err)
	t.Cleanup(func() { _ = blocker.Close() })
	tx, err := blocker.w.BeginTx(t.Context(), nil)
	ok(t, err)
	until := time.Now().Add(time.Hour)
	l := &d.lite.keyLog
	kept := 0
	for ; kept < 10*maxFresh; kept++ {
		done, duplicate, err := l.keep(seenKey("comes and goes"), until)
		if ok(t, err); duplicate {
			t.Fatal("it is not forgotten")
		}
		if !done {
			break
		}
		if done, err := l.forget(t.Context(), seenKey("comes and goes"), until); err != nil || !done {
			t.Fatal(err)
		}
	}
	if kept > 2*maxFresh { // in both files
		t.Errorf("%d records wait", kept)
	}
	ok(t, tx.Rollback())
}
