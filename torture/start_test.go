package torture

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestAReleaseStartsOnce: it is built with what others start anew for (TestSignalsSaveNoSecrets shows that it holds), and no thread of it can
// gain a privilege.
func TestAReleaseStartsOnce(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: the environment of a process that is not dumpable is root's to read")
	}
	s := startSidecar(t, nil)
	proc := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	environ, err := os.ReadFile(proc + "environ")
	if err != nil || bytes.Contains(environ, []byte("clobberfree=")) {
		t.Errorf("it was started anew, or that cannot be told: %v", err)
	}
	threads, err := filepath.Glob(proc + "task/*/status")
	if err != nil || len(threads) < 2 {
		t.Fatalf("%d threads: %v", len(threads), err)
	}
	for _, path := range threads {
		if status, err := os.ReadFile(path); err != nil || !bytes.Contains(status, []byte("NoNewPrivs:\t1\n")) {
			t.Errorf("%s may gain privileges: %v", path, err)
		}
	}
}
