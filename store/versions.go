package store

import (
	"database/sql"
	"errors"
)

// The version of a row lives in row_versions too, where it survives the row: it never repeats, so that neither an ETag nor what a secret
// was sealed for is ever valid again for another content. That row is also what writers of the same thing wait for each other on: every
// write takes its version there first.
const (
	versionAfter = "UPDATE row_versions SET version = $1 WHERE kind = $2 AND id = $3 AND version = $4"
	versionFirst = "INSERT INTO row_versions (kind, id, version) VALUES ($1, $2, 1) ON CONFLICT (kind, id) DO NOTHING"
	versionNext  = "UPDATE row_versions SET version = version + 1 WHERE kind = $1 AND id = $2 AND ($3 = 0 OR version = $3) RETURNING version"
	versionAny   = `INSERT INTO row_versions (kind, id, version) VALUES ($1, $2, 1)
		ON CONFLICT (kind, id) DO UPDATE SET version = row_versions.version + 1 RETURNING version`
)

// claimVersion takes version for this write: ErrConflict unless it is the one after the latest.
func (t *tx) claimVersion(k Kind, id string, version int64) error {
	n, err := t.exec(versionAfter, version, string(k), id, version-1)
	if err == nil && n == 0 && version == 1 {
		n, err = t.exec(versionFirst, string(k), id)
	}
	if err == nil && n == 0 {
		err = ErrConflict
	}
	return err
}

// nextVersion takes the next version of what exists, if it is at expect (0: at any). exists, with its arguments, is the query that tells
// ErrConflict from ErrNotFound.
func (t *tx) nextVersion(k Kind, id string, expect int64, exists string, args ...any) (version int64, err error) {
	err = t.row(versionNext, string(k), id, expect).Scan(&version)
	if !errors.Is(err, sql.ErrNoRows) {
		return version, err
	}
	switch there, err := t.exists(exists, args...); {
	case err != nil:
		return 0, err
	case there:
		return 0, ErrConflict
	}
	return 0, ErrNotFound
}

// anyVersion takes the next version, whether or not the row exists.
func (t *tx) anyVersion(k Kind, id string) (version int64, err error) {
	err = t.row(versionAny, string(k), id).Scan(&version)
	return version, err
}
