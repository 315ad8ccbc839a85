package store

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// An owner is another user, whose the store is that root runs on. What root leaves beside it must be that user's as well, who else could not
// start any more: root may be killed at any moment, and so gives each file away as it opens it.
type owner struct{ uid, gid int }

// ownerOf says whose a store is, if root runs on another user's.
func ownerOf(path string) (*owner, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	st, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	whose, ok := st.Sys().(*syscall.Stat_t)
	if !ok || whose.Uid == 0 {
		return nil, nil
	}
	return &owner{int(whose.Uid), int(whose.Gid)}, nil
}

// noLink and no wait: what a link leads to is somebody else's, and a pipe would have whoever opens it wait for its other end.
const noLink = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// open opens a file beside the store, which is the store's owner's then.
func (l *lite) open(path string, flag int) (*os.File, error) {
	return l.given(os.OpenFile(path, flag|noLink, 0o600))
}

// regular is a file that was opened, and is one.
func regular(f *os.File, err error) (*os.File, error) {
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s must be a file: %w", f.Name(), syscall.EINVAL)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// given gives a file away that was opened.
func (l *lite) given(f *os.File, err error) (*os.File, error) {
	if f, err = regular(f, err); err != nil {
		return nil, err
	}
	if err := l.give(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// folder makes a folder beside the store be there, and be the store's owner's.
func (l *lite) folder(path string) (*os.Root, error) {
	if err := os.Mkdir(path, 0o700); err != nil && !os.IsExist(err) {
		return nil, err
	}
	r, err := openFolder(path)
	if err != nil {
		return nil, err
	}
	f, err := r.Open(".")
	if err == nil {
		err = errors.Join(l.give(f), f.Close())
	}
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// openFolder opens a folder, and no link to one. What is in it is found by that and not by its path, where its owner can put a link at any
// moment.
func openFolder(path string) (*os.Root, error) {
	r, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	opened, err := r.Stat(".")
	if err == nil {
		var there os.FileInfo
		if there, err = os.Lstat(path); err == nil && !os.SameFile(opened, there) {
			err = fmt.Errorf("%s must be a folder, and no link to one", path)
		}
	}
	if err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// openIn opens a file of a folder beside the store, or makes it.
func (l *lite) openIn(dir *os.Root, name string, flag int) (*os.File, error) {
	return l.given(dir.OpenFile(name, os.O_RDWR|os.O_CREATE|flag, 0o600))
}

// give gives an open file, or folder, of root's to the store's owner: no other name of a file, which may be any file of root's.
func (l *lite) give(f *os.File) error {
	if l.owner == nil {
		return nil
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	is, ok := st.Sys().(*syscall.Stat_t)
	switch {
	case !ok || is.Uid != 0:
		return nil
	case !st.IsDir() && (!st.Mode().IsRegular() || is.Nlink != 1):
		return fmt.Errorf("%s is not a file of its own: it may have another name", f.Name())
	}
	return f.Chown(l.owner.uid, l.owner.gid)
}
