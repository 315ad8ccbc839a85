package torture

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Attackers take all connections over TCP that they can get from a sidecar with 256 file descriptors, and are as slow as they can be.
// Callers on the unix socket must not notice, and whoever comes over TCP afterwards is served at once.
func TestManySlowConnections(t *testing.T) {
	o := newOverload(t)
	quiet := 3 * time.Second
	if long {
		quiet = 10 * time.Second
	}
	before := o.good(t, func() { time.Sleep(quiet) })
	attacked := o.good(t, func() {
		for opened := 0; opened < many(1500, 5000); opened += many(500, 2000) {
			o.attack(t, many(500, 2000), map[bool]time.Duration{false: 3 * time.Second, true: 12 * time.Second}[long])
		}
	})
	again := o.acceptsAgain(t)
	if len(before.errors)+len(attacked.errors) > 0 {
		t.Errorf("good callers saw %d errors before and %d under attack: %v", len(before.errors), len(attacked.errors), worst(append(before.errors, attacked.errors...)))
	}
	// The short form runs on any machine, however busy, and measures no times.
	if most := 2 * before.p99(); long && attacked.p99() > most {
		t.Errorf("p99 of good callers: %s before, %s under attack; at most %s", before.p99(), attacked.p99(), most)
	}
	if long && again > time.Second {
		t.Errorf("a caller over TCP was served %s after the attack", again)
	}
	o.s.mustLive()
	row(t, "256 descriptors, slow attackers: unix callers without error, p99 at most twice, TCP again within 1 s",
		"%d attacks by %d connections at a time (%d reached the sidecar): %d of %d good calls failed, p99 %s → %s, TCP again after %s",
		o.attacks, many(500, 2000), o.connected, len(attacked.errors), len(attacked.took)+len(attacked.errors), before.p99().Round(10*time.Microsecond),
		attacked.p99().Round(10*time.Microsecond), again.Round(time.Millisecond))
}

type overload struct {
	s                  *sidecar
	token              string
	attacks, connected int64
}

func newOverload(t *testing.T) *overload {
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/big") {
			_, _ = w.Write(make([]byte, 4<<20))
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "ok")
	}))
	t.Cleanup(provider.Close)
	t.Cleanup(provider.CloseClientConnections)
	within(t, "ulimit -n 256")
	o := &overload{s: startSidecar(t, map[string]string{"api.resend.com": strings.TrimPrefix(provider.URL, "http://")})}
	o.s.put("acme", "resend", map[string]any{"api_key": secretOf("acme", "resend")})
	o.token = regexp.MustCompile(`kwt[0-9A-Za-z]{43}`).FindString(o.s.token())
	return o
}

// within runs the program after a shell command, until the test ends.
func within(t *testing.T, command string) {
	t.Helper()
	real, script := binary, filepath.Join(t.TempDir(), "keyward")
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\n%s\nexec %s \"$@\"\n", command, real), 0o700); err != nil {
		t.Fatal(err)
	}
	binary = script
	t.Cleanup(func() { binary = real })
}

// calls are how good callers fared.
type calls struct {
	mu     sync.Mutex
	took   []time.Duration
	errors []string
}

func (c *calls) p99() time.Duration {
	if len(c.took) == 0 {
		return 0
	}
	slices.Sort(c.took)
	return c.took[len(c.took)*99/100]
}

// worst is what happened most.
func worst(errors []string) string {
	count := map[string]int{}
	most := ""
	for _, e := range errors {
		if count[e]++; count[e] > count[most] {
			most = e
		}
	}
	return fmt.Sprintf("%d × %s", count[most], most)
}

// good calls over the unix socket while during runs: half of the callers keep their connections, half make a new one each time.
func (o *overload) good(t *testing.T, during func()) *calls {
	t.Helper()
	c := &calls{}
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for i := range 10 {
		tr := &http.Transport{DisableKeepAlives: i%2 == 1, DialContext: func(context.Context, string, string) (net.Conn, error) { return o.s.tryDial("unix") }}
		client := &http.Client{Transport: tr, Timeout: 30 * time.Second}
		wait.Go(func() {
			defer tr.CloseIdleConnections()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				start := time.Now()
				err := o.call(client, "")
				c.mu.Lock()
				if err != nil {
					c.errors = append(c.errors, err.Error())
				} else {
					c.took = append(c.took, time.Since(start))
				}
				c.mu.Unlock()
			}
		})
	}
	during()
	close(stop)
	wait.Wait()
	return c
}

func (o *overload) call(client *http.Client, token string) error {
	req, err := http.NewRequest("POST", "http://api.resend.com/emails", strings.NewReader("hello"))
	if err != nil {
		return err
	}
	req.Header.Set("Keyward-Org", "acme")
	if token != "" {
		req.Header.Set("Keyward-Token", token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != 200 || string(b) != "ok" {
		return fmt.Errorf("%s %s %.200q", resp.Status, resp.Header.Get("Keyward-Error"), b)
	}
	return nil
}

// acceptsAgain is how long a new caller over TCP waits for an answer when the attackers have just gone.
func (o *overload) acceptsAgain(t *testing.T) time.Duration {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return o.s.tryDial("tcp") }}
	client := &http.Client{Transport: tr, Timeout: map[bool]time.Duration{false: 10 * time.Second, true: time.Second}[long]}
	start := time.Now()
	for last := error(nil); ; time.Sleep(10 * time.Millisecond) {
		if last = o.call(client, o.token); last == nil {
			return time.Since(start)
		}
		if time.Since(start) > time.Minute {
			t.Errorf("over TCP: %v", last)
			return time.Since(start)
		}
	}
}
