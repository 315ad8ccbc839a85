package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/store"
)

// openStore opens the store for the commands that work on it directly. Where --migrate-url names another role or a direct address, that
// is where schemas are changed.
func (s *storage) openStore(ctx context.Context, f *flags) (*store.DB, error) {
	if err := s.load(f); err != nil {
		return nil, err
	}
	url := s.Store
	if s.MigrateURL != "" {
		url = s.MigrateURL
	}
	if strings.HasPrefix(url.Reveal(), "sqlite:") && !f.isSet("store") {
		if err := privateFolder(s.DataDir); err != nil {
			return nil, fmt.Errorf("data folder: %w", err)
		}
	}
	return store.Open(ctx, url.Reveal(), store.Options{Log: zerolog.Nop()})
}

func cmdMigrateUp(ctx context.Context, f *flags, args []string, std stdio) error {
	var s storage
	f.bind(&s)
	if err := f.parse(args); err != nil {
		return err
	}
	db, err := s.openStore(ctx, f)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	n, err := db.MigrateUp(ctx)
	if err != nil {
		return explainSchema(err)
	}
	schema, err := db.Schema(ctx)
	if err != nil {
		return err
	}
	if n == 0 {
		_, err = fmt.Fprintf(std.out, "the schema is up to date, at version %d\n", schema.Current)
		return err
	}
	_, err = fmt.Fprintf(std.out, "the schema is now at version %d, %d steps further\n", schema.Current, n)
	return err
}

func cmdMigrateDown(ctx context.Context, f *flags, args []string, std stdio) error {
	var s storage
	f.bind(&s)
	yes := f.Bool("yes", false, "do it: what the step added is lost, with the data in it")
	if err := f.parse(args); err != nil {
		return err
	}
	if !*yes {
		return usagef("this takes back a step of the schema and deletes the data in it, credentials included; stop every sidecar, make a copy of the store, and say --yes")
	}
	db, err := s.openStore(ctx, f)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	before, err := db.Schema(ctx)
	if err != nil {
		return explainSchema(err)
	}
	if before.Current == 0 {
		_, err = fmt.Fprintln(std.out, "there is no schema to take back")
		return err
	}
	if err := db.MigrateDown(ctx); err != nil {
		return explainSchema(err)
	}
	after, err := db.Schema(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(std.out, "the schema is now at version %d\n", after.Current)
	return err
}

// A schemaStep is one step of the schema as it is listed.
type schemaStep struct {
	Version   int64      `json:"version"`
	Name      string     `json:"name"`
	AppliedAt *time.Time `json:"applied_at"`
}

func cmdMigrateStatus(ctx context.Context, f *flags, args []string, std stdio) error {
	var s storage
	f.bind(&s)
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	db, err := s.openStore(ctx, f)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	schema, err := db.Schema(ctx)
	if err != nil && !errors.Is(err, store.ErrNewerSchema) {
		return explainSchema(err)
	}
	l := listing{Items: []json.RawMessage{}}
	for _, row := range schema.Rows {
		step := schemaStep{Version: row.Version, Name: row.Name}
		if !row.AppliedAt.IsZero() {
			step.AppliedAt = &row.AppliedAt
		}
		b, err := json.Marshal(step)
		if err != nil {
			return fmt.Errorf("encoding the schema: %w", err)
		}
		l.Items = append(l.Items, b)
	}
	if *asJSON {
		return printJSON(std.out, struct {
			listing
			Current int64 `json:"current"`
			Latest  int64 `json:"latest"`
		}{l, schema.Current, schema.Latest})
	}
	if err := printTable(std, l, "no steps", "VERSION NAME APPLIED", func(step schemaStep) []string {
		return []string{strconv.FormatInt(step.Version, 10), step.Name, ago(step.AppliedAt)}
	}); err != nil {
		return err
	}
	switch {
	case schema.Current > schema.Latest:
		_, err = fmt.Fprintf(std.out, "the store is at version %d, of a newer keyward; this one knows %d\n", schema.Current, schema.Latest)
	case schema.Current < schema.Latest:
		_, err = fmt.Fprintf(std.out, "the store is at version %d of %d; keyward migrate up brings it up to date\n", schema.Current, schema.Latest)
	default:
		_, err = fmt.Fprintf(std.out, "the store is at version %d, up to date\n", schema.Current)
	}
	return err
}

// explainSchema says what to do about a store of a newer keyward.
func explainSchema(err error) error {
	if errors.Is(err, store.ErrNewerSchema) {
		return refused{fmt.Errorf("%w; use that version, or a copy of the store from before", err)}
	}
	return err
}
