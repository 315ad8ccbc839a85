// Package lastgood keeps all rows of the store in a file beside the sidecar, sealed as a whole under the keyring: so that a start while the
// store is away serves, and orgs that the cache does not hold are served too.
//
// It follows the same changes as the cache. What a change names is dropped at once and read anew; after a gap everything is. So what it
// holds is what the store said at the moment that it was last confirmed: as long as the change feed is live and nothing waits to be read,
// that is now. From then on rows are handed out for MaxStale, over restarts too: the file's time says when it was confirmed.
//
// Credentials are sealed in it twice, as rows and as part of the file. Assistants and callers' tokens (their hashes) are not sealed as
// rows, and whoever could write them could let himself in: so the file opens only under the keyring, for this store, or is not used.
package lastgood

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

const (
	lookEvery  = time.Second     // how often it is confirmed, and what failed is tried again
	writeEvery = 5 * time.Second // how often the file is written, at most
	readLimit  = 10 * time.Second
	endLimit   = time.Second // for what is to be read yet at the end, unless Options say otherwise
	pageSize   = 1000
)

// Options say where the rows come from and where they are kept.
type Options struct {
	Path     string
	MaxStale time.Duration // the longest that rows are handed out after they were confirmed
	Keys     *seal.Keyring
	DB       *store.DB
	Name     string // of the store, without its password: the file of another store is not used
	Log      zerolog.Logger

	end time.Duration // instead of endLimit, for tests
}

// A Keeper is safe for concurrent use. Rows that it hands out are never changed.
type Keeper struct {
	o    Options
	wake chan struct{}

	mu          sync.RWMutex
	credentials map[string][]*store.Credential // by org
	assistants  map[string]*store.Assistant
	tokens      map[[32]byte]*store.Token
	confirmed   time.Time // zero: never
	full        bool      // everything is to be read
	dirty       map[store.Change]bool
	changes     int            // counts what was changed
	heard       []store.Change // named by changes, and not in the journal yet

	// Run owns these.
	wrote      int // as many changes as the file has
	generation int // of the journal
}

// Stats say what is held.
type Stats struct {
	Credentials int       `json:"credentials"`
	Assistants  int       `json:"assistants"`
	Tokens      int       `json:"tokens"`
	ConfirmedAt time.Time `json:"confirmed_at"`
	Usable      bool      `json:"usable"`
}

// Open reads the file. One that is missing, or cannot be used, is as good as an empty one, and the log says why.
func Open(o Options) *Keeper {
	k := &Keeper{o: o, wake: make(chan struct{}, 1), full: true, dirty: map[store.Change]bool{}}
	k.take(&rows{})
	k.wrote = -1 // there is no file
	k.load()
	return k
}

// Look says what the file holds, and changes nothing: for who asks whether a start without the store would serve. DB is not needed.
func Look(o Options) (Stats, error) {
	k := &Keeper{o: o, dirty: map[store.Change]bool{}}
	r, confirmed, err := k.readFile()
	if err != nil {
		return Stats{}, err
	}
	k.take(r)
	k.confirmed, k.generation = confirmed, r.Generation
	k.replay()
	return k.Stats(), nil
}

// Usable says whether rows would be handed out now.
func (k *Keeper) Usable() bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.usable()
}

func (k *Keeper) usable() bool {
	return !k.confirmed.IsZero() && time.Since(k.confirmed) <= k.o.MaxStale
}

// Stats say what is held.
func (k *Keeper) Stats() Stats {
	k.mu.RLock()
	defer k.mu.RUnlock()
	s := Stats{Assistants: len(k.assistants), Tokens: len(k.tokens), ConfirmedAt: k.confirmed.UTC().Round(0), Usable: k.usable()}
	for _, rows := range k.credentials {
		s.Credentials += len(rows)
	}
	return s
}

// Credential is the row as the store last said it: nil if there is none that may be used.
func (k *Keeper) Credential(ref store.Ref) *store.Credential {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if !k.usable() {
		return nil
	}
	for _, c := range k.credentials[ref.Org] {
		if c.Ref == ref {
			return c
		}
	}
	return nil
}

// Assistant is the same for an assistant.
func (k *Keeper) Assistant(id string) *store.Assistant {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if !k.usable() {
		return nil
	}
	return k.assistants[id]
}

// Token is the same for a caller's token.
func (k *Keeper) Token(hash [32]byte) *store.Token {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if !k.usable() {
		return nil
	}
	return k.tokens[hash]
}

// Doubt is what the cache has learned from the store: that a row is not there, or is another one than is held. It is dropped, and read anew.
// Nothing is ever taken over from the cache: what it has read may be older than a change that was heard of since.
func (k *Keeper) Doubt(change store.Change) { k.Apply(change) }

// Apply drops what a change names. It is for the store's Watch, before the cache's, and never blocks for long.
func (k *Keeper) Apply(change store.Change) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if change.ID == "" || !k.drop(change) {
		k.full = true
	} else {
		k.dirty[change] = true
		k.heard = append(k.heard, change)
	}
	k.changes++
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// drop removes what a change names; false: it names nobody.
func (k *Keeper) drop(change store.Change) bool {
	switch change.Kind {
	case store.KindCredential:
		delete(k.credentials, change.ID)
	case store.KindAssistant:
		delete(k.assistants, change.ID)
	case store.KindToken:
		hash, ok := hashOf(change.ID)
		if !ok {
			return false
		}
		delete(k.tokens, hash)
	default:
		return false
	}
	return true
}

// Run follows the store until ctx ends, and then writes the file once more.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var wrote time.Time
	told := ""
	for {
		err := errors.Join(k.note(), k.follow(ctx))
		saving := err == nil && time.Since(wrote) >= writeEvery
		if saving {
			wrote = time.Now()
			err = k.save()
		}
		switch {
		case err == nil && saving: // what kept it from being written is over
			told = ""
		case err == nil:
		case ctx.Err() == nil && !errors.Is(err, store.ErrUnavailable) && err.Error() != told:
			told = err.Error()
			k.o.Log.Error().Err(err).Msg("keeping the last known good rows")
		}
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), cmp.Or(k.o.end, endLimit))
			defer cancel()
			if err := k.end(last); err != nil && !errors.Is(err, store.ErrUnavailable) {
				k.o.Log.Error().Err(err).Msg("keeping the last known good rows")
			}
			return
		case <-k.wake:
		case <-tick.C:
		}
	}
}

// end writes down what there is when nothing follows. The feed may still be ending: what it announces meanwhile is read too, as long as
// there is time, and is at least named in the journal.
func (k *Keeper) end(ctx context.Context) error {
	for {
		if err := errors.Join(k.note(), k.follow(ctx), k.save()); err != nil {
			return errors.Join(err, k.note())
		}
		k.mu.RLock()
		behind := k.full || len(k.dirty) > 0 || len(k.heard) > 0
		k.mu.RUnlock()
		if !behind {
			return nil
		}
	}
}

// follow reads what is to be read, and confirms the rest.
func (k *Keeper) follow(ctx context.Context) error {
	k.mu.Lock()
	full := k.full
	var dirty []store.Change
	for change := range k.dirty {
		dirty = append(dirty, change)
	}
	k.mu.Unlock()
	if full {
		if err := k.readAll(ctx); err != nil {
			return err
		}
	} else {
		for _, change := range dirty {
			if err := k.readOne(ctx, change); err != nil {
				return err
			}
		}
	}
	asked := time.Now() // not when it has answered: this process may stand still meanwhile
	if !k.o.DB.FeedLive() {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.full && len(k.dirty) == 0 {
		k.confirmed = asked
	}
	return nil
}

// readAll reads everything. What changes meanwhile is announced, and read once more.
func (k *Keeper) readAll(ctx context.Context) error {
	k.mu.Lock()
	k.full = false
	clear(k.dirty)
	k.mu.Unlock()
	fresh := &rows{}
	err := k.read(ctx, fresh)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.full = true
		return err
	}
	k.take(fresh)
	for change := range k.dirty {
		k.drop(change)
	}
	k.changes++
	return nil
}

func (k *Keeper) read(ctx context.Context, into *rows) error {
	err := k.o.DB.EachCredential(ctx, func(c *store.Credential) error {
		into.Credentials = append(into.Credentials, c)
		return nil
	})
	for after, more := "", true; more && err == nil; more = after != "" {
		var page []*store.Assistant
		page, after, err = k.o.DB.Assistants(ctx, "", after, pageSize)
		into.Assistants = append(into.Assistants, page...)
	}
	for after, more := "", true; more && err == nil; more = after != "" {
		var page []*store.Token
		page, after, err = k.o.DB.Tokens(ctx, after, pageSize)
		into.Tokens = append(into.Tokens, page...)
	}
	return err
}

// readOne reads what one change has named.
func (k *Keeper) readOne(ctx context.Context, change store.Change) error {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	k.mu.Lock()
	delete(k.dirty, change)
	k.mu.Unlock()
	fresh := &rows{}
	err := k.readNamed(ctx, change, fresh)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case err != nil:
		k.dirty[change] = true
		return err
	case k.dirty[change] || k.full:
		return nil // it has changed again: what was read may be from before
	}
	k.drop(change)
	k.add(fresh)
	k.changes++
	return nil
}

func (k *Keeper) readNamed(ctx context.Context, change store.Change, into *rows) (err error) {
	switch change.Kind {
	case store.KindCredential:
		into.Credentials, _, err = k.o.DB.Credentials(ctx, change.ID, "", pageSize)
	case store.KindAssistant:
		var a *store.Assistant
		if a, err = k.o.DB.Assistant(ctx, change.ID); err == nil {
			into.Assistants = append(into.Assistants, a)
		}
	case store.KindToken:
		hash, _ := hashOf(change.ID)
		var t *store.Token
		if t, err = k.o.DB.Token(ctx, hash); err == nil {
			into.Tokens = append(into.Tokens, t)
		}
	}
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return err
}

// take makes the rows all that there are.
func (k *Keeper) take(r *rows) {
	k.credentials, k.assistants, k.tokens = map[string][]*store.Credential{}, map[string]*store.Assistant{}, map[[32]byte]*store.Token{}
	k.add(r)
}

func (k *Keeper) add(r *rows) {
	for _, c := range r.Credentials {
		k.credentials[c.Org] = append(slices.Clip(k.credentials[c.Org]), c)
	}
	for _, a := range r.Assistants {
		k.assistants[a.ID] = a
	}
	for _, t := range r.Tokens {
		k.tokens[t.Hash] = t
	}
}
