package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/pflag"

	"github.com/keyward/keyward/bench/peer"
	"github.com/keyward/keyward/bench/report"
	"github.com/keyward/keyward/bench/scenario"
)

// options are what the command line says.
type options struct {
	quick     bool
	scenarios []string
	peers     []string
	rounds    int
	time      time.Duration
	binary    string
	out       string
	profile   bool
	orgs      int
	rate      float64
	faults    []string
}

func (o *options) flags(out io.Writer) *pflag.FlagSet {
	var names []string
	for _, s := range scenario.All {
		names = append(names, s.Name)
	}
	f := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.SortFlags = false
	f.BoolVar(&o.quick, "quick", false, "fewer and shorter rounds, fewer orgs: two minutes")
	f.StringSliceVar(&o.scenarios, "scenario", nil, "only these: "+strings.Join(names, ", "))
	f.StringSliceVar(&o.peers, "peer", nil, "only these peers, besides keyward and direct")
	f.IntVar(&o.rounds, "rounds", 0, "rounds of each contender (9; quick: 7)")
	f.DurationVar(&o.time, "time", 0, "of a round (1s; quick: 150ms); of a soak, in all (1h)")
	f.StringVar(&o.binary, "keyward", "", "the program to measure; without it is built from this source")
	f.StringVar(&o.out, "out", "bench/out", "folder of latest.json and latest.html")
	f.BoolVar(&o.profile, "profile", false, "write CPU profiles of the sidecars into the folder of --out; the figures are then those of a profiled program")
	f.IntVar(&o.orgs, "orgs", 100_000, "of a soak: how many are in each store")
	f.Float64Var(&o.rate, "rate", 300, "of a soak: calls per second")
	f.StringArrayVar(&o.faults, "fault", nil, "of a soak: only this one, repeatable; a report has their names")
	f.Usage = func() {
		fmt.Fprintf(out, "usage: bench [flags]\n       bench compare BASE [RESULT]\n       bench soak [flags]\n\n%s\n  bench --quick --scenario hit,webhook\n  bench compare bench/reference/2core.json\n  bench soak --time 10m\n", f.FlagUsages())
	}
	return f
}

// settle fills in what was not said and checks what was.
func (o *options) settle() ([]scenario.Scenario, error) {
	if o.rounds == 0 {
		o.rounds = 9
		if o.quick {
			o.rounds = 7
		}
	}
	if o.time == 0 {
		o.time = time.Second
		if o.quick {
			o.time = 150 * time.Millisecond
		}
	}
	if o.rounds < 1 || o.time < 10*time.Millisecond {
		return nil, fmt.Errorf("--rounds %d, --time %v: at least 1 and 10ms", o.rounds, o.time)
	}
	if len(o.scenarios) == 0 {
		return scenario.All, nil
	}
	var chosen []scenario.Scenario
	for _, name := range o.scenarios {
		i := slices.IndexFunc(scenario.All, func(s scenario.Scenario) bool { return s.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("--scenario %q: there is no such scenario; see --help", name)
		}
		chosen = append(chosen, scenario.All[i])
	}
	return chosen, nil
}

// measure runs the scenarios. What one of them could not do is said, and the others go on.
func measure(ctx context.Context, o options, out, progress io.Writer) (code int, err error) {
	chosen, err := o.settle()
	if err != nil {
		return usage, err
	}
	dir, err := scratch()
	if err != nil {
		return failed, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary, err := o.program(ctx, dir)
	if err != nil {
		return failed, err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return failed, err
	}
	result := report.Result{Machine: machine(), Commit: commit(ctx), Date: time.Now().UTC().Truncate(time.Second)}
	show := newProgress(progress)
	left := func(format string, args ...any) {
		result.Left = append(result.Left, fmt.Sprintf(format, args...))
		show.line("left out: " + result.Left[len(result.Left)-1])
	}
	e := &scenario.Env{
		Binary: binary, Dir: dir, Keep: filepath.Join(o.out, "stores"), Rounds: o.rounds, Time: o.time,
		Orgs: 100_000, Misses: 2000,
		Say: show.say, Left: left,
		Done: func(r report.Run) {
			result.Runs = append(result.Runs, r)
			show.line(result.Line(r))
		},
	}
	if o.profile {
		if e.Profiles, err = filepath.Abs(o.out); err != nil {
			return failed, err
		}
	}
	if o.quick {
		e.Orgs, e.Misses = 10_000, 500
	}
	e.Peers, err = o.choose(binary, left)
	if err != nil {
		return usage, err
	}
	code = done
	for _, s := range chosen {
		begun := time.Now()
		if err := s.Run(ctx, e); err != nil {
			if ctx.Err() != nil {
				return failed, ctx.Err()
			}
			left("%v", err)
			code = failed
		}
		show.line(fmt.Sprintf("%-10s took %v", s.Name, time.Since(begun).Round(time.Second/10)))
	}
	show.clear()
	return code, errors.Join(result.WriteTable(out), result.WriteMarks(out), write(o.out, &result), show.err)
}

func (o *options) choose(binary string, left func(string, ...any)) ([]peer.Peer, error) {
	all, missing := peer.All(binary)
	for _, m := range missing {
		left("%s", m)
	}
	if len(o.peers) == 0 {
		return all, nil
	}
	var chosen []peer.Peer
	for _, p := range all {
		if slices.Contains(o.peers, p.Name()) || p.Name() == "direct" {
			chosen = append(chosen, p)
		}
	}
	for _, name := range o.peers {
		if !slices.ContainsFunc(all, func(p peer.Peer) bool { return p.Name() == name }) {
			return nil, fmt.Errorf("--peer %q: there is no such peer here", name)
		}
	}
	return chosen, nil
}

// scratch is a folder with a short name, in memory where there is such a place: sockets have room for few bytes, and a disk that is waited for
// is not what is measured.
func scratch() (string, error) {
	base := ""
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "kwb")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o700)
}

// program is what is measured: the named one, or the one built as a release is.
func (o *options) program(ctx context.Context, dir string) (string, error) {
	if o.binary != "" {
		return filepath.Abs(o.binary)
	}
	bin := filepath.Join(dir, "keyward")
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module: %w", err)
	}
	build := filepath.Join(filepath.Dir(string(bytes.TrimSpace(mod))), "tools", "build.sh")
	if out, err := exec.CommandContext(ctx, build, bin).CombinedOutput(); err != nil {
		return "", fmt.Errorf("building keyward: %w\n%s", err, out)
	}
	return bin, nil
}

func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*").Output()
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(out))
}

// write keeps the result as JSON and as a page.
func write(dir string, r *report.Result) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	var page bytes.Buffer
	if err := r.WritePage(&page); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "latest.json"), append(b, '\n'), 0o644),
		os.WriteFile(filepath.Join(dir, "latest.html"), page.Bytes(), 0o644))
}

// A progressLine is one line that is written over, where the output is a terminal; elsewhere only finished runs are lines.
type progressLine struct {
	w        io.Writer
	terminal bool
	err      error
}

func newProgress(w io.Writer) *progressLine {
	f, ok := w.(*os.File)
	return &progressLine{w: w, terminal: ok && isatty.IsTerminal(f.Fd())}
}

func (p *progressLine) say(format string, args ...any) {
	if p.terminal {
		p.print("\r\x1b[K" + fmt.Sprintf(format, args...))
	}
}

func (p *progressLine) line(s string) {
	p.clear()
	p.print(s + "\n")
}

func (p *progressLine) clear() {
	if p.terminal {
		p.print("\r\x1b[K")
	}
}

func (p *progressLine) print(s string) {
	if _, err := io.WriteString(p.w, s); err != nil && p.err == nil {
		p.err = err
	}
}
