package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/lastgood"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// An ownerState is what --migrate-url leads to.
type ownerState struct {
	user, place string
	err         error
	opened      bool // the URL itself is good
}

// lookAsOwner asks who changes the schema whether he could. Nothing is changed.
func (d *doctor) lookAsOwner(ctx context.Context) (o ownerState) {
	if d.c.MigrateURL == "" {
		return o
	}
	db, err := store.Open(ctx, d.c.MigrateURL.Reveal(), store.Options{Log: zerolog.Nop(), Look: true})
	if err != nil {
		return ownerState{err: err}
	}
	defer func() { _ = db.Close() }()
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	o.opened = true
	if o.err = db.Ping(ctx); o.err == nil {
		o.user, o.place, o.err = db.Migrates(ctx)
	}
	return o
}

// ownerFindings are about --migrate-url, where there is one.
func (d *doctor) ownerFindings(o ownerState, s storeState) []finding {
	const name = "migrate-url"
	bad := fail
	if !d.c.AutoMigrate {
		bad = warn // serve does not use it; keyward migrate does
	}
	switch {
	case d.c.MigrateURL == "":
		return nil
	case errors.Is(o.err, store.ErrOwner):
		return []finding{bad(name, o.err.Error(), "let --migrate-url name the role that owns the tables; docs/reference/store.md has the SQL for two roles")}
	case !o.opened:
		return []finding{bad(name, o.err.Error(), "correct --migrate-url")}
	case o.err != nil:
		return []finding{bad(name, d.c.MigrateURL.String()+": "+o.err.Error(), mendStore(o.err))}
	case s.place != "" && o.place != s.place:
		return []finding{bad(name, d.c.MigrateURL.String()+" is another database or schema than --store", "let both name the same database: the tables that are migrated must be those that are served from")}
	}
	return []finding{ok(name, "%s answers; %q may change the schema", d.c.MigrateURL, o.user)}
}

// lastGoodFinding is about --last-known-good, where there is one. A store that is away is then no reason not to start.
func (d *doctor) lastGoodFinding(keys *seal.Keyring, s *storeState) []finding {
	const name = "last known good"
	path := d.c.LastGood
	if path == "" {
		return nil
	}
	if keys == nil {
		return []finding{warn(name, path+" was not looked at: it opens with the key source", "mend the key source first, then ask again")}
	}
	held, err := lastgood.Look(lastgood.Options{Path: path, MaxStale: d.c.MaxStale, Keys: keys, Name: storeName(d.c.Store.Reveal())})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []finding{warn(name, path+" is not there yet", "nothing to do: it is written some seconds after a start at which the store answers")}
	case errors.Is(err, fs.ErrPermission):
		return []finding{fail(name, err.Error(), "run this as the sidecar's own user, or give the file to that user with chown")}
	case err != nil:
		return []finding{warn(name, path+": "+err.Error(), "nothing to do while the store answers: the next start writes it anew")}
	}
	age := time.Since(held.ConfirmedAt).Round(time.Second)
	saw := fmt.Sprintf("%s holds %d credentials, %d assistants, %d tokens, as the store said %v ago", path, held.Credentials, held.Assistants, held.Tokens, age)
	if !held.Usable {
		return []finding{warn(name, fmt.Sprintf("%s: longer than --max-stale, %v", saw, d.c.MaxStale), "nothing to do while the store answers; to serve for longer without it, raise --max-stale")}
	}
	if s.away {
		last := &s.findings[len(s.findings)-1]
		last.Status = isWarn
		last.Saw += "; serve starts without it, from the last known good rows, and goes on with them for " + (d.c.MaxStale - age).Round(time.Second).String()
	}
	return []finding{ok(name, "%s", saw)}
}
