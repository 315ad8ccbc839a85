package cache

import (
	"testing"

	"github.com/keyward/keyward/store"
)

// A row that landed, was then read anew and kept by the rows, and dropped by them: what must not come back is the first.
func TestWhatLandedBeforeIsNotServedAgain(t *testing.T) {
	f := newFake()
	c := newCache(t, f, Options{FeedLive: always, MaxStale: 1 << 40})
	p := c.credentials.place(acme)
	f.put(acme, 1)
	row, _, _ := f.Credential(t.Context(), acme)
	c.credentials.landed.put(p, &entry[store.Ref, store.Credential]{key: acme, row: row, stamp: c.credentials.fence.at(p.owner), begun: c.clock()})
	f.put(acme, 2)          // unheard: the feed was down
	c.Apply(store.Change{}) // it is back: anything may have changed
	if v := version(t, c, acme); v != 2 {
		t.Fatal(v)
	}
	c.credentials.rows.Del(p.row) // evicted
	c.credentials.rows.Wait()
	c.Apply(store.Change{}) // the feed is lost again, and the store with it
	f.down.Store(true)
	got, _, err := c.Credential(t.Context(), acme)
	if err == nil && got.Version == 1 {
		t.Error("version 1 is served, although version 2 was read after it")
	}
}
