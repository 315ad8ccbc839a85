package torture

import (
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/store"
)

// Two sidecars share a PostgreSQL. Whatever one of them has acknowledged, neither takes again: not at once, not after either was killed
// at the very moment of its answer, nor after both came and went in order.
func TestWebhookReplays(t *testing.T) {
	app := newHookApp(t)
	orgs, routes := hookOrgs(app.url)
	config := append(onPostgres(t), "--config", inFile(t, routes))
	a, b := newHookSidecar(t, "", app.url, config...), newHookSidecar(t, "", app.url, config...)
	for _, o := range orgs {
		o.put(a.sidecar)
	}
	known := map[string]hook{} // :: org → a delivery that was acknowledged
	copies, taken := 0, 0
	refused := func(o hookOrg, when string, at *hookSidecar) {
		t.Helper()
		copies++
		if r := sendHook(at.address, known[o.org]); !o.refused(r) {
			taken++
			t.Errorf("%s: a copy %s: %s", o.org, when, r)
		}
	}
	n := 0
	first := func(o hookOrg, at *hookSidecar) {
		t.Helper()
		n++
		known[o.org] = o.next(n)
		if r := sendHook(at.address, known[o.org]); !o.taken(r) {
			t.Fatalf("%s: %s", o.org, r)
		}
	}
	for _, o := range orgs {
		first(o, a)
		refused(o, "to the same sidecar", a)
		refused(o, "to the other one", b)
	}
	for i, o := range orgs {
		one, other := a, b
		if i%2 == 1 {
			one, other = b, a
		}
		first(o, one)
		one.kill()
		refused(o, "to the other one, the first killed", other)
		one.start()
		refused(o, "after kill -9 and restart", one)
	}
	for _, s := range []*hookSidecar{a, b} {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		if err := ended(s.sidecar, time.Minute); err != nil {
			t.Errorf("SIGTERM: %v", err)
		}
		s.start()
	}
	for _, o := range orgs {
		refused(o, "after a restart", a)
		refused(o, "after a restart, to the other", b)
	}

	const atOnce = 16
	for _, o := range orgs {
		n++
		k := o.next(n)
		var firsts, seconds atomic.Int64
		var all sync.WaitGroup
		for i := range atOnce {
			all.Go(func() {
				r := sendHook([]*hookSidecar{a, b}[i%2].address, k)
				switch {
				case o.taken(r):
					firsts.Add(1)
				case o.refused(r):
					seconds.Add(1)
				default:
					t.Errorf("%s: %s", o.org, r)
				}
			})
		}
		all.Wait()
		copies += atOnce - 1
		if firsts.Load() != 1 || seconds.Load() != atOnce-1 {
			taken += int(firsts.Load()) - 1
			t.Errorf("%s: of %d at once %d were taken, %d were known", o.org, atOnce, firsts.Load(), seconds.Load())
		}
	}
	soon(t, 2*time.Minute, "the app has what was stored", func() bool { return len(app.all()) == n })
	for key, ids := range app.all() {
		if len(ids) != 1 {
			t.Errorf("the app was asked %d times: %.80s", len(ids), key)
		}
	}
	row(t, "replays, before and after restart, through two sidecars on one PostgreSQL: none accepted",
		"%d schemes, each answered and stored: %d copies, %d accepted; %d kills at the moment of an answer", len(hookSchemes), copies, taken, len(orgs))
}

// A sidecar is killed while the app is being asked: the provider has no answer, tries again, and is welcome.
func TestKilledWhileAsking(t *testing.T) {
	for _, engine := range []string{"SQLite", "PostgreSQL"} {
		t.Run(engine, func(t *testing.T) {
			var slowest time.Duration
			app := newHookApp(t)
			orgs, routes := hookOrgs(app.url)
			config := []string{"--config", inFile(t, routes)}
			if engine == "PostgreSQL" {
				config = append(config, onPostgres(t)...)
			}
			a := newHookSidecar(t, "", app.url, config...)
			others := []*hookSidecar{a}
			if engine == "PostgreSQL" {
				others = append(others, newHookSidecar(t, "", app.url, config...))
			}
			rounds := 0
			for i, o := range orgs {
				if !o.sync || !long && rounds == 3 { // each second one waits for a claim to end
					continue
				}
				o.put(a.sidecar)
				k := o.next(i)
				asked, hold := make(chan struct{}), make(chan struct{})
				app.answers(func(http.ResponseWriter, *http.Request) { close(asked); <-hold })
				got := make(chan reply, 1)
				go func() { got <- sendHook(a.address, k) }()
				<-asked
				a.kill()
				if r := <-got; r.err == nil {
					t.Fatalf("%s: answered by a dead sidecar: %s", o.org, r)
				}
				close(hold)
				app.answers(nil)
				again := others[rounds%len(others)]
				begun := time.Now()
				if again == a {
					a.start()
				}
				if r := sendHook(again.address, k); !o.taken(r) {
					t.Errorf("%s: the same delivery after the crash: %s", o.org, r)
				}
				slowest = max(slowest, time.Since(begun))
				if again != a {
					a.start()
				}
				for _, s := range others {
					if r := sendHook(s.address, k); !o.refused(r) {
						t.Errorf("%s: a copy after it was answered: %s", o.org, r)
					}
				}
				rounds++
			}
			if limit := store.ClaimLease + 3*time.Second; long && slowest > limit {
				t.Errorf("a second try took %s", slowest)
			}
			row(t, "kill -9 while the app is asked: the second try is answered, a third is not; "+engine, "%d times, the second try took %s at most", rounds, slowest.Round(time.Millisecond))
		})
	}
}

// A delivery that was acknowledged is known whatever kills the sidecar, also while it keeps what was answered in a log of its own, as one that
// has been alone for a while does; that which was not is welcome.
func TestWebhookReplaysOnSQLite(t *testing.T) {
	app := newHookApp(t)
	orgs, routes := hookOrgs(app.url)
	path := filepath.Join(memdir.New(t), "keyward.db")
	s := newHookSidecar(t, "", app.url, "--config", inFile(t, routes), "--store", "sqlite:"+path)
	var known []hook
	send := func(o hookOrg) {
		t.Helper()
		k := o.next(len(known))
		if r := sendHook(s.address, k); !o.taken(r) {
			t.Fatalf("%s: %s", o.org, r)
		}
		known = append(known, k)
	}
	refused := func(o hookOrg, k hook) {
		t.Helper()
		if r := sendHook(s.address, k); !o.refused(r) {
			t.Errorf("%s: a copy after kill -9: %s", o.org, r)
		}
	}
	for _, o := range orgs {
		o.put(s.sidecar)
		send(o)
		s.kill()
		s.start()
		refused(o, known[len(known)-1])
	}
	logged := func() (bytes int64) {
		for _, name := range []string{"0.log", "1.log"} {
			if st, err := os.Stat(filepath.Join(path+".keys", name)); err == nil {
				bytes += st.Size()
			}
		}
		return bytes
	}
	soon(t, time.Minute, "it keeps what was answered in its log", func() bool {
		for _, o := range orgs {
			send(o)
		}
		return logged() > 0
	})
	s.kill()
	if logged() == 0 {
		t.Error("it was killed when its log was empty")
	}
	s.start()
	for i, k := range known {
		refused(orgs[i%len(orgs)], k)
	}
	row(t, "replays after kill -9 at the moment of the answer, SQLite: none accepted", "%d deliveries", len(known))
}
