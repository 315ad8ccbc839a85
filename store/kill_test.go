package store

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

const childStore = "KEYWARD_TEST_CHILD_STORE"

// A process that is killed in the middle of its writes has lost none that it acknowledged, and what is there is whole.
func TestKilled(t *testing.T) {
	if url := os.Getenv(childStore); url != "" {
		writeUntilKilled(t, url)
		return
	}
	onBoth(t, func(t *testing.T, e engine) {
		acked := map[Ref]int64{} // :: credential → last acknowledged version
		gone := map[Ref]bool{}
		writes := 0
		rounds, soon := 4, patience // a machine under the whole suite may stall; the long form has it for itself
		if long() {
			rounds, soon = 200, 300*time.Millisecond
		}
		var slowest time.Duration
		for round := range rounds {
			for _, line := range runAndKill(t, e, round) {
				var what, org string
				var version int64
				if n, err := fmt.Sscanf(line, "%s %s %d", &what, &org, &version); n != 3 {
					t.Fatalf("%q: %v", line, err)
				}
				ref := Ref{org, "twilio"}
				acked[ref], gone[ref] = version, what == "deleted"
				writes++
			}
			began := time.Now()
			d := e.open(t)
			ok(t, d.Ping(t.Context()))
			took := time.Since(began)
			check(t, d, acked, gone)
			if slowest = max(slowest, took); took > soon {
				t.Errorf("ready after %v", took)
			}
		}
		t.Logf("%d acknowledged writes, killed %d times: none lost, ready after %v at most", writes, rounds, slowest)
		if writes < 20 {
			t.Errorf("%d acknowledged writes are too few to prove anything", writes)
		}
	})
}

// check finds every acknowledged write. One more may have been committed for each: its acknowledgement was lost with the process.
func check(t *testing.T, d *DB, acked map[Ref]int64, gone map[Ref]bool) {
	t.Helper()
	ctx := t.Context()
	if d.lite != nil {
		var sound string
		ok(t, d.w.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&sound))
		same(t, sound, "ok")
	}
	for ref, version := range acked {
		latest, exists, err := d.LatestVersion(ctx, ref)
		ok(t, err)
		if latest < version || latest > version+1 || latest == version && exists == gone[ref] {
			t.Fatalf("%v: acknowledged %d (deleted: %v), found %d (exists: %v)", ref, version, gone[ref], latest, exists)
		}
		if !exists {
			continue
		}
		c, _, err := d.Credential(ctx, ref)
		ok(t, err)
		if c.Version != latest || !bytes.Equal(c.Sealed, sealed(ref, c.Version).Sealed) {
			t.Fatalf("%v: half a row: %d, %+v", ref, latest, c)
		}
		owner, err := d.AccountOwner(ctx, "twilio", "account_sid", fmt.Sprintf("%s-%d", ref.Org, c.Version))
		ok(t, err)
		same(t, owner, ref.Org)
	}
	// As many audit rows as versions: none without its write, no write without its row.
	var versions, events int64
	ok(t, d.r.QueryRowContext(forEvery(ctx), "SELECT sum(version) FROM row_versions").Scan(&versions))
	ok(t, d.r.QueryRowContext(forEvery(ctx), "SELECT count(*) FROM audit_log").Scan(&events))
	same(t, events, versions)
}

// runAndKill runs a child that writes, kills it at some moment, and returns the acknowledgements that came through.
func runAndKill(t *testing.T, e engine, round int) (lines []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
	url := e.url
	if e.name == "postgres" {
		url += "&application_name=" + childStore
	}
	cmd.Env = append(os.Environ(), childStore+"="+url, fmt.Sprintf("KEYWARD_TEST_ROUND=%d", round))
	lines = linesUntilKilled(t, cmd, time.Duration(60+37*(round%8))*time.Millisecond)
	if e.name == "postgres" { // the server goes on with what it was doing for it
		d, err := Open(t.Context(), e.url, Options{})
		ok(t, err)
		defer func() { ok(t, d.Close()) }()
		eventually(t, "the server has noticed", func() bool {
			var left int
			ok(t, d.r.QueryRowContext(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = $1", childStore).Scan(&left))
			return left == 0
		})
	}
	return lines
}

// linesUntilKilled is what a child wrote before it was killed, some time after its first lines.
func linesUntilKilled(t *testing.T, cmd *exec.Cmd, after time.Duration) (lines []string) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	read := bufio.NewScanner(out)
	var kill *time.Timer
	for read.Scan() {
		lines = append(lines, read.Text())
		if kill == nil && len(lines) == 6 { // which a busy machine may take its time for
			kill = time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		}
	}
	if cmd.Wait() == nil || kill == nil {
		t.Fatalf("the child ended by itself: %q", lines)
	}
	return lines
}

func writeUntilKilled(t *testing.T, url string) {
	d, err := Open(context.Background(), url, Options{})
	ok(t, err)
	ctx := context.Background()
	errs := atOnce(3, func(i int) error {
		for n := 0; ; n++ {
			ref := Ref{fmt.Sprintf("org-%s-%d-%d", os.Getenv("KEYWARD_TEST_ROUND"), i, n%4), "twilio"}
			latest, exists, err := d.LatestVersion(ctx, ref)
			if err != nil {
				return err
			}
			what := "put"
			if exists && n%7 == 6 {
				what, err = "deleted", d.DeleteCredential(ctx, by, ref, latest)
			} else {
				err = d.PutCredential(ctx, by, sealed(ref, latest+1, Account{"account_sid", fmt.Sprintf("%s-%d", ref.Org, latest+1)}))
			}
			if err != nil {
				return err
			}
			_, _ = os.Stdout.WriteString(fmt.Sprintf("%s %s %d\n", what, ref.Org, latest+1)) // in one write(2)
		}
	})
	t.Fatal(errs)
}
