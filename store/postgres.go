package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	maxConns       = 8 // per sidecar; pool_max_conns in the URL says otherwise
	connectTimeout = 2 * time.Second
	dialPause      = 200 * time.Millisecond // between attempts to reach a server that is down
)

// A pg is what only PostgreSQL has.
type pg struct{ config *pgx.ConnConfig }

func (d *DB) openPostgres(url string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		// The error quotes the URL.
		return errors.New("the URL cannot be read: it must be like postgres://user@host:5432/database, other characters in a password percent-encoded")
	}
	// Statements are described once and then sent whole each time: works behind a transaction pooler, where named ones would be lost.
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	config.StatementCacheCapacity = 0
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	conns := maxConns
	for name, value := range config.RuntimeParams {
		if !strings.HasPrefix(name, "pool_") {
			continue
		}
		delete(config.RuntimeParams, name) // for the pool, not for the server
		if n, err := strconv.Atoi(value); name == "pool_max_conns" && err == nil && n > 0 {
			conns = n
		}
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "keyward"
	}
	d.engine, d.pg = "postgres", &pg{config}
	d.w = sql.OpenDB(&gate{connector: stdlib.GetConnector(*config)})
	d.w.SetMaxOpenConns(conns)
	d.w.SetMaxIdleConns(conns)
	d.w.SetConnMaxIdleTime(5 * time.Minute)
	d.w.SetConnMaxLifetime(30 * time.Minute) // so that the load spreads again after a fail-over
	d.r = d.w
	return nil
}

// A gate keeps a server that is down from being stormed, and callers from waiting for it: after a failure to connect, one of them tries
// again every dialPause; the others get the failure at once.
type gate struct {
	connector driver.Connector

	mu      sync.Mutex
	failure error // of the last attempt; nil: it succeeded
	failed  time.Time
	trying  bool
}

func (g *gate) Driver() driver.Driver { return g.connector.Driver() }

func (g *gate) Connect(ctx context.Context) (driver.Conn, error) {
	g.mu.Lock()
	if g.failure != nil && (g.trying || time.Since(g.failed) < dialPause) {
		defer g.mu.Unlock()
		return nil, g.failure
	}
	g.trying = true
	g.mu.Unlock()

	begun := time.Now()
	c, err := g.connector.Connect(ctx)

	g.mu.Lock()
	defer g.mu.Unlock()
	g.trying = false
	if err != nil && ctx.Err() != nil && time.Since(begun) < readTimeout/2 {
		return nil, err // a caller in a hurry proves nothing
	}
	g.failure, g.failed = err, time.Now()
	return c, err
}
