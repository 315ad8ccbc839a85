package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyward/keyward/cache"
	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/store"
)

func (s *sidecarProcess) openStore(ctx context.Context) error {
	c := s.c
	db, err := store.Open(ctx, c.Store.Reveal(), store.Options{Log: s.log})
	if err != nil {
		return err
	}
	s.db = db
	s.closers = append(s.closers, func() { _ = db.Close() })
	s.openLastGood()
	err = s.migrate(ctx, c)
	if errors.Is(err, store.ErrUnavailable) && s.lastGood != nil && s.lastGood.Usable() {
		s.log.Warn().Err(err).Interface("last_known_good", s.lastGood.Stats()).Msg("the store cannot be reached: started with the rows that it last confirmed")
		s.unmigrated, err = true, nil
	}
	if err != nil {
		return err
	}
	if !s.unmigrated { // else when the store is there: migrateLater
		if err := s.checkRole(ctx, c); err != nil {
			return err
		}
	}
	s.usage = store.NewUsage(db)
	s.owned.Go(s.usage.Run)
	s.stops = append(s.stops, s.usage.Stop)
	s.closers = append(s.closers, s.writeUsage)
	return nil
}

// writeUsage writes what was used and is not written yet, when nobody uses anything any more.
func (s *sidecarProcess) writeUsage() {
	const atMost = 2 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), atMost)
	defer cancel()
	if err := s.usage.Flush(ctx); err != nil {
		s.log.Warn().Err(err).Msg("when assistants and callers were last used could not be written; the last minute of it is lost")
	}
}

// migrate brings the schema up to date, or refuses one that this version cannot work with.
func (s *sidecarProcess) migrate(ctx context.Context, c *Config) error {
	if !c.AutoMigrate {
		schema, err := s.db.Schema(ctx)
		if err != nil {
			return err
		}
		if schema.Current < schema.Latest {
			return fmt.Errorf("the store's schema is at version %d and this program needs %d; run `keyward migrate up`, or start without --auto-migrate=false", schema.Current, schema.Latest)
		}
		return nil
	}
	db := s.db
	if url := c.MigrateURL.Reveal(); url != "" {
		other, err := store.Open(ctx, url, store.Options{Log: s.log})
		if err != nil {
			return fmt.Errorf("--migrate-url: %w", err)
		}
		defer func() { _ = other.Close() }()
		db = other
	}
	n, err := db.MigrateUp(ctx)
	if err != nil {
		return err
	}
	if n > 0 {
		s.log.Info().Int("steps", n).Msg("brought the store's schema up to date")
	}
	return nil
}

// checkRole refuses a role that row-level security does not hold for, where the store has roles of its own: keyward_app exists, or
// --migrate-url names another. Where one role does everything, which is the short way to a store for one sidecar, that is said and no more.
func (s *sidecarProcess) checkRole(ctx context.Context, c *Config) error {
	apart, err := s.db.CheckRole(ctx)
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, store.ErrRole):
		return fmt.Errorf("checking the store's role: %w", err)
	case apart || c.migratesAsAnother():
		return err
	}
	s.log.Warn().Err(err).Msg("one role does everything in the store, so that only the program keeps the orgs apart; docs/reference/store.md has the SQL for two")
	return nil
}

// migratesAsAnother says whether --migrate-url names another role than --store, and not only a direct address for the same.
func (c *Config) migratesAsAnother() bool {
	if c.MigrateURL == "" {
		return false
	}
	return !store.SameRole(c.Store.Reveal(), c.MigrateURL.Reveal())
}

func (s *sidecarProcess) openCache(ctx context.Context) error {
	c := s.c
	s.setStrict(c)
	options := cache.Options{Size: c.CacheSize, TTL: c.CacheTTL, MaxStale: c.MaxStale, FeedLive: s.db.FeedLive, Strict: s.isStrict}
	if s.lastGood != nil {
		options.Fallback = s.lastGood
	}
	ca, err := cache.New(s.db, options)
	if err != nil {
		return err
	}
	apply := ca.Apply
	if s.lastGood != nil {
		apply = func(change store.Change) {
			s.lastGood.Apply(change) // first: what the cache then finds worthless must not come from there
			ca.Apply(change)
		}
	}
	s.cache = ca
	s.closers = append(s.closers, ca.Close)
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.owned.Go(func() {
		if err := s.db.Watch(watch, apply); err != nil && watch.Err() == nil {
			s.log.Error().Err(err).Msg("watching the store for changes ended")
		}
	})
	s.stops = append(s.stops, stop)
	s.keeper = &credential.Keeper{DB: s.db, Keys: s.keys, Providers: s.c.providers()}
	s.local, err = openLocalSwitch(ca, c.RunDir)
	return err
}

// checkRows tries to open every credential once, in the background: a key that opens no rows is better known at start than by the
// first org's request. One that cannot be opened stops nobody else.
func (s *sidecarProcess) checkRows(ctx context.Context) {
	var scratch []byte
	total, bad := 0, 0
	ids := map[string]int{}
	err := s.db.EachCredential(ctx, func(c *store.Credential) error {
		total++
		secret, buf, err := credential.Open(s.keys, c, scratch[:0])
		scratch = buf
		if err != nil {
			bad++
			ids[c.KeyID]++
			return nil
		}
		secret.Wipe()
		return nil
	})
	switch {
	case err != nil && ctx.Err() == nil:
		s.log.Warn().Err(err).Msg("checking that the keys open the stored credentials could not be finished")
	case bad > 0:
		s.log.Error().Int("credentials", total).Int("unreadable", bad).Interface("sealed_with", ids).Str("key_id", s.keys.PrimaryID()).
			Msg("the keys at hand do not open some stored credentials; their requests get 424 credential_unreadable until the key that sealed them is in the key source")
	}
}
