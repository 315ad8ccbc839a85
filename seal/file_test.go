package seal

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestReplaceFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys.json")
	if err := ReplaceFile(path, []byte("x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("replacing what is not there: %v", err)
	}
	if err := CreateFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o400); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link.json")
	if err := os.Symlink("keys.json", link); err != nil {
		t.Fatal(err)
	}
	if err := ReplaceFile(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	text, err := ReadFile(path)
	st, _ := os.Lstat(link)
	if string(text) != "new" || err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Errorf("%q, %v, link %v", text, err, st.Mode())
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o400 {
		t.Errorf("mode %v", st.Mode())
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".keys-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A key file that root changes is still the sidecar's to read.
func TestReplaceFileKeepsTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: giving a file to another user needs root")
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := CreateFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 1234, 2345); err != nil {
		t.Fatal(err)
	}
	if err := ReplaceFile(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if uid, gid := owner(t, path); uid != 1234 || gid != 2345 {
		t.Errorf("it belongs to %d:%d", uid, gid)
	}
}

func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	order := make(chan string, 2)
	unlock, err := LockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		unlock, err := LockFile(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer unlock()
		order <- "second"
	})
	time.Sleep(100 * time.Millisecond)
	order <- "first"
	unlock()
	wg.Wait()
	if first := <-order; first != "first" {
		t.Errorf("the %s to come was first", first)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func owner(t *testing.T, path string) (uid, gid uint32) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	s := st.Sys().(*syscall.Stat_t)
	return s.Uid, s.Gid
}
