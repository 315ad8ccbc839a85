package ca

import (
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// as does something as another user: of the thread alone the effective uid is changed, and with it what the kernel lets it read.
func as(t *testing.T, uid int, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); e != 0 {
			t.Errorf("becoming uid %d: %v", uid, e)
			return
		}
		do()
	}()
	<-done
}

// A key that root has changed is still the sidecar's to read, whoever that is; and one that an earlier rotation took from it is again.
func TestARotationByRootIsTheSidecarsToRead(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: giving a file to another user needs root")
	}
	const sidecar, group = 4321, 5432
	top, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(top) })
	dir := filepath.Join(top, "data")
	for _, err := range []error{os.Chmod(top, 0o711), os.Mkdir(dir, 0o700), os.Chown(dir, sidecar, group)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	a, err := Generate([]string{"api.resend.com"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	as(t, sidecar, func() {
		if err := a.Save(dir); err != nil {
			t.Error(err)
		}
	})
	rotate := func() {
		t.Helper()
		old, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		next, err := old.Rotate([]string{"api.resend.com"}, time.Now(), true)
		if err != nil {
			t.Fatal(err)
		}
		if err := next.Save(dir); err != nil {
			t.Fatal(err)
		}
		as(t, sidecar, func() {
			if got, err := Load(dir); err != nil || !got.Root().Equal(next.Root()) {
				t.Errorf("the sidecar reads the new CA: %v", err)
			}
		})
		st, err := os.Stat(filepath.Join(dir, KeyFile))
		if err != nil {
			t.Fatal(err)
		}
		if owner := st.Sys().(*syscall.Stat_t); owner.Uid != sidecar || st.Mode().Perm() != 0o600 {
			t.Errorf("the key is uid %d's, mode %v", owner.Uid, st.Mode())
		}
	}
	rotate()
	if err := os.Chown(filepath.Join(dir, KeyFile), 0, 0); err != nil {
		t.Fatal(err)
	}
	rotate()
	// Who may not give it back says so, and leaves what is there.
	if err := os.Chown(filepath.Join(dir, KeyFile), sidecar+1, group); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	as(t, sidecar, func() {
		if err := a.Save(dir); err == nil {
			t.Error("a key of another user is replaced by one that it cannot read")
		}
	})
	if after, err := os.ReadFile(filepath.Join(dir, KeyFile)); err != nil || string(after) != string(before) {
		t.Errorf("it is changed: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "."+KeyFile+"-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// What a link in the sidecar's folder leads to is not the sidecar's: root's rotation has that CA vouch for the new key, which the sidecar must
// not be given then, whatever stands in the link's place by the time that the key is written.
func TestARotationByRootGivesAwayNoOtherCA(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: giving a file to another user needs root")
	}
	const sidecar, other = 4321, 4322
	for name, tc := range map[string]struct {
		of   int // whose the other CA is
		link func(from, to string) error
		gone bool // the link, when the new key is written
	}{
		"a link to root's":              {0, os.Symlink, false},
		"a link to root's that goes":    {0, os.Symlink, true},
		"a second name of root's":       {0, os.Link, false},
		"a link to another's that goes": {other, os.Symlink, true},
	} {
		t.Run(name, func(t *testing.T) {
			top, err := os.MkdirTemp("", "kw")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(top) })
			theirs, dir := filepath.Join(top, "theirs"), filepath.Join(top, "data")
			a, err := Generate([]string{"api.resend.com"}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			for _, do := range []func() error{
				func() error { return os.Chmod(top, 0o711) },
				func() error { return os.Mkdir(theirs, 0o700) },
				func() error { return os.Chown(theirs, tc.of, tc.of) },
				func() error { return a.Save(theirs) },
				func() error { return os.Mkdir(dir, 0o700) },
				func() error { return os.Chown(dir, sidecar, sidecar) },
				func() error { return tc.link(filepath.Join(theirs, KeyFile), filepath.Join(dir, KeyFile)) },
			} {
				if err := do(); err != nil {
					t.Fatal(err)
				}
			}
			old, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if tc.gone {
				if err := os.Remove(filepath.Join(dir, KeyFile)); err != nil {
					t.Fatal(err)
				}
			}
			next, err := old.Rotate([]string{"api.resend.com"}, time.Now(), true)
			if err != nil {
				t.Fatal(err)
			}
			if err := next.Save(dir); err != nil {
				t.Fatal(err)
			}
			if now, err := Load(dir); err != nil || !now.Root().Equal(next.Root()) {
				t.Errorf("the new CA is not there: %v", err)
			}
			as(t, sidecar, func() {
				if got, err := Load(dir); err == nil {
					t.Errorf("uid %d has the key of %s, which %s vouches for", sidecar, got.Root().Subject.CommonName, a.Root().Subject.CommonName)
				}
			})
		})
	}
}
