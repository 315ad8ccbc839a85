package store

import "syscall"

// takeOver has what others have left be known here and moved to SQLite: what is in their reserves, and in a log. Until it is nobody else joins.
func (k *keyKeeper) takeOver(log bool) error {
	all := &keyFile{keys: map[logKey]int64{}}
	var files []*keyFile
	add := func(f *keyFile, err error) error {
		if err != nil {
			closeAll(files)
			return err
		}
		files = append(files, f)
		all.add(f.keys)
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
		f, err := k.leftReserve(slot)
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
	k.l.apart = false
	k.move(all)
	return nil
}

// leftReserve is a reserve that somebody has left, with something in it; nil: it is not.
func (k *keyKeeper) leftReserve(slot int) (*keyFile, error) {
	if st, err := k.dir.Lstat(reserveName(slot)); slot == k.l.reserve.slot || err != nil || st.Size() == 0 {
		return nil, nil //nolint:nilerr // nobody has had it
	}
	f, err := k.d.lite.openOwn(k.dir, reserveName(slot))
	if err != nil {
		return nil, err
	}
	left := &keyFile{f: f}
	free, err := lock(f, syscall.LOCK_EX)
	if free {
		left.keys, err = readKeys(f)
	}
	if err == nil && len(left.keys) > 0 {
		return left, nil
	}
	_ = f.Close()
	return nil, err
}

func closeAll(files []*keyFile) {
	for _, f := range files {
		_ = f.f.Close()
	}
}
