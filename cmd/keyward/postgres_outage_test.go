package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/internal/pgtest"
)

// PostgreSQL stops under load and comes back: orgs that are in the cache do not notice, orgs that are not are refused at once, and the
// return is no storm: each org that is asked for costs one query at most. It is held to times, and runs beside no other test. A machine
// under the whole suite may stall, and then the feed of changes is down for a moment and every org is asked for once more: one outage of
// three has to keep to the times.
func TestPostgresOutage(t *testing.T) {
	outage, coldBound, tries := 5*time.Second, time.Second, 3
	if os.Getenv("KEYWARD_TORTURE") == "1" { // and the machine for itself
		outage, coldBound, tries = time.Minute, 50*time.Millisecond, 1
	}
	for try := 1; ; try++ {
		slow := stopPostgresUnderLoad(t, outage, coldBound)
		if len(slow) == 0 {
			return
		}
		if try == tries || t.Failed() {
			t.Fatal(strings.Join(slow, "; "))
		}
		t.Log("once more: ", strings.Join(slow, "; "))
	}
}

// stopPostgresUnderLoad is one outage. What was wrong is the test's error, and what only took too long is returned.
func stopPostgresUnderLoad(t *testing.T, outage, coldBound time.Duration) (slow []string) {
	t.Helper()
	server := pgtest.Start(t)
	args := append(keysFor(t, server.New(t)), "--upstream", "api.resend.com="+echo(t), "--cache-ttl", "1h", "--log-level", "error")
	s := serve(t, memdir.New(t), args...)
	const warm, cold, senders, rate = 30, 30, 10, 500
	for kind, n := range map[string]int{"warm": warm, "cold": cold} {
		for i := range n {
			path := fmt.Sprintf("/api/orgs/%s-%d/integrations/resend", kind, i)
			if status, answer := s.admin("PUT", path, `{"credentials":{"api_key":"re_`+kind+`"}}`); status != 201 {
				t.Fatalf("%s: %d %v", path, status, answer)
			}
		}
	}
	s.heard()
	app := s.client("caller.sock")
	for i := range warm {
		if got, err := s.call(app, fmt.Sprint("warm-", i)); err != nil || got != "Bearer re_warm" {
			t.Fatalf("%q, %v", got, err)
		}
	}

	var mu sync.Mutex
	calls, failures := 0, map[string]int{}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for n := range senders {
		c := s.client("caller.sock")
		all.Go(func() {
			tick := time.NewTicker(time.Second * senders / rate)
			defer tick.Stop()
			for i := n; ; i++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				got, err := s.call(c, fmt.Sprint("warm-", i%warm))
				mu.Lock()
				if calls++; err != nil || got != "Bearer re_warm" {
					failures[fmt.Sprint(got, err)]++
				}
				mu.Unlock()
			}
		})
	}
	defer func() { all.Wait() }()
	defer func() {
		select {
		case <-stop:
		default:
			close(stop)
		}
	}()
	time.Sleep(time.Second)

	before := loads(t, s) // every load between the stop and the return fails
	server.Stop(t)
	stopped := time.Now()
	time.Sleep(500 * time.Millisecond)
	var took []time.Duration
	for i := 0; time.Since(stopped) < outage; i++ {
		began := time.Now()
		if got, err := s.call(app, fmt.Sprint("cold-", i%cold)); err != nil || got != "503 store_unavailable" {
			t.Fatalf("a cold org while the store is down: %q, %v", got, err)
		}
		took = append(took, time.Since(began))
		time.Sleep(50 * time.Millisecond)
	}
	server.Start(t)
	back := time.Now()
	for {
		if got, err := s.call(app, "cold-0"); err == nil && got == "Bearer re_cold" {
			break
		}
		if time.Since(back) > time.Minute {
			t.Fatal("a cold org is never served again")
		}
		time.Sleep(10 * time.Millisecond)
	}
	recovered := time.Since(back)
	time.Sleep(2 * time.Second)
	for i := range cold {
		if got, err := s.call(app, fmt.Sprint("cold-", i)); err != nil || got != "Bearer re_cold" {
			t.Errorf("a cold org when the store is back: %q, %v", got, err)
		}
	}
	close(stop)
	all.Wait()
	after := loads(t, s)
	queries, failed := after[0]-before[0], after[1]-before[1]

	slices.Sort(took)
	t.Logf("store down for %v: %d requests of warm orgs, %d failed; %d of cold orgs refused, p50 %v, max %v; served again after %v; %d queries for %d orgs after the return, %d failed meanwhile",
		outage, calls, len(failures), len(took), took[len(took)/2].Round(10*time.Microsecond), took[len(took)-1].Round(10*time.Microsecond),
		recovered.Round(time.Millisecond), queries-failed, warm+cold, failed)
	if len(failures) > 0 || calls < 300 {
		t.Errorf("%d requests of warm orgs, and these failed: %v", calls, failures)
	}
	if took[len(took)-1] > coldBound {
		slow = append(slow, fmt.Sprintf("a cold org was refused after %v", took[len(took)-1]))
	}
	if recovered > 2*time.Second {
		slow = append(slow, fmt.Sprintf("served again %v after the return", recovered))
	}
	if queries-failed > warm+cold {
		slow = append(slow, fmt.Sprintf("%d queries for %d orgs after the return", queries-failed, warm+cold))
	}
	return slow
}

// loads are how many reads of the store the sidecar's cache has made, and how many of them failed.
func loads(t *testing.T, s *served) [2]int64 {
	t.Helper()
	resp, err := s.client("admin.sock").Get("http://keyward/api/stats")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Cache struct {
			Loads  int64 `json:"loads"`
			Errors int64 `json:"load_errors"`
		} `json:"cache"`
	}
	if err := json.Unmarshal(b, &v); err != nil || v.Cache.Loads == 0 {
		t.Fatalf("%s: %v", b, err)
	}
	return [2]int64{v.Cache.Loads, v.Cache.Errors}
}
