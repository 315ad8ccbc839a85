package main

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/keyward/keyward/lastgood"
	"github.com/keyward/keyward/store"
)

// migrateEvery is how often a store that was away at the start is tried.
const migrateEvery = time.Second

// openLastGood reads the file of the last known good rows, if there is to be one.
func (s *sidecarProcess) openLastGood() {
	if s.c.LastGood == "" {
		return
	}
	s.lastGood = lastgood.Open(lastgood.Options{
		Path: s.c.LastGood, MaxStale: s.c.MaxStale, Keys: s.keys, DB: s.db, Name: storeName(s.c.Store.Reveal()), Log: s.log,
	})
}

// storeName names a store without user and password.
func storeName(location string) string {
	u, err := url.Parse(location)
	if err != nil {
		return ""
	}
	return u.Host + u.Path
}

// migrateLater does what the start could not do, once the store is there.
func (s *sidecarProcess) migrateLater(ctx context.Context, c *Config) {
	for {
		if sleep(ctx, migrateEvery) != nil {
			return
		}
		err := s.migrate(ctx, c)
		if err == nil {
			err = s.checkRole(ctx, c)
		}
		switch {
		case err == nil:
			s.log.Info().Msg("the store can be reached again")
			return
		case !errors.Is(err, store.ErrUnavailable) && ctx.Err() == nil:
			s.fail(err) // as it would have kept the sidecar from starting
			return
		}
	}
}

// setStrict installs which orgs fail closed.
func (s *sidecarProcess) setStrict(c *Config) {
	strict := map[string]bool{}
	for _, org := range c.StrictOrg {
		strict[org] = true
	}
	s.strict.Store(&strict)
}

func (s *sidecarProcess) isStrict(org string) bool { return (*s.strict.Load())[org] }
