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
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/keysource"
	"github.com/keyward/keyward/legacy"
	"github.com/keyward/keyward/store"
)

// An importing is one run of keyward import: its flags first.
type importing struct {
	From      secretURL `flag:"from" arg:"URL" default:"" section:"Old tables" help:"the database of the old tables: postgres://… or sqlite:PATH; a password never on the command line"`
	FromFile  string    `flag:"from-file" arg:"FILE" default:"" help:"file that holds the URL of --from"`
	LegacyKey string    `flag:"legacy-key" arg:"SOURCE" default:"env:ENCRYPTION_KEY" help:"the key that the app has sealed with: env:NAME or file:PATH"`
	Mapping   string    `flag:"mapping" arg:"FILE" default:"" help:"where the old tables keep what; empty: the default, which --print-mapping prints"`
	Print     bool      `flag:"print-mapping" help:"print the default mapping and end"`
	Org       string    `flag:"org" arg:"ID" default:"" help:"only this org"`

	DryRun    bool          `flag:"dry-run" default:"true" section:"What is done" help:"only say what would be done"`
	Apply     bool          `flag:"apply" help:"do it; the same as --dry-run=false"`
	Overwrite bool          `flag:"overwrite" help:"write over credentials that were changed in Keyward too"`
	Delete    bool          `flag:"delete" help:"delete in Keyward what was carried over and is gone from the old tables"`
	Watch     bool          `flag:"watch" help:"go on until stopped, and carry over what changes in the old tables; implies --apply"`
	Interval  time.Duration `flag:"interval" arg:"TIME" default:"5s" help:"with --watch: how often the old tables are read"`

	storage

	std     stdio
	asJSON  bool
	empty   error // why what was found was compared with nothing
	source  *legacy.Source
	collect legacy.Collector
	carrier legacy.Carrier
	said    map[string]string // with --watch: by org and provider, what was said last

	keys  *keysource.Source
	seen  fingerprint     // of the file that the keys were read from
	self  store.Sidecar   // who seals is told of in the store, so that no key is retired under it
	there map[string]bool // old tables that were there
}

const importExample = `
KEYWARD_FROM=postgres://app:…@db/app keyward import
KEYWARD_FROM=postgres://app:…@db/app KEYWARD_STORE=postgres://keyward:…@db/keyward keyward import --key file:keys.json --apply
KEYWARD_FROM=postgres://app:…@db/app keyward import --data-dir .keyward --watch
`

func cmdImport(ctx context.Context, f *flags, args []string, std stdio) error {
	i := &importing{std: std, said: map[string]string{}, there: map[string]bool{}}
	f.bind(i)
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if i.Print {
		_, err := std.out.Write(defaultMapping)
		return err
	}
	i.asJSON = *asJSON
	i.Apply = i.Apply || i.Watch || !i.DryRun
	k := keyCommand{storage: i.storage}
	if err := i.prepare(ctx, f, &k); err != nil {
		return err
	}
	defer k.close()
	defer func() { _ = i.source.Close() }()
	defer i.leave(ctx)
	if i.Watch {
		return i.watch(ctx)
	}
	report, err := i.pass(ctx)
	if err != nil {
		return err
	}
	return i.print(report)
}

// prepare checks the flags, and opens both databases and both keys.
func (i *importing) prepare(ctx context.Context, f *flags, k *keyCommand) (err error) {
	var p problems
	f.readTwin(&p, "from", func(text string) { i.From = secretURL(text) })
	if i.From == "" {
		p.addf("--from: is missing: the database of the old tables, best in KEYWARD_FROM")
	} else {
		checkStore(f, "from", i.From, &p)
	}
	if i.Interval < 100*time.Millisecond {
		p.addf("--interval %s: must be at least 100ms", i.Interval)
	}
	if i.Org != "" && !store.IsOrg(i.Org) {
		p.addf("--org: must be an org id")
	}
	if err := p.err(); err != nil {
		return err
	}
	if i.collect.Mapping, err = readMapping(i.Mapping); err != nil {
		return err
	}
	if i.collect.Constants, err = readConstants(i.collect.Mapping); err != nil {
		return err
	}
	key, err := readLegacyKey(i.LegacyKey)
	if err != nil {
		return err
	}
	defer clear(key)
	if i.collect.Opener, err = legacy.NewOpener(i.collect.Mapping.Sealed, key); err != nil {
		return usagef("--legacy-key: %w", err)
	}
	_ = harden() // credentials pass through this process
	if i.source, err = legacy.OpenSource(i.From.Reveal()); err != nil {
		return err
	}
	if i.Apply && i.AutoMigrate {
		if err := i.migrate(ctx, f); err != nil {
			return err
		}
	}
	if err := k.open(ctx, f); err != nil {
		return err
	}
	i.carrier = legacy.Carrier{Keeper: &credential.Keeper{DB: k.db}, By: cliActor(), Apply: i.Apply, Overwrite: i.Overwrite, Delete: i.Delete}
	if k.db == nil {
		if i.Apply || errors.Is(k.noDB, store.ErrUnavailable) {
			return fmt.Errorf("opening Keyward's store: %w", k.noDB)
		}
		i.empty = k.noDB
		return nil
	}
	i.keys, i.seen = k.source, fingerprintOf(k.source.Path()) // before they are read
	host, _ := os.Hostname()
	i.self = store.Sidecar{ID: "im_" + strings.ToLower(rand.Text()[:16]), Host: host, PID: os.Getpid(), Version: version, StartedAt: time.Now()}
	i.carrier.Keeper.Keys, err = k.source.Load(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return notFound{fmt.Errorf("no key at %s yet: keyward keys generate makes one", k.source)}
	}
	return err
}

// followKeys takes over what the key source holds by now, and says in the store which keys that are, as a sidecar does: else a rotation
// would not wait for the import, and retiring the old key would lose what it goes on sealing.
func (i *importing) followKeys(ctx context.Context) error {
	k := i.carrier.Keeper
	if !i.Apply || k.DB == nil {
		return nil
	}
	if path := i.keys.Path(); path != "" {
		if now := fingerprintOf(path); now != i.seen {
			fresh, err := i.keys.Load(ctx)
			if err != nil {
				return err
			}
			defer fresh.Wipe()
			if _, err := k.Keys.Adopt(fresh); err != nil {
				return err
			}
			i.seen = now
		}
	}
	i.self.Keys, i.self.Primary = nil, k.Keys.PrimaryID()
	for _, key := range k.Keys.Keys() {
		i.self.Keys = append(i.self.Keys, key.ID)
	}
	return k.DB.Attend(ctx, &i.self)
}

func (i *importing) leave(ctx context.Context) {
	if i.Apply && i.carrier.Keeper.DB != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = i.carrier.Keeper.DB.Leave(ctx, i.self.ID) // it would be forgotten in a minute anyway
	}
}

// missing refuses to take a table that has gone for rows that have: an app that drops its old tables must not lose its credentials. What is
// to be deleted is not before the table is back, whichever process has found it.
func (i *importing) missing(ctx context.Context, s *legacy.Snapshot) error {
	deletes := i.Delete && i.Org == ""
	for _, t := range i.collect.Mapping.Tables {
		gone := slices.Contains(s.Missing, t.Table)
		if gone && (i.there[t.Table] || deletes && i.carrier.HadTable(t.Table)) {
			return fmt.Errorf("table %s was there and is no more: nothing is carried over or deleted until it is back; leave it out of the mapping if it is gone for good", t.Table)
		}
		if i.there[t.Table] = !gone; gone {
			continue
		}
		if err := i.carrier.FoundTable(ctx, t.Table); err != nil {
			return err
		}
	}
	return nil
}

func (i *importing) migrate(ctx context.Context, f *flags) error {
	s := i.storage
	db, err := s.openStore(ctx, f)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	_, err = db.MigrateUp(ctx)
	return explainSchema(err)
}

// pass reads the old tables once, and deals with everything in them.
func (i *importing) pass(ctx context.Context) (*importReport, error) {
	began := time.Now()
	snapshot, err := i.source.Read(ctx, i.collect.Mapping)
	if err != nil {
		if errors.Is(err, legacy.ErrNoTables) {
			return nil, notFound{err}
		}
		return nil, err
	}
	if err := i.carrier.Begin(ctx); err != nil {
		return nil, err
	}
	if err := i.missing(ctx, snapshot); err != nil {
		return nil, err
	}
	drafts := i.collect.Collect(snapshot)
	defer func() {
		for _, d := range drafts {
			d.Wipe()
		}
	}()
	r := &importReport{
		Applied: i.Apply, Rows: snapshot.Rows(), Counts: map[string]int{}, Foreign: i.collect.Foreign,
		Missing: append([]string{}, snapshot.Missing...), Problems: append([]legacy.Problem{}, i.collect.Orphans...), Items: []*legacy.Item{},
	}
	orgs := map[string]bool{}
	attended := time.Time{} // at the first of each pass, and then now and again
	for n, d := range drafts {
		if i.Org != "" && d.Org != i.Org {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%w after %d of %d; the same command goes on with the others", err, n, len(drafts))
		}
		if time.Since(attended) > store.AttendEvery {
			if err := i.followKeys(ctx); err != nil {
				return nil, err
			}
			attended = time.Now()
		}
		item, err := i.carrier.Carry(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("%w; %d of %d are done, and the same command goes on with the others", err, n, len(drafts))
		}
		orgs[d.Org] = true
		r.Items = append(r.Items, item)
	}
	if i.Org == "" {
		gone, err := i.carrier.Finish(ctx, drafts)
		if err != nil {
			return nil, err
		}
		r.Items = append(r.Items, gone...)
	}
	for _, item := range r.Items {
		r.Counts[item.Action]++
	}
	r.Orgs, r.Seconds = len(orgs), time.Since(began).Seconds()
	return r, nil
}

// watch carries over what changes, until it is stopped.
func (i *importing) watch(ctx context.Context) error {
	trouble := ""
	for first := true; ; {
		r, err := i.pass(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first && !errors.Is(err, store.ErrUnavailable):
			return err
		case err != nil:
			if err.Error() != trouble {
				fmt.Fprintf(i.std.err, "%s; trying again every %s\n", printable(err.Error()), i.Interval)
			}
			trouble = err.Error()
		default:
			trouble, first = "", false
			if err := i.tell(r); err != nil {
				return err
			}
		}
		if sleep(ctx, i.Interval) != nil {
			return nil
		}
	}
}
