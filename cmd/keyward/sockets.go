package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// A socketFile is a unix socket that this process listens on, and the lock that says so to a second instance.
type socketFile struct {
	*net.UnixListener
	path string
	lock *os.File
	ino  uint64
}

// listenUnix listens at path. The folder must be private; the lock beside the socket keeps a second instance out; the socket is bound
// under another name and renamed, so that nobody can connect before its mode and group (-1: as it comes) are set. What stands at path is removed only
// when it is a socket of ours that nobody listens on.
func listenUnix(path string, mode os.FileMode, gid int) (*socketFile, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket %q: the path has %d bytes, a socket's may have %d; choose a shorter --run-dir", path, len(path), maxSocketPath)
	}
	if err := privateFolder(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("socket %q: %w", path, err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking socket %q: %w", path, err)
	}
	s := &socketFile{path: path, lock: lock}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("socket %q: another instance is listening on it (its lock is held): end it, or give this one another --run-dir", path)
	}
	if err := s.bind(mode, gid); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("socket %q: %w", path, err)
	}
	return s, nil
}

func (s *socketFile) bind(mode os.FileMode, gid int) error {
	if err := removeStale(s.path); err != nil {
		return err
	}
	// Short, so that it fits where the path itself fits.
	tmp := filepath.Join(filepath.Dir(s.path), "."+strconv.Itoa(os.Getpid()%1000))
	_ = os.Remove(tmp)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	fail := func(err error) error {
		_ = l.Close()
		_ = os.Remove(tmp)
		return err
	}
	if gid >= 0 {
		if err := os.Chown(tmp, -1, gid); err != nil {
			return fail(fmt.Errorf("giving it to its group: %w", err))
		}
	}
	if err := os.Chmod(tmp, mode); err != nil {
		return fail(err)
	}
	if err := os.Rename(tmp, s.path); err != nil {
		return fail(err)
	}
	if st, err := os.Lstat(s.path); err == nil {
		s.ino = st.Sys().(*syscall.Stat_t).Ino
	}
	s.UnixListener = l
	return nil
}

// Addr is where it is reached, not the name under which it was bound.
func (s *socketFile) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Unlink takes the socket's name away: nobody can connect any more, and who has is still accepted.
func (s *socketFile) Unlink() {
	if st, err := os.Lstat(s.path); err == nil && st.Sys().(*syscall.Stat_t).Ino == s.ino {
		_ = os.Remove(s.path)
	}
}

// Close stops listening and removes the socket, if it is still this one.
func (s *socketFile) Close() error {
	s.Unlink()
	return errors.Join(s.UnixListener.Close(), s.lock.Close())
}

// removeStale removes a socket that an earlier process of ours left behind.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("something that is not a socket is there (%s); move it away or choose another path", describe(st.Mode()))
	}
	if uid := st.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() && os.Geteuid() != 0 {
		return fmt.Errorf("the socket there belongs to uid %d; remove it or choose another path", uid)
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return errors.New("another process is listening on it")
	}
	return os.Remove(path)
}

func describe(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "a folder"
	case m.IsRegular():
		return "a file"
	case m.Type() == os.ModeSymlink:
		return "a symbolic link"
	}
	return m.Type().String()
}

// makeWay makes the folder of --socket, if it is missing, so that those whom the socket's mode and group let in can get to it: they may pass
// through the folder and list nothing. The run folder, with the admin socket in it, stays the sidecar's alone.
func (s *sidecarProcess) makeWay() error {
	c := s.c
	dir := filepath.Dir(c.Socket)
	if s.inherited["caller"] != nil || filepath.Clean(dir) == filepath.Clean(c.RunDir) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return fmt.Errorf("socket %q: %w", c.Socket, err)
	}
	switch err := os.Mkdir(dir, 0o700); {
	case errors.Is(err, os.ErrExist):
		return nil // whose modes are somebody's choice
	case err != nil:
		return fmt.Errorf("socket %q: %w", c.Socket, err)
	}
	if c.SocketGID >= 0 {
		if err := os.Chown(dir, -1, c.SocketGID); err != nil {
			return fmt.Errorf("socket %q: giving its folder to its group: %w", c.Socket, err)
		}
	}
	// Who may write to a socket may connect (unix(7)).
	search := os.FileMode(c.SocketMode) & 0o022 >> 1
	if err := os.Chmod(dir, 0o700|search); err != nil {
		return fmt.Errorf("socket %q: %w", c.Socket, err)
	}
	return nil
}

// privateFolder makes the folder (0700) if it is missing, and refuses one in which others could replace a file.
func privateFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return isPrivateFolder(dir)
}

func isPrivateFolder(dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	sys := st.Sys().(*syscall.Stat_t)
	switch {
	case !st.IsDir():
		return fmt.Errorf("%q is not a folder", dir)
	case st.Mode().Perm()&0o002 != 0:
		return fmt.Errorf("folder %q is writable by everyone; use a private one (chmod 700) or another --run-dir", dir)
	case st.Mode().Perm()&0o020 != 0:
		return fmt.Errorf("folder %q is writable by its group, whose members could replace the socket; chmod g-w it, or use another --run-dir", dir)
	case int(sys.Uid) != os.Geteuid() && sys.Uid != 0:
		return fmt.Errorf("folder %q belongs to uid %d, who could replace what is in it; use a folder of your own", dir, sys.Uid)
	}
	return nil
}
