package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestHardened asks the kernel what the running process gives away.
func TestHardened(t *testing.T) {
	t.Parallel()
	key := hex.EncodeToString(bytes.Repeat([]byte{0xc5}, 32))
	s := serve(t, shortDir(t), "HARDEN_TEST_KEY="+key, "--key", "env:HARDEN_TEST_KEY")
	proc := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	for file, want := range map[string]string{
		"status":          "NoNewPrivs:\t1",
		"limits":          "Max core file size        0                    0",
		"coredump_filter": "00000000",
		"environ":         "clobberfree=1",
	} {
		b, err := os.ReadFile(proc + file)
		if err != nil || !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s lacks %q: %v", file, want, err)
		}
		if bytes.Contains(b, []byte(key[:16])) {
			t.Errorf("%s holds the key", file)
		}
	}
	for path, mode := range map[string]os.FileMode{
		"": 0o700, "caller.sock": 0o660, "admin.sock": 0o600, "data": 0o700, "data/keyward.db": 0o600,
	} {
		if st, err := os.Stat(filepath.Join(s.dir, path)); err != nil || st.Mode().Perm() != mode {
			t.Errorf("%q: mode %v, %v; want %v", path, st.Mode().Perm(), err, mode)
		}
	}
}
