package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/admin"
	"github.com/keyward/keyward/store"
)

// localName is the file in the run folder: it lasts over a restart during the outage that it was needed in.
const localName = "disabled.json"

// A localSwitch stands in front of the cache: what was switched off in this sidecar is inactive, whatever the store says.
type localSwitch struct {
	store.Reader
	path string

	mu  sync.Mutex                              // of set
	off atomic.Pointer[map[store.Ref]time.Time] // never changed once installed; nil: nothing is off
}

// openLocalSwitch reads what was switched off before. A file that cannot be read stops the start: it says what must not be used.
func openLocalSwitch(r store.Reader, runDir string) (*localSwitch, error) {
	l := &localSwitch{Reader: r, path: filepath.Join(runDir, localName)}
	text, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	var items []admin.LocalOff
	if err == nil {
		err = json.Unmarshal(text, &items)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what is disabled in this sidecar alone: %s: %w; mend the file, or remove it to enable all of it again", l.path, plainError(err))
	}
	off := map[store.Ref]time.Time{}
	for _, item := range items {
		off[store.Ref{Org: item.Org, Provider: item.Provider}] = item.Since
	}
	l.install(off)
	return l, nil
}

func (l *localSwitch) install(off map[store.Ref]time.Time) {
	if len(off) == 0 {
		l.off.Store(nil)
		return
	}
	l.off.Store(&off)
}

// Credential is the cache's, or an inactive one.
func (l *localSwitch) Credential(ctx context.Context, ref store.Ref) (*store.Credential, bool, error) {
	if l.has(ref) {
		return &store.Credential{Ref: store.Ref{Org: strings.Clone(ref.Org), Provider: strings.Clone(ref.Provider)}}, true, nil
	}
	return l.Reader.Credential(ctx, ref)
}

// has says whether a credential is switched off here.
func (l *localSwitch) has(ref store.Ref) bool {
	off := l.off.Load()
	if off == nil {
		return false
	}
	_, is := (*off)[ref]
	return is
}

func (l *localSwitch) list() []admin.LocalOff {
	items := []admin.LocalOff{}
	if off := l.off.Load(); off != nil {
		for ref, since := range *off {
			items = append(items, admin.LocalOff{Org: ref.Org, Provider: ref.Provider, Since: since})
		}
	}
	slices.SortFunc(items, func(a, b admin.LocalOff) int {
		return cmp.Or(strings.Compare(a.Org, b.Org), strings.Compare(a.Provider, b.Provider))
	})
	return items
}

// set takes effect before it is written: a disk that is full must not keep a credential in use.
func (l *localSwitch) set(ref store.Ref, off bool) (changed bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := map[store.Ref]time.Time{}
	if now := l.off.Load(); now != nil {
		next = maps.Clone(*now)
	}
	if _, was := next[ref]; was == off {
		return false, nil
	}
	if off {
		next[ref] = time.Now().UTC().Truncate(time.Second)
	} else {
		delete(next, ref)
	}
	l.install(next)
	if err := l.write(); err != nil {
		return true, fmt.Errorf("it is so now, but would not outlive a restart: writing %s: %w", l.path, plainError(err))
	}
	return true, nil
}

func (l *localSwitch) write() error {
	text, err := json.MarshalIndent(l.list(), "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(l.path), ".disabled-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), l.path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
