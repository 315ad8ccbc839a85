package store

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Of a process that is killed while it is alone, nothing that it has answered is new to the next, and what it has forgotten is welcome, at the
// very moment at which that one begins.
func TestKeysOutliveAKill(t *testing.T) {
	if url := os.Getenv(childStore); url != "" {
		answerUntilKilled(t, url)
		return
	}
	t.Parallel()
	rounds := 4
	if long() {
		rounds = 100
	}
	url := newFile(t)
	d, err := Open(t.Context(), url, Options{})
	ok(t, err)
	_, err = d.MigrateUp(t.Context())
	ok(t, err)
	ok(t, d.Close())
	answered, forgotten := 0, 0
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKeysOutliveAKill$")
		cmd.Env = append(os.Environ(), childStore+"="+url, fmt.Sprintf("KEYWARD_TEST_ROUND=%d", round))
		last := map[string]Claim{} // :: message → what is to be found of it
		for _, line := range linesUntilKilled(t, cmd, time.Duration(100+round%4*700)*time.Millisecond) {
			var what, message string
			if n, err := fmt.Sscan(line, &what, &message); n != 2 {
				t.Fatalf("%q: %v", line, err)
			}
			switch what {
			case "answered":
				last[message] = Seen
			case "forgetting":
				delete(last, message) // either
			case "forgot":
				last[message] = Fresh
			}
		}
		d := holds(t, url)
		for message, want := range last {
			claimFinds(t, d, seenKey(message), want)
			if want == Seen {
				answered++
			} else {
				forgotten++
			}
		}
		if round%2 == 0 { // else the next finds what this one had not moved yet
			eventually(t, "SQLite has all", d.isAlone)
			for message, want := range last {
				if want == Seen && !inSQLite(t, d, seenKey(message)) {
					t.Fatalf("SQLite lacks %s", message)
				}
			}
		}
		ok(t, d.Close())
	}
	t.Logf("%d answered and %d forgotten messages, killed %d times", answered, forgotten, rounds)
	if answered < 100 || forgotten < 20 {
		t.Error("too few to prove anything")
	}
}

func answerUntilKilled(t *testing.T, url string) {
	d := holds(t, url)
	eventually(t, "it is alone", d.isAlone)
	say := func(what, message string) { _, _ = os.Stdout.WriteString(what + " " + message + "\n") } // in one write(2)
	errs := atOnce(3, func(i int) error {
		for n := 0; ; n++ {
			message := fmt.Sprintf("%s-%d-%d", os.Getenv("KEYWARD_TEST_ROUND"), i, n)
			until := time.Now().Add(time.Hour)
			if _, err := d.ConfirmSeen(context.Background(), seenKey(message), until); err != nil {
				return err
			}
			say("answered", message)
			time.Sleep(time.Millisecond)
			if n%4 > 0 {
				continue
			}
			say("forgetting", message)
			if err := d.Unclaim(context.Background(), seenKey(message), until); err != nil {
				return err
			}
			say("forgot", message)
		}
	})
	t.Fatal(errs)
}
