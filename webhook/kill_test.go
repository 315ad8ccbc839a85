package webhook

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/store"
)

const (
	childStore  = "KEYWARD_TEST_CHILD_STORE"
	childTarget = "KEYWARD_TEST_CHILD_TARGET"
	childRound  = "KEYWARD_TEST_CHILD_ROUND"
)

// A sidecar that is killed while it takes in and delivers at full speed has lost nothing that it acknowledged: the app gets every one, under
// its id and in the order of its group, and with the same body each time.
func TestKilled(t *testing.T) {
	if url := os.Getenv(childStore); url != "" {
		acceptUntilKilled(url, os.Getenv(childTarget), os.Getenv(childRound))
		return
	}
	for name, url := range stores {
		t.Run(name, func(t *testing.T) { testKilled(t, url(t)) })
	}
}

func testKilled(t *testing.T, url string) {
	db := openStore(t, url)
	a := newTaker(t, func(got taken, nth int) int {
		if nth == 1 && strings.HasSuffix(got.body, "7") { // some fail at first
			return 500
		}
		return 200
	})
	acked := map[string]string{} // :: id → body
	for round := range 3 {
		killSoon(t, url, a.url, round, acked)
	}
	if len(acked) < 100 {
		t.Fatalf("%d acknowledged deliveries are too few to prove anything", len(acked))
	}
	runQueue(t, db, func(o *QueueOptions) { o.Poll, o.Log = 20*time.Millisecond, zerolog.Nop() })
	began := time.Now()
	eventually(t, "nothing is pending", func() bool {
		rows, _, err := db.Deliveries(t.Context(), store.DeliveryFilter{State: store.Pending, Limit: 1})
		return err == nil && len(rows) == 0
	})
	all := a.all()
	t.Logf("%d acknowledged, %d requests; the rest took %v", len(acked), len(all), time.Since(began))

	bodies := map[string]string{} // :: id → body, as the app got it
	latest := map[string]int{}    // :: group → the last one that was new
	for _, got := range all {
		if body, again := bodies[got.id]; again {
			if body != got.body {
				t.Fatalf("%s came as %q and as %q", got.id, body, got.body)
			}
			continue
		}
		bodies[got.id] = got.body
		var group string
		var n int
		if _, err := fmt.Sscanf(got.body, "%s %d", &group, &n); err != nil {
			t.Fatalf("%q: %v", got.body, err)
		}
		if n < latest[group] {
			t.Errorf("%s: %d came after %d", group, n, latest[group])
		}
		latest[group] = n
	}
	for id, body := range acked {
		if bodies[id] != body {
			t.Errorf("%s was acknowledged as %q, and the app has %q", id, body, bodies[id])
		}
	}
}

// killSoon runs a sidecar, kills it at some moment, and adds the acknowledgements that came through.
func killSoon(t *testing.T, url, target string, round int, acked map[string]string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), childStore+"="+url, childTarget+"="+target, fmt.Sprint(childRound, "=", round))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := bufio.NewScanner(out)
	var kill *time.Timer
	lines := 0
	for read.Scan() {
		id, body, ok := strings.Cut(read.Text(), " ")
		if !ok || !strings.HasPrefix(id, "wd_") {
			t.Fatalf("%q", read.Text())
		}
		acked[id] = body
		if lines++; kill == nil && lines >= 50 {
			kill = time.AfterFunc(time.Duration(20+61*round)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		}
	}
	if cmd.Wait() == nil || kill == nil {
		t.Fatal("the child ended by itself")
	}
}

func acceptUntilKilled(url, target, round string) {
	ctx := context.Background()
	db, err := store.Open(ctx, url, store.Options{})
	if err != nil {
		panic(err)
	}
	q := NewQueue(QueueOptions{Store: db, Keys: queueKeys, Backoff: 5 * time.Millisecond, Lease: time.Second})
	go q.Run()
	var calls sync.WaitGroup
	for i := range 6 {
		calls.Go(func() {
			for n := 1; ; n++ {
				group := fmt.Sprintf("g%s-%d", round, i)
				d := &store.Delivery{Org: "acme", Provider: "vapi", Group: group, Target: target, Method: "POST", Body: fmt.Appendf(nil, "%s %d", group, n)}
				if _, err := q.Accept(ctx, d); err != nil {
					panic(err)
				}
				_, _ = os.Stdout.WriteString(d.ID + " " + string(d.Body) + "\n") // in one write(2)
			}
		})
	}
	calls.Wait()
}
