// Package memdir is a folder in memory for a test's files, where the machine has such a place: the store syncs every write, and a test that
// waits for a slow disk learns nothing of Keyward.
package memdir

import (
	"os"
	"testing"
)

// New is a folder that ends with the test. Its name is short: a socket's path has room for about a hundred bytes, which t.TempDir may take.
func New(t testing.TB) string {
	t.Helper()
	base := ""
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() {
		base = "/dev/shm"
	}
	dir, err := os.MkdirTemp(base, "kw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
