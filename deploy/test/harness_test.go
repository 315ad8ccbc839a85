package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// repo is where the project stands.
const repo = "../.."

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == sandboxWord {
		sandbox(os.Args[2:])
	}
	code := m.Run()
	if builtIn != "" {
		_ = os.RemoveAll(builtIn)
	}
	os.Exit(code)
}

// program is the built program, readable for every user.
func program(t *testing.T) string {
	t.Helper()
	bin, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

var (
	builtIn string
	built   = sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "kwdeploy")
		if err != nil {
			return "", err
		}
		builtIn = dir
		if err := os.Chmod(dir, 0o755); err != nil {
			return "", err
		}
		bin := filepath.Join(dir, "keyward")
		build := exec.Command(filepath.Join(repo, "tools", "build.sh"), bin)
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building the program: %w\n%s", err, out)
		}
		return bin, os.Chmod(bin, 0o755)
	})
)

// An invocation is one way in which something in deploy/ starts the program.
type invocation struct {
	where string            // for messages
	args  []string          // behind "keyward"
	env   map[string]string // of the KEYWARD_ kind
}

// accepted fails the test unless the program knows every flag, value and variable. What is typed is run: of serve the configuration is
// tested, of other commands only that the flags are theirs.
func (i invocation) accepted(t *testing.T) {
	t.Helper()
	if len(i.args) == 0 {
		t.Errorf("%s: no command of keyward", i.where)
		return
	}
	bin := program(t)
	cmd := exec.Command(bin, i.args...)
	words := i.args[:1] // of the command
	if i.args[0] == "serve" {
		cmd.Args = append(cmd.Args, "--config-test")
	} else {
		cmd.Args = append(cmd.Args, "--help")
	}
	if len(i.args) > 1 && !strings.HasPrefix(i.args[1], "-") {
		words = i.args[:2]
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	known := knownFlags(t, words...)
	for name, value := range i.env {
		cmd.Env = append(cmd.Env, name+"="+value)
		flag := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "KEYWARD_")), "_", "-")
		if !slices.Contains(known, flag) && !slices.ContainsFunc(i.args, func(a string) bool { return strings.HasSuffix(a, "env:"+name) }) {
			t.Errorf("%s: %s is no flag of keyward %s", i.where, name, strings.Join(words, " "))
		}
	}
	for _, a := range i.args[1:] { // --help does not say what it ignored
		name, _, _ := strings.Cut(strings.TrimPrefix(a, "--"), "=")
		if strings.HasPrefix(a, "--") && !slices.Contains(known, name) {
			t.Errorf("%s: %s is no flag of keyward %s", i.where, a, strings.Join(words, " "))
		}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: keyward %s: %v\n%s", i.where, strings.Join(i.args, " "), err, out)
	}
}

// knownFlags are those that the help of a command lists.
func knownFlags(t *testing.T, command ...string) []string {
	t.Helper()
	out, err := exec.Command(program(t), append(slices.Clone(command), "--help")...).CombinedOutput()
	if err != nil {
		t.Fatalf("keyward %s --help: %v\n%s", command, err, out)
	}
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^\s+--([a-z-]+)`).FindAllStringSubmatch(string(out), -1) {
		names = append(names, m[1])
	}
	if len(names) == 0 {
		t.Fatalf("keyward %s --help lists no flag", command)
	}
	return names
}

// needs leaves the test out, loudly, where a tool is missing; in CI that fails.
func needs(t *testing.T, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	switch {
	case err == nil:
		return path
	case os.Getenv("CI") != "":
		t.Fatalf("%s is missing: not in CI", tool)
	}
	t.Skipf("%s IS MISSING: what it would find is NOT TESTED here", tool)
	return ""
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
