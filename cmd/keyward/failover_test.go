package main

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/internal/pgtest"
)

// The primary dies, its standby takes over, and the sidecar, whose URL names both, goes on: what is in the cache is served all the while, what
// is not soon again, what is changed then takes effect at once.
func TestPostgresFailover(t *testing.T) {
	primary, standby := pgtest.StartPair(t)
	if _, err := primary.Create("keyward"); err != nil {
		t.Fatal(err)
	}
	// The standby comes first: the sidecar must look for the one that takes changes.
	args := append(keysFor(t, pgtest.PairURL(standby, primary, "keyward")), "--upstream", "api.resend.com="+echo(t), "--cache-ttl", "1h", "--log-level", "error")
	pgtest.Exec(t, primary.URL("keyward"), "ALTER SYSTEM SET synchronous_standby_names = '*'")
	pgtest.Exec(t, primary.URL("keyward"), "SELECT pg_reload_conf()") // what is acknowledged is at the standby too
	s := serve(t, memdir.New(t), args...)
	put := func(org, key string) int {
		status, _ := s.admin("PUT", "/api/orgs/"+org+"/integrations/resend", `{"credentials":{"api_key":"`+key+`"}}`)
		return status
	}
	for _, org := range []string{"warm", "cold"} {
		if status := put(org, "re_"+org); status != 201 {
			t.Fatalf("%s: %d", org, status)
		}
	}
	s.heard()
	app := s.client("caller.sock")
	if got, err := s.call(app, "warm"); err != nil || got != "Bearer re_warm" {
		t.Fatalf("%q, %v", got, err)
	}
	failed, calls := map[string]int{}, 0
	stop := make(chan struct{})
	var caller sync.WaitGroup
	caller.Go(func() {
		c := s.client("caller.sock")
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			calls++
			if got, err := s.call(c, "warm"); err != nil || got != "Bearer re_warm" {
				failed[fmt.Sprint(got, err)]++
			}
		}
	})

	primary.Crash()
	time.Sleep(200 * time.Millisecond)
	if got, err := s.call(app, "cold"); err != nil || got != "503 store_unavailable" {
		t.Errorf("a cold org while there is only a standby: %q, %v", got, err)
	}
	if status := put("warm", "re_lost"); status != 503 {
		t.Errorf("a change while there is only a standby: %d", status)
	}
	standby.Promote(t)
	began := time.Now()
	for {
		if got, err := s.call(app, "cold"); err == nil && got == "Bearer re_cold" {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatal("a cold org is never served again")
		}
		time.Sleep(10 * time.Millisecond)
	}
	again := time.Since(began)
	close(stop)
	caller.Wait()
	if len(failed) > 0 || calls == 0 {
		t.Errorf("%d calls of a cached org, of which failed: %v", calls, failed)
	}
	if again > 10*time.Second {
		t.Errorf("served again %v after the standby took over", again)
	}
	pgtest.Exec(t, standby.URL("keyward"), "ALTER SYSTEM RESET synchronous_standby_names")
	pgtest.Exec(t, standby.URL("keyward"), "SELECT pg_reload_conf()")
	if status := put("warm", "re_new"); status != 200 {
		t.Fatalf("a change after the failover: %d", status)
	}
	changed := time.Now()
	for {
		if got, _ := s.call(app, "warm"); got == "Bearer re_new" {
			break
		}
		if time.Since(changed) > 10*time.Second { // that it is within one is shown where no server has just changed its part
			t.Fatal("a change after the failover does not take effect")
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("%d calls of a cached org, none failed; a cold one was served %v after the standby took over", calls, again.Round(time.Millisecond))
}

// --max-stale ends what an outage may serve from the cache.
func TestMaxStaleEndsServing(t *testing.T) {
	server := pgtest.Start(t)
	const most = 2 * time.Second
	args := append(keysFor(t, server.New(t)), "--upstream", "api.resend.com="+echo(t), "--cache-ttl", "1s", "--max-stale", most.String(), "--log-level", "error")
	s := serve(t, memdir.New(t), args...)
	if status, answer := s.admin("PUT", "/api/orgs/acme/integrations/resend", `{"credentials":{"api_key":"re_acme"}}`); status != 201 {
		t.Fatalf("%d %v", status, answer)
	}
	s.heard()
	app := s.client("caller.sock")
	if got, err := s.call(app, "acme"); err != nil || got != "Bearer re_acme" {
		t.Fatalf("%q, %v", got, err)
	}
	// The server cuts its connections at some moment of its end, which may take longer than all this.
	begun, halted := time.Now(), make(chan error, 1)
	var stopped time.Duration
	go func() { halted <- server.Halt() }()
	var last, refused time.Duration
	for refused == 0 && time.Since(begun) < time.Minute {
		got, err := s.call(app, "acme")
		switch {
		case err == nil && got == "Bearer re_acme":
			last = time.Since(begun)
		case err == nil && got == "503 store_unavailable":
			refused = time.Since(begun)
		default:
			t.Fatalf("%q, %v", got, err)
		}
		select {
		case err := <-halted:
			if err != nil {
				t.Fatal(err)
			}
			stopped = time.Since(begun)
		case <-time.After(20 * time.Millisecond):
		}
	}
	if stopped == 0 {
		if err := <-halted; err != nil {
			t.Fatal(err)
		}
		stopped = time.Since(begun)
	}
	if last < most/4 || refused == 0 || last > stopped+most+2*time.Second {
		t.Errorf("the server was gone after %v; served until %v, refused at %v; the longest is %v", stopped, last, refused, most)
	}
}
