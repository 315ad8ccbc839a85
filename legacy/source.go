package legacy

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/ncruces/go-sqlite3/driver"
)

// ErrNoTables: none of the mapping's tables is there.
var ErrNoTables = errors.New("none of the tables that the mapping names is there")

// A Source is the database of the old tables. It is only read.
type Source struct {
	db       *sql.DB
	postgres bool
}

// OpenSource opens "postgres://…", or "sqlite:PATH" of a file that exists. No error quotes the URL.
func OpenSource(location string) (*Source, error) {
	if path, ok := strings.CutPrefix(location, "sqlite:"); ok {
		path, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("opening the old tables: %w", err)
		}
		db, err := driver.Open("file:" + (&url.URL{Path: path}).EscapedPath() + "?mode=ro")
		return &Source{db: db}, err
	}
	config, err := pgx.ParseConfig(location)
	if err != nil {
		return nil, errors.New("opening the old tables: the URL cannot be read: it must be like postgres://user@host/database")
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // works behind a pooler
	return &Source{db: stdlib.OpenDB(*config), postgres: true}, nil
}

// Close closes the database.
func (s *Source) Close() error { return s.db.Close() }

// A row is one of an old table, as texts. Columns that are not there or NULL are not in it.
type row struct {
	table *Table
	cells map[string]string
}

// A Snapshot is what the old tables said at one moment.
type Snapshot struct {
	Missing []string // tables that are not there
	rows    []row
}

// Rows is how many rows there are, over all tables.
func (s *Snapshot) Rows() int { return len(s.rows) }

// Read reads all tables in one transaction, which can write nothing.
func (s *Source) Read(ctx context.Context, m *Mapping) (*Snapshot, error) {
	options := &sql.TxOptions{ReadOnly: s.postgres}
	if s.postgres {
		options.Isolation = sql.LevelRepeatableRead
	}
	tx, err := s.db.BeginTx(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("reading the old tables: %w", plainError(err))
	}
	defer func() { _ = tx.Rollback() }()
	if s.postgres {
		// A policy that hides rows from this role is an error then, and not an org that is left behind in silence.
		if _, err := tx.ExecContext(ctx, "SET LOCAL row_security = off"); err != nil {
			return nil, fmt.Errorf("reading the old tables: %w", plainError(err))
		}
	}
	out := &Snapshot{}
	for i := range m.Tables {
		t := &m.Tables[i]
		there, err := s.has(ctx, tx, t.Table)
		if err == nil && !there {
			out.Missing = append(out.Missing, t.Table)
			continue
		}
		var rows []row
		if err == nil {
			rows, err = s.read(ctx, tx, m, t)
		}
		if err != nil {
			return nil, fmt.Errorf("reading table %s: %w", t.Table, plainError(err))
		}
		out.rows = append(out.rows, rows...)
	}
	if len(out.Missing) == len(m.Tables) {
		return nil, fmt.Errorf("%w: %s", ErrNoTables, strings.Join(out.Missing, ", "))
	}
	return out, nil
}

func quoted(name string) string {
	return `"` + strings.ReplaceAll(name, ".", `"."`) + `"`
}

func (s *Source) has(ctx context.Context, tx *sql.Tx, table string) (there bool, err error) {
	query := "SELECT count(*) > 0 FROM sqlite_schema WHERE type IN ('table', 'view') AND name = $1"
	if s.postgres {
		query, table = "SELECT to_regclass($1) IS NOT NULL", quoted(table)
	}
	err = tx.QueryRowContext(ctx, query, table).Scan(&there)
	return there, err
}

func (s *Source) read(ctx context.Context, tx *sql.Tx, m *Mapping, t *Table) ([]row, error) {
	found, err := tx.QueryContext(ctx, "SELECT * FROM "+quoted(t.Table)+" LIMIT 0") //nolint:gosec // the name was checked
	if err != nil {
		return nil, err
	}
	have, err := found.Columns()
	if err = errors.Join(err, found.Err(), found.Close()); err != nil {
		return nil, err
	}
	wanted := slices.DeleteFunc(t.columns(m), func(c string) bool { return !slices.Contains(have, c) })
	if !slices.ContainsFunc(t.Org, func(c string) bool { return slices.Contains(wanted, c) }) {
		return nil, fmt.Errorf("it has no column %s: say in the mapping which one names the org", strings.Join(t.Org, " or "))
	}
	var list []string
	for _, c := range wanted {
		list = append(list, "CAST("+quoted(c)+" AS text)")
	}
	found, err = tx.QueryContext(ctx, "SELECT "+strings.Join(list, ", ")+" FROM "+quoted(t.Table)) //nolint:gosec // the names were checked
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var rows []row
	for found.Next() {
		cells := make([]sql.NullString, len(wanted))
		into := make([]any, len(wanted))
		for i := range cells {
			into[i] = &cells[i]
		}
		if err := found.Scan(into...); err != nil {
			return nil, err
		}
		r := row{t, map[string]string{}}
		for i, c := range cells {
			if text := strings.TrimSpace(c.String); c.Valid && text != "" {
				r.cells[wanted[i]] = text
			}
		}
		rows = append(rows, r)
	}
	return rows, found.Err()
}

// first is the first of the columns that holds something.
func (r *row) first(columns []string) (text, column string) {
	for _, c := range columns {
		if text := r.cells[c]; text != "" {
			return text, c
		}
	}
	return "", ""
}

// name is what the report calls the row.
func (r *row) name() string {
	if id, _ := r.first(r.table.ID); id != "" {
		return id
	}
	org, _ := r.first(r.table.Org)
	return org
}

// active is what the row says of being in use; said is false if it says nothing.
func (r *row) active() (active, said bool) {
	text, _ := r.first(r.table.Active)
	switch strings.ToLower(text) {
	case "":
		return true, false
	case "false", "f", "0", "no", "off", "inactive", "disabled", "disconnected", "deleted", "revoked":
		return false, true
	}
	return true, true
}

// plainError keeps what a server says of a value out of the error.
func plainError(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		if pg.Code == "42501" || strings.Contains(pg.Message, "row-level security") {
			return fmt.Errorf("%s; import with a role that may read all rows (the tables' owner, or one with BYPASSRLS)", pg.Message)
		}
		return fmt.Errorf("%s (%s)", pg.Message, pg.Code)
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return errors.New("the database cannot be reached: " + rootCause(connect).Error())
	}
	return err
}

func rootCause(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}
