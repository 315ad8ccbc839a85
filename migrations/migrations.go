// Package migrations is the store's schema: numbered steps, embedded in the program, one folder per SQL dialect.
//
// A step that was released is never edited, and both folders hold the same steps. goose runs them, each in a transaction of its own, and
// records them in a table that has our name: an app that shares the database may have a goose_db_version of its own.
package migrations

import (
	"database/sql"
	"embed"
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Table is where the applied steps are recorded.
const Table = "keyward_schema_version"

//go:embed sqlite/*.sql postgres/*.sql
var files embed.FS

// SQLite runs the steps on an SQLite store. SQLite has no lock that outlives a transaction, so the caller brings one.
func SQLite(db *sql.DB, l lock.Locker) (*goose.Provider, error) {
	return provider(goose.DialectSQLite3, "sqlite", db, l)
}

// Postgres runs the steps on PostgreSQL under a lock that is a row with a lease: advisory locks belong to a session, and behind a
// transaction pooler there is none. Many sidecars may start at once: one migrates, the others wait, for at most a minute.
func Postgres(db *sql.DB) (*goose.Provider, error) {
	l, err := lock.NewPostgresTableLocker(
		lock.WithTableName("keyward_schema_lock"),
		lock.WithTableLeaseDuration(15*time.Second), // after a crash the others wait so long
		lock.WithTableHeartbeatInterval(3*time.Second),
		lock.WithTableLockTimeout(100*time.Millisecond, 600),
		lock.WithTableUnlockTimeout(200*time.Millisecond, 25),
		lock.WithTableRetryPolicy(func(err error) bool {
			var refused *pgconn.PgError
			return !errors.As(err, &refused) || !strings.HasPrefix(refused.Code, "42") // a right that is missing stays missing
		}),
		lock.WithTableLogger(slog.New(slog.DiscardHandler)), // what it logs comes back as an error too
	)
	if err != nil {
		return nil, err
	}
	return provider(goose.DialectPostgres, "postgres", db, l)
}

func provider(dialect goose.Dialect, folder string, db *sql.DB, l lock.Locker) (*goose.Provider, error) {
	steps, err := fs.Sub(files, folder)
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(dialect, db, steps,
		goose.WithTableName(Table),
		goose.WithLocker(l),
		goose.WithDisableGlobalRegistry(true),
		goose.WithSlog(slog.New(slog.DiscardHandler)),
	)
}
