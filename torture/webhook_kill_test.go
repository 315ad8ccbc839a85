package torture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/internal/memdir"
)

// Sidecars and the app are killed at random under a load of durable deliveries, as nothing can be prepared for. A provider that has no
// answer tries again. The app has every delivery that was acknowledged, in order per call, and under the same id each time.
func TestWebhooksUnderKills(t *testing.T) {
	for _, engine := range []string{"SQLite", "PostgreSQL"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel() // most of the time they wait
			k := newKillField(t, engine)
			load := newCalls(k.addresses())
			load.run(40, 200)
			start := time.Now()
			kills := many(5, 200)
			for range kills {
				time.Sleep(time.Duration(50+k.random.IntN(1000)) * time.Millisecond)
				k.strike()
			}
			took := time.Since(start)
			load.end()
			if err := load.failed.Load(); err != nil {
				t.Fatal(*err)
			}
			ended, waits := time.Now(), load.sent.Load()-int64(k.app.has())
			t.Logf("%d of %d wait for the app", waits, load.sent.Load())
			soon(t, 5*time.Minute, "nothing waits for the app", func() bool { return k.count("pending") == 0 })
			drained := time.Since(ended)
			if n := k.count("dead"); n > 0 {
				t.Errorf("%d are dead", n)
			}
			k.app.kill()
			taken, again := k.app.check(t, load.acked())
			row(t, "kill -9 of sidecar and app at random under 200 deliveries/s, "+engine+": none lost, order per call kept, duplicates carry the same id",
				"%d kills (%d of a sidecar, %d of the app) in %s; %d acknowledged (%.0f/s, %d after a second try that was known), %d the app has, %d came twice; %d waited at the end, the last %s",
				kills, k.sidecarKills, k.appKills, took.Round(time.Second), load.sent.Load(), float64(load.sent.Load())/took.Seconds(), load.known.Load(), taken, again, waits,
				drained.Round(time.Second))
		})
	}
}

// A killField is an app and its sidecars: one on SQLite, two that share a PostgreSQL.
type killField struct {
	t                      *testing.T
	random                 *rand.Rand
	app                    *mortalApp
	sidecars               []*hookSidecar
	sidecarKills, appKills int
}

func newKillField(t *testing.T, engine string) *killField {
	k := &killField{t: t, random: rand.New(rand.NewPCG(*seed, 4)), app: newMortalApp(t)}
	args := []string{"--webhook-backoff", "100ms", "--webhook-backoff-max", "1s", "--webhook-attempts", "50"}
	n := 1
	if engine == "PostgreSQL" {
		args, n = append(args, onPostgres(t)...), 2
	}
	for range n {
		k.sidecars = append(k.sidecars, newHookSidecar(t, "", "http://"+k.app.address+"/hooks", args...))
	}
	k.sidecars[0].put("acme", "vapi", map[string]any{"api_key": secretOf("acme", "vapi"), "webhook_secret": hookSecret})
	return k
}

func (k *killField) addresses() (all []string) {
	for _, s := range k.sidecars {
		all = append(all, s.address)
	}
	return all
}

// strike kills a sidecar, the app, or both at once, and starts them again.
func (k *killField) strike() {
	var sidecar *hookSidecar
	n := k.random.IntN(4)
	if n > 0 {
		sidecar = k.sidecars[k.random.IntN(len(k.sidecars))]
		sidecar.kill()
		k.sidecarKills++
	}
	if n < 2 {
		k.app.kill()
		k.appKills++
		k.app.start()
	}
	if sidecar != nil {
		sidecar.start()
	}
}

// count asks a sidecar how many deliveries are in a state: 0, or that there are some.
func (k *killField) count(state string) int {
	resp, err := k.sidecars[0].admin.Get("http://keyward/api/webhooks/deliveries?limit=100&state=" + state)
	if err != nil {
		k.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil || resp.StatusCode != http.StatusOK {
		k.t.Fatalf("listing deliveries: %s %v", resp.Status, err)
	}
	return len(list.Items)
}

// phoneCalls are a provider's: each has its own messages, one after the other.
type phoneCalls struct {
	addresses []string
	ctx       context.Context
	stop      context.CancelFunc
	all       sync.WaitGroup
	last      []int // :: call → number of its last message; that and all before were acknowledged
	sent      atomic.Int64
	known     atomic.Int64 // were acknowledged as ones that had been accepted before
	failed    atomic.Pointer[error]
}

func newCalls(addresses []string) *phoneCalls {
	c := &phoneCalls{addresses: addresses}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// run sends so many messages a second, spread over some calls. What could not be sent in time is made up for.
func (c *phoneCalls) run(n, perSecond int) {
	c.last = make([]int, n)
	every := time.Second * time.Duration(n) / time.Duration(perSecond)
	start := time.Now()
	for call := range n {
		c.all.Go(func() {
			for i := 1; c.ctx.Err() == nil; i++ {
				due := start.Add(time.Duration(i)*every + time.Duration(call)*every/time.Duration(n))
				select {
				case <-time.After(time.Until(due)):
				case <-c.ctx.Done():
					return
				}
				if !c.send(call, i) {
					return
				}
				c.last[call] = i
			}
		})
	}
}

// send sends a message until it is acknowledged, to one sidecar after the other.
func (c *phoneCalls) send(call, i int) bool {
	k := hook{"/webhooks/vapi/acme", []string{"Content-Type: application/json", "X-Vapi-Secret: " + hookSecret}, callMessage(call, i)}
	until := time.Now().Add(time.Minute)
	for try := call; ; try++ {
		r := sendHook(c.addresses[try%len(c.addresses)], k)
		switch {
		case r.err == nil && r.status == http.StatusOK:
			c.sent.Add(1)
			if r.duplicate() {
				c.known.Add(1)
			}
			return true
		case r.err == nil && r.status != http.StatusServiceUnavailable || time.Now().After(until):
			err := fmt.Errorf("message %d of call %d: %s", i, call, r)
			c.failed.CompareAndSwap(nil, &err)
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (c *phoneCalls) end() {
	c.stop()
	c.all.Wait()
}

// acked are how many messages of each call were acknowledged.
func (c *phoneCalls) acked() []int { return c.last }

func callMessage(call, i int) string {
	return fmt.Sprintf(`{"message":{"type":"status-update","n":%d,"call":{"id":"call-%d"}}}`, i, call)
}

// A mortalApp is a process of its own. What it was sent it writes down before it says that it took it.
type mortalApp struct {
	t       *testing.T
	address string
	file    string
	cmd     *exec.Cmd
}

const (
	mortalAddress = "KEYWARD_TORTURE_APP_ADDRESS"
	mortalFile    = "KEYWARD_TORTURE_APP_FILE"
)

func newMortalApp(t *testing.T) *mortalApp {
	a := &mortalApp{t: t, address: freeport.New(t), file: filepath.Join(memdir.New(t), "taken")}
	a.start()
	t.Cleanup(a.kill)
	return a
}

func (a *mortalApp) start() {
	a.cmd = exec.Command(os.Args[0])
	a.cmd.Env = append(os.Environ(), mortalAddress+"="+a.address, mortalFile+"="+a.file)
	a.cmd.Stderr = os.Stderr
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	soon(a.t, time.Minute, "the app listens", func() bool {
		c, err := net.Dial("tcp", a.address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func (a *mortalApp) kill() {
	_ = a.cmd.Process.Kill()
	_ = a.cmd.Wait()
}

// liveUntilKilled is the app's process.
func liveUntilKilled(address, file string) int {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		err = http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return // its sidecar was killed
			}
			if _, err := f.WriteString(r.Header.Get("Keyward-Delivery-Id") + " " + string(body) + "\n"); err != nil { // in one write(2)
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			time.Sleep(2 * time.Millisecond)
			w.WriteHeader(http.StatusNoContent)
		}))
	}
	fmt.Fprintln(os.Stderr, "the app:", err)
	return 1
}

// has is about how many it has: some came twice.
func (a *mortalApp) has() int {
	all, err := os.ReadFile(a.file)
	if err != nil {
		a.t.Fatal(err)
	}
	return bytes.Count(all, []byte("\n"))
}

// check holds what the app has against how many messages of each call were acknowledged.
func (a *mortalApp) check(t *testing.T, acked []int) (taken, again int) {
	t.Helper()
	all, err := os.ReadFile(a.file)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}      // :: body → id
	bodies := map[string]string{}   // :: id → body
	have := make([]int, len(acked)) // :: call → the last one that came
	for line := range bytes.Lines(all) {
		id, body, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		if other, ok := bodies[id]; ok && other != body || !strings.HasPrefix(id, "wd_") {
			t.Errorf("%s is the id of %s and of %s", id, other, body)
		}
		bodies[id] = body
		if other, ok := ids[body]; ok {
			again++
			if other != id {
				t.Errorf("%s came as %s and as %s", body, other, id)
			}
			continue
		}
		ids[body] = id
		n, call, err := readMessage(body)
		switch {
		case err != nil || call >= len(have):
			t.Fatalf("%q: %v", body, err)
		case n != have[call]+1:
			t.Errorf("call %d: %d came after %d", call, n, have[call])
		}
		have[call] = n
	}
	for call, n := range acked {
		if have[call] < n {
			t.Errorf("call %d: %d were acknowledged, and the app has %d", call, n, have[call])
		}
	}
	return len(ids), again
}

func readMessage(body string) (n, call int, err error) {
	if _, err = fmt.Sscanf(body, `{"message":{"type":"status-update","n":%d,"call":{"id":"call-%d"}}}`, &n, &call); err == nil && body != callMessage(call, n) {
		err = errors.New("it is not what was sent")
	}
	return n, call, err
}
