package store

import (
	"context"
	"database/sql"
)

// An Import is what was carried over from an app's own tables, and when: the ledger that tells a later change there from one made here.
type Import struct {
	Kind    Kind   // KindCredential or KindAssistant; or what the importer itself remembers of the app's tables
	ID      string // "acme/twilio", or the assistant's id
	Digest  []byte // of what it was made from
	Version int64  // the credential's sealed version, or the assistant's version, that it was written as
	Active  bool
}

const (
	listImports = "SELECT kind, id, digest, version, active FROM legacy_imports"
	putImport   = `INSERT INTO legacy_imports (kind, id, digest, version, active, imported_at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (kind, id) DO UPDATE SET digest = excluded.digest, version = excluded.version, active = excluded.active, imported_at = excluded.imported_at`
	deleteImport = "DELETE FROM legacy_imports WHERE kind = $1 AND id = $2"
)

// Imports reads the whole ledger.
func (d *DB) Imports(ctx context.Context) (all []Import, err error) {
	err = d.read(ctx, countTimeout, func(ctx context.Context) error {
		all = nil
		return d.list(ctx, func(r *sql.Rows) error {
			var i Import
			err := r.Scan(&i.Kind, &i.ID, &i.Digest, &i.Version, &i.Active)
			all = append(all, i)
			return err
		}, listImports)
	})
	return all, err
}

// PutImport records what was carried over.
func (d *DB) PutImport(ctx context.Context, i *Import) error {
	return d.write(ctx, func(t *tx) error {
		_, err := t.exec(putImport, string(i.Kind), i.ID, i.Digest, i.Version, i.Active, t.now)
		return err
	})
}

// DeleteImport forgets what was carried over and is no more.
func (d *DB) DeleteImport(ctx context.Context, k Kind, id string) error {
	return d.write(ctx, func(t *tx) error {
		_, err := t.exec(deleteImport, string(k), id)
		return err
	})
}

// Key names the credential in row_versions and in the ledger of imports.
func (r Ref) Key() string { return r.key() }
