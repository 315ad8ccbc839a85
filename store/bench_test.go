package store

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkMiss is what a request of a cold org costs the store. The mark is p99 ≤ 1.5 ms on SQLite and ≤ 3 ms on PostgreSQL.
func BenchmarkMiss(b *testing.B) {
	const orgs = 2000
	for _, e := range engines {
		b.Run(e.name, func(b *testing.B) {
			e := engine{e.name, e.url(b)}
			d := e.open(b)
			if _, err := d.MigrateUp(b.Context()); err != nil {
				b.Fatal(err)
			}
			for i := range orgs {
				ok(b, d.PutCredential(b.Context(), by, sealed(Ref{fmt.Sprint("org-", i), "twilio"}, 1)))
			}
			for name, parallel := range map[string]int{"1": 1, "16": 8} {
				b.Run(name, func(b *testing.B) {
					took := make(chan []time.Duration, 64)
					b.SetParallelism(parallel)
					b.ReportAllocs()
					run := func(pb *testing.PB) {
						var mine []time.Duration
						for i := 0; pb.Next(); i++ {
							began := time.Now()
							if _, _, err := d.Credential(b.Context(), Ref{fmt.Sprint("org-", i%orgs), "twilio"}); err != nil {
								b.Error(err)
								return
							}
							mine = append(mine, time.Since(began))
						}
						took <- mine
					}
					b.RunParallel(run)
					close(took)
					var all []time.Duration
					for t := range took {
						all = append(all, t...)
					}
					slices.Sort(all)
					b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
					b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
				})
			}
		})
	}
}

func BenchmarkPut(b *testing.B) {
	for _, e := range engines {
		b.Run(e.name, func(b *testing.B) {
			d := engine{e.name, e.url(b)}.open(b)
			if _, err := d.MigrateUp(b.Context()); err != nil {
				b.Fatal(err)
			}
			for version := int64(1); b.Loop(); version++ {
				ok(b, d.PutCredential(b.Context(), by, sealed(acmeTwilio, version)))
			}
		})
	}
}
