package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

const childDisk = "KEYWARD_TEST_CHILD_DISK"

// A process that is killed at any moment, while its disk is full, becomes full, or has room again, leaves no message to be taken for a copy that
// was not answered, and none to be taken for new that was; neither for the next process nor for one beside it.
func TestKeysOnAFullDisk(t *testing.T) {
	if url := os.Getenv(childDisk); url != "" {
		answerOnAFullDisk(t, url)
		return
	}
	if !apart(t) {
		return
	}
	rounds := 5
	if long() {
		rounds = 100
	}
	disk := newSmallDisk(t)
	d := disk.alone(t)
	ok(t, d.Close())
	total, all := map[string]int{}, fates{}
	for round := range rounds {
		last := killOnAFullDisk(t, disk, round, total)
		ok(t, disk.free([]int{12, 2000}[round%2])) // a start needs some room
		d, err := Open(t.Context(), disk.url(), Options{})
		if round%2 == 0 {
			ok(t, disk.full())
		}
		if err == nil {
			if err = d.HoldKeys(t.Context()); err != nil {
				_ = d.Close()
			}
		}
		switch {
		case err == nil:
			last.compare(t, d, total)
		case round%2 == 0:
			total["not started"]++
		default:
			t.Fatal(err)
		}
		ok(t, disk.free(2000))
		if err != nil {
			d = holds(t, disk.url())
		}
		eventually(t, "it is alone", d.isAlone)
		last.compare(t, d, total)
		for message, was := range last {
			if was.state == "forgot" || was.state == "claimed" {
				claimFinds(t, d, seenKey(message), Fresh)
				ok(t, d.Unclaim(t.Context(), seenKey(message), time.Time{}))
			}
		}
		maps.Copy(all, last)
		if round == rounds-1 {
			all.compare(t, d, map[string]int{})
		}
		ok(t, d.Close())
	}
	t.Logf("killed %d times: %v", rounds, total)
	for _, what := range []string{"answered", "forgot", "refused"} {
		if total[what] < 10 {
			t.Errorf("too few %s to prove anything", what)
		}
	}
}

// A fate is what a process said last of a message.
type fate struct {
	state string
	line  int
}

// fates are those of messages.
type fates map[string]fate

// compare finds of each message what must be found of it.
func (f fates) compare(t *testing.T, d *DB, total map[string]int) {
	t.Helper()
	for message, was := range f {
		found, err := d.ClaimSeen(t.Context(), seenKey(message))
		if err == nil && found == Fresh {
			ok(t, d.Unclaim(t.Context(), seenKey(message), time.Time{}))
		}
		if err != nil && !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", message, err)
		}
		switch was.state {
		case "confirming", "forgetting": // either
			continue
		case "answered":
			if found == Fresh {
				t.Errorf("%s was answered (line %d), and is new to the next", message, was.line)
			}
		default:
			if found == Seen {
				t.Errorf("%s was not answered (%s, line %d), and is refused as a copy", message, was.state, was.line)
			}
		}
		total[was.state]++
	}
}

// killOnAFullDisk runs a child that answers until it is killed, on a disk that is full again and again. Every third time somebody is beside it.
func killOnAFullDisk(t *testing.T, disk *smallDisk, round int, total map[string]int) fates {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKeysOnAFullDisk$")
	cmd.Env = append(os.Environ(), childDisk+"="+disk.url(), fmt.Sprintf("KEYWARD_TEST_ROUND=%d", round))
	out, err := cmd.StdoutPipe()
	ok(t, err)
	ok(t, cmd.Start())
	read := bufio.NewScanner(out)
	if !read.Scan() {
		t.Fatal("the child has not begun")
	}
	var other *DB
	stop := make(chan struct{})
	var filling sync.WaitGroup
	filling.Go(func() {
		if round%3 == 2 {
			time.Sleep(time.Duration(some(2000)) * time.Millisecond)
			other, err = Open(t.Context(), disk.url(), Options{})
			if err == nil {
				time.AfterFunc(time.Duration(some(100))*time.Millisecond, func() { _ = disk.full() })
				err = other.HoldKeys(t.Context())
			}
			if err != nil {
				t.Error(err)
			}
		}
		disk.fillAndFree(stop)
	})
	kill := time.AfterFunc(time.Duration(100+some(3500))*time.Millisecond, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	var lines []string
	for read.Scan() {
		lines = append(lines, read.Text())
	}
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() >= 0 {
		t.Fatalf("the child ended by itself: %q", lines[max(0, len(lines)-5):])
	}
	close(stop)
	filling.Wait()
	last := fatesIn(t, lines)
	if other != nil {
		last.compare(t, other, total)
		ok(t, other.Close())
	}
	return last
}

func (s *smallDisk) fillAndFree(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(some(150)) * time.Millisecond):
		}
		_ = s.full()
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(10+some(150)) * time.Millisecond):
		}
		_ = s.free(1 + some([]int{4, 40, 400}[some(3)]))
	}
}

func fatesIn(t *testing.T, lines []string) fates {
	t.Helper()
	last := fates{}
	for i, line := range lines {
		var what, message string
		if n, err := fmt.Sscan(line, &what, &message); n != 2 {
			t.Fatalf("%q: %v", line, err)
		}
		if what == "wrong" {
			t.Error(line)
			continue
		}
		last[message] = fate{what, i}
	}
	return last
}

func answerOnAFullDisk(t *testing.T, url string) {
	hasty(t)
	d := holds(t, url)
	say := func(what, message string) { _, _ = os.Stdout.WriteString(what + " " + message + "\n") } // in one write(2)
	say("begun", "")
	errs := atOnce(8, func(i int) error {
		for n := 0; ; n++ {
			message := fmt.Sprintf("%s-%d-%d", os.Getenv("KEYWARD_TEST_ROUND"), i, n)
			time.Sleep(time.Duration(some(4)) * time.Millisecond)
			// As a provider does that tries again with the same message, which runs out at the same moment.
			for until := time.Now().Add(time.Hour).Truncate(time.Microsecond); answerOnce(d, message, until, say); time.Sleep(time.Duration(some(30)) * time.Millisecond) {
			}
		}
	})
	t.Fatal(errs)
}

// answerOnce answers a message, or does not; it says whether it is to come again.
func answerOnce(d *DB, message string, until time.Time, say func(what, message string)) (again bool) {
	ctx, key := context.Background(), seenKey(message)
	found, err := d.ClaimSeen(ctx, key)
	switch {
	case errors.Is(err, ErrUnavailable):
		say("refused", message)
		return some(3) > 0
	case err != nil:
		say("wrong", message+": claiming: "+err.Error())
		return false
	case found == UnderWay:
		return true
	case found == Seen:
		say("wrong", message+": it was not answered, and is refused as a copy")
		return false
	}
	say("claimed", message)
	time.Sleep(time.Duration(some(20)) * time.Millisecond)
	if some(5) == 0 { // the app did not answer
		if err := d.Unclaim(ctx, key, time.Time{}); err != nil {
			say("wrong", message+": giving up: "+err.Error())
		}
		return some(2) > 0
	}
	say("confirming", message)
	if duplicate, err := d.ConfirmSeen(ctx, key, until); err != nil || duplicate {
		say("wrong", fmt.Sprintf("%s: confirming: %v, duplicate: %v", message, err, duplicate))
		return false
	}
	say("answered", message)
	time.Sleep(time.Duration(some(some(1500)+1)) * time.Millisecond)
	if found, err := d.ClaimSeen(ctx, key); err == nil && found != Seen {
		say("wrong", fmt.Sprintf("%s: it was answered, and a copy finds %v", message, found))
	}
	if some(2) == 0 {
		return false
	}
	say("forgetting", message)
	if err := d.Unclaim(ctx, key, until); err != nil {
		say("wrong", message+": forgetting: "+err.Error())
		return false
	}
	say("forgot", message)
	return some(4) > 0
}
