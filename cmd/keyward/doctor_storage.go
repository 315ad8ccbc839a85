package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/keysource"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// checkStorage looks at the key source and the store, and whether the one opens what is in the other: that is told from the rows' key ids,
// without opening any.
func (d *doctor) checkStorage(ctx context.Context) []finding {
	stored, owner := make(chan storeState, 1), make(chan ownerState, 1)
	go func() { stored <- d.lookAtStore(ctx) }()
	go func() { owner <- d.lookAsOwner(ctx) }()
	keys, err := d.loadKeys(ctx)
	s := <-stored
	all := d.keyFindings(keys, err, s)
	if keys != nil {
		defer keys.Wipe()
	}
	kept := d.lastGoodFinding(keys, &s)
	all = append(all, s.findings...)
	all = append(all, d.ownerFindings(<-owner, s)...)
	all = append(all, kept...)
	return append(all, sealFindings(keys, s)...)
}

func (d *doctor) loadKeys(ctx context.Context) (*seal.Keyring, error) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	source, err := d.c.source()
	if err != nil {
		return nil, err
	}
	return source.Load(ctx)
}

func (d *doctor) embedded() bool { return strings.HasPrefix(d.c.Store.Reveal(), "sqlite:") }

func (d *doctor) keyFindings(keys *seal.Keyring, err error, s storeState) []finding {
	const name = "key source"
	source, perr := d.c.source()
	if perr != nil { // the configuration was checked
		return []finding{fail(name, perr.Error(), "correct --key")}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && d.embedded() && !source.Wrapped() && s.missing:
		return []finding{warn(name, source.String()+" is not there yet", "nothing to do: the first start on SQLite makes it; keep a copy of it then")}
	case errors.Is(err, fs.ErrNotExist) && d.embedded() && !source.Wrapped():
		return []finding{fail(name, source.String()+" is missing, and the store is there", "put the key back from its copy, or correct --key: a new one opens nothing of what is stored")}
	case errors.Is(err, fs.ErrNotExist):
		return []finding{fail(name, source.String()+" is missing", "make it once with keyward keys generate, and give the same one to every sidecar; or correct --key")}
	case errors.Is(err, fs.ErrPermission):
		return []finding{fail(name, err.Error(), "run this as the sidecar's own user, or give the file to that user with chown")}
	case errors.Is(err, keysource.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return []finding{fail(name, err.Error(), "see whether this machine reaches the key management service; the start needs it once")}
	case err != nil && strings.Contains(err.Error(), ": chmod "):
		i := strings.LastIndex(err.Error(), ": chmod ")
		return []finding{fail(name, err.Error()[:i], err.Error()[i+2:]+"; if others may have read it, turn the keys: keyward keys add, keys rotate")}
	case err != nil:
		return []finding{fail(name, err.Error(), "put a good keyset there: keyward keys list reads it, docs/reference/keys.md has its form")}
	}
	saw := fmt.Sprintf("%s: %s, %s seals", source, counted(len(keys.Keys()), "key"), keys.PrimaryID())
	if path := source.Path(); path != "" {
		if f := ownerFinding(name, path); f != nil {
			return []finding{*f}
		}
		if err := isPrivateFolder(filepath.Dir(path)); err != nil {
			return []finding{warn(name, saw+"; "+err.Error(), "keep the key in a folder that nobody else writes to: chmod go-w "+filepath.Dir(path))}
		}
		if st, err := os.Stat(path); err == nil {
			saw += fmt.Sprintf(", mode %04o", st.Mode().Perm())
		}
	}
	if keys.WornOut() {
		return []finding{warn(name, keys.PrimaryID()+" has sealed half as often as is safe", "make a new key: keyward keys add, then keyward keys rotate")}
	}
	return []finding{ok(name, "%s", saw)}
}

// ownerFinding is about a file of somebody who is neither this user nor root, and could change it. Root looks at files of the sidecar's.
func ownerFinding(name, path string) *finding {
	st, err := os.Stat(path)
	if err != nil || os.Geteuid() == 0 {
		return nil
	}
	if uid := st.Sys().(*syscall.Stat_t).Uid; uid != 0 && uid != ownUID() {
		f := fail(name, fmt.Sprintf("%s belongs to uid %d", path, uid), fmt.Sprintf("chown %d %s", ownUID(), path))
		return &f
	}
	return nil
}

// A storeState is what lookAtStore saw.
type storeState struct {
	findings []finding
	missing  bool // an SQLite file that nobody has made yet
	away     bool // the last finding says that it cannot be reached
	place    string
	counts   []store.SealCount
	counted  bool
}

func (d *doctor) lookAtStore(ctx context.Context) (s storeState) {
	const name = "store"
	if path, is := strings.CutPrefix(d.c.Store.Reveal(), "sqlite:"); is {
		s.findings = d.fileFindings(path)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			s.missing = true
			s.findings = append(s.findings, warn(name, path+" is not there yet", "nothing to do: the first start makes it"))
			return s
		}
	}
	db, err := store.Open(ctx, d.c.Store.Reveal(), store.Options{Log: zerolog.Nop(), Look: true})
	if err != nil {
		s.findings = append(s.findings, fail(name, err.Error(), "correct --store, or see what that file is"))
		return s
	}
	defer func() { _ = db.Close() }()
	asked, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	if err := db.Ping(asked); err != nil {
		s.findings = append(s.findings, fail(name, d.c.Store.String()+": "+err.Error(), mendStore(err)))
		s.away = errors.Is(err, store.ErrUnavailable)
		return s
	}
	s.findings = append(s.findings, ok(name, "%s answers", d.c.Store))
	_, s.place, _ = db.Migrates(asked)
	schema, good := d.schemaFinding(asked, db)
	s.findings = append(s.findings, schema)
	if db.Engine() == "postgres" {
		s.findings = append(s.findings, d.roleFinding(asked, db))
	}
	if good {
		s.counts, err = db.SealCounts(asked)
		s.counted = err == nil
		if err != nil {
			s.findings = append(s.findings, warn("sealed rows", err.Error(), "the store is slow or large: keyward keys list counts them with more patience"))
		}
	}
	return s
}

func mendStore(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "timeout"), strings.Contains(text, "no answer in time"):
	case strings.Contains(text, "password authentication failed"), strings.Contains(text, "28P01"):
		return "correct user and password: KEYWARD_STORE, --store-file or PGPASSWORD"
	case strings.Contains(text, "does not exist"):
		return "make the database or the role, or correct the URL; docs/reference/store.md has the SQL"
	case strings.Contains(text, "tls"), strings.Contains(text, "certificate"):
		return "correct sslmode and sslrootcert in the URL"
	}
	return "see that PostgreSQL runs and that this machine reaches its host and port; docs/outages.md says what goes on without it"
}

// notLocal are file systems over a network, by their number in statfs(2): SQLite's log needs memory that all processes share.
var notLocal = map[int64]string{
	0x6969: "NFS", 0x517b: "SMB", 0xff534d42: "CIFS", 0xfe534d42: "SMB", 0x01021997: "9p", 0x00c36400: "Ceph", 0x5346414f: "AFS",
}

// fileFindings are about the files of an SQLite store, with or without anything in them.
func (d *doctor) fileFindings(path string) (all []finding) {
	const name = "store files"
	dir := filepath.Dir(path)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil // made with the store
	}
	if err := isPrivateFolder(dir); err != nil {
		all = append(all, fail(name, err.Error(), "chmod 700 "+dir+", and chown it to the sidecar's user"))
	}
	var fsys syscall.Statfs_t
	if err := syscall.Statfs(dir, &fsys); err == nil {
		if kind := notLocal[int64(fsys.Type)&0xffffffff]; kind != "" { //nolint:unconvert // other platforms' types differ
			all = append(all, fail(name, dir+" is on "+kind, "keep SQLite on a local disk, or use PostgreSQL: --store postgres://…"))
		}
	}
	for _, file := range []string{path, path + "-wal", path + "-shm"} {
		st, err := os.Stat(file)
		switch {
		case err != nil:
			continue
		case st.Mode().Perm()&0o077 != 0:
			all = append(all, warn(name, fmt.Sprintf("%s has mode %04o: others may read it", file, st.Mode().Perm()), "chmod 600 "+file))
		}
		if f := ownerFinding(name, file); f != nil {
			all = append(all, *f)
		}
	}
	if len(all) == 0 {
		all = append(all, ok(name, "%s: a local disk, nobody else's to read", dir))
	}
	return all
}

func (d *doctor) schemaFinding(ctx context.Context, db *store.DB) (f finding, good bool) {
	const name = "schema"
	schema, err := db.Schema(ctx)
	switch {
	case errors.Is(err, store.ErrNewerSchema):
		return fail(name, fmt.Sprintf("step %d; this program knows %d", schema.Current, schema.Latest), "use the version of Keyward that migrated it, or a later one"), false
	case err != nil:
		return fail(name, err.Error(), mendStore(err)), false
	case schema.Current < schema.Latest && d.c.AutoMigrate:
		return warn(name, fmt.Sprintf("step %d of %d", schema.Current, schema.Latest), "nothing to do: the next start brings it up to date; keyward migrate up does so now"), false
	case schema.Current < schema.Latest:
		return fail(name, fmt.Sprintf("step %d of %d, and --auto-migrate=false", schema.Current, schema.Latest), "keyward migrate up"), false
	}
	return ok(name, "step %d, up to date", schema.Current), true
}

func (d *doctor) roleFinding(ctx context.Context, db *store.DB) finding {
	const name = "store role"
	apart, err := db.CheckRole(ctx)
	switch {
	case err == nil:
		return ok(name, "row-level security holds for it")
	case !errors.Is(err, store.ErrRole):
		return warn(name, err.Error(), "see whether the store answers, then ask again")
	}
	saw, mend, two := strings.Cut(err.Error(), "; ")
	if !two {
		mend = "docs/reference/store.md has the SQL for two roles"
	}
	if apart || d.c.migratesAsAnother() {
		return fail(name, saw, mend)
	}
	return warn(name, saw+"; only the program keeps the orgs apart", mend)
}

// sealFindings are about rows that no key at hand opens.
func sealFindings(keys *seal.Keyring, s storeState) []finding {
	const name = "sealed rows"
	if !s.counted {
		return nil
	}
	rows := map[string]int64{}
	var total int64
	for _, c := range s.counts {
		if c.KeyID != "" {
			rows[c.KeyID] += c.Rows
			total += c.Rows
		}
	}
	var known []string
	if keys != nil {
		for _, k := range keys.Keys() {
			known = append(known, k.ID)
		}
	}
	var all []finding
	for id, n := range rows {
		if n > 0 && !slices.Contains(known, id) {
			all = append(all, fail(name, fmt.Sprintf("%d rows are sealed by key %s, which the key source does not have", n, id),
				"put that key back into the source from its copy: until then their requests get 424 credential_unreadable"))
		}
	}
	slices.SortFunc(all, func(a, b finding) int { return strings.Compare(a.Saw, b.Saw) })
	if len(all) == 0 {
		all = append(all, ok(name, "%d, all by keys that are at hand", total))
	}
	return all
}
