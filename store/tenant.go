package store

import (
	"context"
	"database/sql/driver"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// On PostgreSQL every tenant's rows are behind row-level security: a transaction sees those of the org that it has named, in a setting
// that ends with it, and none when it has named none. A transaction pooler may give the session to another client afterwards, so the setting
// is never the session's. What serves requests names its org within the one statement that it is (the functions of step 10); everything else
// goes through a tenantConn, which names it in the same round trip that begins the transaction.
//
// It is a seat-belt: it holds when a query forgets its WHERE, not against who can run statements of their own.

// everyOrg is named by what belongs to no org in particular: the queue of deliveries, listings for operators, sealing anew. No org has
// this name.
const everyOrg = "*"

type tenantKey struct{}

// forOrg makes the store's transactions under ctx see the rows of one org.
func forOrg(ctx context.Context, org string) context.Context {
	if !IsOrg(org) {
		org = "-" // which is nobody's: an org id begins with a letter or a digit
	}
	return context.WithValue(ctx, tenantKey{}, org)
}

// forEvery makes them see everybody's, unless ctx is for one org already.
func forEvery(ctx context.Context) context.Context {
	if ctx.Value(tenantKey{}) != nil {
		return ctx
	}
	return context.WithValue(ctx, tenantKey{}, everyOrg)
}

// forNone is for statements that touch no tenant's rows, or name the org themselves: they need no transaction around them.
func forNone(ctx context.Context) context.Context { return context.WithValue(ctx, tenantKey{}, "") }

// tenantOf is the org that ctx is for; empty: none.
func tenantOf(ctx context.Context) string {
	org, _ := ctx.Value(tenantKey{}).(string)
	return org
}

// beginFor begins a transaction that has named its org, in one round trip. The org is one of forOrg's: it holds nothing that would need
// quoting.
func beginFor(org string) pgx.TxOptions {
	return pgx.TxOptions{BeginQuery: "begin; select set_config('keyward.org', '" + org + "', true)"}
}

// A tenantConn is a connection whose transactions name the org that their context is for.
type tenantConn struct {
	*stdlib.Conn
	named  bool // statements have names: the server reads and plans each once, and not every time
	within bool // a transaction is under way
}

var (
	_ driver.ConnBeginTx    = (*tenantConn)(nil)
	_ driver.QueryerContext = (*tenantConn)(nil)
	_ driver.ExecerContext  = (*tenantConn)(nil)
)

func (c *tenantConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	org := tenantOf(ctx)
	if org == "" || o != (driver.TxOptions{}) {
		return c.Conn.BeginTx(ctx, o)
	}
	return c.begin(ctx, org)
}

func (c *tenantConn) begin(ctx context.Context, org string) (*tenantTx, error) {
	if c.Conn.Conn().IsClosed() {
		return nil, driver.ErrBadConn
	}
	tx, err := c.Conn.Conn().BeginTx(ctx, beginFor(org))
	if err != nil {
		return nil, err
	}
	c.within = true
	return &tenantTx{c, ctx, tx}, nil
}

// QueryContext runs a statement outside of any transaction in one that has named its org.
func (c *tenantConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	org := tenantOf(ctx)
	if c.named {
		args = named(args)
	}
	if org == "" || c.within {
		return c.Conn.QueryContext(ctx, query, args)
	}
	tx, err := c.begin(ctx, org)
	if err != nil {
		return nil, err
	}
	rows, err := c.Conn.QueryContext(ctx, query, args)
	if err != nil {
		_ = tx.Rollback()
		return nil, err
	}
	return &tenantRows{rows, tx}, nil
}

// ExecContext is QueryContext for a statement without rows.
func (c *tenantConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	org := tenantOf(ctx)
	if c.named {
		args = named(args)
	}
	if org == "" || c.within {
		return c.Conn.ExecContext(ctx, query, args)
	}
	tx, err := c.begin(ctx, org)
	if err != nil {
		return nil, err
	}
	r, err := c.Conn.ExecContext(ctx, query, args)
	if err != nil {
		_ = tx.Rollback()
		return nil, err
	}
	return r, tx.Commit()
}

// named are the arguments of a statement that is to have a name.
func named(args []driver.NamedValue) []driver.NamedValue {
	return append([]driver.NamedValue{{Value: pgx.QueryExecModeCacheStatement}}, args...)
}

// mayName says whether statements may have names, which the URL can forbid (statement_cache_capacity=0): the connection leads to the server itself,
// where they stay. A pooler gives each of its clients a process number of its own making, to cancel by.
func mayName(ctx context.Context, c *pgx.Conn) bool {
	if c.Config().StatementCacheCapacity == 0 {
		return false
	}
	var pid uint32
	err := c.QueryRow(ctx, "SELECT pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&pid)
	return err == nil && pid == c.PgConn().PID()
}

type tenantTx struct {
	c   *tenantConn
	ctx context.Context //nolint:containedctx // of BeginTx: database/sql hands none to the end of a transaction
	tx  pgx.Tx
}

func (t *tenantTx) Commit() error {
	t.c.within = false
	return t.tx.Commit(t.ctx)
}

func (t *tenantTx) Rollback() error {
	t.c.within = false
	return t.tx.Rollback(t.ctx)
}

// tenantRows end their transaction when they are closed, as database/sql does even after an error.
type tenantRows struct {
	driver.Rows
	tx *tenantTx
}

func (r *tenantRows) Close() error {
	err := r.Rows.Close()
	if end := r.tx.Commit(); err == nil {
		err = end
	}
	return err
}
