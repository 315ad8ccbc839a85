package cache

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/keyward/keyward/store"
)

func benchCache(b *testing.B) (*Cache, []store.Ref) {
	f := newFake()
	refs := make([]store.Ref, 512)
	for i := range refs {
		refs[i] = store.Ref{Org: fmt.Sprintf("8c0a6f0e-7d55-4be1-9d8e-%012d", i), Provider: "twilio"}
		f.put(refs[i], 1)
	}
	c, err := New(f, Options{Size: 1000, FeedLive: always})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	for _, ref := range refs {
		if _, _, err := c.Credential(context.Background(), ref); err != nil {
			b.Fatal(err)
		}
	}
	return c, refs
}

func BenchmarkHit(b *testing.B) {
	c, refs := benchCache(b)
	ctx := context.Background()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, cached, err := c.Credential(ctx, refs[i&511]); err != nil || !cached {
			b.Fatal(cached, err)
		}
	}
}

// BenchmarkHitParallel is many requests of many orgs; BenchmarkHitParallelOneOrg is the same org for all.
func BenchmarkHitParallel(b *testing.B)       { benchParallel(b, 511) }
func BenchmarkHitParallelOneOrg(b *testing.B) { benchParallel(b, 0) }

func benchParallel(b *testing.B, mask int) {
	c, refs := benchCache(b)
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, cached, err := c.Credential(ctx, refs[i&mask]); err != nil || !cached {
				b.Error(cached, err)
				return
			}
		}
	})
}

// BenchmarkMiss is what a load costs besides the store: every lookup meets a raised generation.
func BenchmarkMiss(b *testing.B) {
	c, refs := benchCache(b)
	ctx := context.Background()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		ref := refs[i&511]
		c.Apply(store.Change{Kind: store.KindCredential, ID: ref.Org})
		if _, cached, err := c.Credential(ctx, ref); err != nil || cached {
			b.Fatal(cached, err)
		}
	}
}

// BenchmarkUnknown is a made-up org that is asked for again and again.
func BenchmarkUnknown(b *testing.B) {
	f := newFake()
	c, err := New(f, Options{FeedLive: always, NegativeTTL: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := c.Credential(ctx, store.Ref{Org: "nobody", Provider: "twilio"}); err == nil {
			b.Fatal("found")
		}
	}
}

func BenchmarkApply(b *testing.B) {
	c, refs := benchCache(b)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.Apply(store.Change{Kind: store.KindCredential, ID: refs[i&511].Org})
	}
}
