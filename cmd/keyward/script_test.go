package main

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain lets the test binary be the program: in scripts, keyward is a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(patient{m}, map[string]func(){"keyward": main})
}

// Most of these tests wait for other processes and for time to pass: more of them run at once than there are cores.
type patient struct{ m *testing.M }

func (p patient) Run() int {
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked {
		_ = flag.Set("test.parallel", "6")
	}
	// A program with the race detector in it sleeps for a second before it ends, and these tests run hundreds.
	if _, set := os.LookupEnv("GORACE"); !set {
		_ = os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
	return p.m.Run()
}

var isVariable = regexp.MustCompile(`^[A-Z][A-Z_]*=`)

// program is keyward as a process of its own. Args of the form NAME=VALUE are variables, as in a shell: t.Setenv would keep the test from
// running beside others.
func program(args ...string) *exec.Cmd {
	// What leaves tests out is none of the program's variables.
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KEYWARD_TEST_") })
	var words []string
	for _, a := range args {
		if isVariable.MatchString(a) {
			env = append(env, a)
		} else {
			words = append(words, a)
		}
	}
	cmd := exec.Command("keyward", words...)
	cmd.Env = env
	return cmd
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:  "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"code": exitsWith},
		Setup: func(e *testscript.Env) error {
			e.Setenv("GORACE", os.Getenv("GORACE")) // as patient sets it
			return nil
		},
	})
}

// exitsWith is "code N command…": the command ends with exit code N.
func exitsWith(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%v: exit code %d, want %d", args[1:], got, want)
	}
}
