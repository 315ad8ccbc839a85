package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/store"
)

// A second Set before the first was processed leaves the old value in ristretto, and both calls return true. What was read before a change
// is not served whichever of the two stays.
func TestDoubleSetNeverServesTheOldValue(t *testing.T) {
	f := newFake()
	c := newCache(t, f, Options{Size: 20_000, FeedLive: always})
	refs := make([]store.Ref, 10_000)
	for i := range refs {
		refs[i] = store.Ref{Org: fmt.Sprint("org", i), Provider: "twilio"}
		f.put(refs[i], 2)
		p := c.credentials.place(refs[i])
		before := c.credentials.fence.at(p.owner)
		c.Apply(changed(refs[i]))
		after := c.credentials.fence.at(p.owner)
		set := func(version int64, s stamp) {
			row := &store.Credential{Ref: refs[i], Version: version}
			c.credentials.rows.Set(p.row, &entry[store.Ref, store.Credential]{key: refs[i], row: row, stamp: s}, 1)
		}
		set(1, before)
		set(2, after)
		if i%1000 == 0 {
			c.credentials.rows.Wait()
		}
	}
	c.credentials.rows.Wait()
	old := 0
	for _, ref := range refs {
		if e, ok := c.credentials.rows.Get(c.credentials.place(ref).row); ok && e.row.Version == 1 {
			old++
		}
		if got := version(t, c, ref); got != 2 {
			t.Fatalf("%s: version %d after the change to 2", ref.Org, got)
		}
	}
	t.Logf("ristretto had kept the old value of %d of %d", old, len(refs))
}

// A loader that began before a change and ends after it does not bring the old value back.
func TestLateLoader(t *testing.T) {
	f := newFake()
	f.put(acme, 1)
	c := newCache(t, f, Options{FeedLive: always})

	inside, release := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	f.whileReading(func(context.Context, string) error {
		if first.CompareAndSwap(false, true) {
			close(inside)
			<-release
		}
		return nil
	})
	late := make(chan int64)
	go func() { late <- version(t, c, acme) }()
	<-inside
	f.put(acme, 2)
	c.Apply(changed(acme))

	// Who comes after the change must not join the load that began before it.
	patience, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if row, _, err := c.Credential(patience, acme); err != nil || row.Version != 2 {
		t.Errorf("while the late load is under way: %v, %v", row, err)
	}
	close(release)
	<-late
	if got := version(t, c, acme); got != 2 {
		t.Errorf("version %d after the late load has landed", got)
	}
	if n := f.reads.Load(); n != 2 {
		t.Errorf("%d reads: the late load pushed out what the later one had kept", n)
	}
}

// Rows whose hashes meet are told apart by the whole key, and so are the fences of orgs that share a slot.
func TestKeyCollision(t *testing.T) {
	f := newFake()
	c := newCache(t, f, Options{FeedLive: always})
	c.credentials.place = func(store.Ref) place { return place{row: 7, owner: 7} }
	globex := store.Ref{Org: "globex", Provider: "twilio"}
	f.put(acme, 1)
	f.put(globex, 2)
	nobody := store.Ref{Org: "nobody", Provider: "twilio"}
	for range 100 {
		for ref, want := range map[store.Ref]int64{acme: 1, globex: 2, nobody: 0, {Org: "acme", Provider: "vapi"}: 0} {
			if got := version(t, c, ref); got != want {
				t.Fatalf("%v: version %d, want %d", ref, got, want)
			}
		}
	}
}

// Names that read alike when they are strung together are different keys.
func TestKeysAreUnambiguous(t *testing.T) {
	f := newFake()
	c := newCache(t, f, Options{FeedLive: always})
	a, b := store.Ref{Org: "ab", Provider: "c"}, store.Ref{Org: "a", Provider: "bc"}
	if c.credentials.place(a) == c.credentials.place(b) {
		t.Error("two refs have one place")
	}
	if c.credentials.flight(a, stamp{}) == c.credentials.flight(b, stamp{}) {
		t.Error("two refs share a flight")
	}
	if x, y := (store.Ref{Org: "twilio", Provider: "vapi"}), (store.Ref{Org: "vapi", Provider: "twilio"}); c.credentials.place(x).row == c.credentials.place(y).row {
		t.Error("org and provider can be swapped")
	}
	if c.credentials.flight(acme, stamp{1, 2}) == c.credentials.flight(acme, stamp{1, 3}) {
		t.Error("two generations share a flight")
	}
}

// After a deletion was announced, no Get returns the row, whatever loads and Gets are under way.
func TestDeletedIsGone(t *testing.T) {
	f := newFake()
	c := newCache(t, f, Options{FeedLive: always})
	done := readAllTheTime(t, c, acme)
	defer done()
	for i := range 10_000 {
		f.put(acme, int64(i+1))
		c.Apply(changed(acme))
		if got := version(t, c, acme); got != int64(i+1) {
			t.Fatalf("round %d: version %d after it was put", i, got)
		}
		f.remove(acme)
		c.Apply(changed(acme))
		if got := version(t, c, acme); got != 0 {
			t.Fatalf("round %d: version %d after it was deleted", i, got)
		}
	}
}

// readAllTheTime keeps lookups and loads of ref going until the returned func is called.
func readAllTheTime(t *testing.T, c *Cache, ref store.Ref) func() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				if _, _, err := c.Credential(context.Background(), ref); err != nil && !errors.Is(err, store.ErrNotFound) {
					t.Error(err)
					return
				}
				runtime.Gosched()
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// The promise itself: nobody who asks after a change was acknowledged sees what was there before, 10,000 changes long, with slow loads,
// changes of one org, of another in the same slot, and of everyone.
func TestRevokedIsNeverServed(t *testing.T) {
	f := newFake()
	var slow atomic.Uint64
	f.whileReading(func(context.Context, string) error {
		if slow.Add(1)%3 == 0 { // after the row was looked up: it gets old on its way
			for range rand.IntN(200) {
				_ = rand.Uint64()
			}
		}
		return nil
	})
	c := newCache(t, f, Options{FeedLive: always})
	refs := make([]store.Ref, 3)
	acknowledged := make([]atomic.Int64, len(refs))
	for i := range refs {
		refs[i] = store.Ref{Org: fmt.Sprint("org", i), Provider: "vapi"}
		f.put(refs[i], 1)
		acknowledged[i].Store(1)
	}
	var readers, writers sync.WaitGroup
	var stop atomic.Bool
	var served, hits atomic.Int64
	for range 4 {
		readers.Go(func() {
			for !stop.Load() {
				i := rand.IntN(len(refs))
				least := acknowledged[i].Load()
				row, cached, err := c.Credential(context.Background(), refs[i])
				if err != nil || row.Version < least || row.Ref != refs[i] {
					t.Errorf("version %d was acknowledged before; got %+v, %v", least, row, err)
					return
				}
				served.Add(1)
				if cached {
					hits.Add(1)
				}
				runtime.Gosched()
			}
		})
	}
	for i := range refs {
		writers.Go(func() {
			for v := int64(2); v < 10_000/int64(len(refs))+3 && !t.Failed(); v++ {
				f.put(refs[i], v)
				if v%10 == 0 {
					c.Apply(store.Change{})
				} else {
					c.Apply(changed(refs[i]))
				}
				acknowledged[i].Store(v)
				if row, _, err := c.Credential(context.Background(), refs[i]); err != nil || row.Version != v {
					t.Errorf("right after version %d: %+v, %v", v, row, err)
				}
			}
		})
	}
	writers.Wait()
	stop.Store(true)
	readers.Wait()
	if hits.Load() == 0 {
		t.Error("nothing was ever served from the cache")
	}
	t.Logf("%d lookups, %d of them hits, %d loads", served.Load(), hits.Load(), f.reads.Load())
}

func TestApplyReachesWhomItNames(t *testing.T) {
	token := [32]byte{1, 2, 3}
	ask := map[string]func(*Cache) error{
		"credential": func(c *Cache) error { _, _, err := c.Credential(t.Context(), acme); return err },
		"assistant":  func(c *Cache) error { _, err := c.Assistant(t.Context(), "asst_1"); return err },
		"token":      func(c *Cache) error { _, err := c.Token(t.Context(), token); return err },
	}
	for _, tt := range []struct {
		name   string
		change store.Change
		reload []string
	}{
		{"an org", changed(acme), []string{"credential"}},
		{"another org", store.Change{Kind: store.KindCredential, ID: "globex"}, nil},
		{"an assistant", store.Change{Kind: store.KindAssistant, ID: "asst_1"}, []string{"assistant"}},
		{"another assistant", store.Change{Kind: store.KindAssistant, ID: "asst_2"}, nil},
		{"a token", store.Change{Kind: store.KindToken, ID: hex.EncodeToString(token[:])}, []string{"token"}},
		{"another token", store.Change{Kind: store.KindToken, ID: hex.EncodeToString(make([]byte, 32))}, nil},
		{"a token that cannot be read", store.Change{Kind: store.KindToken, ID: "0102"}, []string{"token"}},
		{"nobody's credential", store.Change{Kind: store.KindCredential}, []string{"credential"}},
		{"anyone", store.Change{}, []string{"credential", "assistant", "token"}},
		{"a kind of a later version", store.Change{Kind: "delivery", ID: "acme"}, []string{"credential", "assistant", "token"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			f.put(acme, 1)
			f.assistants["asst_1"] = &store.Assistant{ID: "asst_1", Org: "acme"}
			f.tokens[token] = &store.Token{ID: "ct_1", Hash: token}
			c := newCache(t, f, Options{FeedLive: always})
			loads := func() (got []string) {
				for _, name := range []string{"credential", "assistant", "token"} {
					before := f.reads.Load()
					if err := ask[name](c); err != nil {
						t.Fatal(name, err)
					}
					if f.reads.Load() != before {
						got = append(got, name)
					}
				}
				return got
			}
			loads()
			if again := loads(); again != nil {
				t.Fatalf("loaded again without a change: %v", again)
			}
			c.Apply(tt.change)
			if got := loads(); fmt.Sprint(got) != fmt.Sprint(tt.reload) {
				t.Errorf("loaded again: %v, want %v", got, tt.reload)
			}
		})
	}
}

// meeting makes up an org that shares acme's slot with it.
func meeting(c *Cache, but ...store.Ref) store.Ref {
	at := c.credentials.place(acme).owner
	for i := 0; ; i++ {
		ref := store.Ref{Org: fmt.Sprint("meeting", i), Provider: "twilio"}
		if c.credentials.place(ref).owner%slots == at%slots && !slices.Contains(but, ref) {
			return ref
		}
	}
}

// Two orgs that meet in one slot: while the store cannot be reached, a change to the one leaves the other what it has. Its own change, before or
// after, does not.
func TestAnothersChangeLeavesAWarmOrgWarm(t *testing.T) {
	for about, c := range map[string]struct {
		changes func(c *Cache) []store.Change
		served  bool
	}{
		"another's":          {func(c *Cache) []store.Change { return []store.Change{changed(meeting(c))} }, true},
		"its own":            {func(*Cache) []store.Change { return []store.Change{changed(acme)} }, false},
		"another's, its own": {func(c *Cache) []store.Change { return []store.Change{changed(meeting(c)), changed(acme)} }, false},
		"its own, another's": {func(c *Cache) []store.Change { return []store.Change{changed(acme), changed(meeting(c))} }, false},
		"two others'": {func(c *Cache) []store.Change {
			a := meeting(c)
			return []store.Change{changed(a), changed(meeting(c, a))}
		}, false},
		"another's, then a gap": {func(c *Cache) []store.Change { return []store.Change{changed(meeting(c)), {}} }, true},
	} {
		bubble(t, Options{MaxStale: time.Minute, FeedLive: always}, func(t *testing.T, f *fake, cache *Cache) {
			f.put(acme, 1)
			if got := version(t, cache, acme); got != 1 {
				t.Fatalf("version %d", got)
			}
			f.down.Store(true)
			for _, change := range c.changes(cache) {
				cache.Apply(change)
			}
			if _, _, err := cache.Credential(t.Context(), acme); (err == nil) != c.served {
				t.Errorf("%s: %v", about, err)
			}
			f.down.Store(false)
			time.Sleep(maxBackoff)
			f.put(acme, 2)
			if got := version(t, cache, acme); got != 2 {
				t.Errorf("%s: version %d once the store was back", about, got)
			}
		})
	}
}

// However raises of one slot come together, who asks after his own has returned is never told that he was not named.
func TestOwnRaiseIsNeverTakenForAnothers(t *testing.T) {
	for range 20_000 {
		var f fence
		const mine, others = 7, 7 + slots
		before := f.at(mine)
		var all sync.WaitGroup
		all.Go(func() { f.raise(others) })
		all.Go(func() {
			f.raise(mine)
			if f.unnamed(before, mine) {
				t.Error("named, and told otherwise")
			}
		})
		all.Wait()
		if f.unnamed(before, mine) {
			t.Fatal("named, and told otherwise in the end")
		}
	}
}
