package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	formatVersion = 0x01
	keySize       = 32
	nonceSize     = 12
	tagSize       = 16
	maxKeyID      = 64

	// maxSeals is how often one key may seal with random nonces; warnSeals is long before.
	maxSeals  = 1 << 32
	warnSeals = 1 << 31
)

// ErrOpen: the envelope cannot be opened: it is damaged, was sealed for something else, or by a key that is not in the keyring.
var ErrOpen = errors.New("cannot be opened")

// ErrUnknownKey is an ErrOpen whose reason is known: no key of the keyring has the envelope's key id.
var ErrUnknownKey = fmt.Errorf("sealed by a key that is not in the keyring: %w", ErrOpen)

// A State says what a key is for.
type State string

// The states of a key. Every key opens; only the primary one seals.
const (
	Primary  State = "primary"
	Active   State = "active"   // given to every sidecar before it becomes primary
	Retiring State = "retiring" // until no row is sealed by it any more
)

// A key is one key-encryption key. It cannot be printed: what is secret is behind funcs, because fmt shows everything else that it gets at
// by reflection, in unexported fields too, where it calls no String.
type key struct {
	id       string
	state    State
	created  time.Time
	material func() *[keySize]byte
	cipher   func() cipher.AEAD
	seals    *atomic.Uint64 // shared by the forms of one key
}

// use makes b the key's bytes. The caller overwrites its own copy.
func (k *key) use(b [keySize]byte) {
	erasing(func() {
		block, err := aes.NewCipher(b[:])
		if err != nil {
			panic(err) // the size is right
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			panic(err) // it is AES
		}
		k.cipher = func() cipher.AEAD { return aead }
	})
	k.material = func() *[keySize]byte { return &b }
	k.seals = new(atomic.Uint64)
}

// A Keyring seals with its primary key and opens with all. Generate and Load make one. It is safe for concurrent use and cannot be
// printed.
type Keyring struct {
	ring *atomic.Pointer[ring] // behind a pointer, so that a copy is the same keyring, and prints as nothing too
}

// A ring is never changed.
type ring struct {
	primary *key
	keys    []*key // few: a loop is faster than a map
}

func newKeyring(primary *key, keys []*key) *Keyring {
	k := &Keyring{ring: new(atomic.Pointer[ring])}
	k.ring.Store(&ring{primary, keys})
	return k
}

// KeyInfo is what may be shown of a key.
type KeyInfo struct {
	ID        string    `json:"id"`
	State     State     `json:"state"`
	Primary   bool      `json:"primary"`
	CreatedAt time.Time `json:"created_at"`
	Seals     uint64    `json:"seals"` // by this process, and before it as far as CountSeals was told
}

// Generate makes a keyring of one new key.
func Generate() *Keyring {
	k := generate(Primary)
	return newKeyring(k, []*key{k})
}

func generate(s State) *key {
	k := &key{id: newKeyID(), state: s, created: time.Now().UTC().Truncate(time.Second)}
	var b [keySize]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	k.use(b)
	clear(b[:])
	return k
}

// newKeyID names a key by the day it was made on and some random letters.
func newKeyID() string {
	return "k" + time.Now().UTC().Format("20060102") + "-" + rand.Text()[:6]
}

// PrimaryID names the key that seals; empty: the keyring was wiped.
func (k *Keyring) PrimaryID() string {
	if p := k.ring.Load().primary; p != nil {
		return p.id
	}
	return ""
}

// Keys lists the keys in the order of the keyset, never their bytes.
func (k *Keyring) Keys() []KeyInfo {
	r := k.ring.Load()
	out := make([]KeyInfo, len(r.keys))
	for i, e := range r.keys {
		out[i] = e.info(e == r.primary)
	}
	return out
}

// CountSeals raises a key's count to seals, if it is below: the limit holds for all sidecars and earlier processes together, and the
// store knows about how often they have sealed with it.
func (k *Keyring) CountSeals(id string, seals uint64) {
	seals = min(seals, maxSeals)
	for _, e := range k.ring.Load().keys {
		if e.id != id {
			continue
		}
		for n := e.seals.Load(); n < seals && !e.seals.CompareAndSwap(n, seals); {
			n = e.seals.Load()
		}
	}
}

// WornOut says whether the primary key has sealed so often that it is time for a new one: half of what it may.
func (k *Keyring) WornOut() bool {
	p := k.ring.Load().primary
	return p != nil && p.seals.Load() >= warnSeals
}

// Seal appends to dst the envelope of plaintext, which opens only with the same context. It panics when the key has sealed 2³² times and
// when the keyring was wiped: to return anything else would mean to lose a credential, or all of them.
func (k *Keyring) Seal(dst, plaintext, context []byte) []byte {
	p := k.ring.Load().primary
	if p == nil {
		panic("seal: the keyring was wiped")
	}
	if p.seals.Add(1) > maxSeals {
		p.seals.Store(maxSeals)
		panic("seal: key " + p.id + " has sealed as often as is safe; rotate it")
	}
	a := newAAD(formatVersion, p.id, context)
	defer a.free()
	dst = append(dst, formatVersion, byte(len(p.id)))
	dst = append(dst, p.id...)
	erasing(func() { dst = p.cipher().Seal(dst, nil, plaintext, a.b) })
	return dst
}

// Open appends to dst what was sealed; the space behind dst must not overlap sealed. It fails with ErrOpen, or ErrUnknownKey which is one,
// and then returns dst as it was. It allocates nothing when dst has room for len(sealed) more bytes.
func (k *Keyring) Open(dst, sealed, context []byte) ([]byte, error) {
	version, id, box, ok := split(sealed)
	if !ok {
		return dst, ErrOpen
	}
	for _, e := range k.ring.Load().keys {
		if e.id != string(id) {
			continue
		}
		a := newAAD(version, e.id, context)
		var out []byte
		var err error
		if version == bulkVersion {
			out, err = e.openBulk(dst, box, a.b)
		} else {
			erasing(func() { out, err = e.cipher().Open(dst, nil, box, a.b) })
		}
		a.free()
		if err != nil {
			return dst, ErrOpen
		}
		return out, nil
	}
	return dst, ErrUnknownKey
}

// SealedWith is the id of the key that an envelope was sealed by, as the envelope says.
func SealedWith(sealed []byte) (keyID string, ok bool) {
	_, id, _, ok := split(sealed)
	return string(id), ok
}

func split(sealed []byte) (version byte, id, box []byte, ok bool) {
	if len(sealed) < 2 || sealed[0] != formatVersion && sealed[0] != bulkVersion {
		return 0, nil, nil, false
	}
	n, random := int(sealed[1]), nonceSize
	if sealed[0] == bulkVersion {
		random = saltSize
	}
	if n == 0 || len(sealed) < 2+n+random+tagSize {
		return 0, nil, nil, false
	}
	return sealed[0], sealed[2 : 2+n], sealed[2+n:], true
}

// aad is additional data. Its memory is used again: a buffer on the stack would move to the heap, because it is passed through the
// cipher's interface.
type aad struct{ b []byte }

var aads = sync.Pool{New: func() any { return &aad{make([]byte, 0, 256)} }}

// newAAD is every part with its length in front, so that no two lists of parts read the same.
func newAAD(version byte, id string, context []byte) *aad {
	a := aads.Get().(*aad)
	b := append(a.b[:0], version)
	b = binary.BigEndian.AppendUint32(b, uint32(len(id)))
	b = append(b, id...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(context)))
	a.b = append(b, context...)
	return a
}

func (a *aad) free() { aads.Put(a) }

// Wipe overwrites the keys as they were loaded and lets go of what the cipher has made of them. The keyring opens and seals nothing
// afterwards.
func (k *Keyring) Wipe() {
	for _, e := range k.ring.Swap(&ring{}).keys {
		clear(e.material()[:])
	}
}
