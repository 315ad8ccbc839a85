package seal

import (
	"errors"
	"fmt"
	"slices"
)

// What a change of a keyset may be refused for.
var (
	// ErrNoKey: the keyset has no key of that id.
	ErrNoKey = errors.New("there is no key of that id")
	// ErrPrimary: the primary key cannot be taken out: nothing would seal.
	ErrPrimary = errors.New("it is the primary key, the one that seals; make another one primary first")
	// ErrOtherKey: a key id stands for other bytes than before. What the old ones sealed would be lost.
	ErrOtherKey = errors.New("it stands for another key than before; a new key needs a new id")
)

// ParseKeyset reads a keyset (package comment). Its errors name every mistake and no byte of a key. The text is the caller's to overwrite.
func ParseKeyset(text []byte) (*Keyring, error) { return parseKeyset(text) }

// AppendKeyset appends the keyset, with all keys in it: for a file that only its owner may read, or for another seal around it. dst is
// grown first, so that no copy of a key stays behind.
func (k *Keyring) AppendKeyset(dst []byte) ([]byte, error) {
	r := k.ring.Load()
	if r.primary == nil {
		return dst, errors.New("the keyring was wiped")
	}
	return r.appendKeyset(slices.Grow(dst, 256*(1+len(r.keys)))), nil
}

// The changes below make a new ring of the keyring: who is opening or sealing goes on with the one that it has. They are not for use at
// the same time as each other.

// Add puts a new key in as active: it opens, and seals nothing until it is promoted, so that it can be given to every sidecar before.
func (k *Keyring) Add() KeyInfo {
	r := k.ring.Load()
	e := generate(Active)
	for slices.ContainsFunc(r.keys, func(other *key) bool { return other.id == e.id }) {
		e.id = newKeyID()
	}
	k.ring.Store(&ring{r.primary, append(slices.Clone(r.keys), e)})
	return e.info(false)
}

// Successor is the id of the key that a rotation makes primary: the newest active one that is newer than the primary. Empty: there is
// none. Keys without a time are in the order of the keyset.
func (k *Keyring) Successor() string {
	id := ""
	newest := -1
	r := k.ring.Load()
	newer := func(i, j int) bool { // keys[i] is newer than keys[j]
		a, b := r.keys[i].created, r.keys[j].created
		if a.IsZero() || b.IsZero() || a.Equal(b) {
			return i > j
		}
		return a.After(b)
	}
	primary := slices.Index(r.keys, r.primary)
	for i, e := range r.keys {
		if e.state == Active && newer(i, primary) && (newest < 0 || newer(i, newest)) {
			id, newest = e.id, i
		}
	}
	return id
}

// Promote makes a key the primary one. The one until now is retiring: it opens what it has sealed.
func (k *Keyring) Promote(id string) error {
	r := k.ring.Load()
	next := &ring{keys: slices.Clone(r.keys)}
	for i, e := range r.keys {
		switch {
		case e.id == id:
			next.keys[i] = e.as(Primary)
			next.primary = next.keys[i]
		case e == r.primary:
			next.keys[i] = e.as(Retiring)
		}
	}
	if next.primary == nil {
		return fmt.Errorf("key %q: %w", id, ErrNoKey)
	}
	k.ring.Store(next)
	return nil
}

// Drop takes a key out, which then opens nothing any more.
func (k *Keyring) Drop(id string) error {
	r := k.ring.Load()
	i := slices.IndexFunc(r.keys, func(e *key) bool { return e.id == id })
	switch {
	case i < 0:
		return fmt.Errorf("key %q: %w", id, ErrNoKey)
	case r.keys[i] == r.primary:
		return fmt.Errorf("key %q: %w", id, ErrPrimary)
	}
	k.ring.Store(&ring{r.primary, slices.Delete(slices.Clone(r.keys), i, i+1)})
	clear(r.keys[i].material()[:])
	return nil
}

// Adopt makes the keyring hold what fresh holds, which is used up. Seals go on being counted. It is refused, and changes nothing, when
// an id stands for another key than before. Dropped says whether a key is gone, so that what it sealed does not open any more.
func (k *Keyring) Adopt(fresh *Keyring) (dropped bool, err error) {
	had, have := k.ring.Load(), fresh.ring.Load()
	if have.primary == nil {
		return false, errors.New("the new keyring was wiped")
	}
	next := &ring{}
	for _, e := range have.keys {
		i := slices.IndexFunc(had.keys, func(old *key) bool { return old.id == e.id })
		if i >= 0 && *had.keys[i].material() != *e.material() {
			return false, fmt.Errorf("key %q: %w", e.id, ErrOtherKey)
		}
		kept := e
		if i >= 0 {
			kept = had.keys[i].as(e.state)
			kept.created = e.created
		}
		next.keys = append(next.keys, kept)
		if e == have.primary {
			next.primary = kept
		}
	}
	k.ring.Store(next)
	fresh.ring.Store(&ring{})
	for _, e := range have.keys {
		if !slices.ContainsFunc(next.keys, func(n *key) bool { return n.material() == e.material() }) {
			clear(e.material()[:]) // the copy of one that was there
		}
	}
	for _, e := range had.keys {
		if !slices.ContainsFunc(next.keys, func(n *key) bool { return n.id == e.id }) {
			clear(e.material()[:])
			dropped = true
		}
	}
	return dropped, nil
}

// Same says whether two keyrings hold the same keys in the same states.
func (k *Keyring) Same(other *Keyring) bool {
	return slices.EqualFunc(k.ring.Load().keys, other.ring.Load().keys, func(a, b *key) bool {
		return a.id == b.id && a.state == b.state && *a.material() == *b.material()
	})
}

// as is the key in another state. Both are the same key, and count their seals together.
func (k *key) as(s State) *key {
	other := *k
	other.state = s
	return &other
}

func (k *key) info(primary bool) KeyInfo {
	return KeyInfo{ID: k.id, State: k.state, Primary: primary, CreatedAt: k.created, Seals: k.seals.Load()}
}
