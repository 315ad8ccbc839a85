package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/ncruces/go-sqlite3"
)

// failure turns what a driver says into what callers branch on. bounded is ctx with the store's own time limit.
func failure(ctx, bounded context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrConflict), errors.Is(err, ErrClaimed):
		return err
	case errors.Is(err, sql.ErrNoRows):
		return ErrNotFound
	case errors.Is(ctx.Err(), context.Canceled):
		return fmt.Errorf("asking the store: %w", ctx.Err()) // the caller went away; that says nothing about the store
	case bounded.Err() != nil:
		return fmt.Errorf("%w: no answer in time: %w", ErrUnavailable, err)
	case unavailable(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case lacksSchema(err):
		return fmt.Errorf("%w (%w)", ErrOldSchema, err)
	}
	return fmt.Errorf("asking the store: %w", err)
}

// unavailable says whether the store, not the question, is at fault, so that asking again later makes sense.
func unavailable(err error) bool {
	var refused *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case errors.As(err, &connect):
		return true
	case errors.As(err, &refused):
		switch refused.Code {
		case "25006", // read-only: it is a standby, or became one
			"57014": // cancelled by a time limit of the server's
			return true
		}
		return hasClass(refused, "08", "53", "57P") // connection, resources (disk full, too many connections), shutting down
	case connectionLost(err), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errMoved):
		return true
	}
	for _, code := range []sqlite3.ErrorCode{sqlite3.BUSY, sqlite3.CANTOPEN, sqlite3.IOERR, sqlite3.FULL, sqlite3.READONLY, sqlite3.INTERRUPT, sqlite3.NOMEM} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// connectionLost says whether the pool's connection turned out to be dead. A failure to connect is none: it would fail again.
func connectionLost(err error) bool {
	var connect *pgconn.ConnectError
	if err == nil || errors.As(err, &connect) {
		return false
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return hasClass(refused, "57P")
	}
	// The first is what database/sql says of a connection that others' time limits have ended, when it finds such a one several times.
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		return true
	}
	var network *net.OpError // not any net.Error: SQLite's errors pass for one
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, pgconn.ErrConnClosed)
}

// deadlocked says whether PostgreSQL chose this transaction to give way to another.
func deadlocked(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && (refused.Code == "40P01" || refused.Code == "40001")
}

// outdated says whether a statement that PostgreSQL was told before is not what it was, and has not run: the schema has changed, or what names it
// is gone. It is told again the next time.
func outdated(err error) bool {
	var refused *pgconn.PgError
	return errors.As(err, &refused) && (refused.Code == "26000" || refused.Code == "0A000" && refused.Routine == "RevalidateCachedQuery")
}

func lacksSchema(err error) bool {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return refused.Code == "42P01" || refused.Code == "42703" || refused.Code == "42883" // undefined table, column, function
	}
	return errors.Is(err, sqlite3.ERROR) && (strings.Contains(err.Error(), "no such table") || strings.Contains(err.Error(), "no such column"))
}

func hasClass(err *pgconn.PgError, classes ...string) bool {
	for _, c := range classes {
		if strings.HasPrefix(err.Code, c) {
			return true
		}
	}
	return false
}
