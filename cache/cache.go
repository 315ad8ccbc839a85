// Package cache keeps rows in memory, sealed as the store holds them, so that a request of a known org asks no store. A Cache is a
// store.Reader in front of another one.
//
// The library underneath, ristretto, is treated as a hint and never as the truth: a Set is buffered and may be dropped, a second Set
// before the first was processed leaves the old value, a Get may still return what Del has removed, and a slow loader's Set brings back
// what was deleted in between. So every entry carries the generation that its owner had before the entry was read, and counts only while
// that generation stands (fence.go). Nothing is ever deleted: a Change raises a generation, and what was read before it is worthless from
// then on, whatever ristretto does with it.
//
// What is served, and when it is not:
//   - An entry is used for TTL after it was read. Without a live change feed, for one second: a change might have gone unheard.
//   - Where the store cannot be reached, an entry goes on being used for MaxStale after it was read, unless a Change named it. Whoever
//     has no entry is refused at once (breaker.go): a store that is down costs an unknown org milliseconds, not a timeout. With a Fallback,
//     he is served from there. An org that is strict is refused in either case.
//   - What the store does not have is remembered for seconds, in a small table of its own (negative.go).
//
// Ages count from the moment that a read began, on the monotonic clock: what the store said may be as old as that.
package cache

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	"github.com/keyward/keyward/store"
)

// Options say how much is kept, and for how long.
type Options struct {
	// Size is the number of rows kept of each kind: credentials, assistants, tokens. 0: 1000.
	Size int
	// TTL is the longest that a row is served without asking the store again. 0: 5 minutes.
	TTL time.Duration
	// MaxStale is the longest that a row is served after the store last confirmed it, while the store cannot be reached. 0: not at all.
	MaxStale time.Duration
	// NegativeTTL is how long the cache remembers that there is no such row. 0: 2 seconds.
	NegativeTTL time.Duration
	// NegativeSize is how many missing rows are remembered of each kind, rounded up to a power of two. 0: 4096.
	NegativeSize int
	// LoadTimeout is the longest that one read of the store may take. 0: 2 seconds.
	LoadTimeout time.Duration
	// FeedLive says whether changes made elsewhere are being heard of, as DB.FeedLive does. It is called on every request. Nil: they are
	// not, and rows are confirmed with the store every second.
	FeedLive func() bool
	// Strict says whether an org fails closed: while the store cannot be reached, its credentials are not used. Nil: no org does.
	Strict func(org string) bool
	// Fallback is asked when the store cannot be reached and there is nothing here that may be used. Nil: none is.
	Fallback Fallback
	// Now is the clock. Nil: the system's monotonic one.
	Now func() time.Time
}

// A Fallback knows what the store has said, of all rows. It says nil for a row of which it knows that it has changed, and for all rows
// when they are too old; so it must have heard of each Change before the cache has.
type Fallback interface {
	Credential(ref store.Ref) *store.Credential
	Assistant(id string) *store.Assistant
	Token(hash [32]byte) *store.Token
	// Doubt tells it that the store says otherwise now.
	Doubt(change store.Change)
}

// maxSize keeps a mistyped size from asking for more memory than a machine has: ristretto reserves about 30 bytes per row beforehand.
const maxSize = 1 << 24

func (o Options) withDefaults() (Options, error) {
	var problems []error
	least := func(name string, bad bool, v any) {
		if bad {
			problems = append(problems, fmt.Errorf("cache: %s %v: must not be negative", name, v))
		}
	}
	least("size", o.Size < 0, o.Size)
	least("TTL", o.TTL < 0, o.TTL)
	least("max stale", o.MaxStale < 0, o.MaxStale)
	least("negative TTL", o.NegativeTTL < 0, o.NegativeTTL)
	least("negative size", o.NegativeSize < 0, o.NegativeSize)
	least("load timeout", o.LoadTimeout < 0, o.LoadTimeout)
	if o.Size > maxSize || o.NegativeSize > maxSize {
		problems = append(problems, fmt.Errorf("cache: size %d: must be at most %d", max(o.Size, o.NegativeSize), maxSize))
	}
	o.Size = orDefault(o.Size, 1000)
	o.TTL = orDefault(o.TTL, 5*time.Minute)
	o.NegativeTTL = orDefault(o.NegativeTTL, 2*time.Second)
	o.NegativeSize = orDefault(o.NegativeSize, 4096)
	o.LoadTimeout = orDefault(o.LoadTimeout, 2*time.Second)
	if o.FeedLive == nil {
		o.FeedLive = func() bool { return false }
	}
	return o, errors.Join(problems...)
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// A Cache is safe for concurrent use. Its owner hands its Apply to the store's Watch, and closes it.
type Cache struct {
	*core
	credentials *table[store.Ref, store.Credential]
	assistants  *table[string, store.Assistant]
	tokens      *table[[32]byte, store.Token]
}

var _ store.Reader = (*Cache)(nil)

// New puts a cache in front of r, which must honour its contexts: a read that does not end holds up Close.
func New(r store.Reader, o Options) (*Cache, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Cache{core: newCore(o)}
	// Random seeds: nobody outside can choose names that meet in one slot. Org and provider have one each, so that a name counts
	// differently in either place.
	names, providers := maphash.MakeSeed(), maphash.MakeSeed()
	if c.credentials, err = newTable(c.core, kind[store.Ref, store.Credential]{
		place: func(ref store.Ref) place {
			org := maphash.String(names, ref.Org)
			return place{row: org*0x9E3779B97F4A7C15 + maphash.String(providers, ref.Provider), owner: org}
		},
		owner: func(org string) (uint64, bool) { return maphash.String(names, org), org != "" },
		clone: func(ref store.Ref) store.Ref {
			return store.Ref{Org: strings.Clone(ref.Org), Provider: strings.Clone(ref.Provider)}
		},
		name: func(dst []byte, ref store.Ref) []byte { return appendPart(appendPart(dst, ref.Org), ref.Provider) },
		read: func(ctx context.Context, ref store.Ref) (*store.Credential, error) {
			row, _, err := r.Credential(ctx, ref)
			return row, err
		},
		owns:     func(row *store.Credential, ref store.Ref) bool { return row.Ref == ref },
		strict:   func(ref store.Ref) bool { return o.Strict != nil && o.Strict(ref.Org) },
		fallback: func(ref store.Ref) *store.Credential { return o.Fallback.Credential(ref) },
		same:     func(a, b *store.Credential) bool { return a.Version == b.Version },
		named:    func(ref store.Ref) store.Change { return store.Change{Kind: store.KindCredential, ID: ref.Org} },
	}); err != nil {
		return nil, err
	}
	if c.assistants, err = newTable(c.core, kind[string, store.Assistant]{
		place:    func(id string) place { h := maphash.String(names, id); return place{row: h, owner: h} },
		owner:    func(id string) (uint64, bool) { return maphash.String(names, id), id != "" },
		clone:    strings.Clone,
		name:     appendPart,
		read:     r.Assistant,
		owns:     func(row *store.Assistant, id string) bool { return row.ID == id },
		fallback: func(id string) *store.Assistant { return o.Fallback.Assistant(id) },
		same:     func(a, b *store.Assistant) bool { return a.Version == b.Version },
		named:    func(id string) store.Change { return store.Change{Kind: store.KindAssistant, ID: id} },
	}); err != nil {
		return nil, err
	}
	hashOf := func(token [32]byte) uint64 { return maphash.Bytes(names, token[:]) }
	if c.tokens, err = newTable(c.core, kind[[32]byte, store.Token]{
		place: func(token [32]byte) place { h := hashOf(token); return place{row: h, owner: h} },
		owner: func(id string) (uint64, bool) {
			b, err := hex.DecodeString(id)
			if err != nil || len(b) != 32 {
				return 0, false
			}
			return hashOf([32]byte(b)), true
		},
		clone:    func(token [32]byte) [32]byte { return token },
		name:     func(dst []byte, token [32]byte) []byte { return append(dst, token[:]...) },
		read:     r.Token,
		owns:     func(row *store.Token, token [32]byte) bool { return row.Hash == token },
		fallback: func(token [32]byte) *store.Token { return o.Fallback.Token(token) },
		same:     func(*store.Token, *store.Token) bool { return true }, // one is only ever revoked
		named: func(token [32]byte) store.Change {
			return store.Change{Kind: store.KindToken, ID: hex.EncodeToString(token[:])}
		},
	}); err != nil {
		return nil, err
	}
	return c, nil
}

// appendPart appends a name with its length in front, so that no two lists of names read the same.
func appendPart(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// Credential's second result says whether the row was served without the store.
func (c *Cache) Credential(ctx context.Context, ref store.Ref) (*store.Credential, bool, error) {
	return c.credentials.get(ctx, ref)
}

// Assistant is the mapping of one assistant.
func (c *Cache) Assistant(ctx context.Context, id string) (*store.Assistant, error) {
	row, _, err := c.assistants.get(ctx, id)
	return row, err
}

// Token is the row of a caller token.
func (c *Cache) Token(ctx context.Context, hash [32]byte) (*store.Token, error) {
	row, _, err := c.tokens.get(ctx, hash)
	return row, err
}

// Apply makes worthless what was read before the Change: no call that begins after it has returned is answered with such a row. It is for
// the store's Watch, never blocks and allocates next to nothing. A Change that says too little counts for more rows, never for fewer.
func (c *Cache) Apply(change store.Change) {
	switch change.Kind {
	case store.KindCredential:
		c.credentials.change(change.ID)
	case store.KindAssistant:
		c.assistants.change(change.ID)
	case store.KindToken:
		c.tokens.change(change.ID)
	default:
		c.credentials.fence.raiseAll()
		c.assistants.fence.raiseAll()
		c.tokens.fence.raiseAll()
	}
}

// Stats count what the cache did since it was made.
type Stats struct {
	Hits         uint64 `json:"hits"`          // served without asking the store
	Misses       uint64 `json:"misses"`        // had to ask, or were refused because the store is down
	NegativeHits uint64 `json:"negative_hits"` // known not to exist
	Stale        uint64 `json:"stale"`         // of the misses: served all the same, since the store could not be reached
	Loads        uint64 `json:"loads"`         // reads of the store
	LoadErrors   uint64 `json:"load_errors"`   // of the loads: the store could not be reached
	Evictions    uint64 `json:"evictions"`     // made room for others
	Entries      int    `json:"entries"`       // held now, those that count no more included
	StoreDown    bool   `json:"store_down"`    // the last load failed; the next ones are refused until one succeeds
}

// Stats are exact but for what happens while they are read.
func (c *Cache) Stats() Stats {
	var s Stats
	c.credentials.addTo(&s)
	c.assistants.addTo(&s)
	c.tokens.addTo(&s)
	s.StoreDown = c.breaker.isOpen()
	return s
}

// Close ends what the cache runs and waits for it. Calls that come later, or are under way, get store.ErrUnavailable.
func (c *Cache) Close() {
	c.closing.Do(func() {
		c.shut()
		c.credentials.close()
		c.assistants.close()
		c.tokens.close()
	})
}
