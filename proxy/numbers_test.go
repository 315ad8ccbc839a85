package proxy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"
)

// Whatever Keyward answers by itself is counted by its code, and a head that it refuses by what is wrong with it.
func TestEveryRefusalHasACounter(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`refusal\{[^}]*code: "([a-z_]+)"`).FindAllSubmatch(text, -1) {
			found++
			if !slices.Contains(codes, string(m[1])) {
				t.Errorf("%s: %s is not in codes", f, m[1])
			}
		}
	}
	if found < len(codes) {
		t.Errorf("found %d refusals with %d codes", found, len(codes))
	}
	for _, r := range []*refusal{refuseVersion, refuseMalformed, refuseHeadSize, refuseHead(errFold), refuseHead(errTooMany)} {
		if !slices.Contains(headReasons, r.head) {
			t.Errorf("%s: %q is not in headReasons", r.detail, r.head)
		}
	}
}

func TestRefusalsAreCounted(t *testing.T) {
	w := newWorld(t, bytePeer(t))
	w.raw("unix", "GET /vapi/assistant HTTP/1.1\r\nHost: localhost\r\nX_Org_Id: a\r\n\r\n")
	w.raw("unix", "GET /nobody HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\n\r\n")
	w.raw("unix", "GET /vapi/assistant HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: nobody\r\n\r\n")
	n := w.p.Numbers()
	if n.RefusedHeads["underscore_name"] != 1 || n.Refusals["bad_request"] != 1 || n.Refusals["unknown_upstream"] != 1 || n.Refusals["credential_missing"] != 1 {
		t.Errorf("%v, %v", n.Refusals, n.RefusedHeads)
	}
	if n.Unrouted[classOf(404)] != 2 {
		t.Errorf("unrouted: %v", n.Unrouted)
	}
	for _, p := range n.Providers {
		if p.Provider == "vapi" && p.Classes[classOf(424)].Requests != 1 {
			t.Errorf("vapi: %v", p.Classes[classOf(424)].Requests)
		}
	}
}

func TestConnectionsAreCounted(t *testing.T) {
	w := newWorld(t, bytePeer(t))
	do := roundTripper(t, w, hitRequest)
	for range 3 {
		do()
	}
	check := func(open, idle int64) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			for _, p := range w.p.Numbers().Providers {
				if p.Provider == "vapi" && p.Open == open && p.Idle == idle && p.Dialled == 1 && p.Reused == 2 && p.InFlight == 0 {
					return
				}
				if p.Provider == "vapi" && time.Now().After(deadline) {
					t.Fatalf("%d open, %d idle, %d dialled, %d reused, %d in flight", p.Open, p.Idle, p.Dialled, p.Reused, p.InFlight)
				}
			}
		}
	}
	check(1, 1)
	for _, u := range *w.p.hosts.Load() {
		u.sweep(time.Now().Add(time.Hour))
	}
	check(0, 0)
}

// Bounds that double from 25 µs on fall between two of the histogram's own buckets, so that what they say is exact.
func TestDoublingBoundsAreExact(t *testing.T) {
	bound := 25 * time.Microsecond
	for range 20 {
		var d Durations
		d[bucketOf(uint64(bound.Microseconds())-1)]++
		d[bucketOf(uint64(bound.Microseconds()))]++
		if counts, _ := d.Within([]time.Duration{bound}); counts[0] != 1 || counts[1] != 1 {
			t.Errorf("%v: %v", bound, counts)
		}
		bound *= 2
	}
	var d Durations
	d[bucketOf(1000)], d[bucketOf(50000)] = 2, 1
	if counts, total := d.Within([]time.Duration{time.Millisecond * 2}); counts[0] != 2 || counts[1] != 1 || total < 50*time.Millisecond || total > 54*time.Millisecond {
		t.Errorf("%v, %v", counts, total)
	}
}
