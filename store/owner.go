package store

import (
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

// open opens a file beside the store, which is the store's owner's then. What a link there leads to is somebody else's.
func (l *lite) open(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := l.give(f); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// folder makes a folder beside the store be there, and be the store's owner's.
func (l *lite) folder(path string) error {
	if err := os.Mkdir(path, 0o700); err != nil && !os.IsExist(err) {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return fmt.Errorf("%s must be a folder, and no link to one: %w", path, err)
	}
	defer f.Close()
	return l.give(f)
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
