package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/provider"
)

// completions are lines as typed up to the TAB, and what is then offered: some of it, and some that is not.
var completions = []struct {
	line            string
	offers, refuses []string
}{
	{"keyward cre", []string{"credentials"}, []string{"serve"}},
	{"keyward ", []string{"serve", "doctor", "completion", "keys", "migrate", "version"}, []string{"generate"}},
	{"keyward keys ", []string{"generate", "list", "add", "rotate", "retire", "rewrap"}, []string{"up", "serve"}},
	{"keyward keys ro", []string{"rotate"}, []string{"list"}},
	{"keyward serve --st", []string{"--store", "--store-file", "--strict-org"}, []string{"--state", "--listen"}},
	{"keyward doctor --sk", []string{"--skip-upstreams"}, nil},
	{"keyward serve --log-level ", []string{"trace", "debug", "info", "warn", "error"}, []string{"--listen"}},
	{"keyward serve --listen 127.0.0.1:1 --log-format ", []string{"json", "console"}, nil},
	{"keyward credentials set --provider ", provider.All.Names(), []string{"--org"}},
	{"keyward credentials set --provider re", []string{"resend"}, []string{"twilio"}},
	{"keyward webhooks list --state ", []string{"pending", "delivered", "dead"}, nil},
	{"keyward admin-tokens add --role ", []string{"operator", "org"}, []string{"inbound"}},
	{"keyward assistants ensure --role ", []string{"inbound", "outbound"}, []string{"operator"}},
	{"keyward migrate --", []string{"--store", "--data-dir"}, []string{"--yes", "--listen"}},
	{"keyward migrate down --", []string{"--yes"}, nil},
	{"keyward ca --", []string{"--org", "--proxy"}, []string{"--now", "--listen"}},
	{"keyward ca rotate --", []string{"--now"}, []string{"--proxy"}},
	{"keyward completion ", []string{"bash", "zsh", "fish"}, nil},
}

// completes asks a real shell about each line. ask returns the words that it offers.
func completes(t *testing.T, shell string, ask func(script, line string) *exec.Cmd) {
	path, err := exec.LookPath(shell)
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("%s is not installed: tools/testdeps.sh installs it", shell)
		}
		t.Skipf("%s IS NOT INSTALLED: its completion was not tested; tools/testdeps.sh installs it", shell)
	}
	r := runCommand("", "completion", shell)
	if r.code != exitDone {
		t.Fatalf("%+v", r)
	}
	script := writeFile(t, "keyward."+shell, r.out)
	if out, err := exec.Command(path, "-n", script).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	for _, tc := range completions {
		cmd := ask(script, tc.line)
		cmd.Dir = t.TempDir()
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%q: %v: %s", tc.line, err, out)
			continue
		}
		offered := strings.Split(strings.TrimSpace(string(out)), "\n")
		for _, want := range tc.offers {
			if !slices.Contains(offered, want) {
				t.Errorf("%q does not offer %s in %q", tc.line, want, offered)
			}
		}
		for _, not := range tc.refuses {
			if slices.Contains(offered, not) {
				t.Errorf("%q offers %s", tc.line, not)
			}
		}
	}
}

// bash is told of a line as readline tells it.
func TestCompletionInBash(t *testing.T) {
	t.Parallel()
	completes(t, "bash", func(script, line string) *exec.Cmd {
		return exec.Command("bash", "--norc", "-c", `set -eu; source "$1"; complete -p keyward | grep -q _keyward
			read -ra COMP_WORDS <<<"$2"; case $2 in *' ') COMP_WORDS+=('') ;; esac
			COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE=$2 COMP_POINT=${#2}
			_keyward keyward "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
			[ ${#COMPREPLY[@]} -eq 0 ] || printf '%s\n' "${COMPREPLY[@]}"`, "bash", script, line)
	})
}

// Files are completed by bash as its own commands complete them, blanks included, and --flag=value as --flag value.
func TestCompletionOfFilesInBash(t *testing.T) {
	t.Parallel()
	r := runCommand("", "completion", "bash")
	script := writeFile(t, "keyward.bash", r.out)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a file.yaml"), "")
	mkdir(t, filepath.Join(dir, "a folder"))
	for _, tc := range []struct{ words, want string }{
		{`keyward serve --config a`, "a file.yaml\na folder\n"},
		{`keyward serve --data-dir a`, "a folder\n"},
		{`keyward serve --config = a`, "a file.yaml\na folder\n"},
		{`keyward serve --log-level = de`, "debug\n"},
		{`keyward serve --listen 1`, ""},
	} {
		cmd := exec.Command("bash", "--norc", "-c", `source "$1"; read -ra COMP_WORDS <<<"$2"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
			_keyward; [ ${#COMPREPLY[@]} -eq 0 ] || printf '%s\n' "${COMPREPLY[@]}" | sort`, "bash", script, tc.words)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != tc.want {
			t.Errorf("%s: %v: %q, want %q", tc.words, err, out, tc.want)
		}
	}
}

// zsh's own functions for offering words print them here.
func TestCompletionInZsh(t *testing.T) {
	t.Parallel()
	completes(t, "zsh", func(script, line string) *exec.Cmd {
		return exec.Command("zsh", "-f", "-c", `compdef() {}; _files() {}; _message() {}
			_describe() { local w; for w in "${(@P)2}"; do w=${w%%:*}; [[ $w == $words[CURRENT]* ]] && print -r -- $w; done; true }
			compadd() { local w; shift; for w; do [[ $w == $words[CURRENT]* ]] && print -r -- $w; done; true }
			script=$1 line=$2; source $script
			words=(${=line}); [[ $line == *' ' ]] && words+=(''); CURRENT=${#words}
			_keyward`, "zsh", script, line)
	})
}

func TestCompletionInFish(t *testing.T) {
	t.Parallel()
	completes(t, "fish", func(script, line string) *exec.Cmd {
		return exec.Command("fish", "--no-config", "-c", `source $argv[1]; complete -C $argv[2] | string split -f 1 \t; true`, script, line)
	})
}

// Each script knows every command and every flag of each.
func TestCompletionKnowsEverything(t *testing.T) {
	for _, shell := range strings.Fields(shellNames) {
		out := runCommand("", "completion", shell).out
		for _, c := range tables() {
			for _, word := range strings.Fields(c.name) {
				if !strings.Contains(out, word) {
					t.Errorf("%s: nothing of %s", shell, c.name)
				}
			}
		}
	}
	seen := 0
	for _, c := range tables() {
		if c.flags.HasFlags() {
			seen++
		}
		if c.name != "serve" && c.flags.args == nil && strings.HasSuffix(c.name, " revoke") {
			t.Errorf("%s: its operands were not taken down", c.name)
		}
	}
	if seen < len(commands())-1 { // completion has none
		t.Errorf("only %d of %d commands have flags", seen, len(commands()))
	}
	isFailure(t, runCommand("", "completion", "tcsh"), exitUsage, "bash, zsh and fish")
}
