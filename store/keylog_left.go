package store

import (
	"errors"
	"io/fs"
	"maps"
	"syscall"
)

// takeOver has what others have left be known here and moved to SQLite: what is in their reserves, and in a log. Until it is nobody else joins.
func (k *keyKeeper) takeOver(log bool) error {
	all := &keyFile{keys: map[logKey]int64{}}
	var files []*keyFile
	add := func(f *keyFile, err error) error {
		if err != nil {
			closeAll(files)
			return err
		}
		if all.add(f.keys); f.f != nil {
			files = append(files, f)
		}
		return nil
	}
	if log {
		for _, name := range logNames {
			if err := add(k.d.lite.openKeyFile(k.dir, name)); err != nil {
				return err
			}
		}
	}
	for slot := range reserveSlots {
		f, err := k.leftReserve(slot, log)
		if f == nil && err == nil {
			continue
		}
		if err := add(f, err); err != nil {
			return err
		}
	}
	k.left = files
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	k.l.apart, k.heir = false, k.heir && !log
	k.move(all)
	return nil
}

// leftReserve is a reserve that somebody has left, with something in it; nil: it is not. Beside a log that was left it is also what somebody who lives
// says is forgotten, who may have the reserve of whose log that was; without the file, which stays.
func (k *keyKeeper) leftReserve(slot int, log bool) (*keyFile, error) {
	if slot == k.l.reserve.slot {
		return nil, nil
	}
	st, err := k.dir.Lstat(reserveName(slot))
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() == 0: // nobody has had it
		return nil, nil
	case err != nil:
		return nil, err
	}
	f, err := k.d.lite.openOwn(k.dir, reserveName(slot))
	if err != nil {
		return nil, err
	}
	left := &keyFile{f: f}
	free, err := lock(f, syscall.LOCK_EX)
	if err == nil && (free || log) {
		left.keys, err = readKeys(f)
	}
	if err == nil && free && len(left.keys) > 0 {
		return left, nil
	}
	_ = f.Close()
	maps.DeleteFunc(left.keys, func(_ logKey, until int64) bool { return until > 0 })
	return &keyFile{keys: left.keys}, err
}

func closeAll(files []*keyFile) {
	for _, f := range files {
		_ = f.f.Close()
	}
}
