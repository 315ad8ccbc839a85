package proxy

import (
	"slices"
	"testing"
	"time"

	"github.com/keyward/keyward/store"
)

// TestInterceptionCostsAndAllocatesLittle: a request within a CONNECT that stands takes at most 1.3 times what the same takes over plain TCP. Both are
// asked in turn, so that a busy machine is busy for both, and the median of many rounds counts; a bad stretch gets another try. What is allocated
// is crypto/tls's, on both sides.
func TestInterceptionCostsAndAllocatesLittle(t *testing.T) {
	const rounds, each, most, tries = 60, 20, 1.3, 5
	i := newInterceptor(t, tlsBytePeer(t), quiet)
	token := i.token(store.Token{ID: "t1", Name: "bench"})
	const head = "GET /assistant HTTP/1.1\r\nHost: api.vapi.ai\r\nAccept: */*\r\nUser-Agent: bench\r\n"
	plain := over(t, i.dial("tcp"), head+"Keyward-Org: acme\r\nKeyward-Token: "+token+"\r\n\r\n")
	within := over(t, i.within("tcp", "api.vapi.ai", basic(token, "acme")), head+"\r\n")
	take := func(do func()) time.Duration {
		began := time.Now()
		for range each {
			do()
		}
		return time.Since(began)
	}
	take(plain)
	take(within)
	if n, m := testing.AllocsPerRun(200, plain), testing.AllocsPerRun(200, within); m > n+4 {
		t.Errorf("%v allocations per request within CONNECT, %v without", m, n)
	}
	for n := 1; ; n++ {
		var plains, withins []time.Duration
		for range rounds {
			plains, withins = append(plains, take(plain)), append(withins, take(within))
		}
		slices.Sort(plains)
		slices.Sort(withins)
		p, w := plains[rounds/2]/each, withins[rounds/2]/each
		t.Logf("plain %v, within CONNECT %v: %.2f times", p, w, float64(w)/float64(p))
		if float64(w) <= most*float64(p) {
			return
		}
		if n == tries {
			t.Fatalf("more than %v times in %d tries", most, tries)
		}
	}
}
