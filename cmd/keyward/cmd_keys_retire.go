package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/keyward/keyward/keysource"
	"github.com/keyward/keyward/seal"
)

// retireAfter is how long after the first count the second one is made, while sidecars run: what was sealed before it is written by then,
// or never (a write of the store may take five seconds).
const retireAfter = 6 * time.Second

func cmdKeysRetire(ctx context.Context, f *flags, args []string, std stdio) error {
	var k keyCommand
	f.bind(&k.storage)
	asJSON := f.json()
	if err := f.parse(args, "[KEY_ID]"); err != nil {
		return err
	}
	if err := k.open(ctx, f); err != nil {
		return err
	}
	defer k.close()
	if k.db == nil {
		return fmt.Errorf("retiring needs the store, to see what the key has sealed: %w", k.noDB)
	}
	keys, err := k.keys(ctx)
	if err != nil {
		return err
	}
	defer keys.Wipe()
	ids, err := toRetire(keys, f.Arg(0), k.source)
	if err != nil {
		return err
	}
	for pass := range 2 {
		if pass > 0 && len(ids) > 0 {
			wait := time.Second
			if running, err := k.db.Sidecars(ctx); err != nil || len(running) > 0 {
				wait = retireAfter
				fmt.Fprintf(std.err, "No row needs it. Looking once more in %v, for what sidecars are just writing.\n", wait)
			}
			if err := sleep(ctx, wait); err != nil {
				return err
			}
		}
		for _, id := range ids {
			if err := k.unused(ctx, id); err != nil {
				return err
			}
		}
	}
	for _, id := range ids {
		err := k.update(ctx, func(keys *seal.Keyring) error { return keys.Drop(id) })
		if err != nil {
			return err
		}
		if err := k.db.KeyEvent(ctx, cliActor(), "key.retire", id, "taken out of the key source"); err != nil {
			return fmt.Errorf("key %s is retired, but the audit log has no row of it: %w", id, err)
		}
	}
	if *asJSON {
		return printJSON(std.out, map[string]any{"retired": append([]string{}, ids...)})
	}
	if len(ids) == 0 {
		_, err := fmt.Fprintln(std.out, "no key is retiring")
		return err
	}
	_, err = fmt.Fprintf(std.out, "retired key %s\n", strings.Join(ids, ", "))
	return err
}

// toRetire are the keys to take out: the one that was named, else all that are retiring.
func toRetire(keys *seal.Keyring, named string, source *keysource.Source) (ids []string, err error) {
	for _, key := range keys.Keys() {
		switch {
		case named == "" && key.State == seal.Retiring:
			ids = append(ids, key.ID)
		case key.ID == named && key.Primary:
			return nil, refused{fmt.Errorf("key %q: %w: keyward keys add, then keyward keys rotate", named, seal.ErrPrimary)}
		case key.ID == named:
			ids = append(ids, key.ID)
		}
	}
	if named != "" && len(ids) == 0 {
		return nil, notFound{fmt.Errorf("%w in %s", seal.ErrNoKey, source)} // not quoted: it may be a key
	}
	return ids, nil
}

// unused refuses when a row is sealed by the key, in any table, or a sidecar still seals with it.
func (k *keyCommand) unused(ctx context.Context, id string) error {
	sidecars, err := k.db.Sidecars(ctx)
	if err != nil {
		return err
	}
	if still := sealingWith(sidecars, func(primary string) bool { return primary == id }); len(still) > 0 {
		return refused{fmt.Errorf("key %s: these sidecars still seal with it: %s; give them the key source in which another key is primary", id, named(still))}
	}
	counts, err := k.db.SealCounts(ctx)
	if err != nil {
		return err
	}
	for _, c := range counts {
		if c.KeyID == id && c.Rows > 0 {
			return refused{fmt.Errorf("key %s: %d rows of %s are sealed by it, and would be lost: keyward keys rotate re-seals them", id, c.Rows, c.Table)}
		}
	}
	return nil
}

func cmdKeysRewrap(ctx context.Context, f *flags, args []string, std stdio) error {
	var s keySource
	f.bind(&s)
	to := f.String("to", "", "another key source for the same keys, as `SOURCE`; without it the same one, wrapped anew")
	if err := f.parse(args); err != nil {
		return err
	}
	source, err := s.load(f)
	if err != nil {
		return err
	}
	target := source
	if *to != "" {
		if target, err = keysource.Parse(*to, s.DataDir); err != nil {
			return usagef("--to: %w", err)
		}
	} else if !source.Wrapped() {
		return usagef("%s is not wrapped; --to awskms://…, gcpkms://… or hcvault://… wraps it", source)
	}
	switch err := source.Rewrap(ctx, target); {
	case errors.Is(err, fs.ErrNotExist):
		return notFound{err}
	case errors.Is(err, fs.ErrExist), errors.Is(err, keysource.ErrReadOnly):
		return refused{err}
	case err != nil:
		return err
	}
	if _, err := fmt.Fprintf(std.out, "wrote the keys to %s\n", target.Path()); err != nil {
		return err
	}
	if target.Path() != source.Path() {
		fmt.Fprintf(std.err, "Start every sidecar with --key %s, and only then remove %s.\n", target, source)
	}
	return nil
}

const keysRewrapExample = `
keyward keys rewrap --key file:/etc/keyward/keys.json --to 'awskms://alias/keyward?region=eu-central-1&keyset=/etc/keyward/keys.wrapped.json'
keyward keys rewrap --key 'awskms://alias/keyward?region=eu-central-1&keyset=/etc/keyward/keys.wrapped.json'
`
