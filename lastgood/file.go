package lastgood

import (
	"bytes"
	"encoding/gob"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

const (
	formatVersion = 1
	maxFile       = 1 << 30
	// skew is how far the clock may have been set back since the file was written.
	skew = time.Minute
)

// rows are what the file holds.
type rows struct {
	Version     int
	Generation  int // of the journal of what has changed since
	Written     time.Time
	Credentials []*store.Credential
	Assistants  []*store.Assistant
	Tokens      []*store.Token
}

func hashOf(id string) (hash [32]byte, ok bool) {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != len(hash) {
		return hash, false
	}
	return [32]byte(b), true
}

// context is what the file is sealed for.
func (k *Keeper) context() []byte {
	return append([]byte("keyward last known good 1\x00"), k.o.Name...)
}

// load takes over what the file holds.
func (k *Keeper) load() {
	r, confirmed, err := k.readFile()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		k.o.Log.Warn().Err(err).Str("path", k.o.Path).Msg("the file of the last known good rows cannot be used; it is written anew once the store answers")
		return
	}
	k.take(r)
	k.confirmed, k.wrote, k.generation = confirmed, k.changes, r.Generation
	k.replay()
}

func (k *Keeper) readFile() (*rows, time.Time, error) {
	f, err := os.Open(k.o.Path)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, time.Time{}, err
	case !st.Mode().IsRegular():
		return nil, time.Time{}, errors.New("it is not a file")
	case st.Mode().Perm()&0o077 != 0:
		return nil, time.Time{}, fmt.Errorf("its mode %04o lets others at it: chmod 600", st.Mode().Perm())
	case st.Size() > maxFile:
		return nil, time.Time{}, errors.New("it is too large")
	}
	sealed := make([]byte, st.Size())
	if _, err := f.ReadAt(sealed, 0); err != nil {
		return nil, time.Time{}, err
	}
	plain, err := k.o.Keys.Open(nil, sealed, k.context())
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("it does not open for this store: %w", err)
	}
	r := &rows{}
	if err := gob.NewDecoder(bytes.NewReader(plain)).Decode(r); err != nil || r.Version != formatVersion {
		return nil, time.Time{}, errors.New("it was written by another version")
	}
	// Touched since it was written, as long as all of it was confirmed: but never before it was written.
	confirmed := st.ModTime()
	if confirmed.Before(r.Written) {
		confirmed = r.Written
	}
	if confirmed.After(time.Now().Add(skew)) {
		return nil, time.Time{}, errors.New("it is from the future: the clock was set back")
	}
	return r, confirmed, nil
}

// The journal names what has changed since the file was written: it is short and written at once, the file is long and is not. What it
// names is not taken out of the file after a restart.
func (k *Keeper) journal(generation int) string {
	return fmt.Sprintf("%s.changes.%d", k.o.Path, generation)
}

// note writes what was heard of into the journal.
func (k *Keeper) note() error {
	k.mu.Lock()
	heard := k.heard
	k.heard = nil
	k.mu.Unlock()
	if len(heard) == 0 || k.wrote < 0 {
		return nil
	}
	f, err := os.OpenFile(k.journal(k.generation), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err == nil {
		var text []byte
		for _, change := range heard {
			text = fmt.Appendf(text, "%s %s\n", change.Kind, change.ID)
		}
		_, err = f.Write(text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		// Without a journal the file would bring back what has changed.
		return errors.Join(fmt.Errorf("writing %s: %w", k.journal(k.generation), err), k.forget())
	}
	return nil
}

// forget removes the file, until it is written again.
func (k *Keeper) forget() error {
	k.wrote = -1
	if err := os.Remove(k.o.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing %s: %w", k.o.Path, err)
	}
	return nil
}

// replay drops what the journal names. One that cannot be read whole may name anything.
func (k *Keeper) replay() {
	text, err := os.ReadFile(k.journal(k.generation))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil || !bytes.HasSuffix(text, []byte("\n")) {
		k.take(&rows{})
		return
	}
	for line := range bytes.Lines(text) {
		kind, id, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		k.drop(store.Change{Kind: store.Kind(kind), ID: id})
	}
}

// save writes the file if rows have changed, and else says in its time up to when they were confirmed.
func (k *Keeper) save() error {
	k.mu.RLock()
	confirmed, changes := k.confirmed, k.changes
	clean := !k.full && len(k.dirty) == 0 && len(k.heard) == 0 && !confirmed.IsZero()
	var r *rows
	if clean && changes != k.wrote {
		r = &rows{Version: formatVersion, Generation: k.generation + 1, Written: confirmed.Round(0)}
		for _, all := range k.credentials {
			r.Credentials = append(r.Credentials, all...)
		}
		for _, a := range k.assistants {
			r.Assistants = append(r.Assistants, a)
		}
		for _, t := range k.tokens {
			r.Tokens = append(r.Tokens, t)
		}
	}
	k.mu.RUnlock()
	switch {
	case !clean:
		return nil
	case r == nil:
		if err := os.Chtimes(k.o.Path, confirmed, confirmed); err != nil {
			return errors.Join(fmt.Errorf("writing %s: %w", k.o.Path, err), k.forget())
		}
		return nil
	}
	_ = os.Remove(k.journal(r.Generation)) // of a process that was ended at this point
	if err := k.writeFile(r); err != nil {
		return fmt.Errorf("writing %s: %w", k.o.Path, seal.Cause(err))
	}
	_ = os.Remove(k.journal(k.generation))
	k.wrote, k.generation = changes, r.Generation
	return nil
}

func (k *Keeper) writeFile(r *rows) error {
	var plain bytes.Buffer
	if err := gob.NewEncoder(&plain).Encode(r); err != nil {
		return err
	}
	sealed := k.o.Keys.Seal(nil, plain.Bytes(), k.context())
	f, err := os.CreateTemp(filepath.Dir(k.o.Path), ".last-known-good-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(sealed)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Chtimes(f.Name(), r.Written, r.Written)
	}
	if err == nil {
		err = os.Rename(f.Name(), k.o.Path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
