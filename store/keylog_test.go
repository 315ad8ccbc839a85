package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// seenKey is the key of a message, as they are.
func seenKey(of ...any) string {
	h := sha256.Sum256([]byte(fmt.Sprint(of...)))
	return string(h[:])
}

// holds opens a store as one of those who answer messages.
func holds(t testing.TB, url string) *DB {
	t.Helper()
	d, err := Open(t.Context(), url, Options{})
	ok(t, err)
	t.Cleanup(func() { _ = d.Close() })
	ok(t, d.HoldKeys(t.Context()))
	return d
}

// isAlone says whether the store keeps keys itself.
func (d *DB) isAlone() bool {
	d.lite.keyLog.mu.Lock()
	defer d.lite.keyLog.mu.Unlock()
	return d.lite.keyLog.on
}

func newAlone(t testing.TB) (d *DB, url string) {
	t.Helper()
	url = newFile(t)
	d = holds(t, url)
	_, err := d.MigrateUp(t.Context())
	ok(t, err)
	eventually(t, "it is alone", d.isAlone)
	return d, url
}

// inSQLite says whether SQLite has a key.
func inSQLite(t testing.TB, d *DB, key string) bool {
	t.Helper()
	var n int
	ok(t, d.r.QueryRowContext(t.Context(), "SELECT count(*) FROM webhook_seen WHERE key = $1", []byte(key)).Scan(&n))
	return n > 0
}

func TestKeysAreKeptWhileAlone(t *testing.T) {
	t.Parallel()
	d, url := newAlone(t)
	until := time.Now().Add(time.Minute)
	claimFinds(t, d, seenKey("a"), Fresh)
	claimFinds(t, d, seenKey("a"), UnderWay)
	confirms(t, d, seenKey("a"), until)
	claimFinds(t, d, seenKey("a"), Seen)
	if duplicate, err := d.ConfirmSeen(t.Context(), seenKey("a"), until); err != nil || !duplicate {
		t.Errorf("two confirmed it: %v", err)
	}
	v := delivery("", 1)
	v.SeenKey, v.SeenUntil = seenKey("a"), until
	if duplicate, err := d.AcceptDelivery(t.Context(), v); err != nil || !duplicate {
		t.Errorf("what was answered was taken in: %v", err)
	}
	// What was taken in is answered to nobody.
	v.SeenKey = seenKey("taken in")
	accept(t, d, v)
	claimFinds(t, d, seenKey("taken in"), Seen)
	// A key runs out, here too.
	confirms(t, d, seenKey("over"), time.Now().Add(-time.Second))
	claimFinds(t, d, seenKey("over"), Fresh)
	ok(t, d.Unclaim(t.Context(), seenKey("over"), time.Time{}))
	// One of another form is SQLite's.
	confirms(t, d, "short", until)
	if !inSQLite(t, d, "short") {
		t.Error("a short key was kept here")
	}

	eventually(t, "SQLite has it", func() bool { return inSQLite(t, d, seenKey("a")) })
	claimFinds(t, d, seenKey("a"), Seen)
	confirms(t, d, seenKey("last"), until)
	ok(t, d.Close())
	again := holds(t, url)
	for _, key := range []string{seenKey("a"), seenKey("last"), seenKey("taken in"), "short"} {
		claimFinds(t, again, key, Seen)
	}
	claimFinds(t, again, seenKey("over"), Fresh)
}

// An answer that was cut makes its message welcome again, whether its key is still here, on its way to SQLite, or there.
func TestKeysAreForgottenWhereverTheyAre(t *testing.T) {
	t.Parallel()
	d, url := newAlone(t)
	until := time.Now().Add(time.Minute)
	var wait sync.WaitGroup
	for i := range 60 { // 2 s: files take turns meanwhile
		key := seenKey(i)
		confirms(t, d, key, until)
		wait.Go(func() {
			time.Sleep(time.Duration(i) * 7 * time.Millisecond)
			if err := d.Unclaim(context.Background(), key, until); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(30 * time.Millisecond)
	}
	wait.Wait()
	for i := range 60 {
		claimFinds(t, d, seenKey(i), Fresh)
	}
	ok(t, d.Close())
	again := holds(t, url)
	for i := range 60 {
		claimFinds(t, again, seenKey(i), Fresh)
	}
}

// While one is alone and another joins, no message that the one has answered is new to the other, at no moment. Then they share; and who is
// left is alone again.
func TestKeysAreHandedOver(t *testing.T) {
	t.Parallel()
	first, url := newAlone(t)
	until := time.Now().Add(time.Hour)
	var answered atomic.Int64
	stop := make(chan struct{})
	var answers sync.WaitGroup
	answers.Go(func() {
		for i := int64(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if duplicate, err := first.ConfirmSeen(context.Background(), seenKey(i), until); err != nil || duplicate {
				t.Errorf("%d: %v, duplicate: %v", i, err, duplicate)
				return
			}
			answered.Store(i)
		}
	})
	eventually(t, "some were answered", func() bool { return answered.Load() > 300 })
	second := holds(t, url)
	for range 300 {
		claimFinds(t, second, seenKey(answered.Load()), Seen)
	}
	if first.isAlone() || second.isAlone() {
		t.Error("one of two is alone")
	}
	close(stop)
	answers.Wait()
	for i := range answered.Load() {
		claimFinds(t, second, seenKey(i), Seen)
	}
	confirms(t, second, seenKey("of the second"), until)
	claimFinds(t, first, seenKey("of the second"), Seen)
	ok(t, first.Close())
	eventually(t, "who is left is alone", second.isAlone)
	for i := range answered.Load() {
		claimFinds(t, second, seenKey(i), Seen)
	}
	claimFinds(t, second, seenKey("new"), Fresh)
}

// Of who is alone and stands still, as one that is being debugged does, at least what it has answered is known.
func TestKeysOfOneThatHangsAreRead(t *testing.T) {
	before := joinPatience
	joinPatience = 100 * time.Millisecond
	t.Cleanup(func() { joinPatience = before })
	d, url := newAlone(t)
	ok(t, d.Close())
	dir := d.lite.path + ".keys"
	hung, err := os.OpenFile(filepath.Join(dir, "alone"), os.O_RDWR, 0)
	ok(t, err)
	ok(t, syscall.Flock(int(hung.Fd()), syscall.LOCK_EX))
	f, err := (&lite{}).openKeyFile(folderOf(t, dir), logNames[1])
	ok(t, err)
	until := time.Now().Add(time.Minute)
	ok(t, f.write(0, logKey([]byte(seenKey("answered"))), micros(until)))

	other := holds(t, url)
	claimFinds(t, other, seenKey("answered"), Seen)
	claimFinds(t, other, seenKey("new"), Fresh)
	// It may still say that it was not answered after all, and nothing may bring it back then.
	ok(t, f.write(recordSize, logKey([]byte(seenKey("answered"))), forgotten))
	claimFinds(t, other, seenKey("answered"), Fresh)
	ok(t, other.Unclaim(t.Context(), seenKey("answered"), time.Time{}))
	ok(t, f.write(2*recordSize, logKey([]byte(seenKey("answered"))), micros(until)))
	claimFinds(t, other, seenKey("answered"), Seen)
	if st, err := f.f.Stat(); err != nil || st.Size() != 3*recordSize {
		t.Errorf("the log of somebody who lives was touched: %v", err)
	}
	if time.Sleep(aloneAfter + 3*keepEvery); other.isAlone() {
		t.Error("two are alone")
	}
	ok(t, hung.Close())
	eventually(t, "who is left is alone", other.isAlone)
	claimFinds(t, other, seenKey("answered"), Seen)
	ok(t, f.f.Close())
}

// Who is alone and cannot say so in time, because SQLite holds it up, keeps nothing any more that who has joined meanwhile could not know.
func TestKeysOfOneThatIsHeldUpAreSQLites(t *testing.T) {
	before := joinPatience
	joinPatience = 500 * time.Millisecond
	t.Cleanup(func() { joinPatience = before })
	d, url := newAlone(t)
	until := time.Now().Add(time.Hour)
	confirms(t, d, seenKey("first"), until)
	conn, err := d.w.Conn(t.Context()) // a write that takes long
	ok(t, err)
	time.Sleep(turnEvery + 2*keepEvery) // it waits to give SQLite the first
	other := holds(t, url)
	claimFinds(t, other, seenKey("first"), Seen)
	answered := make(chan error, 1)
	go func() {
		_, err := d.ConfirmSeen(context.Background(), seenKey("second"), until)
		answered <- err
	}()
	select {
	case err = <-answered: // it kept it, or could not
	case <-time.After(200 * time.Millisecond):
		ok(t, conn.Close())
		err = <-answered
	}
	if err == nil {
		claimFinds(t, other, seenKey("second"), Seen)
	}
	confirms(t, other, seenKey("of the other"), until)
	claimFinds(t, d, seenKey("of the other"), Seen)
	_ = conn.Close()
}

// SQLite that cannot be written holds up no answer, and what it misses is known all the same.
func TestKeysWaitForSQLite(t *testing.T) {
	t.Parallel()
	d, url := newAlone(t)
	blocker, err := Open(t.Context(), url, Options{})
	ok(t, err)
	t.Cleanup(func() { _ = blocker.Close() })
	tx, err := blocker.w.BeginTx(t.Context(), nil)
	ok(t, err)
	until := time.Now().Add(time.Hour)
	for i := range 40 {
		confirms(t, d, seenKey(i), until)
		time.Sleep(turnEvery / 20)
	}
	for i := range 40 {
		claimFinds(t, d, seenKey(i), Seen)
	}
	if inSQLite(t, d, seenKey(0)) {
		t.Error("SQLite was not blocked")
	}
	ok(t, tx.Rollback())
	eventually(t, "SQLite has all", func() bool { return inSQLite(t, d, seenKey(0)) && inSQLite(t, d, seenKey(39)) })
}

// A log that cannot be written is a store that is not there: the answer goes, and the key is owed.
func TestLogThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	d, _ := newAlone(t)
	l := &d.lite.keyLog
	l.mu.Lock()
	whole := l.fresh.f
	broken, err := os.Open(whole.Name()) // for reading
	ok(t, err)
	l.fresh.f = broken
	l.mu.Unlock()
	until := time.Now().Add(time.Minute)
	_, err = d.ConfirmSeen(t.Context(), seenKey("a"), until)
	is(t, err, ErrUnavailable)
	if l.find(seenKey("a")) == kept {
		t.Error("it is kept in memory, where a kill loses it")
	}
	l.mu.Lock()
	l.fresh.f = whole
	l.mu.Unlock()
	ok(t, broken.Close())
	confirms(t, d, seenKey("a"), until)
	claimFinds(t, d, seenKey("a"), Seen)
}

// What is half written was acknowledged to nobody; what is whole is read, whatever lies beside it.
func TestLogIsReadRecordByRecord(t *testing.T) {
	t.Parallel()
	f, err := (&lite{}).openKeyFile(folderOf(t, t.TempDir()), logNames[0])
	ok(t, err)
	at := func(i int) int64 { return int64(i) * recordSize }
	key := func(i int) logKey { return logKey([]byte(seenKey(i))) }
	ok(t, f.write(at(1), key(1), 11)) // 0 is a hole
	ok(t, f.write(at(2), key(2), 12))
	ok(t, f.write(at(3), key(1), forgotten))
	ok(t, f.write(at(4), key(4), 14))
	_, err = f.f.WriteAt([]byte{'x'}, at(4)+20) // not what was written
	ok(t, err)
	ok(t, f.write(at(5), key(5), 15))
	_, err = f.f.WriteAt([]byte("half of one"), at(6))
	ok(t, err)
	got, err := readKeys(f.f)
	ok(t, err)
	same(t, got, map[logKey]int64{key(2): 12, key(5): 15})
	ok(t, f.f.Close())
}

// In a folder that others write to, nothing is what a link leads to: it would be emptied.
func TestLogFollowsNoLink(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"", "alone", "next", logNames[0], logNames[1]} {
		url := newFile(t)
		keys := strings.TrimPrefix(url, "sqlite:") + ".keys"
		other := t.TempDir()
		precious := filepath.Join(other, logNames[0])
		ok(t, os.WriteFile(precious, []byte("precious"), 0o600))
		if name == "" {
			ok(t, os.Symlink(other, keys))
		} else {
			ok(t, os.Mkdir(keys, 0o700))
			ok(t, os.Symlink(precious, filepath.Join(keys, name)))
		}
		d, err := Open(t.Context(), url, Options{})
		ok(t, err)
		if err := d.HoldKeys(t.Context()); err == nil {
			t.Errorf("%q was followed", name)
			time.Sleep(2 * keepEvery)
		}
		ok(t, d.Close())
		if got, err := os.ReadFile(precious); err != nil || string(got) != "precious" {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
}

// Root that runs a sidecar once on another user's store leaves nothing that keeps that user from it.
func TestLogBelongsToWhoseTheStoreIs(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can give files away")
	}
	d, url := newAlone(t)
	ok(t, d.Close())
	const other = 12345
	ok(t, os.Chown(strings.TrimPrefix(url, "sqlite:"), other, other))
	again := holds(t, url)
	entries, err := os.ReadDir(again.lite.path + ".keys")
	ok(t, err)
	names := []string{""}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) != 6 {
		t.Errorf("%q", names)
	}
	for _, name := range names {
		st, err := os.Stat(filepath.Join(again.lite.path+".keys", name))
		ok(t, err)
		if uid := st.Sys().(*syscall.Stat_t).Uid; uid != other {
			t.Errorf("%q is %d's", name, uid)
		}
	}
}
