package examples

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// generators make up deliveries, by provider. Vapi's and Google's have no SDK that verifies them, to be held against.
var generators = map[string]func(r random, now time.Time, org string) *delivery{
	"twilio": newForm, "resend": newMail, "elevenlabs": newReport,
}

const (
	usualCases = 5000 // of each provider
	atOnce     = 500  // how many of them arrive at the same moment
	maxShown   = 5    // of what is wrong
)

// What Keyward says of a delivery is what the vendor's SDK says, but for the differences that are written down. KEYWARD_ORACLE_CASES and
// KEYWARD_ORACLE_SEED change how many deliveries are made up, and which.
func TestVerdictsEqualTheVendorsSDKs(t *testing.T) {
	cases, seed := fromEnvironment(t, "KEYWARD_ORACLE_CASES", usualCases), fromEnvironment(t, "KEYWARD_ORACLE_SEED", 1)
	v := newVerifier(t)
	all := oracles(t)
	for _, provider := range slices.Sorted(maps.Keys(generators)) {
		t.Run(provider, func(t *testing.T) {
			var tallies []*tally
			for _, o := range all {
				if o.provider == provider {
					tallies = append(tallies, &tally{oracle: o})
				}
			}
			r := random{rand.New(rand.NewPCG(uint64(seed), 0))}
			now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
			for done := 0; done < cases && !t.Failed(); done += atOnce {
				now = now.Add(time.Duration(r.IntN(5000)) * time.Millisecond)
				var batch []*delivery
				for i := range min(atOnce, cases-done) {
					d := generators[provider](r, now, "o"+strconv.Itoa(done+i))
					if len(d.secrets) > 8 {
						d.odd("more than 8 secrets")
					}
					batch = append(batch, d)
				}
				ours := v.ask(t, now, batch)
				for _, y := range tallies {
					y.count(t, batch, ours, y.oracle.ask(t, now, batch))
				}
			}
			for _, y := range tallies {
				y.report(t, cases)
			}
		})
	}
}

func fromEnvironment(t *testing.T, name string, usual int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is no number: %q", name, text)
	}
	return n
}

// A tally is what came of the deliveries that one SDK was asked about.
type tally struct {
	oracle                     oracle
	verified, refused, unknown int // both verify, both refuse, they differ and nothing says why
	known                      map[int]int
}

func (y *tally) count(t *testing.T, batch []*delivery, ours, theirs []bool) {
	for i, d := range batch {
		say := func(what string) {
			if y.unknown++; y.unknown <= maxShown {
				t.Errorf("%s: %s; we say %v, it says %v:\n%s", y.oracle.name, what, ours[i], theirs[i], d)
			}
		}
		switch {
		case len(d.traits) == 0 && !(ours[i] && theirs[i]):
			say("nothing is odd about this delivery, and it does not verify")
		case ours[i] && theirs[i]:
			y.verified++
		case !ours[i] && !theirs[i]:
			y.refused++
		default:
			n := slices.IndexFunc(differences, func(x difference) bool { return x.explains(y.oracle, d, ours[i]) })
			if n < 0 {
				say("a difference that is not written down")
				continue
			}
			if y.known == nil {
				y.known = map[int]int{}
			}
			y.known[n]++
		}
	}
}

// report prints the figures, and holds the list against them: what is written down must still be so.
func (y *tally) report(t *testing.T, cases int) {
	stricter, wider := 0, 0
	var rows []string
	for i, x := range differences {
		if !slices.Contains(x.sdks, y.oracle.name) {
			continue
		}
		n := y.known[i]
		if n == 0 && cases >= usualCases && !t.Failed() {
			t.Errorf("%s: no longer different: %s", y.oracle.name, x.what)
		}
		way := "there, not here"
		if x.wider {
			way = "here, not there"
			wider += n
		} else {
			stricter += n
		}
		rows = append(rows, fmt.Sprintf("%7d verify %s: %s", n, way, x.what))
	}
	t.Logf("%s, %d deliveries: both verify %d, both refuse %d, refused here alone %d, verified here alone %d, unexplained %d",
		y.oracle.name, cases, y.verified, y.refused, stricter, wider, y.unknown)
	for _, row := range rows {
		t.Log(row)
	}
	if !t.Failed() && (y.verified < cases/4 || y.refused < cases/10) {
		t.Errorf("%s: too few deliveries of one kind to say anything", y.oracle.name)
	}
}
