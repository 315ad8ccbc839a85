package torture

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var (
	long  = os.Getenv("KEYWARD_TORTURE") == "1"
	inCI  = os.Getenv("CI") == "true"
	count = flag.Int("n", 0, "how many requests the generated tests send; 0: what the form says")
	seed  = flag.Uint64("seed", 1, "of all that is random")

	binary string // the program under test: built here, or the one that KEYWARD_TORTURE_BINARY names
)

func TestMain(m *testing.M) {
	if address := os.Getenv(mortalAddress); address != "" {
		os.Exit(liveUntilKilled(address, os.Getenv(mortalFile)))
	}
	if orders := os.Getenv(attackersEnv); orders != "" {
		os.Exit(attackAs(orders))
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "torture")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if binary = os.Getenv("KEYWARD_TORTURE_BINARY"); binary != "" {
		return measured(m)
	}
	binary = filepath.Join(dir, "keyward")
	build := exec.Command("../tools/build.sh", binary) // as it is released
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building the program: %v\n%s", err, out)
		return 1
	}
	return measured(m)
}

func measured(m *testing.M) int {
	code := m.Run()
	bars.print()
	return code
}

// many is how often a generated test repeats.
func many(short, whole int) int {
	switch {
	case *count > 0:
		return *count
	case long:
		return whole
	}
	return short
}

// bars collects the rows of the table.
var bars table

type table struct {
	mu   sync.Mutex
	rows [][3]string
}

// row adds one: what must hold, what was measured, and whether the test has passed so far.
func row(t *testing.T, bar, figure string, args ...any) {
	t.Helper()
	result := "pass"
	if t.Failed() {
		result = "FAIL"
	}
	bars.add(bar, fmt.Sprintf(figure, args...), result)
}

// leftOut says loudly that a part was not run; on CI nothing may be left out.
func leftOut(t *testing.T, bar, why string) {
	t.Helper()
	if inCI {
		t.Fatalf("%s: %s", bar, why)
	}
	bars.add(bar, why, "NOT RUN")
	t.Skip("NOT RUN: " + bar + ": " + why)
}

func (b *table) add(bar, figure, result string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows = append(b.rows, [3]string{bar, figure, result})
}

func (b *table) print() {
	if len(b.rows) == 0 {
		return
	}
	all := append([][3]string{{"bar", "figure", "result"}, {}}, b.rows...)
	var width [3]int
	for _, r := range all {
		for i := range r {
			width[i] = max(width[i], len(r[i]))
		}
	}
	for i := range width {
		all[1][i] = strings.Repeat("-", width[i])
	}
	for _, r := range all {
		fmt.Printf("| %-*s | %-*s | %-*s |\n", width[0], r[0], width[1], r[1], width[2], r[2])
	}
}
