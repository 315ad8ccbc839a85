package report

import "fmt"

// Names of the peers that marks are about, as the runs have them.
const (
	keyward      = "keyward"
	warm         = "keyward hit"
	direct       = "direct"
	nginx        = "nginx"
	relay        = "relay"
	reverseProxy = "reverseproxy"
)

// Marks are all that are set, in order; those of scenarios and peers that were left out are not measured.
func (r *Result) Marks() []Mark {
	most := func(limit float64) goal { return goal{limit: limit} }
	least := func(limit float64) goal { return goal{limit: limit, least: true} }
	all := []Mark{
		mark("CPU per request to nginx's, c=16", most(1), " ×", 1, r.over("hit", keyward, nginx, 16, "cpu")),
		mark("CPU per request to the byte relay's, c=16", most(1.25), " ×", 1, r.over("hit", keyward, relay, 16, "cpu")),
		mark("p99 to nginx's, c=16, closed loop", most(1.1), " ×", 1, r.over("hit", keyward, nginx, 16, "p99")),
		mark("p99 to nginx's, open loop at half of the maximal rate", most(1.1), " ×", 1, r.over("hit", keyward, nginx, openLoop, "p99")),
		mark("p99 to nginx's, c=64, closed loop", most(1.2), " ×", 1, r.over("hit", keyward, nginx, 64, "p99")),
		mark("CPU per request of ReverseProxy to Keyward's, c=16", least(3), " ×", 1, r.over("hit", reverseProxy, keyward, 16, "cpu")),
		mark("p99 of ReverseProxy to Keyward's, c=16", least(2.5), " ×", 1, r.over("hit", reverseProxy, keyward, 16, "p99")),
		r.allocations(),
		mark("zipf: p50 to a warm org's, c=16"+r.orgs(), most(1.1), " ×", 1, r.over("zipf", keyward, warm, 16, "p50")),
		r.hitRate(),
		mark("zipf: memory, c=16"+r.orgs(), most(64*mib), " MiB", mib, r.own("zipf", keyward, 16, "memory")),
	}
	for _, c := range []int{1, 16} {
		all = append(all, mark(fmt.Sprintf("miss: p99 with SQLite, c=%d", c), most(1.5*ms), " ms", ms, r.own("miss", "keyward sqlite", c, "p99")))
	}
	for _, c := range []int{1, 16} {
		all = append(all, mark(fmt.Sprintf("miss: p99 with PostgreSQL, c=%d", c), most(3*ms), " ms", ms, r.own("miss", "keyward postgres", c, "p99")))
	}
	for _, store := range []string{"sqlite", "postgres"} {
		all = append(all, mark("miss: store queries for 1,000 at once, "+store+", most of the rounds", most(1), "", 1, worst(r.extra("miss", "keyward "+store, 16, "store_queries_for_1000_misses"))))
	}
	for _, c := range []int{1, 16, 100} {
		all = append(all, mark(fmt.Sprintf("webhook: p99 added, c=%d", c), most(1*ms), " ms", ms, r.added("webhook", keyward, direct, c, "p99")))
	}
	return append(all,
		mark("assistant: CPU added to the org by name, c=16", most(1), " µs", 1, r.added("assistant", keyward, warm, 16, "cpu")),
		mark("stream: p99 added to the first byte", most(0.5*ms), " ms", ms, r.added("stream", keyward, direct, 16, "p99")),
		r.held(),
		mark("upload: growth of memory during 100 MB, most of the rounds", most(8*mib), " MiB", mib, worst(r.extra("upload", keyward, 1, "rss_growth_bytes"))),
		mark("cold: direct to through the sidecar, p50", least(2.9), " ×", 1, r.over("cold", direct, keyward, 1, "p50")),
		mark("start to the first answer, p50", most(50*ms), " ms", ms, r.own("start", keyward, 1, "p50")),
		mark("idle memory", most(25*mib), " MiB", mib, middle(r.extra("start", keyward, 1, "idle_rss_bytes"))),
	)
}

// allocations cannot be held against their mark, which is about the sidecar's own code: what is counted here is the whole process, TLS and log included.
// None at all would do.
func (r *Result) allocations() Mark {
	all := r.own("hit", keyward, 16, "allocs")
	m := mark("allocations per request, c=16; of the whole process, the mark is our own code's", goal{}, "", 1, all)
	switch {
	case all.High < 0: // it could not be read
		m.Verdict, m.Measured = MarkUnmeasured, ""
	case all.Value < 0.05: // what the collector and timers do meanwhile
		m.Verdict = MarkReached
	case m.Verdict != MarkUnmeasured:
		m.Verdict = "see make microbench"
	}
	return m
}

// hitRate is held against that of a cache that holds the most used orgs, always.
func (r *Result) hitRate() Mark {
	got, best := r.extra("zipf", keyward, 16, "hit_rate"), r.extra("zipf", keyward, 16, "best_hit_rate")
	short := NoRatio
	var d []float64
	for i := range min(len(got), len(best)) {
		d = append(d, 100*(best[i]-got[i]))
	}
	if len(d) > 0 {
		short = middle(d)
	}
	return mark("zipf: hit rate below the best possible"+r.orgs(), goal{limit: 2}, " points", 1, short)
}

// orgs says how many there were, where they are not those of the mark.
func (r *Result) orgs() string {
	if n := r.extra("zipf", keyward, 16, "orgs"); len(n) > 0 && n[0] != 100_000 {
		return fmt.Sprintf(" (%.0f orgs instead of 100,000)", n[0])
	}
	return ""
}

// held are chunks that came only when the next had been sent, beyond those that were so directly too: that is the machine's doing.
func (r *Result) held() Mark {
	d := NoRatio
	if a, b := r.run("stream", keyward, 16), r.run("stream", direct, 16); a != nil && b != nil {
		share := func(run *Run) (v []float64) {
			for _, round := range run.Rounds {
				if n := round.Extra["chunks"]; n > 0 {
					v = append(v, 1000*round.Extra["chunks_held"]/n)
				}
			}
			return v
		}
		var more []float64
		through, straight := share(a), share(b)
		for i := range min(len(through), len(straight)) {
			more = append(more, through[i]-straight[i])
		}
		if len(more) > 0 {
			d = middle(more)
		}
	}
	return mark("stream: chunks held back in 1,000, beyond direct's", goal{}, "", 1, d)
}
