package cache

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/keyward/keyward/store"
)

// TestHitRateOfManyOrgs: a cache for a few of very many orgs, of unequal weight, holds those that are asked for most: what it loses
// against one that knows every frequency is less than two of a hundred lookups.
func TestHitRateOfManyOrgs(t *testing.T) {
	const orgs, size, lookups = 20_000, 500, 100_000
	f := newFake()
	refs := make([]store.Ref, orgs)
	weight, of := 0.0, 0.0
	for i := range refs {
		refs[i] = store.Ref{Org: fmt.Sprint("org", i), Provider: "twilio"}
		f.put(refs[i], 1)
		w := math.Pow(float64(i+1), -1.1)
		if of += w; i < size {
			weight += w
		}
	}
	c := newCache(t, f, Options{Size: size, FeedLive: always})
	next := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, orgs-1)
	ask := func() {
		for range lookups {
			version(t, c, refs[next.Uint64()])
		}
	}
	ask() // it begins empty
	before := f.reads.Load()
	ask()
	hits := 1 - float64(f.reads.Load()-before)/lookups
	t.Logf("%.2f %% of the lookups are hits; the best possible is %.2f %%", 100*hits, 100*weight/of)
	if short := weight/of - hits; short > 0.02 || short < -0.02 {
		t.Errorf("%.2f points short of the best possible", 100*short)
	}
}

// However great the cache, what counts lookups stays a small part of it.
func TestCounters(t *testing.T) {
	for size, want := range map[int]int64{1: 100, 1000: 100_000, 10_000: 1_000_000, 20_000: 1 << 20, 200_000: 2_000_000, maxSize: 10 * maxSize} {
		if got := counters(size); got != want {
			t.Errorf("%d rows: %d counters, want %d", size, got, want)
		}
	}
}
