package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/migrations"
)

func TestSchema(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) { testSchema(t, engine{e.name, e.blank(t)}) })
	}
}

func testSchema(t *testing.T, e engine) {
	d, ctx := e.open(t), t.Context()
	tables := func() int64 {
		t.Helper()
		query := "SELECT count(*) FROM sqlite_schema"
		if e.name == "postgres" {
			query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
		}
		var n int64
		ok(t, d.r.QueryRowContext(ctx, query).Scan(&n))
		return n
	}
	s, err := d.Schema(ctx)
	ok(t, err)
	if s.Current != 0 || s.Latest < 1 || s.Rows[len(s.Rows)-1].Version != s.Latest || !s.Rows[0].AppliedAt.IsZero() || s.Rows[0].Name != "00001_store" {
		t.Fatalf("%+v", s)
	}
	is(t, d.CheckSchema(ctx), ErrOldSchema)
	is(t, d.MigrateDown(ctx), ErrNotFound)
	_, _, err = d.Credential(ctx, acmeTwilio)
	is(t, err, ErrOldSchema)
	is(t, d.PutCredential(ctx, by, sealed(acmeTwilio, 1)), ErrOldSchema)
	if n := tables(); n != 0 {
		t.Fatalf("looking made %d tables", n)
	}
	ok(t, d.Ping(ctx))

	n, err := d.MigrateUp(ctx)
	ok(t, err)
	same(t, n, len(s.Rows))
	n, err = d.MigrateUp(ctx)
	ok(t, err)
	same(t, n, 0)
	ok(t, d.CheckSchema(ctx))
	put(t, d, acmeTwilio)
	s, err = d.Schema(ctx)
	ok(t, err)
	if age := time.Since(s.Rows[0].AppliedAt); s.Current != s.Latest || age < -2*time.Second || age > time.Minute {
		t.Fatalf("%+v, %v old", s, age)
	}

	for range s.Rows {
		ok(t, d.MigrateDown(ctx))
	}
	is(t, d.CheckSchema(ctx), ErrOldSchema)
	_, _, err = d.Credential(ctx, acmeTwilio)
	is(t, err, ErrOldSchema)
	if _, err := d.MigrateUp(ctx); err != nil {
		t.Fatal(err)
	}
	put(t, d, acmeTwilio)

	// A later version of the program was here.
	_, err = d.w.ExecContext(ctx, "INSERT INTO "+migrations.Table+" (version_id, is_applied) VALUES (999, $1)", true)
	ok(t, err)
	for what, err := range map[string]error{
		"check": d.CheckSchema(ctx), "down": d.MigrateDown(ctx), "up": second(d.MigrateUp(ctx)), "schema": second(d.Schema(ctx)),
	} {
		if !errors.Is(err, ErrNewerSchema) || !strings.Contains(err.Error(), "it is at step 999, this program knows ") {
			t.Errorf("%s: %v", what, err)
		}
	}
	put(t, d, acmeTwilio)
}

func second[T any](_ T, err error) error { return err }

// Ten sidecars start at once on an empty store.
func TestMigrateAtOnce(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			e := engine{e.name, e.blank(t)}
			took := make([]int, 10)
			errs := atOnce(len(took), func(i int) error {
				d, err := Open(context.Background(), e.url, Options{})
				if err != nil {
					return err
				}
				defer func() { _ = d.Close() }()
				if took[i], err = d.MigrateUp(context.Background()); err != nil {
					return err
				}
				return d.CheckSchema(context.Background())
			})
			ok(t, errors.Join(errs...))
			s, err := e.open(t).Schema(t.Context())
			ok(t, err)
			slices.Sort(took)
			if took[8] != 0 || took[9] != len(s.Rows) {
				t.Errorf("steps taken: %v", took)
			}
		})
	}
}

// Both dialects have the same steps, tables and columns.
func TestDialectsAgree(t *testing.T) {
	steps := map[string][]string{}
	columns := map[string][]string{}
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			d := engine{e.name, e.blank(t)}.open(t)
			if _, err := d.MigrateUp(t.Context()); err != nil {
				t.Fatal(err)
			}
			s, err := d.Schema(t.Context())
			ok(t, err)
			for _, r := range s.Rows {
				steps[e.name] = append(steps[e.name], r.Name)
			}
			query := `SELECT t.name || '.' || c.name FROM sqlite_schema AS t, pragma_table_info(t.name) AS c
				WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite%' AND t.name NOT LIKE 'keyward%'`
			if e.name == "postgres" {
				query = `SELECT table_name || '.' || column_name FROM information_schema.columns
					WHERE table_schema = 'public' AND table_name NOT LIKE 'keyward%'`
			}
			rows, err := d.r.QueryContext(t.Context(), query)
			ok(t, err)
			defer rows.Close()
			for rows.Next() {
				var name string
				ok(t, rows.Scan(&name))
				columns[e.name] = append(columns[e.name], name)
			}
			ok(t, rows.Err())
			slices.Sort(columns[e.name])
		})
	}
	if len(columns["postgres"]) == 0 {
		t.Skip("one dialect only: the other was skipped")
	}
	ofPostgres := slices.DeleteFunc(columns["postgres"], func(c string) bool { return strings.HasPrefix(c, "sidecars.") }) // files, on SQLite
	same(t, ofPostgres, columns["sqlite"])
	same(t, steps["postgres"], steps["sqlite"])

	doc, err := os.ReadFile(filepath.Join("..", "docs", "reference", "store.md"))
	ok(t, err)
	for _, name := range columns["sqlite"] {
		table, column, _ := strings.Cut(name, ".")
		if !strings.Contains(string(doc), "## `"+table+"`") || !strings.Contains(string(doc), "`"+column+"`") {
			t.Errorf("docs/reference/store.md does not explain %s", name)
		}
	}
}
