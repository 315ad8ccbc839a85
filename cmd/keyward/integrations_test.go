package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/standin"
)

// standins are stand-ins that know the labels' samples, and the flags that send a sidecar to them.
func standins(t *testing.T, o standin.Options, labels ...string) (*standin.Set, []string) {
	t.Helper()
	for _, p := range provider.All {
		o.Hosts = append(append(o.Hosts, p.Hosts...), p.OwnHosts...)
	}
	set := standin.New(o)
	t.Cleanup(func() { _ = set.Close() })
	for _, l := range labels {
		set.Expect(standin.Sample(l)...)
	}
	hosts, err := set.Start()
	if err != nil {
		t.Fatal(err)
	}
	var flags []string
	for host, url := range hosts {
		flags = append(flags, "--upstream", host+"="+url)
	}
	return set, flags
}

func sampleJSON(t *testing.T, label, name string) string {
	t.Helper()
	for _, c := range standin.Sample(label) {
		if c.Provider == name {
			return string(c.JSON())
		}
	}
	t.Fatal("no sample for " + name)
	return ""
}

// admin asks the admin socket.
func (s *served) admin(method, path, body string) (int, map[string]any) {
	sent.Learn(body)
	req, err := http.NewRequest(method, "http://keyward"+path, strings.NewReader(body))
	if err != nil {
		s.t.Error(err)
		return 0, nil
	}
	c := s.client("admin.sock")
	defer c.CloseIdleConnections() // hundreds may be asking, again and again
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil // it is being killed
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if leak := sent.Leak(string(b)); leak != "" {
		s.t.Errorf("the answer to %s %s holds %s", method, path, leak)
	}
	var o map[string]any
	_ = json.Unmarshal(b, &o) // 204 has none
	return resp.StatusCode, o
}

// domains asks Resend for acme's domains through the sidecar, and returns the status.
func domains(c *http.Client) int {
	req, err := http.NewRequest("GET", "http://api.resend.com/domains", nil)
	if err != nil {
		return 0
	}
	req.Header.Set("Keyward-Org", "acme")
	resp, err := c.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// A key that is revoked at the provider is noticed by the first request that fails, is asked about once, and shown as what it is.
func TestRevokedKeyIsNoticed(t *testing.T) {
	t.Parallel()
	set, up := standins(t, standin.Options{}, "acme")
	s := serve(t, memdir.New(t), up...)
	const at = "/api/orgs/acme/integrations/resend"
	s.must(sampleJSON(t, "acme", "resend"), "credentials", "set", "--org", "acme", "--provider", "resend", "--verify")
	set.Forget("acme", standin.Resend)
	before := len(set.Requests())
	c := s.client("caller.sock")
	for range 20 {
		if got := domains(c); got != 401 {
			t.Fatalf("%d", got)
		}
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_, shown := s.admin("GET", at, "")
		if shown["verification"] == "invalid" && shown["suspect"] == nil && shown["is_active"] == true {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%v", shown)
		}
	}
	for range 20 {
		domains(c)
	}
	time.Sleep(100 * time.Millisecond)
	if n := len(set.Requests()) - before; n != 41 {
		t.Errorf("the provider saw %d requests, want the 40 and one of ours", n)
	}
	if out, code := s.run("", "credentials", "verify", "--org", "acme", "--provider", "resend"); code != exitFailed || !strings.Contains(out, "invalid") {
		t.Errorf("%d %s", code, out)
	}
}

// A key is replaced while requests go on, at the provider before and after it is here: none fails.
func TestRotationWithoutAnOutage(t *testing.T) {
	t.Parallel()
	set, up := standins(t, standin.Options{}, "acme")
	s := serve(t, memdir.New(t), up...)
	s.must(sampleJSON(t, "acme", "resend"), "credentials", "set", "--org", "acme", "--provider", "resend")
	stop := make(chan struct{})
	var all sync.WaitGroup
	var mu sync.Mutex
	served := 0
	for range 4 {
		all.Go(func() {
			c := s.client("caller.sock")
			for {
				select {
				case <-stop:
					return
				default:
				}
				got := domains(c)
				mu.Lock()
				served++
				mu.Unlock()
				if got != 200 {
					t.Errorf("%d", got)
					return
				}
			}
		})
	}
	const next = `{"api_key":"re_next0000_0123456789abcdef01234567"}`
	step := func() { time.Sleep(200 * time.Millisecond) }
	step()
	s.must(next, "credentials", "stage", "--org", "acme", "--provider", "resend") // not known at the provider yet
	step()
	set.Expect(standin.Credential{Label: "acme, next", Provider: standin.Resend, Fields: map[string]string{"api_key": "re_next0000_0123456789abcdef01234567"}})
	step()
	set.Forget("acme", standin.Resend) // the old one ends
	step()
	s.must("", "credentials", "promote", "--org", "acme", "--provider", "resend")
	step()
	close(stop)
	all.Wait()
	t.Logf("%d requests", served)
}

// Two sidecars on one store, killed and started again, and a Vapi that fails at random: of two hundred who ask at once, each in the end has
// the one assistant that there is. They ask on until there were three kills at least.
func TestEnsureSurvivesKills(t *testing.T) {
	t.Parallel()
	rounds := 1
	if os.Getenv("KEYWARD_TORTURE") != "" {
		rounds = 20
	}
	for round := range rounds {
		t.Run(fmt.Sprint(round), testEnsureSurvivesKills)
	}
}

func testEnsureSurvivesKills(t *testing.T) {
	set, up := standins(t, standin.Options{Keep: -1}, "acme")
	args := append(sharedStore(t), up...)
	dirs := []string{memdir.New(t), memdir.New(t)}
	sidecars := []*served{serve(t, dirs[0], args...), serve(t, dirs[1], args...)}
	s := sidecars[0]
	s.must(sampleJSON(t, "acme", "vapi"), "credentials", "set", "--org", "acme", "--provider", "vapi", "--verify")
	if out, code := s.run("", "assistants", "ensure", "--org", "acme", "--role", "inbound"); code != exitNotFound {
		t.Errorf("without an agent: %d %s", code, out)
	}
	if status, o := s.admin("PUT", "/api/orgs/acme/agents/inbound", `{"name":"Front desk","config":{"firstMessage":"Hello"}}`); status != 201 {
		t.Fatalf("%d %v", status, o)
	}
	for _, f := range []standin.Fault{
		{Method: "POST", Share: 0.2, Status: 500},
		{Method: "POST", Share: 0.2, Acts: true, Close: true},
		{Method: "POST", Share: 0.1, Acts: true, Status: 502},
		{Method: "POST", Share: 0.1, Status: 429},
		{Method: "GET", Share: 0.1, Status: 500},
		{Share: 0.5, Delay: 100 * time.Millisecond},
	} {
		f.Provider, f.Path = standin.Vapi, "/assistant"
		set.Fail(f)
	}
	var mu sync.Mutex // of sidecars
	at := func(i int) *served { mu.Lock(); defer mu.Unlock(); return sidecars[i] }
	done := make(chan struct{})
	var killer sync.WaitGroup
	const enough = 3
	var kills atomic.Int64
	killer.Go(func() {
		for i := 0; kills.Load() < 2*enough; i = 1 - i {
			select {
			case <-done:
				return
			case <-time.After(300*time.Millisecond + rand.N(500*time.Millisecond)):
			}
			old := at(i)
			_ = old.cmd.Process.Signal(syscall.SIGKILL)
			err := <-old.done
			old.done <- err
			kills.Add(1)
			fresh := start(t, dirs[i], args...)
			mu.Lock()
			sidecars[i] = fresh
			mu.Unlock()
		}
	})
	var all sync.WaitGroup
	deadline := time.Now().Add(5 * time.Minute)
	answers := make([]string, 200)
	for i := range answers {
		all.Go(func() {
			for time.Now().Before(deadline) {
				status, o := at(i%2).admin("POST", "/api/orgs/acme/agents/inbound/ensure", "")
				if status == 200 {
					id, _ := o["id"].(string)
					if answers[i] != "" && id != answers[i] {
						t.Errorf("told of %s, and of %s before", id, answers[i])
						return
					}
					if answers[i] = id; kills.Load() >= enough {
						return
					}
					time.Sleep(rand.N(500 * time.Millisecond))
					continue
				}
				if status != 0 && status < 500 && status != 429 {
					t.Errorf("%d %v", status, o)
					return
				}
				time.Sleep(rand.N(100 * time.Millisecond))
			}
			t.Error("never done")
		})
	}
	all.Wait()
	close(done)
	killer.Wait()
	set.Mend()
	for i := range 2 { // whatever the kills left open is closed by the next that looks
		sidecars[i].must("", "wait", "--max", "1m")
	}
	last := sidecars[1].must("", "assistants", "ensure", "--org", "acme", "--role", "inbound", "--json")
	var final struct{ ID, Outcome string }
	if err := json.Unmarshal([]byte(last), &final); err != nil || final.Outcome == "created" {
		t.Fatalf("%s %v", last, err)
	}
	made := set.Made("acme", standin.Vapi, "assistant")
	if len(made) != 1 || made[0]["id"] != final.ID {
		t.Errorf("Vapi has %d assistants, the last answer is %s", len(made), final.ID)
	}
	var list struct {
		Items []struct{ ID, Org, Role string }
	}
	if err := json.Unmarshal([]byte(sidecars[0].must("", "assistants", "list", "--org", "acme", "--json")), &list); err != nil || len(list.Items) != 1 ||
		list.Items[0].ID != final.ID || list.Items[0].Role != "inbound" {
		t.Errorf("mapped are %+v %v", list.Items, err)
	}
	wrong := 0
	for _, id := range answers {
		if id != final.ID {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%d of 200 were told of another assistant", wrong)
	}
	t.Logf("%d kills", kills.Load())
}

func TestEnsureNeedsOrgAndRole(t *testing.T) {
	b := newRig(t)
	b.fails(exitUsage, "--org is missing", "", "assistants", "ensure", "--role", "inbound")
	b.fails(exitUsage, "--role is missing", "", "assistants", "ensure", "--org", "acme")
	b.fails(exitNotFound, "no such role", "", "assistants", "ensure", "--org", "acme", "--role", "sideways")
}
