package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/keyward/keyward/bench/report"
	"github.com/keyward/keyward/internal/pgtest"
)

const spare = 20

// miss is what a request costs whose org is not in the cache: many orgs, asked for in order, and a cache of a few. Beside it, 1,000 requests
// at once for one org that nobody has asked for before: how often that asks the store.
//
// The last orgs are spared for that.
func miss(ctx context.Context, e *Env) error {
	orgs := e.Misses
	stores := map[string][]string{"sqlite": nil}
	order := []string{"sqlite"}
	if db, err := pgtest.Launch(); err != nil {
		e.Left("miss with PostgreSQL: %v", err)
	} else {
		e.atEnd(func() error { db.Close(); return nil })
		url, err := db.Create("bench")
		if err != nil {
			return err
		}
		key := filepath.Join(e.Dir, "keys.json")
		if out, err := exec.CommandContext(ctx, e.Binary, "keys", "generate", "--key", "file:"+key).CombinedOutput(); err != nil {
			return fmt.Errorf("making a key: %w: %s", err, out)
		}
		stores["postgres"] = []string{"--store", url, "--key", "file:" + key}
		order = append(order, "postgres")
	}
	var all []contender
	sidecars := map[string]*Sidecar{}
	for _, store := range order {
		s, err := e.sidecar(ctx, append(stores[store], "--cache-size", "16")...)
		if err != nil {
			return err
		}
		if err := s.Fill(ctx, e.Say, "miss with "+store, 0, orgs); err != nil {
			return err
		}
		sidecars[store] = s
		c := s.contender(keyward+" "+store, emails(inOrder(0, orgs-spare)))
		c.around = s.hitRate
		all = append(all, c)
		if store == "sqlite" {
			all = append(all, s.contender(keyward+" hit", emails(inOrder(0, 1))))
		}
	}
	runs, err := e.inTurnKeeping(ctx, "miss", []shape{{conns: 1}, {conns: 16}}, all...)
	if err != nil {
		return err
	}
	for _, store := range order {
		// With a cache that has room: one that turns newcomers away would have late ones of the thousand ask again.
		if err := sidecars[store].Drain(); err != nil {
			return err
		}
		s, err := e.sidecarIn(ctx, sidecars[store].Dir, stores[store]...)
		if err != nil {
			return err
		}
		for i := range min(e.Rounds, 3) {
			e.Say("miss: 1,000 at once for one org, %s", store)
			loads, failed, err := stampede(ctx, s, OrgName(orgs-spare+i%spare))
			if err != nil {
				return err
			}
			for j := range runs {
				if runs[j].Peer == keyward+" "+store && runs[j].Concurrency == 16 {
					extra(&runs[j].Rounds[i], "store_queries_for_1000_misses", float64(loads))
					extra(&runs[j].Rounds[i], "failed_of_1000_misses", float64(failed))
				}
			}
		}
	}
	for _, r := range runs {
		e.Done(r)
	}
	return nil
}

// stampede sends 1,000 requests for one org at once and counts the reads of the store.
func stampede(ctx context.Context, s *Sidecar, org string) (loads uint64, failed int64, err error) {
	before, err := s.Cache(ctx)
	if err != nil {
		return 0, 0, err
	}
	failed, err = together(ctx, s, 1000, email(org, ""))
	if err != nil {
		return 0, 0, err
	}
	after, err := s.Cache(ctx)
	return after.Loads - before.Loads, failed, err
}

// hitRate is for a contender's around: the share of the round's requests that the cache answered.
func (s *Sidecar) hitRate(ctx context.Context) (func(*report.Round) error, error) {
	before, err := s.Cache(ctx)
	if err != nil {
		return nil, err
	}
	return func(r *report.Round) error {
		after, err := s.Cache(ctx)
		if n := after.Hits - before.Hits + after.Misses - before.Misses; err == nil && n > 0 {
			extra(r, "hit_rate", float64(after.Hits-before.Hits)/float64(n))
		}
		return err
	}, nil
}

const zipfCache = 1000

// zipf is many orgs of unequal weight in front of a cache for a few, against one org that is always there. The store is made once and kept:
// its rows are sealed one by one.
func zipf(ctx context.Context, e *Env) error {
	orgs := e.Orgs
	dir := filepath.Join(e.Keep, fmt.Sprintf("orgs-%d", orgs))
	if err := makeOrgs(ctx, e, dir, orgs); err != nil {
		return err
	}
	run, err := e.folder()
	if err != nil {
		return err
	}
	if err := os.CopyFS(filepath.Join(run, "data"), os.DirFS(dir)); err != nil {
		return fmt.Errorf("copying the store: %w", err)
	}
	if err := private(filepath.Join(run, "data")); err != nil {
		return err
	}
	s, err := e.sidecarIn(ctx, run, "--cache-size", fmt.Sprint(zipfCache))
	if err != nil {
		return err
	}
	z := newZipfian(orgs, 1.1)
	c := s.contender(keyward, emails(z.next()))
	c.around = func(ctx context.Context) (func(*report.Round) error, error) {
		after, err := s.hitRate(ctx)
		if err != nil {
			return nil, err
		}
		return func(r *report.Round) error {
			extra(r, "best_hit_rate", z.best(zipfCache))
			extra(r, "orgs", float64(orgs))
			return after(r)
		}, nil
	}
	e.Say("zipf: warming the cache")
	if err := e.warm(ctx, c, 16, 10*e.Time); err != nil {
		return err
	}
	_, err = e.inTurn(ctx, "zipf", []shape{{conns: 1}, {conns: 16}}, c, s.contender(keyward+" hit", emails(inOrder(int(z.org[0]), int(z.org[0])+1))))
	return err
}

// makeOrgs makes a data folder with the credentials of so many orgs, unless it is there.
func makeOrgs(ctx context.Context, e *Env, dir string, orgs int) error {
	if _, err := os.Stat(filepath.Join(dir, "keyward.db")); err == nil {
		return nil
	}
	run, err := e.folder()
	if err != nil {
		return err
	}
	s, err := e.sidecarIn(ctx, run)
	if err != nil {
		return err
	}
	if err := s.Fill(ctx, e.Say, "zipf", 0, orgs); err != nil {
		return errors.Join(err, s.Stop())
	}
	if err := s.Drain(); err != nil { // its end puts the write-ahead log into the database
		return err
	}
	if err := os.MkdirAll(e.Keep, 0o755); err != nil {
		return err
	}
	half := dir + ".new"
	if err := errors.Join(os.RemoveAll(half), os.RemoveAll(dir)); err != nil {
		return err
	}
	if err := os.CopyFS(half, os.DirFS(filepath.Join(run, "data"))); err != nil {
		return fmt.Errorf("keeping the store: %w", err)
	}
	return os.Rename(half, dir)
}

// private takes from others what copying gave them.
func private(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	})
}
