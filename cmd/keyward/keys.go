package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/keyward/keyward/keysource"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

const (
	lookEvery  = 500 * time.Millisecond // how often the file of the keys is looked at
	retryEvery = 5 * time.Second        // how often one that could not be read is tried again
	countEvery = time.Hour              // how often seals are counted anew
)

// A keyWatch is where the sidecar's keys come from, and how the last look at it went.
type keyWatch struct {
	source  *keysource.Source
	seen    fingerprint            // of the file that the keyring was read from; watchKeys owns it
	tried   time.Time              // when it was last read anew; the same
	again   chan struct{}          // look now
	failure atomic.Pointer[string] // why the file that is there now could not be taken over; nil: it was

	changed chan struct{} // the keys have
	self    store.Sidecar // attendKeys owns it
}

// lookAgain has the keys read anew, whether or not their file seems to have changed.
func (w *keyWatch) lookAgain() {
	select {
	case w.again <- struct{}{}:
	default:
	}
}

// A fingerprint changes with the file: with its name too, where Kubernetes changes a link.
type fingerprint struct {
	dev, ino   uint64
	size       int64
	mtim, ctim int64
}

func fingerprintOf(path string) fingerprint {
	if path == "" {
		return fingerprint{}
	}
	st, err := os.Stat(path)
	if err != nil {
		return fingerprint{}
	}
	s := st.Sys().(*syscall.Stat_t)
	mtim, ctim := changedAt(s)
	return fingerprint{uint64(s.Dev), s.Ino, s.Size, mtim, ctim} //nolint:unconvert // other platforms' types differ
}

// openKeys reads the key source. A missing file is made for the embedded store only: sidecars that share a store share its keys too,
// and a key made by one of them could not open what another sealed.
func (s *sidecarProcess) openKeys(ctx context.Context) error {
	c := s.c
	source, err := c.source()
	if err != nil {
		return usagef("%s: %w", c.flags.at("key"), err)
	}
	embedded := strings.HasPrefix(c.Store.Reveal(), "sqlite:")
	if embedded {
		if err := privateFolder(c.DataDir); err != nil && !c.isSet("store") {
			return fmt.Errorf("data folder: %w", err)
		}
	}
	seen := fingerprintOf(source.Path()) // before it is read: a change in between is found by the first look
	keys, err := source.Load(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist) && embedded && !source.Wrapped():
		keys = seal.Generate()
		if err := source.Create(ctx, keys); err != nil {
			return err
		}
		seen = fingerprintOf(source.Path())
		s.log.Warn().Str("key", c.Key).Msg("made a new key; keep a copy of the file: without it no credential can be opened")
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("key %s does not exist; make it once with `keyward keys generate --key %s` and give the same one to every sidecar", source, source)
	case errors.Is(err, keysource.ErrUnavailable):
		return fmt.Errorf("%w; the start needs it once, to unwrap the keyset, and sidecars that run go on without it", err)
	case err != nil:
		return err
	}
	s.keys = keys
	s.closers = append(s.closers, keys.Wipe)
	s.weak = harden()
	host, _ := os.Hostname()
	s.source = &keyWatch{source: source, seen: seen, again: make(chan struct{}, 1), changed: make(chan struct{}, 1), self: store.Sidecar{
		ID: "sc_" + strings.ToLower(rand.Text()[:16]), Host: host, PID: os.Getpid(), Version: version, StartedAt: s.started,
	}}
	return nil
}

// place names a folder of this machine until it is started anew. Empty: it cannot be told.
func place(dir string) string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	f := fingerprintOf(dir)
	if err != nil || f.ino == 0 {
		return ""
	}
	return fmt.Sprintf("%s %d:%d", strings.TrimSpace(string(boot)), f.dev, f.ino)
}

// watchKeys keeps the keyring as its source has it.
func (s *sidecarProcess) watchKeys(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	force := false // the first look is for what changed during the start
	for {
		s.lookAtKeys(ctx, force)
		select {
		case <-ctx.Done():
			return
		case <-s.source.again:
			force = true
		case <-tick.C:
			force = false
		}
	}
}

// lookAtKeys takes over what its source holds if that has changed, or if it could not be read before.
func (s *sidecarProcess) lookAtKeys(ctx context.Context, force bool) {
	w := s.source
	if w.source.Path() == "" {
		return // a variable is as it was at the start
	}
	now := fingerprintOf(w.source.Path())
	retry := w.failure.Load() != nil && time.Since(w.tried) >= retryEvery
	if now == w.seen && !force && !retry {
		return
	}
	w.tried, w.seen = time.Now(), now
	if s.adoptKeys(ctx) {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// attendKeys tells the store which keys this sidecar has: a new key must be here before anyone seals with it.
func (s *sidecarProcess) attendKeys(ctx context.Context, runDir string) {
	s.source.self.Place = place(runDir) // which exists by now
	told := ""                          // the last failure
	for {
		told = s.attend(ctx, told)
		select {
		case <-ctx.Done():
			leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = s.db.Leave(leave, s.source.self.ID) // it would be forgotten in a minute anyway
			return
		case <-s.source.changed:
		case <-time.After(store.AttendEvery):
		}
	}
}

// adoptKeys takes over what the source holds now. What is not good changes nothing: the keys that are there go on.
func (s *sidecarProcess) adoptKeys(ctx context.Context) (changed bool) {
	w := s.source
	fresh, err := w.source.Load(ctx)
	dropped := false
	if err == nil {
		defer fresh.Wipe()
		if changed = !s.keys.Same(fresh); changed {
			if err = s.needed(ctx, fresh); err == nil {
				dropped, err = s.keys.Adopt(fresh)
			}
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return false
		}
		why := err.Error()
		if before := w.failure.Swap(&why); before == nil || *before != why {
			s.log.Error().Err(err).Msg("the keys have changed and could not be taken over; the ones that are there stay")
		}
		return false
	}
	w.failure.Store(nil)
	if changed {
		s.log.Info().Str("keys", s.keyNote()).Msg("keys read anew")
	}
	if dropped {
		if s.lastGood != nil {
			s.lastGood.Apply(store.Change{})
		}
		s.cache.Apply(store.Change{}) // what the key has sealed and is still kept opens no more
	}
	return changed
}

// needed refuses a keyset that lacks a key by which rows are sealed: it is another file, put in the wrong place, and the keys that are here
// are perhaps the last ones.
func (s *sidecarProcess) needed(ctx context.Context, fresh *seal.Keyring) error {
	has := map[string]bool{}
	for _, k := range fresh.Keys() {
		has[k.ID] = true
	}
	var gone []string
	for _, k := range s.keys.Keys() {
		if !has[k.ID] {
			gone = append(gone, k.ID)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	counts, err := s.db.SealCounts(ctx)
	if err != nil {
		return fmt.Errorf("whether key %s is still needed cannot be found out: %w", strings.Join(gone, ", "), err)
	}
	for _, c := range counts {
		if c.Rows > 0 && slices.Contains(gone, c.KeyID) {
			return fmt.Errorf("it lacks key %s, by which %d rows of %s are sealed", c.KeyID, c.Rows, c.Table)
		}
	}
	return nil
}

// attend tells the store which keys there are, and returns why that failed. A failure is no reason to stop: rotate and retire wait for
// sidecars that they know, and say so.
func (s *sidecarProcess) attend(ctx context.Context, told string) string {
	w := s.source
	w.self.Keys, w.self.Primary = nil, ""
	for _, k := range s.keys.Keys() { // one look: the keys may change in between
		w.self.Keys = append(w.self.Keys, k.ID)
		if k.Primary {
			w.self.Primary = k.ID
		}
	}
	err := s.db.Attend(ctx, &w.self)
	switch {
	case err == nil, ctx.Err() != nil:
		return ""
	case errors.Is(err, store.ErrUnavailable):
		return told // which is in the log already, and will pass
	case err.Error() != told:
		s.log.Warn().Err(err).Msg("this sidecar could not say in the store which keys it has; keyward keys rotate does not know of it")
	}
	return err.Error()
}

// checkKeys is what /readyz says of the keys. A sidecar that could not take a new keyset over works on with the one before.
func (s *sidecarProcess) checkKeys(context.Context) error {
	if why := s.source.failure.Load(); why != nil {
		return errors.New(*why)
	}
	return nil
}

// keyNote names the keys that this sidecar has.
func (s *sidecarProcess) keyNote() string {
	var all []string
	for _, k := range s.keys.Keys() {
		all = append(all, k.ID+" "+string(k.State))
	}
	return strings.Join(all, ", ")
}

// countSeals tells the keyring how often its keys have sealed, in all sidecars and before this start, and warns long before it is too
// often.
func (s *sidecarProcess) countSeals(ctx context.Context) {
	for {
		counts, err := s.db.SealCounts(ctx)
		if err != nil && ctx.Err() == nil && !errors.Is(err, store.ErrUnavailable) {
			s.log.Warn().Err(err).Msg("how often the keys have sealed could not be counted")
		}
		tellSeals(s.keys, counts)
		if s.keys.WornOut() {
			s.log.Error().Str("key_id", s.keys.PrimaryID()).
				Msg("the primary key has sealed half as often as is safe (2^32 times), and then refuses; make a new one with keyward keys add, then keyward keys rotate")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(countEvery):
		}
	}
}

// tellSeals adds the tables up. Rows that are no more are counted as the primary key's: it is likely, and too many is safe.
func tellSeals(keys *seal.Keyring, counts []store.SealCount) {
	sums := map[string]uint64{}
	for _, c := range counts {
		id := c.KeyID
		if id == "" {
			id = keys.PrimaryID()
		}
		sums[id] += uint64(max(c.Seals, 0))
	}
	for id, n := range sums {
		keys.CountSeals(id, n)
	}
}
