package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/keyward/keyward/migrations"
)

// migrateTimeout bounds all steps together, with the wait for another process that takes them.
const migrateTimeout = 5 * time.Minute

// A Schema is how far the store is migrated.
type Schema struct {
	Current int64 // the last step that was applied; 0: none
	Latest  int64 // the last step that this program knows
	Rows    []SchemaRow
}

// A SchemaRow is one step.
type SchemaRow struct {
	Version   int64
	Name      string    // empty: of a newer program
	AppliedAt time.Time // zero: not yet
}

// Schema reads how far the store is migrated, and changes nothing. The error is ErrNewerSchema, with the Schema, when the store knows
// steps that this program does not.
func (d *DB) Schema(ctx context.Context) (Schema, error) {
	steps, err := d.steps()
	if err != nil {
		return Schema{}, fmt.Errorf("reading the schema's steps: %w", err)
	}
	rows := map[int64]SchemaRow{}
	for _, s := range steps.ListSources() {
		rows[s.Version] = SchemaRow{Version: s.Version, Name: strings.TrimSuffix(path.Base(s.Path), ".sql")}
	}
	s := Schema{Latest: slices.Max(slices.Collect(maps.Keys(rows)))}
	at := "strftime('%Y-%m-%dT%H:%M:%SZ', tstamp)"
	if d.pg != nil {
		at = "tstamp AT TIME ZONE current_setting('TimeZone')"
	}
	err = d.read(forNone(ctx), listTimeout, func(ctx context.Context) error {
		return d.list(ctx, func(r *sql.Rows) error {
			var row SchemaRow
			if err := r.Scan(&row.Version, when{&row.AppliedAt}); err != nil {
				return err
			}
			row.Name = rows[row.Version].Name
			rows[row.Version] = row
			s.Current = max(s.Current, row.Version)
			return nil
		}, "SELECT version_id, "+at+" FROM "+migrations.Table+" WHERE version_id > 0")
	})
	if err != nil && !errors.Is(err, ErrOldSchema) { // never migrated: there is no such table
		return Schema{}, err
	}
	s.Rows = slices.SortedFunc(maps.Values(rows), func(a, b SchemaRow) int { return int(a.Version - b.Version) })
	if s.Current > s.Latest {
		return s, fmt.Errorf("%w (it is at step %d, this program knows %d)", ErrNewerSchema, s.Current, s.Latest)
	}
	return s, nil
}

// CheckSchema is nil when this program can work with the store: else ErrOldSchema, ErrNewerSchema or ErrUnavailable.
func (d *DB) CheckSchema(ctx context.Context) error {
	s, err := d.Schema(ctx)
	if err == nil && s.Current < s.Latest {
		err = fmt.Errorf("%w (it is at step %d, this program needs %d)", ErrOldSchema, s.Current, s.Latest)
	}
	return err
}

// MigrateUp brings the schema up to date and returns how many steps it took. Any number of processes may call it at once. It changes
// nothing, and needs no right to, when the schema is up to date.
func (d *DB) MigrateUp(ctx context.Context) (applied int, err error) {
	s, err := d.Schema(ctx)
	if err != nil || s.Current == s.Latest {
		return 0, err
	}
	steps, err := d.steps()
	if err != nil {
		return 0, fmt.Errorf("reading the schema's steps: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	done, err := steps.Up(bounded)
	if err != nil {
		return 0, fmt.Errorf("migrating the store: %w", failure(ctx, bounded, err))
	}
	return len(done), nil
}

// MigrateDown takes the last step back, and what it held with it.
func (d *DB) MigrateDown(ctx context.Context) error {
	s, err := d.Schema(ctx)
	if err != nil {
		return err
	}
	if s.Current == 0 {
		return fmt.Errorf("taking back a step: %w: the store has none", ErrNotFound)
	}
	steps, err := d.steps()
	if err != nil {
		return fmt.Errorf("reading the schema's steps: %w", err)
	}
	bounded, cancel := context.WithTimeout(ctx, migrateTimeout)
	defer cancel()
	if _, err := steps.Down(bounded); err != nil {
		return fmt.Errorf("taking back a step: %w", failure(ctx, bounded, err))
	}
	return nil
}

func (d *DB) steps() (*goose.Provider, error) {
	if d.lite != nil {
		return migrations.SQLite(d.w, &fileLock{l: d.lite})
	}
	return migrations.Postgres(d.w)
}
