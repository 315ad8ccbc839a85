package torture

import (
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// bodyOf is the answer to a request: its id, again and again.
func bodyOf(id string, n int) string { return strings.Repeat("<"+id+">", 1+n) }

// TestHostileUpstream: whatever a provider does, each caller gets its own answer, whole, or none, and no credential.
func TestHostileUpstream(t *testing.T) {
	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		hostileUpstream(t, nil, "http", "")
	})
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		config, file := selfSigned(t)
		hostileUpstream(t, config, "https", file)
	})
}

func hostileUpstream(t *testing.T, secure *tls.Config, scheme, ca string) {
	orgs, n := 100, many(5000, 500_000)
	if long {
		orgs = 1000
	}
	h := &hostile{t: t, secure: secure != nil, orgs: orgs, wrong: map[string]int{}}
	var streams atomic.Uint64
	u := newUpstream(t, secure, func(c *upstreamSide, r *rawRequest) {
		id := r.first("X-Id")
		org, _, _ := strings.Cut(id, "/")
		var size int
		_, _ = fmt.Sscan(r.first("X-Size"), &size)
		x := &answering{Rand: rand.New(rand.NewPCG(*seed, streams.Add(1))), id: id, body: bodyOf(id, size), org: org, calm: &h.calm}
		faultNamed(r.first("X-Fault")).do(c, r, x)
	})
	args := []string{"--upstream", "api.resend.com=" + scheme + "://" + u.address, "--upstream", "api.twilio.com=" + scheme + "://" + u.address}
	if ca != "" {
		args = append(args, "--upstream-ca", ca)
	}
	s := startSidecar(t, nil, args...)
	h.s = s
	for i := range orgs {
		org := fmt.Sprintf("org%d", i)
		s.put(org, "resend", map[string]any{"api_key": keyOf(org)})
		s.put(org, "twilio", map[string]any{"account_sid": sidOf(org), "auth_token": keyOf(org)})
	}
	began := time.Now()
	var group sync.WaitGroup
	const workers = 32 // what comes late needs a moment without any request: the more go at once, the fewer such moments
	for w := range workers {
		group.Add(1)
		go func() {
			defer group.Done()
			h.work(w, n/workers)
		}()
	}
	group.Wait()
	s.mustLive()
	row(t, "hostile upstream, "+scheme+": 0 foreign bytes, 0 cut answers passed as whole, 0 unredacted echoes", "%d answers in %v, %d orgs, %d faults: %d foreign, %d cut taken as whole, %d echoes, %d otherwise wrong",
		n/workers*workers, time.Since(began).Round(time.Second), orgs, len(faults), h.foreign.Load(), h.cut.Load(), h.echoes.Load(), h.other.Load())
}

// stuck is longer than a busy machine takes for an answer, and shorter than what waits for a time-out takes: ours, or the sidecar's.
const stuck = 15 * time.Second

type hostile struct {
	t      *testing.T
	s      *sidecar
	secure bool
	orgs   int
	calm   sync.RWMutex // held for reading while a request is under way
	mu     sync.Mutex
	wrong  map[string]int // :: fault → how often

	foreign, cut, echoes, other atomic.Int64
}

func (h *hostile) work(w, n int) {
	g := rand.New(rand.NewPCG(*seed+1, uint64(w)))
	k := &keptConn{s: h.s, network: "unix"}
	defer k.close()
	for i := range n {
		f := &faults[g.IntN(len(faults))]
		if often := rare[f.name]; often > 0 && g.IntN(often) > 0 {
			f = &faults[0]
		}
		org := fmt.Sprintf("org%d", g.IntN(h.orgs))
		id := fmt.Sprintf("%s/%d-%d", org, w, i)
		method, behind := "GET", ""
		if f.name == "HEAD with a body" {
			method = "HEAD"
		} else if g.IntN(2) == 0 {
			method, behind = "POST", "hello"
		}
		size := g.IntN(20)
		if g.IntN(20) == 0 {
			size = 3000
		}
		target := "/v HTTP/1.1\r\n" + hostLine
		if f.basic {
			target = "/2010-04-01/Accounts/ACkeyward/Calls.json HTTP/1.1\r\nHost: api.twilio.com\r\n"
		}
		raw := fmt.Sprintf("%s %sKeyward-Org: %s\r\nX-Id: %s\r\nX-Fault: %s\r\nX-Size: %d\r\n", method, target, org, id, f.name, size)
		if behind != "" {
			raw += fmt.Sprintf("Content-Length: %d\r\n", len(behind))
		}
		h.calm.RLock()
		began := time.Now()
		got := k.do(method, raw+"\r\n"+behind)
		if took := time.Since(began); took > stuck {
			h.other.Add(1)
			h.report(f, method, fmt.Sprintf("took %v", took), got)
		}
		h.calm.RUnlock()
		h.judge(f, method, bodyOf(id, size), org, got)
	}
}

// judge compares an answer with what it may be.
func (h *hostile) judge(f *fault, method, body, org string, got reply) {
	all := got.body
	for name, values := range got.header {
		all += name + strings.Join(values, "")
	}
	may := f.whole
	if h.secure && f.secure != wholeAnswer {
		may = f.secure
	}
	whole := got.err == nil && !got.ours() && got.status/100 != 5
	plain, secret := got.body, ""
	if f.form != nil {
		secret = f.form(org)
		if plain == body+strings.Repeat("*", len(secret)) {
			plain = body
		}
	}
	switch {
	case echoed(all, org):
		h.echoes.Add(1)
		h.report(f, method, "the injected credential came back", got)
	case f.form != nil && !h.stars(got, secret):
		h.other.Add(1)
		h.report(f, method, "something else than the credential was overwritten", got)
	case strings.Contains(all, bait), !got.ours() && !strings.HasPrefix(body, plain) && got.status != 0:
		h.foreign.Add(1)
		h.report(f, method, "foreign bytes", got)
	case whole && may == brokenAnswer:
		h.cut.Add(1)
		h.report(f, method, "a broken answer was passed on as whole", got)
	case !whole && may == wholeAnswer:
		h.other.Add(1)
		h.report(f, method, "a good answer did not come", got)
	case whole && method != "HEAD" && got.status == 200 && plain != body && (h.secure || !strings.HasPrefix(f.name, "none, until")):
		h.cut.Add(1)
		h.report(f, method, fmt.Sprintf("%d bytes of %d were passed on as whole", len(plain), len(body)), got)
	case !whole && got.err == nil && got.status < 600 && (got.status != 502 && got.status != 504 || !got.ours()):
		h.other.Add(1)
		h.report(f, method, "neither an answer nor 502 or 504", got)
	case f.name == "Keyward headers" && (got.header.Get("Keyward-Org") != "" || got.ours()):
		h.other.Add(1)
		h.report(f, method, "a provider's Keyward header was passed on", got)
	}
}

// echoed says whether an org's key is there in any form.
func echoed(text, org string) bool {
	for _, e := range echoForms {
		if strings.Contains(text, e.of(org)) {
			return true
		}
	}
	return false
}

// stars says whether a header that held the credential holds as many stars as that had bytes.
func (h *hostile) stars(got reply, secret string) bool {
	echo := got.header.Get("X-Echo")
	return echo == "" || echo == "a "+strings.Repeat("*", len(secret))+" b"
}

// report prints the first few of each fault.
func (h *hostile) report(f *fault, method, what string, got reply) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrong[f.name]++
	if h.wrong[f.name] <= 3 {
		h.t.Errorf("%s to %s: %s: %v %v", f.name, method, what, got, got.header)
	}
}
