package seal

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The kernel shows the environment that a process was started with, to the same user and to root, whatever the process has unset since.
// The text of a key is gone from there, and from everywhere else in memory: from the Go runtime's copy, from the buffers of reading it.
// The process is a program of its own, static as Keyward is: a dynamic loader and the race detector keep copies that Keyward never has.
func TestNothingOfTheTextStaysInMemory(t *testing.T) {
	program := filepath.Join(t.TempDir(), "hold")
	build := exec.Command("go", "build", "-o", program, "./testdata/hold")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the program to look into: %v\n%s", err, out)
	}
	raw := make([]byte, keySize)
	_, _ = rand.Read(raw)
	b16, b64 := hex.EncodeToString(raw), base64.StdEncoding.EncodeToString(raw)
	keyset := keysetJSON(`{"id":"a","key":"`+b64+`","state":"primary"}`, keyJSON("b", "active", 7))
	for name, tc := range map[string]struct{ source, value string }{
		"hex in the environment":    {"env:SEAL_TEST_KEY", b16},
		"base64 in the environment": {"env:SEAL_TEST_KEY", b64},
		"keyset in the environment": {"env:SEAL_TEST_KEY", keyset},
		"keyset in a file":          {file(t, keyset, 0o600), "unused"},
	} {
		t.Run(name, func(t *testing.T) {
			pid := start(t, program, tc.source, "BEFORE=here", "SEAL_TEST_KEY="+tc.value, "SEAL_TEST_KEY_NOT=other", "AFTER=here")
			environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			if err != nil {
				t.Fatal(err)
			}
			for _, kept := range []string{"BEFORE=here", "SEAL_TEST_KEY_NOT=other", "AFTER=here"} {
				if !bytes.Contains(environ, []byte(kept)) {
					t.Errorf("%s is missing in %q", kept, environ)
				}
			}
			memory := writableMemory(t, pid)
			if !bytes.Contains(memory, []byte("BEFORE=here")) || !bytes.Contains(memory, raw) {
				t.Fatal("the test does not see the process's memory")
			}
			for _, text := range []string{b16[:24], b64[:24], b16[40:], b64[24:]} {
				if bytes.Contains(environ, []byte(text)) {
					t.Errorf("/proc/PID/environ shows the key: %q", environ)
				}
				if n := bytes.Count(memory, []byte(text)); n != 0 {
					t.Errorf("%q, a part of the key's text, is %d times in memory", text, n)
				}
			}
		})
	}
}

// start runs the program until the test ends, and returns its pid once it has loaded the key source.
func start(t *testing.T, program, source string, env ...string) int {
	t.Helper()
	cmd := exec.Command(program, source)
	cmd.Env = env
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "loaded\n" {
		t.Fatalf("it says %q", line)
	}
	return cmd.Process.Pid
}

// writableMemory reads all that a child of this process may write to, its stacks and its heap among them.
func writableMemory(t *testing.T, pid int) []byte {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mem.Close() }()
	var all []byte
	for line := range strings.Lines(string(maps)) {
		var start, end int64
		var perm string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &perm); err != nil || !strings.HasPrefix(perm, "rw") {
			continue
		}
		part := make([]byte, end-start)
		n, _ := mem.ReadAt(part, start)
		all = append(all, part[:n]...)
	}
	return all
}

func TestOtherVariablesStay(t *testing.T) {
	t.Setenv("SEAL_TEST_KEY", strings.Repeat("ab", 32))
	t.Setenv("SEAL_TEST_KEY_2", "stays")
	if _, err := Load("env:SEAL_TEST_KEY"); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("SEAL_TEST_KEY_2") != "stays" {
		t.Error("another variable was taken, too")
	}
	if path := os.Getenv("PATH"); path == "" || !filepath.IsAbs(strings.Split(path, ":")[0]) {
		t.Errorf("PATH is %q", path)
	}
}
