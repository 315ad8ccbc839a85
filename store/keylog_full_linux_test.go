package store

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

const inNamespace = "KEYWARD_TEST_IN_NAMESPACE"

// apart runs a test once more, in a child that may mount file systems which nobody else sees and which end with it; there it returns true.
func apart(t *testing.T) bool {
	if os.Getenv(inNamespace) != "" {
		return true
	}
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = endsWithUs()
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if os.Getenv("CI") == "" && (errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.ENOSPC)) { // as which a limit of namespaces shows
		t.Skipf("NOT TESTED ON A FULL DISK: neither root's rights nor a namespace of its own to mount a file system in: %v", err)
	}
	if t.Logf("%s", out); err != nil {
		t.Fatal(err)
	}
	return false
}

// A smallDisk is a file system of its own, with room for a store and little else.
type smallDisk struct {
	dir  string
	mu   sync.Mutex
	fill *os.File // what takes all the room
}

func newSmallDisk(t *testing.T) *smallDisk {
	t.Helper()
	s := &smallDisk{dir: t.TempDir()}
	ok(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	ok(t, syscall.Mount("keyward-test", s.dir, "tmpfs", 0, "size=6m"))
	t.Cleanup(func() { _ = syscall.Unmount(s.dir, syscall.MNT_DETACH) })
	var err error
	s.fill, err = os.Create(filepath.Join(s.dir, "fill"))
	ok(t, err)
	t.Cleanup(func() { _ = s.fill.Close() })
	return s
}

func (s *smallDisk) url() string { return inFolder(s.dir) }

// full leaves not a page.
func (s *smallDisk) full() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for page := make([]byte, 4096); ; {
		if _, err := s.fill.Write(page); errors.Is(err, syscall.ENOSPC) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// free leaves so many pages.
func (s *smallDisk) free(pages int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, err := s.fill.Seek(0, io.SeekEnd)
	if err == nil {
		at, err = s.fill.Seek(max(0, at-int64(pages)*4096), io.SeekStart)
	}
	if err == nil {
		err = s.fill.Truncate(at)
	}
	return err
}

// killed is the store as it would be found if everybody who has it open was killed now, on a disk that has room.
func (s *smallDisk) killed(t *testing.T) (url string) {
	t.Helper()
	dir := t.TempDir()
	ok(t, filepath.WalkDir(s.dir, func(path string, e os.DirEntry, err error) error {
		name, _ := filepath.Rel(s.dir, path)
		switch {
		case err != nil || name == "fill" || name == "." || filepath.Ext(name) == ".db-shm":
			return err
		case e.IsDir():
			return os.Mkdir(filepath.Join(dir, name), 0o700)
		}
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		return err
	}))
	return inFolder(dir)
}

// some is a number from 0 below n.
func some(n int) int { return rand.IntN(n) }
