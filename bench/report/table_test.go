package report

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTableIsStable: the same result is the same text, in the order in which it was measured.
func TestTableIsStable(t *testing.T) {
	var out strings.Builder
	if err := sample().WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	got := out.String()
	want := `A CPU, 2 cores, Linux 6, go1.26
commit 0123456789ab, 2026-11-25 12:00 UTC

hit c=16
                p50   p99  p99.9  +p50   +p99             × p50             × p99  requests/s  cpu  allocs  MiB  conns  errors
        direct  100   300    600                                                        50000                30      0       0
         nginx  150   450    900   +50   +150  1.50 (1.50–1.50)  1.50 (1.50–1.50)       50000   17           30      0       0
         relay  140   420    840   +40   +120  1.40 (1.40–1.40)  1.40 (1.40–1.40)       50000   15           30      0       0
  reverseproxy  500  1500   3000  +400  +1200  5.00 (5.00–5.00)  5.00 (5.00–5.00)       50000   60           30      0       0
       keyward  150   450    900   +50   +150  1.50 (1.50–1.50)  1.50 (1.50–1.50)       50000   16    3.00   30      0       0
  keyward: hit_rate 0.750

hit 9000/s
           p50  p99  p99.9  +p50  +p99             × p50             × p99  requests/s  cpu  allocs  MiB  conns  errors
   direct  110  330    660                                                       50000                30      0       0
  keyward  160  480    960   +50  +150  1.45 (1.45–1.45)  1.45 (1.45–1.45)       50000   18           30      0       0

left out: haproxy: not installed
Times are µs, medians of the rounds. +p50 and +p99 are what is added to direct (or to the sidecar's own hit); × is how many times as long, (from–to) what
the rounds leave open.
`
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for range 20 {
		var again strings.Builder
		if err := sample().WriteTable(&again); err != nil || again.String() != got {
			t.Fatalf("%v\n%s", err, cmp.Diff(got, again.String()))
		}
	}
}
