package seal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockPatience is how long a lock of a key file is waited for: whoever holds it asks a key management service at the most.
const lockPatience = 30 * time.Second

func loadFile(path string) (*Keyring, error) {
	text, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return parseKeyset(text)
}

// WriteFile writes the keyset to a file that only its owner may read, never over an existing one (os.ErrExist). The file at path is whole
// and on the disk when it returns, or was never there.
func (k *Keyring) WriteFile(path string) error {
	text, err := k.AppendKeyset(nil)
	if err == nil {
		defer clear(text)
		err = CreateFile(path, text)
	}
	if err != nil {
		return fmt.Errorf("writing key file %q: %w", path, err)
	}
	return nil
}

// ReadFile reads a file that nobody but its owner may read (see private). What is checked is what was opened. Its errors do not name the path.
func ReadFile(path string) ([]byte, error) {
	// A pipe would block for ever without O_NONBLOCK; to a file it means nothing.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, Cause(err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, Cause(err)
	case !st.Mode().IsRegular():
		return nil, errors.New("it is not a file")
	case !private(st.Mode().Perm(), st.Sys().(*syscall.Stat_t).Uid, os.Geteuid()):
		return nil, fmt.Errorf("its mode %04o lets others at the key: chmod 600 %s", st.Mode().Perm(), path)
	case st.Size() > maxKeyset:
		return nil, fmt.Errorf("it has %d bytes; a keyset has at most %d", st.Size(), maxKeyset)
	}
	text := make([]byte, st.Size()) // at once: a buffer that grows leaves copies behind
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(text)
		return nil, Cause(err)
	}
	return text[:n], nil
}

// private says whether others are kept from a file of that mode. One that root owns may be read by its group too, unless root itself is who
// reads: that is how service managers and orchestrators hand a secret to a program without rights (systemd's LoadCredential= by an access
// list, whose mask stands in the group's place in the mode; Kubernetes by fsGroup), and what PostgreSQL allows for a server's key.
func private(perm fs.FileMode, owner uint32, reader int) bool {
	if owner == 0 && reader != 0 {
		return perm&0o037 == 0
	}
	return perm&0o077 == 0
}

// CreateFile writes a file that only its owner may read, never over an existing one (os.ErrExist), whole and on the disk, or not at all.
func CreateFile(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return Cause(err)
	}
	name, err := writeBeside(path, text, nil)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(name) }()
	// Unlike a rename, a link fails when the path is taken.
	if err := os.Link(name, path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("it exists, and a key is never overwritten; move it away or choose another path: %w", fs.ErrExist)
		}
		return Cause(err)
	}
	return syncFolder(filepath.Dir(path))
}

// ReplaceFile puts text in the place of a file that exists: at every moment, and after a power cut, the path holds the old or the new
// one, whole. Owner and mode stay, so that a sidecar goes on reading what root has changed.
func ReplaceFile(path string, text []byte) error {
	path, err := filepath.EvalSymlinks(path) // the link stays
	if err != nil {
		return Cause(err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return Cause(err)
	}
	name, err := writeBeside(path, text, st)
	if err != nil {
		return err
	}
	if err := os.Rename(name, path); err != nil {
		_ = os.Remove(name)
		return Cause(err)
	}
	return syncFolder(filepath.Dir(path))
}

// writeBeside writes text to a new file in the folder of path, with mode 0600 or that of the file that it is to replace, and its owner.
func writeBeside(path string, text []byte, old fs.FileInfo) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".keys-*") // mode 0600
	if err != nil {
		return "", Cause(err)
	}
	defer func() {
		if closing := f.Close(); err == nil {
			err = Cause(closing)
		}
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if old != nil {
		owner, own := old.Sys().(*syscall.Stat_t), &syscall.Stat_t{}
		if err := syscall.Fstat(int(f.Fd()), own); err != nil {
			return "", err
		}
		if own.Uid != owner.Uid || own.Gid != owner.Gid {
			if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
				return "", fmt.Errorf("it belongs to uid %d, who must be able to read the new one: %w; run this as that user or as root", owner.Uid, Cause(err))
			}
		}
		if err := f.Chmod(old.Mode().Perm() & 0o600); err != nil {
			return "", Cause(err)
		}
	}
	if _, err := f.Write(text); err != nil {
		return "", Cause(err)
	}
	return f.Name(), Cause(f.Sync())
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return Cause(err)
	}
	defer func() { _ = d.Close() }()
	return Cause(d.Sync())
}

// LockFile keeps others that change the same key file out, until unlock. What is locked is its folder: a lock file of its own would be
// left behind, and the key file itself is replaced.
func LockFile(path string) (unlock func(), err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, Cause(err)
	}
	for deadline := time.Now().Add(lockPatience); ; {
		err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil:
			return func() { _ = dir.Close() }, nil
		case !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR):
			_ = dir.Close()
			return nil, fmt.Errorf("locking its folder: %w", err)
		case time.Now().After(deadline):
			_ = dir.Close()
			return nil, errors.New("another command is changing it; try again when that has ended")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Cause is a file error without the path, which the message names already, or which is a temporary one.
func Cause(err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}
