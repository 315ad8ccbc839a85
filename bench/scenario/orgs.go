package scenario

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// OrgName is the i-th of many orgs; all names have one length, so that the requests do too.
func OrgName(i int) string { return fmt.Sprintf("org-%06d", i) }

// Fill stores the usual credential for orgs from..to-1, some at a time: SQLite has one writer, and each waits for its row.
func (s *Sidecar) Fill(ctx context.Context, say func(format string, args ...any), what string, from, to int) error {
	const writers = 8
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	next.Store(int64(from))
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for {
				i := int(next.Add(1) - 1)
				if i >= to || ctx.Err() != nil {
					return
				}
				if i%1000 == 0 {
					say("%s: storing credentials of %d orgs: %d", what, to, i)
				}
				err := s.resend(ctx, OrgName(i))
				for try := 0; err != nil && try < 5 && ctx.Err() == nil; try++ { // on a machine that is busy with other things a transaction may take too long
					time.Sleep(time.Second)
					err = s.resend(ctx, OrgName(i))
				}
				if err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// emails makes the usual request for whatever org comes next.
func emails(next func() int) func([]byte) []byte {
	template := email(OrgName(0), "")
	places := []int{}
	for from, name := 0, []byte(OrgName(0)); ; {
		at := bytes.Index(template[from:], name)
		if at < 0 {
			break
		}
		places = append(places, from+at)
		from += at + len(name)
	}
	return func(dst []byte) []byte {
		start := len(dst)
		dst = append(dst, template...)
		n := next()
		for _, at := range places {
			digits := dst[start+at+len("org-") : start+at+len("org-000000")]
			for i, rest := len(digits)-1, n; i >= 0; i-- {
				digits[i] = byte('0' + rest%10)
				rest /= 10
			}
		}
		return dst
	}
}

// inOrder counts orgs from..to-1 round and round.
func inOrder(from, to int) func() int {
	i := from - 1
	return func() int {
		if i++; i >= to {
			i = from
		}
		return i
	}
}

// A zipfian draws orgs of which the k-th is asked for in proportion to 1/k^s. Which org has which rank is settled by a fixed shuffle, so that
// neighbours in the store are not neighbours in use.
type zipfian struct {
	rank []int32 // :: what was drawn → rank
	org  []int32 // :: rank → org
	rng  *rand.Rand
	p    []float64 // :: rank → probability
}

const drawn = 1 << 20

// newZipfian draws beforehand: the generator has no time for it.
func newZipfian(orgs int, s float64) *zipfian {
	z := &zipfian{rng: rand.New(rand.NewPCG(1, 2)), p: make([]float64, orgs), org: make([]int32, orgs), rank: make([]int32, drawn)}
	sum := 0.0
	for k := range z.p {
		z.p[k] = math.Pow(float64(k+1), -s)
		sum += z.p[k]
	}
	edge := make([]float64, orgs)
	total := 0.0
	for k := range z.p {
		z.p[k] /= sum
		total += z.p[k]
		edge[k] = total
	}
	for i, o := range z.rng.Perm(orgs) {
		z.org[i] = int32(o)
	}
	for i := range z.rank {
		u := z.rng.Float64()
		low, high := 0, orgs-1
		for low < high {
			if mid := (low + high) / 2; edge[mid] < u {
				low = mid + 1
			} else {
				high = mid
			}
		}
		z.rank[i] = int32(low)
	}
	return z
}

// next draws an org.
func (z *zipfian) next() func() int {
	i := -1
	return func() int {
		i = (i + 1) % len(z.rank)
		return int(z.org[z.rank[i]])
	}
}

// best is the hit rate of a cache that holds the n most used, always.
func (z *zipfian) best(n int) float64 {
	sum := 0.0
	for _, p := range z.p[:min(n, len(z.p))] {
		sum += p
	}
	return sum
}

// together sends one request each over n connections at once and returns how many did not succeed.
func together(ctx context.Context, s *Sidecar, n int, request []byte) (failed int64, err error) {
	lines := make([]*line, n)
	for i := range lines {
		l, err := dial(ctx, s.Target())
		if err != nil {
			return 0, err
		}
		defer func() { _ = l.Close() }()
		lines[i] = l
	}
	var bad atomic.Int64
	var all sync.WaitGroup
	begin := make(chan struct{})
	for _, l := range lines {
		all.Go(func() {
			<-begin
			_, err := l.Write(request)
			if err == nil {
				_, err = l.head(200)
			}
			if err != nil {
				bad.Add(1)
			}
		})
	}
	close(begin)
	all.Wait()
	return bad.Load(), nil
}
