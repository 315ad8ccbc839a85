package lastgood

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/internal/pgtest"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

var by = store.Actor{Name: "test"}

// patience is how long a test waits for what must come: a machine that is busy with other things may stand still for seconds.
const patience = time.Minute

// A rig is a store with three orgs in it.
type rig struct {
	t    *testing.T
	db   *store.DB
	keys *seal.Keyring
	path string
}

func newRig(t *testing.T) *rig {
	db, err := store.Open(t.Context(), pgtest.New(t), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := &rig{t, db, seal.Generate(), filepath.Join(t.TempDir(), "last")}
	for _, org := range []string{"a", "b", "c"} {
		r.put(org, 1)
	}
	return r
}

func (r *rig) put(org string, version int64) {
	r.t.Helper()
	c := &store.Credential{Ref: ref(org), Version: version, SealedVersion: version, Active: true, Sealed: []byte("sealed"), KeyID: "k"}
	if err := r.db.PutCredential(r.t.Context(), by, c); err != nil {
		r.t.Fatal(err)
	}
}

func ref(org string) store.Ref { return store.Ref{Org: org, Provider: "resend"} }

func (r *rig) open(name string, maxStale time.Duration) *Keeper {
	return Open(Options{Path: r.path, MaxStale: maxStale, Keys: r.keys, DB: r.db, Name: name, Log: zerolog.New(zerolog.NewTestWriter(r.t)), end: patience})
}

// run follows the store until the function that it returns is called, which ends it as a stop does.
func (r *rig) run(k *Keeper) (stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan struct{}, 2)
	go func() { _ = r.db.Watch(ctx, k.Apply); done <- struct{}{} }()
	go func() { k.Run(ctx); done <- struct{}{} }()
	end := sync.OnceFunc(func() { cancel(); <-done; <-done })
	r.t.Cleanup(end)
	return func() {
		for deadline := time.Now().Add(patience); k.Stats().ConfirmedAt.IsZero() && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			continue // what was read is worth nothing before the feed is live, and that may take its time
		}
		end()
	}
}

func (r *rig) has(k *Keeper, org string, want int64) {
	r.t.Helper()
	var got int64
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		got = 0
		if c := k.Credential(ref(org)); c != nil {
			got = c.Version
		}
		if got == want {
			return
		}
	}
	r.t.Fatalf("%s: version %d, want %d", org, got, want)
}

func TestFollowsTheStoreAndOutlivesTheProcess(t *testing.T) {
	r := newRig(t)
	k := r.open("db", time.Hour)
	if k.Usable() {
		t.Error("usable before anything was read")
	}
	stop := r.run(k)
	r.has(k, "a", 1)
	r.put("a", 2)
	r.has(k, "a", 2)
	if err := r.db.DeleteCredential(t.Context(), by, ref("b"), 0); err != nil {
		t.Fatal(err)
	}
	r.has(k, "b", 0)
	stop() // reads what is to be read yet, and writes

	k = r.open("db", time.Hour)
	r.has(k, "a", 2)
	r.has(k, "b", 0)
	r.has(k, "c", 1)
	for name, other := range map[string]*Keeper{"another store's": r.open("other", time.Hour), "one that is too old": r.open("db", time.Nanosecond)} {
		if other.Credential(ref("a")) != nil {
			t.Errorf("%s is used", name)
		}
	}
}

// What is announced while the end is being written does not keep it from being written.
func TestAnnouncedWhileItEnds(t *testing.T) {
	r := newRig(t)
	k := r.open("db", time.Hour)
	stop := r.run(k)
	r.has(k, "a", 1)
	stop()
	if err := k.forget(); err != nil {
		t.Fatal(err)
	}
	begun, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for begin, told := time.Now(), false; time.Since(begin) < 200*time.Millisecond; {
			k.Apply(store.Change{Kind: store.KindCredential, ID: "b"})
			if !told {
				told = true
				close(begun)
			}
		}
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := k.end(ctx); err != nil {
		t.Fatal(err)
	}
	<-done
	r.has(r.open("db", time.Hour), "c", 1)
}

// What a change names is gone at once, before it can be read anew, and is not brought back by the file after a kill.
func TestNamedIsGoneAtOnce(t *testing.T) {
	r := newRig(t)
	k := r.open("db", time.Hour)
	stop := r.run(k)
	r.has(k, "a", 1)
	stop() // the file has all three
	k = r.open("db", time.Hour)
	k.Apply(store.Change{Kind: store.KindCredential, ID: "a"})
	if k.Credential(ref("a")) != nil || k.Credential(ref("c")) == nil {
		t.Error("what was named stays, or what was not goes")
	}
	if err := k.note(); err != nil { // and then it is killed
		t.Fatal(err)
	}
	k = r.open("db", time.Hour)
	if k.Credential(ref("a")) != nil || k.Credential(ref("c")) == nil {
		t.Error("after a restart what was named is back, or what was not is gone")
	}

	// A journal that breaks off may name anything.
	f, err := os.OpenFile(k.journal(k.generation), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("credential ")
	_ = f.Close()
	if err != nil {
		t.Fatal(err)
	}
	if k = r.open("db", time.Hour); k.Credential(ref("c")) != nil {
		t.Error("rows are used although the journal breaks off")
	}
}

// A gap leaves room for doubt: rows that no change has named stay, with the time at which they were confirmed.
func TestGapConfirmsNothing(t *testing.T) {
	r := newRig(t)
	k := r.open("db", time.Hour)
	stop := r.run(k)
	r.has(k, "a", 1)
	stop()
	before := k.Stats().ConfirmedAt
	k.Apply(store.Change{})
	time.Sleep(10 * time.Millisecond)
	if k.Credential(ref("a")) == nil || !k.Stats().ConfirmedAt.Equal(before) {
		t.Errorf("%+v, confirmed before at %v", k.Stats(), before)
	}
}

// A row that changes while everything is being read is read once more.
func TestChangesWhileReading(t *testing.T) {
	r := newRig(t)
	k := r.open("db", time.Hour)
	k.mu.Lock()
	k.full = false
	k.mu.Unlock()
	fresh := &rows{}
	if err := k.read(t.Context(), fresh); err != nil {
		t.Fatal(err)
	}
	r.put("a", 2)
	k.Apply(store.Change{Kind: store.KindCredential, ID: "a"})
	k.mu.Lock()
	k.take(fresh)
	for change := range k.dirty {
		k.drop(change)
	}
	k.confirmed = time.Now()
	k.mu.Unlock()
	if c := k.Credential(ref("a")); c != nil {
		t.Errorf("version %d is served, which a change has named", c.Version)
	}
	if err := k.follow(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.has(k, "a", 2)
}

// A file that cannot be written is told of once, and not every few seconds.
func TestSameTroubleReadsTheSame(t *testing.T) {
	r := newRig(t)
	k := r.open("db", time.Hour)
	r.run(k)() // everything was read
	k.o.Path = filepath.Join(t.TempDir(), "missing", "last")
	k.mu.Lock()
	k.changes++
	k.mu.Unlock()
	once, again := k.save(), k.save()
	if once == nil || again == nil || once.Error() != again.Error() {
		t.Errorf("%v, then %v", once, again)
	}
}
