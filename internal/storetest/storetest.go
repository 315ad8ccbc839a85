// Package storetest gives tests stores that are migrated and empty. To migrate one from nothing takes a third of a second under the race
// detector, so that is done once in a process for each engine; what the tests get are copies.
package storetest

import (
	"context"
	"errors"
	"testing"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/internal/pgtest"
	"github.com/keyward/keyward/store"
)

var (
	folder   = memdir.Filled(func(t testing.TB, dir string) { migrate(t, inFolder(dir)) })
	database = pgtest.Filled(migrate)
)

// SQLite is the URL of a store in a folder of its own, which ends with the test.
func SQLite(t testing.TB) string {
	t.Helper()
	return inFolder(folder(t))
}

// Postgres is the URL of a store in a database of its own, which ends with the test.
func Postgres(t testing.TB) string {
	t.Helper()
	return database(t)
}

func inFolder(dir string) string { return "sqlite:" + dir + "/keyward.db" }

func migrate(t testing.TB, url string) {
	t.Helper()
	db, err := store.Open(context.Background(), url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.MigrateUp(context.Background())
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatalf("migrating the store that others are copies of: %v", err)
	}
}
