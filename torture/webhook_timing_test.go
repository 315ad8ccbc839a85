package torture

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Who sends what does not verify cannot tell by the time of the refusal how near he came: whether the org is known, whether the signature
// was wrong at its first byte or at its last, or right for another org. Each is sent in random order over kept connections, and Welch's
// t-test compares it with a signature that is wrong at its last byte. As in tests for leaks of this kind (TVLA, dudect) a |t| over 4.5
// tells them apart, over all times and over the shorter ones, where less of the noise is.
func TestRefusalsTellNothingByTheirTime(t *testing.T) {
	app := newHookApp(t)
	s := newHookSidecar(t, "", app.url)
	const ours, stranger = "11111111-1111-4111-8111-111111111111", "44444444-4444-4444-8444-444444444444"
	s.put("acme", "vapi", map[string]any{"api_key": secretOf("acme", "vapi"), "vapi_org_id": ours, "webhook_secret": hookSecret})
	s.put("globex", "vapi", map[string]any{"api_key": secretOf("globex", "vapi"), "webhook_secret": "globex-" + hookSecret})
	ask := func(path, org string, header ...string) []byte {
		body := `{"message":{"type":"tool-calls","call":{"orgId":"` + org + `"},"x":"` + strings.Repeat("x", 2000) + `"}}`
		return hook{path, append([]string{"Content-Type: application/json"}, header...), body}.bytes()
	}
	classes := []struct {
		name    string
		request []byte
	}{
		{"wrong at its last byte", ask("/webhooks/vapi", ours, "X-Vapi-Secret: "+hookSecret[:len(hookSecret)-1]+"!")},
		{"wrong at its first byte", ask("/webhooks/vapi", ours, "X-Vapi-Secret: !"+hookSecret[1:])},
		{"unknown org", ask("/webhooks/vapi", stranger, "X-Vapi-Secret: "+hookSecret)},
		{"unknown org in the path", ask("/webhooks/vapi/nobody", ours, "X-Vapi-Secret: "+hookSecret)},
		{"right for another org", ask("/webhooks/vapi/globex", ours, "X-Vapi-Secret: globex-"+hookSecret)},
		{"none", ask("/webhooks/vapi", ours)},
	}
	const conns, tries = 8, 3 // most of the time the connections wait
	each := many(1000, 100_000)
	order := make([]int, 0, each*len(classes))
	for i := range classes {
		order = append(order, slices.Repeat([]int{i}, each)...)
	}
	most := 0.0
	for try := 1; ; try++ { // what else the machine does may fall on one class by chance, but not each time
		rand.New(rand.NewPCG(*seed, uint64(4+try))).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		took := make([]float64, len(order)) // :: place in order → ns
		var senders sync.WaitGroup
		for first := range conns {
			senders.Go(func() {
				c := &hookConn{address: s.address}
				defer c.close()
				for i := first; i < len(order); i += conns {
					request := classes[order[i]].request
					begun := time.Now()
					if r := c.sendBytes(request); r.err != nil || r.status != 401 {
						t.Errorf("%s: %s", classes[order[i]].name, r)
						return
					}
					took[i] = float64(time.Since(begun))
				}
			})
		}
		senders.Wait()
		if t.Failed() {
			return
		}
		class := 0
		if class, most = toldApart(took, order, len(classes)); most <= 4.5 {
			break
		}
		t.Logf("try %d: %s is told apart from a signature that is %s: |t| = %.2f", try, classes[class].name, classes[0].name, most)
		if try == tries {
			t.Errorf("%s is told apart, %d times of %d", classes[class].name, tries, tries)
			break
		}
	}
	row(t, "right, wrong and unknown org and signature: no difference in time that a Welch test sees", "%s, |t| ≤ %.2f (4.5 would tell)", fmt.Sprint(len(classes), " kinds of refusal, ", each, " each"), most)
}

// toldApart is the class that differs the most from the first, and by which |t|.
func toldApart(took []float64, order []int, classes int) (class int, most float64) {
	sorted := slices.Sorted(slices.Values(took))
	for _, share := range []float64{1, 0.9} {
		limit := sorted[int(share*float64(len(sorted)-1))]
		times := make([][]float64, classes)
		for i, class := range order {
			if took[i] <= limit {
				times[class] = append(times[class], took[i])
			}
		}
		for i := 1; i < classes; i++ {
			if score := math.Abs(welch(times[0], times[i])); score > most {
				class, most = i, score
			}
		}
	}
	return class, most
}

// welch is Welch's t of two samples.
func welch(a, b []float64) float64 {
	mean := func(x []float64) (m, v float64) {
		for _, f := range x {
			m += f
		}
		m /= float64(len(x))
		for _, f := range x {
			v += (f - m) * (f - m)
		}
		return m, v / float64(len(x)-1)
	}
	ma, va := mean(a)
	mb, vb := mean(b)
	return (mb - ma) / math.Sqrt(va/float64(len(a))+vb/float64(len(b)))
}
