package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyward/keyward/bench/report"
	"github.com/keyward/keyward/bench/role"
	"github.com/keyward/keyward/bench/soak"
)

func TestMain(m *testing.M) {
	role.Dispatch()
	os.Exit(m.Run())
}

func TestRunWritesTableResultAndPage(t *testing.T) {
	dir := t.TempDir()
	out := run(t, done, "--scenario", "assistant", "--rounds", "2", "--time", "50ms", "--out", dir)
	for _, want := range []string{"assistant c=16", "keyward hit", "requests/s"} {
		if !strings.Contains(out, want) {
			t.Errorf("the table has no %q:\n%s", want, out)
		}
	}
	r, err := report.Read(filepath.Join(dir, "latest.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Runs) != 4 || r.Machine.Cores < 1 || r.Machine.CPU == "" || r.Date.IsZero() {
		t.Errorf("%d runs on %+v at %v", len(r.Runs), r.Machine, r.Date)
	}
	page, err := os.ReadFile(filepath.Join(dir, "latest.html"))
	if err != nil || !bytes.Contains(page, []byte("assistant")) || bytes.Contains(page, []byte("http://")) && bytes.Contains(page, []byte("<script src")) {
		t.Errorf("the page: %v, %d bytes", err, len(page))
	}
	run(t, done, "compare", filepath.Join(dir, "latest.json"), filepath.Join(dir, "latest.json"))
}

func TestProfilesAreWritten(t *testing.T) {
	dir := t.TempDir()
	run(t, done, "--scenario", "assistant", "--rounds", "1", "--time", "50ms", "--profile", "--out", dir)
	files, _ := filepath.Glob(filepath.Join(dir, "assistant-*.prof"))
	if len(files) != 1 {
		t.Fatalf("%q", files)
	}
	if st, err := os.Stat(files[0]); err != nil || st.Size() == 0 {
		t.Errorf("%v %v", st, err)
	}
}

// A soak of some seconds has every kind of call and every fault. Others' tests run beside it: that a store is late is then no finding.
func TestSoakHasEveryCallAndEveryFault(t *testing.T) {
	dir := t.TempDir()
	var out bytes.Buffer
	code := execute(t.Context(), strings.Fields("soak --time 6s --orgs 150 --rate 120 --out "+dir), &out, &out)
	files, _ := filepath.Glob(filepath.Join(dir, "soak-*"))
	if len(files) != 3 {
		t.Fatalf("%q\n%s", files, out.String())
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var r soak.Report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if code != map[bool]int{true: done, false: failed}[r.Passed] {
		t.Errorf("code %d, passed %v", code, r.Passed)
	}
	for _, f := range r.Failures {
		if f.Outcome != "503 store_unavailable" && f.Outcome != "timeout" {
			t.Errorf("unexpected: %+v", f)
		}
	}
	if r.Delivered.Acknowledged == 0 || r.Delivered.Lost > 0 || len(r.Trouble) > 0 || r.Held > 0 {
		t.Errorf("%+v, %q, %d held\n%s", r.Delivered, r.Trouble, r.Held, out.String())
	}
	carried := map[string]bool{}
	for _, f := range r.Faults {
		carried[f.Name] = true
	}
	for _, want := range []string{"the provider resets", "PostgreSQL is away", "SQLite is held", "the app is down"} {
		if !carried[want] && os.Getenv("KEYWARD_TEST_NO_POSTGRES") != "1" {
			t.Errorf("%s: not carried out (%q)", want, r.Left)
		}
	}
	for _, c := range r.Calls {
		if c.Good == 0 {
			t.Errorf("%s: %+v", c.Kind, c)
		}
	}
	if len(r.Returned) == 0 || len(r.Samples) == 0 {
		t.Error("nothing was measured")
	}
	for i, want := range []string{"", "| sqlite | memory (RSS) |", "<polyline"} {
		if text, err := os.ReadFile(files[i]); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s has no %q: %v", files[i], want, err)
		}
	}
}

func TestRegressionFailsTheComparison(t *testing.T) {
	dir := t.TempDir()
	before, after := result(20, 100), result(30, 100)
	out := run(t, failed, "compare", put(t, dir, "before.json", before), put(t, dir, "after.json", after))
	if !strings.Contains(out, "WORSE") || !strings.Contains(out, "cpu") {
		t.Errorf("%s", out)
	}
	out = run(t, done, "compare", put(t, dir, "before.json", after), put(t, dir, "after.json", before))
	if !strings.Contains(out, "better") {
		t.Errorf("%s", out)
	}
}

func TestNoiseIsNoRegression(t *testing.T) {
	dir := t.TempDir()
	before, after := result(20, 100), result(20.3, 108)
	out := run(t, done, "compare", put(t, dir, "before.json", before), put(t, dir, "after.json", after))
	if !strings.Contains(out, "no regression") {
		t.Errorf("%s", out)
	}
}

func TestBadCommandLinesAreRefused(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--scenario nothing", `"nothing": there is no such scenario`},
		{"--rounds -1", "--rounds -1"},
		{"--time 1ms", "--time 1ms"},
		{"--fast", "unknown flag"},
		{"comparison", "there is only compare"},
		{"soak --time 1s", "--time 1s"},
		{"compare", "there is only compare"},
		{"compare /no/such.json", "no such file"},
	} {
		if out := run(t, usage, strings.Fields(c.args)...); !strings.Contains(out, c.want) {
			t.Errorf("%s\ngot  %s\nwant %s", c.args, out, c.want)
		}
	}
}

func TestHelpNamesTheScenarios(t *testing.T) {
	if out := run(t, done, "--help"); !strings.Contains(out, "websocket") || !strings.Contains(out, "compare BASE") {
		t.Error(out)
	}
}

func run(t *testing.T, want int, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	if code := execute(t.Context(), args, &out, &out); code != want {
		t.Errorf("bench %s: %d, not %d\n%s", strings.Join(args, " "), code, want, out.String())
	}
	return out.String()
}

// result is one whose rounds differ by little.
func result(cpu, p50 float64) *report.Result {
	r := &report.Result{Commit: "0123456789ab"}
	run := report.Run{Scenario: "hit", Peer: "keyward", Concurrency: 16}
	for i := range 5 {
		by := 1 + float64(i)/100
		run.Rounds = append(run.Rounds, report.Round{Requests: 1000, Seconds: 1, Latency: report.Quantiles{P50: p50 * by, P99: 4 * p50 * by}, CPUMicros: cpu * by, AllocsPerRequest: 3, PeakRSS: 30 << 20})
	}
	r.Runs = append(r.Runs, run)
	return r
}

func put(t *testing.T, dir, name string, r *report.Result) string {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
