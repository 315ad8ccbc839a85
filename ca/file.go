package ca

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// KeyFile is the name of the file in the data folder that holds an authority, its private key included.
const KeyFile = "ca-key.pem"

// What apps read, by name in the run folder, beside the socket that they reach: the root alone, and the root behind those of the system.
const (
	RootFile   = "ca.pem"
	BundleFile = "ca-bundle.pem"
)

// Load reads the authority of a data folder. There being none is fs.ErrNotExist. A file that others can read is refused: whoever has read
// it could be the providers, to each app that trusts the root.
func Load(dir string) (*Authority, error) {
	path := filepath.Join(dir, KeyFile)
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the CA's key %s can be read by others (mode %04o); chmod 600 it, and keyward ca rotate --now if it may have been", path, st.Mode().Perm())
	}
	b := make([]byte, st.Size()) // at once: a buffer that grows leaves copies of the key behind
	defer clear(b)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("reading the CA: %w", err)
	}
	a, err := decode(b)
	if err != nil {
		return nil, fmt.Errorf("the CA in %s cannot be used: %w; put a good copy in its place, or remove it and start again for a new CA", path, err)
	}
	a.heir = heir(dir, st)
	return a, nil
}

// A user is whose a file is.
type user struct{ uid, gid int }

func userOf(st fs.FileInfo) user {
	whose := st.Sys().(*syscall.Stat_t)
	return user{int(whose.Uid), int(whose.Gid)}
}

// heir is whose the key is to be that this one vouches for: whose this one is. One that root's rotation took from the sidecar is the
// folder's owner's again, but only if it lies in the folder itself: who owns a folder may put a link there, to any CA that root can read.
func heir(dir string, key fs.FileInfo) *user {
	whose := userOf(key)
	if whose.uid != 0 {
		return &whose
	}
	in, err := os.OpenRoot(dir) // held, so that what is asked of it is asked of one folder
	if err != nil {
		return &whose
	}
	defer func() { _ = in.Close() }()
	there, err := in.Lstat(KeyFile)
	if err != nil || !os.SameFile(there, key) || there.Sys().(*syscall.Stat_t).Nlink != 1 {
		return &whose
	}
	if folder, err := in.Stat("."); err == nil {
		whose = userOf(folder)
	}
	return &whose
}

// Save puts the authority into a data folder, in the place of the one before. It is there whole or not at all, and belongs to whom the
// one belongs to that vouches for it, or else to whom the one before belongs to.
func (a *Authority) Save(dir string) error {
	b, err := a.encode()
	if err != nil {
		return fmt.Errorf("writing the CA: %w", err)
	}
	defer clear(b)
	path := filepath.Join(dir, KeyFile)
	to := a.heir
	if to == nil {
		if to, err = owner(path); err != nil {
			return fmt.Errorf("writing the CA: %w", err)
		}
	}
	return replace(path, b, 0o600, func(f *os.File) error { return give(f, *to) })
}

// owner is whose a new key is to be that nobody vouches for: whose the one before is. Where that is none, or root's, and root writes, the
// folder says it.
func owner(path string) (*user, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && os.Geteuid() != 0 {
		return &user{os.Geteuid(), os.Getegid()}, nil
	}
	if errors.Is(err, fs.ErrNotExist) || err == nil && userOf(st).uid == 0 {
		st, err = os.Stat(filepath.Dir(path))
	}
	if err != nil {
		return nil, err
	}
	whose := userOf(st)
	return &whose, nil
}

// give makes the file that user's, if it is not.
func give(f *os.File, to user) error {
	st, err := f.Stat()
	if err != nil || userOf(st).uid == to.uid {
		return err
	}
	if err := f.Chown(to.uid, to.gid); err != nil {
		return fmt.Errorf("it belongs to uid %d, who must be able to read the new one: %w; run this as that user or as root", to.uid, err)
	}
	return nil
}

// Publish writes what apps are to read into dir. system are the certificates that the machine itself trusts, as PEM.
func (a *Authority) Publish(dir string, system []byte) error {
	return errors.Join(
		replace(filepath.Join(dir, RootFile), a.PEM(), 0o644, nil),
		replace(filepath.Join(dir, BundleFile), a.Bundle(system), 0o644, nil))
}

// Bundle is the root behind those that the machine itself trusts: for apps that take one file and nothing else.
func (a *Authority) Bundle(system []byte) []byte {
	b := append([]byte(nil), system...)
	if len(b) > 0 && b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	return append(b, a.PEM()...)
}

// systemRoots are where systems keep the certificates that they trust in one file: Debian, Alpine and Ubuntu; Fedora and RHEL; SUSE;
// macOS and the BSDs.
var systemRoots = []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"}

// SystemRoots are the certificates that this machine trusts, as PEM; none if it keeps them nowhere that is known.
func SystemRoots() []byte {
	for _, path := range systemRoots {
		if b, err := os.ReadFile(path); err == nil && len(b) > 0 {
			return b
		}
	}
	return nil
}

// replace writes a file under another name, has first do what it will with it, and renames it.
func replace(path string, b []byte, mode fs.FileMode, first func(*os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
			err = fmt.Errorf("writing %s: %w", path, err)
		}
	}()
	if first != nil {
		if err := first(f); err != nil {
			_ = f.Close()
			return err
		}
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Chmod(mode), f.Sync(), f.Close(), os.Rename(f.Name(), path))
}
