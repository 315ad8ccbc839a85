package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/store"
)

// history is an audit log with an event for each hour of a day.
func history(b *rig) {
	b.t.Helper()
	for i := range 24 {
		e := store.Event{At: time.Date(2026, 3, 1, i, 0, 0, 0, time.UTC), Action: "x", Target: fmt.Sprint(i), Result: map[bool]string{true: "ok", false: "conflict"}[i%2 == 0]}
		if err := b.db.AddEvent(b.t.Context(), e); err != nil {
			b.t.Fatal(err)
		}
	}
}

func TestAuditBetweenTimes(t *testing.T) {
	b := newRig(t)
	history(b)
	targets := func(want string, args ...string) {
		t.Helper()
		var got []string
		for _, e := range items(t, b.ok("", append([]string{"audit", "--json"}, args...)...)) {
			got = append(got, e["target"].(string))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%v: %v, want %s", args, got, want)
		}
	}
	targets("21 22 23", "--since", "2026-03-01T21:00:00Z")
	targets("3 5", "--since", "2026-03-01T03:00:00Z", "--until", "2026-03-01T06:00:00Z", "--result", "conflict")
	targets("22 23", "--since", "2026-03-01T03:00:00Z", "--limit", "2")
	targets("7", "--target", "7")
	targets("", "--since", "1h")
	b.fails(exitUsage, "--since", "", "audit", "--since", "yesterday")
	b.fails(exitUsage, "--until", "", "audit", "--until", "-5h")
}

func TestAuditExportIsAllOfItAsJSONLines(t *testing.T) {
	b := newRig(t)
	for i := range 1200 {
		if err := b.db.AddEvent(t.Context(), store.Event{Action: "x", Target: fmt.Sprint(i), Result: "ok"}); err != nil {
			t.Fatal(err)
		}
	}
	lines := strings.Split(strings.TrimSpace(b.ok("", "audit", "--export", "--action", "x")), "\n")
	if len(lines) != 1200 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, line := range lines {
		var e event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Target != fmt.Sprint(i) {
			t.Fatalf("line %d: %v %s", i, err, line)
		}
	}
	b.fails(exitUsage, "--export", "", "audit", "--export", "--follow")
	b.fails(exitUsage, "--export", "", "audit", "--export", "--limit", "5")
	isFailure(t, runCommand("", "audit", "--export", "--run-dir", t.TempDir()), exitFailed, "no sidecar")
}
