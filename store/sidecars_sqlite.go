package store

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// A presence is the file that a sidecar holds while it runs: STORE.sidecars/ID.json, locked, so that the kernel says when it has ended,
// however it ended.
type presence struct {
	mu   sync.Mutex
	file *os.File // nil: none
	text []byte   // what it says
}

func (l *lite) presences() string { return l.path + ".sidecars" }

func (l *lite) attend(s *Sidecar) error {
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encoding a sidecar: %w", err)
	}
	p := &l.presence
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file != nil && bytes.Equal(p.text, text) {
		return nil
	}
	f, err := l.present(s.ID, text)
	if err != nil {
		return fmt.Errorf("saying which keys this sidecar has: %w", err)
	}
	if p.file != nil {
		_ = p.file.Close()
	}
	p.file, p.text = f, text
	return nil
}

// present puts the file in place whole and locked: whoever finds it unlocked finds a sidecar that has ended.
func (l *lite) present(id string, text []byte) (*os.File, error) {
	dir, err := l.folder(l.presences())
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	name := ".new-" + rand.Text()
	f, err := l.openIn(dir, name, os.O_EXCL)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		_, err = f.Write(text)
	}
	if err == nil {
		err = dir.Rename(name, filepath.Base(id)+".json")
	}
	if err != nil {
		_ = dir.Remove(name)
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func (l *lite) leave() {
	p := &l.presence
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == nil {
		return
	}
	var s Sidecar
	if dir, err := openFolder(l.presences()); err == nil {
		if json.Unmarshal(p.text, &s) == nil {
			_ = dir.Remove(filepath.Base(s.ID) + ".json")
		}
		_ = dir.Close()
	}
	_ = p.file.Close()
	_ = os.Remove(l.presences()) // when it is empty
	p.file, p.text = nil, nil
}

// sidecars reads the files that are held, and removes the others.
func (l *lite) sidecars() (all []Sidecar, err error) {
	dir, err := openFolder(l.presences())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading which sidecars run: %w", err)
	}
	defer func() { _ = dir.Close() }()
	entries, err := fs.ReadDir(dir.FS(), ".") // in the order of their names
	if err != nil {
		return nil, fmt.Errorf("reading which sidecars run: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		s, runs, err := readPresence(dir, e.Name())
		if err != nil {
			return nil, fmt.Errorf("reading which sidecars run: %w", err)
		}
		if runs {
			all = append(all, *s)
		}
	}
	return all, nil
}

func readPresence(dir *os.Root, name string) (s *Sidecar, runs bool, err error) {
	f, err := dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, false, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	switch now, gone := dir.Stat(name); {
	case err == nil && gone == nil && !os.SameFile(st, now):
		return readPresence(dir, name) // it has put another one in its place this moment
	case err == nil:
		_ = dir.Remove(name)
		return nil, false, nil
	case !errors.Is(err, syscall.EWOULDBLOCK):
		return nil, false, err
	}
	s = &Sidecar{}
	if err := json.NewDecoder(f).Decode(s); err != nil {
		return nil, false, fmt.Errorf("%s: %w", f.Name(), err)
	}
	s.SeenAt = st.ModTime().UTC()
	return s, true, nil
}
