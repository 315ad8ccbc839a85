package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/keyward/keyward/internal/memdir"
)

// TestHardened asks the kernel what the running process gives away.
func TestHardened(t *testing.T) {
	t.Parallel()
	key := hex.EncodeToString(bytes.Repeat([]byte{0xc5}, 32))
	s := serve(t, memdir.New(t), "HARDEN_TEST_KEY="+key, "--key", "env:HARDEN_TEST_KEY")
	proc := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	for file, want := range map[string]string{
		"status":          "NoNewPrivs:\t1",
		"limits":          "Max core file size        0                    0",
		"coredump_filter": "00000000",
		"environ":         "GODEBUG=clobberfree=1,asyncpreemptoff=1",
	} {
		b, err := os.ReadFile(proc + file)
		if file == "environ" && os.Geteuid() != 0 {
			if !errors.Is(err, fs.ErrPermission) { // not even to who runs it
				t.Errorf("%s can be read: %v", file, err)
			}
			continue
		}
		if err != nil || !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s lacks %q: %v", file, want, err)
		}
		if bytes.Contains(b, []byte(key[:16])) {
			t.Errorf("%s holds the key", file)
		}
	}
	if ignored := ignoredSignals(t, proc+"status"); ignored>>(syscall.SIGPIPE-1)&1 == 0 {
		t.Errorf("a write to a peer that has gone is a signal: ignored are %#x", ignored)
	}
	for path, mode := range map[string]os.FileMode{
		"": 0o700, "caller.sock": 0o660, "admin.sock": 0o600, "data": 0o700, "data/keyward.db": 0o600,
	} {
		if st, err := os.Stat(filepath.Join(s.dir, path)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%q: mode %v, %v; want %v", path, st.Mode().Perm(), err, mode)
		}
	}
}

// An operator's own runtime settings take nothing else away.
func TestHardenedWithOnesOwnRuntimeSettings(t *testing.T) {
	t.Parallel()
	s := serve(t, memdir.New(t), "GODEBUG=clobberfree=0,asyncpreemptoff=0")
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil || !bytes.Contains(b, []byte("NoNewPrivs:\t1\n")) {
		t.Errorf("it may gain privileges: %v", err)
	}
}

// ignoredSignals is the mask of signals that the process ignores, SIGHUP its lowest bit.
func ignoredSignals(t *testing.T, status string) (mask uint64) {
	t.Helper()
	b, err := os.ReadFile(status)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := bytes.Cut(b, []byte("SigIgn:"))
	if _, err := fmt.Sscanf(string(after), "%x", &mask); err != nil {
		t.Fatalf("%s names no ignored signals: %v", status, err)
	}
	return mask
}

// TestReleasesAreBuiltWithTheRuntimeSettings: of one that is not, each start takes twice as long.
func TestReleasesAreBuiltWithTheRuntimeSettings(t *testing.T) {
	script, err := os.ReadFile("../../tools/build.sh")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nsettings=" + strings.Join(runtimeSettings, ",") + "\n", "-X runtime.godebugDefault=$settings -X main.builtWith=$settings"} {
		if !bytes.Contains(script, []byte(want)) {
			t.Errorf("tools/build.sh lacks %q", want)
		}
	}
}

// TestTheRuntimeReadsWhatTheLinkerSets: the name that the settings go by is the runtime's own, and the linker says nothing of one that is no more.
func TestTheRuntimeReadsWhatTheLinkerSets(t *testing.T) {
	t.Parallel()
	for settings, want := range map[string]string{strings.Join(runtimeSettings, ","): "true", "": "false"} {
		run := exec.Command("go", "run", "-trimpath", "-ldflags", "-X runtime.godebugDefault="+settings, "./testdata/clobbered")
		run.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := run.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("built with %q: %v: %s, want %s", settings, err, out, want)
		}
	}
}

func TestOperatorsRuntimeSettingsStand(t *testing.T) {
	for godebug, want := range map[string]string{
		"":                                "clobberfree=1,asyncpreemptoff=1",
		"gctrace=1":                       "gctrace=1,clobberfree=1,asyncpreemptoff=1",
		"clobberfree=0":                   "clobberfree=0,asyncpreemptoff=1",
		"asyncpreemptoff=0,clobberfree=1": "asyncpreemptoff=0,clobberfree=1",
	} {
		got, complete := withRuntimeSettings(godebug)
		if got != want || complete != (got == godebug) {
			t.Errorf("GODEBUG=%s becomes %s, complete %v; want %s", godebug, got, complete, want)
		}
		if again, complete := withRuntimeSettings(got); again != got || !complete {
			t.Errorf("%s is not complete: the program would start anew for ever", got)
		}
	}
}
