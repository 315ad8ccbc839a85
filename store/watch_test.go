package store

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// A watch is one Watch call and what it was told.
type watch struct {
	mu   sync.Mutex
	told []Change
	end  context.CancelFunc
	done chan error
}

// follow watches until the test ends.
func follow(t testing.TB, d *DB) *watch {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	w := &watch{end: cancel, done: make(chan error, 1)}
	go func() {
		w.done <- d.Watch(ctx, func(c Change) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told = append(w.told, c)
		})
	}()
	t.Cleanup(cancel)
	eventually(t, "the feed is live", func() bool {
		w.mu.Lock()
		begun := len(w.told) > 0 // while it has not, the feed is as live as the others' are
		w.mu.Unlock()
		return begun && d.FeedLive()
	})
	return w
}

// take returns what was told since the last time.
func (w *watch) take() []Change {
	w.mu.Lock()
	defer w.mu.Unlock()
	told := w.told
	w.told = nil
	return told
}

// hears waits until what was committed before is announced. The promise is not how soon that is, but that a second later the feed is not said
// to be live before it was.
func (w *watch) hears(t testing.TB, d *DB, what string, wants func(told []Change) bool) {
	t.Helper()
	committed := time.Now()
	var told []Change
	eventually(t, what, func() bool {
		late := time.Since(committed) > time.Second
		live := d.FeedLive()
		told = append(told, w.take()...)
		heard := wants(told)
		if late && live && !heard {
			t.Fatalf("%s: %v after the commit the feed is live, and has told %v", what, time.Since(committed), told)
		}
		return heard
	})
}

func has(want Change) func([]Change) bool {
	return func(told []Change) bool { return slices.Contains(told, want) }
}

func TestWatch(t *testing.T) {
	for name, test := range map[string]func(*testing.T, engine){
		"Local":   testWatchLocal,
		"Foreign": testWatchForeign,
		"Ends":    testWatchEnds,
		"Two":     testWatchTwo,
	} {
		t.Run(name, func(t *testing.T) { onBoth(t, test) })
	}
}

// writes are all that a watcher must hear of, and what it must hear.
func writes(t *testing.T, d *DB) []struct {
	name  string
	write func() error
	want  Change
} {
	ctx := t.Context()
	hash := [32]byte{0xab, 1}
	token := Change{KindToken, hex.EncodeToString(hash[:])}
	acme, assistant := Change{KindCredential, "acme"}, Change{KindAssistant, "asst:1"}
	return []struct {
		name  string
		write func() error
		want  Change
	}{
		{"put", func() error { return d.PutCredential(ctx, by, sealed(acmeTwilio, 1)) }, acme},
		{"replace", func() error { return d.PutCredential(ctx, by, sealed(acmeTwilio, 2)) }, acme},
		{"disable", func() error { _, err := d.SetActive(ctx, by, acmeTwilio, false, 0); return err }, acme},
		{"verify", func() error { return d.SetVerified(ctx, by, acmeTwilio, 3, Verification{time.Now(), Valid, ""}) }, acme},
		{"delete", func() error { return d.DeleteCredential(ctx, by, acmeTwilio, 0) }, acme},
		{"assistant", func() error { return d.PutAssistant(ctx, by, &Assistant{ID: "asst:1", Org: "acme"}, 0) }, assistant},
		{"move assistant", func() error { return d.PutAssistant(ctx, by, &Assistant{ID: "asst:1", Org: "globex"}, -1) }, assistant},
		{"delete assistant", func() error { return d.DeleteAssistant(ctx, by, "asst:1", 0) }, assistant},
		{"token", func() error { return d.PutToken(ctx, by, &Token{Name: "w", Hash: hash}) }, token},
		{"revoke", func() error { _, err := d.RevokeToken(ctx, by, "w"); return err }, token},
	}
}

// A write of one's own is announced when it returns.
func testWatchLocal(t *testing.T, e engine) {
	d := e.open(t)
	w := follow(t, d)
	same(t, w.take(), []Change{{}})
	for _, step := range writes(t, d) {
		ok(t, step.write())
		if told := w.take(); !slices.Contains(told, step.want) {
			t.Errorf("%s: told %v, want %v", step.name, told, step.want)
		}
	}
	w.take()
	is(t, d.PutCredential(t.Context(), by, sealed(acmeTwilio, 1)), ErrConflict)
	ok(t, d.AddEvent(t.Context(), Event{Action: "credential.list"}))
	// One's own writes are no gap: neither SQLite's data_version nor a notification may throw everything away.
	time.Sleep(3 * pollEvery)
	if told := w.take(); slices.Contains(told, Change{}) {
		t.Errorf("told %v", told)
	}
}

// A write of another sidecar is announced within a second, or the feed is not live.
func testWatchForeign(t *testing.T, e engine) {
	d := e.open(t)
	w := follow(t, d)
	w.take()
	for _, step := range writes(t, e.open(t)) {
		want := step.want
		if e.name == "sqlite" {
			want = Change{}
		}
		w.take() // what was told twice of the step before
		ok(t, step.write())
		w.hears(t, d, step.name, has(want))
	}
	eventually(t, "the feed is live", d.FeedLive)
}

// What another process wrote is announced, at the latest, when one's own next write returns: writers in a row do not hold the news up.
func TestSQLiteWritersLook(t *testing.T) {
	e := engine{"sqlite", engines[0].url(t)}
	d, other := e.open(t), e.open(t)
	_, err := d.MigrateUp(t.Context())
	ok(t, err)
	w := follow(t, d)
	for i := range 10 {
		w.take()
		ok(t, other.AddEvent(t.Context(), Event{Action: "x"}))
		ok(t, d.AddEvent(t.Context(), Event{Action: "x"}))
		if told := w.take(); !slices.Contains(told, Change{}) {
			t.Fatalf("write %d: told %v", i, told)
		}
	}
}

func testWatchEnds(t *testing.T, e engine) {
	d := e.open(t)
	if d.FeedLive() {
		t.Error("live, and nobody watches")
	}
	w := follow(t, d)
	w.end()
	is(t, <-w.done, context.Canceled)
	w.take()
	put(t, d, acmeTwilio)
	if told := w.take(); len(told) > 0 || d.FeedLive() {
		t.Errorf("told %v after the end", told)
	}

	other, err := Open(t.Context(), e.url, Options{})
	ok(t, err)
	w = follow(t, other)
	ok(t, other.Close())
	select {
	case err := <-w.done:
		is(t, err, errClosed)
	case <-time.After(patience):
		t.Error("closed, and still watching")
	}
	is(t, other.Watch(t.Context(), func(Change) {}), errClosed)
}

// Two watchers of one DB hear the same.
func testWatchTwo(t *testing.T, e engine) {
	d := e.open(t)
	a, b := follow(t, d), follow(t, d)
	a.take()
	b.take()
	put(t, d, acmeTwilio)
	put(t, e.open(t), Ref{"globex", "vapi"})
	want := Change{KindCredential, "globex"}
	if e.name == "sqlite" {
		want = Change{}
	}
	for _, w := range []*watch{a, b} {
		var told []Change
		eventually(t, "both are told", func() bool {
			told = append(told, w.take()...)
			return slices.Contains(told, Change{KindCredential, "acme"}) && slices.Contains(told, want)
		})
	}
}

// While a value is read and a write is announced, whoever reads after the announcement must see what was written.
func TestAnnouncedMeansVisible(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, other := e.open(t), e.open(t)
		put(t, d, acmeTwilio)
		seen := make(chan int64, 1000)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			_ = d.Watch(ctx, func(Change) {
				if c, _, err := d.Credential(ctx, acmeTwilio); err == nil {
					seen <- c.Version
				} else if ctx.Err() == nil {
					t.Errorf("after an announcement: %v", err)
				}
			})
		}()
		eventually(t, "the feed is live", d.FeedLive)
		for version := int64(2); version < 8; version++ {
			ok(t, other.PutCredential(t.Context(), by, sealed(acmeTwilio, version)))
			eventually(t, "the announcement comes after the commit", func() bool {
				for len(seen) > 0 {
					if <-seen == version {
						return true
					}
				}
				return false
			})
		}
	})
}

// Close ends everything that the store has begun.
func TestCloseLeavesNothing(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		before := goleak.IgnoreCurrent()
		d, err := Open(t.Context(), e.url, Options{})
		ok(t, err)
		w := follow(t, d)
		put(t, d, acmeTwilio)
		put(t, d, acmeTwilio)
		ok(t, errors.Join(atOnce(8, func(int) error { return read(d) })...))
		ok(t, d.Close())
		is(t, <-w.done, errClosed)
		goleak.VerifyNone(t, before)
		if err := read(d); err == nil {
			t.Error("a closed store answers")
		}
	})
}

func TestParseChange(t *testing.T) {
	for payload, want := range map[string]Change{
		"credential:acme": {KindCredential, "acme"}, "assistant:a:b": {KindAssistant, "a:b"}, "token:ff": {KindToken, "ff"},
		"all": {}, "": {}, "credential:": {}, "delivery:7": {},
	} {
		same(t, parseChange(payload), want)
	}
}

// The age of the feed is that of its last proof, and there is none while it is down.
func TestFeedAge(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d := e.open(t)
		if age, live := d.FeedAge(); live {
			t.Errorf("%v old before anyone watches", age)
		}
		follow(t, d)
		eventually(t, "the feed is young", func() bool { age, live := d.FeedAge(); return live && age < liveFor })
	})
}
