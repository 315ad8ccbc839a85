// Package memdir is a folder in memory for a test's files, where the machine has such a place: the store syncs every write, and a test that
// waits for a slow disk learns nothing of Keyward.
package memdir

import (
	"os"
	"path/filepath"
	"sync"
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

// Filled is New for folders that all begin with the same files: what takes long to make is made once in a process, by the first test that asks,
// and copied.
func Filled(fill func(t testing.TB, dir string)) func(testing.TB) string {
	var mu sync.Mutex
	var model map[string][]byte
	return func(t testing.TB) string {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if model == nil {
			dir := New(t)
			fill(t, dir)
			model = files(t, dir)
		}
		dir := New(t)
		for name, content := range model {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
}

func files(t testing.TB, dir string) map[string][]byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]byte{}
	for _, e := range entries {
		if all[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
