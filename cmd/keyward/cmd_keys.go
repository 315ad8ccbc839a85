package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/keysource"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// cliActor is who changes keys and imports from the command line, for the audit log.
func cliActor() store.Actor {
	return store.Actor{Name: fmt.Sprintf("uid %d", os.Geteuid()), From: "command line"}
}

// A keyCommand is what the commands on keys work with: the source, and the store where there is one.
type keyCommand struct {
	storage
	source *keysource.Source
	db     *store.DB // nil: there is none yet, or nobody can reach it
	noDB   error     // why
}

// open reads the flags and the source's name, and opens the store if it is there. An SQLite store is not made.
func (k *keyCommand) open(ctx context.Context, f *flags) (err error) {
	if err := k.load(f); err != nil {
		return err
	}
	if k.source, err = k.storage.source(); err != nil {
		return usagef("%s: %w", f.at("key"), err)
	}
	if path, ok := strings.CutPrefix(k.Store.Reveal(), "sqlite:"); ok {
		if _, err := os.Stat(path); err != nil {
			k.noDB = fmt.Errorf("there is no store at %s yet", path)
			return nil
		}
	}
	url := k.Store
	if k.MigrateURL != "" {
		url = k.MigrateURL // the role that owns the tables
	}
	db, err := store.Open(ctx, url.Reveal(), store.Options{Log: zerolog.Nop()})
	if err == nil {
		if err = db.CheckSchema(ctx); err == nil {
			k.db = db
			return nil
		}
		_ = db.Close()
	}
	k.noDB = explainSchema(err)
	return nil
}

func (k *keyCommand) close() {
	if k.db != nil {
		_ = k.db.Close()
	}
}

// keys reads the keyset.
func (k *keyCommand) keys(ctx context.Context) (*seal.Keyring, error) {
	keys, err := k.source.Load(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound{fmt.Errorf("no key at %s yet: keyward keys generate makes one, and so does the first start of keyward serve on SQLite", k.source)}
	}
	return keys, err
}

// update changes the keyset in its place.
func (k *keyCommand) update(ctx context.Context, change func(*seal.Keyring) error) error {
	err := k.source.Update(ctx, change)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return notFound{fmt.Errorf("no key at %s yet: keyward keys generate makes one", k.source)}
	case errors.Is(err, keysource.ErrReadOnly):
		return refused{fmt.Errorf("%s: %w; keyward keys rewrap --key %s --to file:PATH moves it to a file", k.source, err, k.source)}
	}
	return err
}

// A keyItem is a key as it is listed: never the key itself.
type keyItem struct {
	ID        string     `json:"id"`
	State     string     `json:"state"` // missing: rows are sealed by it, and the source has no such key; retired: only sidecars still have it
	CreatedAt *time.Time `json:"created_at"`
	Rows      *int64     `json:"rows"`     // sealed by it; null: the store was not asked
	Seals     *int64     `json:"seals"`    // about how often it has sealed
	Sidecars  *int       `json:"sidecars"` // of those that run, how many have it
}

// keyItems puts together what source, store and sidecars know.
func keyItems(keys *seal.Keyring, counts []store.SealCount, sidecars []store.Sidecar, asked bool) []keyItem {
	var items []keyItem
	tellSeals(keys, counts)
	at := func(id string) *keyItem {
		i := slices.IndexFunc(items, func(k keyItem) bool { return k.ID == id })
		if i < 0 {
			items = append(items, keyItem{ID: id, State: "missing"})
			i = len(items) - 1
		}
		item := &items[i]
		if asked && item.Rows == nil {
			item.Rows, item.Seals, item.Sidecars = new(int64), new(int64), new(int)
		}
		return item
	}
	for _, k := range keys.Keys() {
		item := at(k.ID)
		item.State = string(k.State)
		if !k.CreatedAt.IsZero() {
			item.CreatedAt = &k.CreatedAt
		}
		if asked {
			*item.Seals = int64(k.Seals)
		}
	}
	for _, c := range counts {
		if c.KeyID != "" {
			item := at(c.KeyID)
			*item.Rows += c.Rows
			if item.State == "missing" {
				*item.Seals += c.Seals
			}
		}
	}
	for _, s := range sidecars {
		for _, id := range s.Keys {
			item := at(id)
			*item.Sidecars++
			if item.State == "missing" && *item.Rows == 0 {
				item.State = "retired" // nothing needs it: the sidecar has yet to read the source again, or has another one
			}
		}
	}
	return items
}

func listKeys(items []keyItem) (listing, error) {
	l := listing{Items: []json.RawMessage{}}
	for _, item := range items {
		b, err := json.Marshal(item)
		if err != nil {
			return l, fmt.Errorf("encoding the keys: %w", err)
		}
		l.Items = append(l.Items, b)
	}
	return l, nil
}

func cmdKeysGenerate(ctx context.Context, f *flags, args []string, std stdio) error {
	var s keySource
	f.bind(&s)
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	source, err := s.load(f)
	if err != nil {
		return err
	}
	if source.Path() == "" {
		return usagef("%s: keys are generated into a file only; a variable can hold what `openssl rand -base64 32` prints", f.at("key"))
	}
	if filepath.Dir(source.Path()) == filepath.Clean(s.DataDir) {
		if err := privateFolder(s.DataDir); err != nil {
			return fmt.Errorf("data folder: %w", err)
		}
	}
	keys := seal.Generate()
	defer keys.Wipe()
	if err := source.Create(ctx, keys); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return refused{err} // a key is never overwritten: without it no credential that it sealed can be opened
		}
		return err
	}
	if *asJSON {
		l, err := listKeys(keyItems(keys, nil, nil, false))
		if err != nil {
			return err
		}
		return printJSON(std.out, l)
	}
	if _, err := fmt.Fprintf(std.out, "wrote key %s to %s\n", keys.PrimaryID(), source.Path()); err != nil {
		return err
	}
	fmt.Fprintln(std.err, "Keep a copy in a safe place: without it no credential can be opened.")
	return nil
}

// keySource is where the keys are: storage's flags, without those of the store.
type keySource struct {
	DataDir string `flag:"data-dir" arg:"DIR" default:".keyward" help:"folder of the generated key, made with mode 0700"`
	Key     string `flag:"key" arg:"SOURCE" default:"file:DATA_DIR/keys.json" help:"key source: file:PATH, env:NAME, awskms://…, gcpkms://… or hcvault://…"`
}

// load checks the source and fills DATA_DIR into the default.
func (k *keySource) load(f *flags) (*keysource.Source, error) {
	s := storage{DataDir: k.DataDir, Key: k.Key}
	s.resolve(f)
	var p problems
	s.validate(f, &p)
	if err := p.err(); err != nil {
		return nil, err
	}
	return s.source()
}

func cmdKeysList(ctx context.Context, f *flags, args []string, std stdio) error {
	var k keyCommand
	f.bind(&k.storage)
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if err := k.open(ctx, f); err != nil {
		return err
	}
	defer k.close()
	keys, err := k.keys(ctx)
	if err != nil {
		return err
	}
	defer keys.Wipe()
	var counts []store.SealCount
	var sidecars []store.Sidecar
	if k.db != nil {
		if counts, err = k.db.SealCounts(ctx); err == nil {
			sidecars, err = k.db.Sidecars(ctx)
		}
		if k.noDB = err; err != nil {
			counts, sidecars = nil, nil // half of it would say nothing
		}
	}
	items := keyItems(keys, counts, sidecars, k.noDB == nil)
	l, err := listKeys(items)
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, struct {
			listing
			Sidecars []store.Sidecar `json:"sidecars"`
		}{l, append([]store.Sidecar{}, sidecars...)})
	}
	if k.noDB != nil {
		fmt.Fprintf(std.err, "what the keys have sealed is not known: %v\n", k.noDB)
	}
	if keys.WornOut() {
		fmt.Fprintf(std.err, "key %s has sealed half as often as is safe: keyward keys add, then keyward keys rotate\n", keys.PrimaryID())
	}
	return printTable(std, l, "no keys", "KEY STATE CREATED ROWS SIDECARS", func(item keyItem) []string {
		cells := []string{item.ID, item.State, ago(item.CreatedAt), "", ""}
		if item.Rows != nil {
			cells[3], cells[4] = fmt.Sprint(*item.Rows), fmt.Sprintf("%d of %d", *item.Sidecars, len(sidecars))
		}
		return cells
	})
}

func cmdKeysAdd(ctx context.Context, f *flags, args []string, std stdio) error {
	var k keyCommand
	f.bind(&k.storage)
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if err := k.open(ctx, f); err != nil {
		return err
	}
	defer k.close()
	var added seal.KeyInfo
	err := k.update(ctx, func(keys *seal.Keyring) error {
		added = keys.Add()
		return nil
	})
	if err != nil {
		return err
	}
	if k.db != nil {
		if err := k.db.KeyEvent(ctx, cliActor(), "key.add", added.ID, "active"); err != nil {
			fmt.Fprintf(std.err, "the audit log has no row of this: %v\n", err)
		}
	}
	if *asJSON {
		return printJSON(std.out, keyItem{ID: added.ID, State: string(added.State), CreatedAt: &added.CreatedAt})
	}
	if _, err := fmt.Fprintf(std.out, "added key %s, active: it opens, and seals once keyward keys rotate makes it primary\n", added.ID); err != nil {
		return err
	}
	fmt.Fprintln(std.err, "Keep a copy of the key source in a safe place before you rotate.")
	k.sayWhoHas(ctx, std, added.ID)
	return nil
}

// addPatience is how long a new key is waited for in the sidecars: those that share the file have it within a second.
const addPatience = 3 * time.Second

// sayWhoHas says which sidecars have the key, for people.
func (k *keyCommand) sayWhoHas(ctx context.Context, std stdio, id string) {
	if k.db == nil {
		return
	}
	for deadline := time.Now().Add(addPatience); ; {
		all, err := k.db.Sidecars(ctx)
		if err != nil || len(all) == 0 {
			return
		}
		lack := without(all, id)
		if len(lack) == 0 {
			fmt.Fprintf(std.err, "All sidecars that run have it: %d of %d.\n", len(all), len(all))
			return
		}
		if time.Now().After(deadline) {
			fmt.Fprintf(std.err, "Sidecars that do not have it yet: %s. Give them the same key source; keyward keys list shows when they have read it.\n", named(lack))
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEvery / 2):
		}
	}
}

// without are the sidecars that do not have a key.
func without(all []store.Sidecar, id string) []store.Sidecar {
	return slices.DeleteFunc(slices.Clone(all), func(s store.Sidecar) bool { return slices.Contains(s.Keys, id) })
}

// sealingWith are the sidecars whose primary key it is.
func sealingWith(all []store.Sidecar, is func(id string) bool) []store.Sidecar {
	return slices.DeleteFunc(slices.Clone(all), func(s store.Sidecar) bool { return !is(s.Primary) })
}

// named is a few sidecars in words.
func named(all []store.Sidecar) string {
	const most = 5
	var b strings.Builder
	for i, s := range all {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(all)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s (pid %d)", printable(s.Host), s.PID)
	}
	return b.String()
}
