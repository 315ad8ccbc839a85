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
type pg struct {
	config  *pgx.ConnConfig
	servers *servers
	gate    *gate

	claims, confirms keyBatch // of messages that are answered at once
}

func (d *DB) openPostgres(url string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		// The error quotes the URL.
		return errors.New("the URL cannot be read: it must be like postgres://user@host:5432/database, other characters in a password percent-encoded")
	}
	// Statements are described once and then sent whole each time: works behind a transaction pooler, where named ones would be lost. Where
	// there is none, tenantConn names them.
	config.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
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
	d.engine, d.pg = "postgres", &pg{
		config:   config,
		servers:  newServers(config, url),
		claims:   keyBatch{query: pgClaim, asked: make(chan *keyAsked)},
		confirms: keyBatch{query: pgConfirm, asked: make(chan *keyAsked)},
	}
	d.credential.query, d.assistant.query = pgCredential, pgAssistant
	d.pg.gate = &gate{
		servers: d.pg.servers, timeout: d.pg.servers.patience(config.ConnectTimeout), hurry: readTimeout / 2, closing: d.closing, owned: &d.feeds,
		listens: func() bool { return len(*d.watchers.Load()) > 0 }, wake: make(chan struct{}, 1),
	}
	for _, one := range d.pg.servers.each {
		d.pg.gate.connectors = append(d.pg.gate.connectors, stdlib.GetConnector(*one))
	}
	d.w = sql.OpenDB(d.pg.gate)
	d.w.SetMaxOpenConns(conns)
	d.w.SetMaxIdleConns(conns)
	d.w.SetConnMaxIdleTime(5 * time.Minute)
	d.w.SetConnMaxLifetime(30 * time.Minute) // so that the load spreads again after a fail-over
	d.r = d.w
	for range keyLanes {
		d.feeds.Go(func() { d.pg.claims.run(d) })
		d.feeds.Go(func() { d.pg.confirms.run(d) })
	}
	return nil
}

// A gate keeps a server that is down from being stormed, and callers from waiting for it: after a failure to connect they get that failure
// at once, while one attempt is made every dialPause, in the background.
type gate struct {
	servers    *servers
	connectors []driver.Connector // one for each of them
	timeout    time.Duration      // of an attempt in the background
	hurry      time.Duration      // a caller who gives up sooner proves nothing
	closing    context.Context    //
	owned      *sync.WaitGroup    // attempts under way
	listens    func() bool        // whether somebody listens for changes, or tries to
	wake       chan struct{}      // tells who tries to that the server is back

	mu      sync.Mutex
	failure error // of the last attempt; nil: it succeeded
	failed  time.Time
	opened  chan struct{} // closed by open; nil: nobody waits for it
	attempt chan struct{} // closed when the attempt that is under way ends; nil: there is none
	stale   bool          // when it began, nobody had asked for long: the last failure says little, and callers wait for what it finds
	spare   driver.Conn   // what an attempt in the background brought, for the next caller
}

func (g *gate) Driver() driver.Driver { return g.connectors[0].Driver() }

func (g *gate) Connect(ctx context.Context) (driver.Conn, error) {
	g.mu.Lock()
	if g.failure != nil {
		if age := time.Since(g.failed); g.attempt == nil && age >= dialPause && g.closing.Err() == nil {
			g.attempt = make(chan struct{})
			g.stale = age > 5*dialPause
			g.owned.Go(g.tryAgain)
		}
		failure, attempt := g.failure, g.attempt
		wait := attempt != nil && g.stale
		g.mu.Unlock()
		if !wait {
			return nil, failure
		}
		select {
		case <-attempt:
		case <-ctx.Done():
			return nil, failure
		}
		g.mu.Lock()
		if g.failure != nil {
			defer g.mu.Unlock()
			return nil, g.failure
		}
	}
	if c := g.spare; c != nil {
		defer g.mu.Unlock()
		g.spare = nil
		return c, nil
	}
	g.mu.Unlock()

	begun := time.Now()
	c, err := g.connect(ctx)
	if err != nil && (ctx.Err() == nil || time.Since(begun) > g.hurry) {
		g.mu.Lock()
		g.failure, g.failed = err, time.Now()
		g.mu.Unlock()
	}
	return c, err
}

func (g *gate) connect(ctx context.Context) (driver.Conn, error) {
	var c driver.Conn
	err := g.servers.connect(ctx, func(ctx context.Context, i int) (err error) {
		c, err = g.connectors[i].Connect(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	std := c.(*stdlib.Conn)
	return &tenantConn{Conn: std, named: mayName(ctx, std.Conn())}, nil
}

// tryAgain makes one attempt for whoever comes next.
func (g *gate) tryAgain() {
	ctx, cancel := context.WithTimeout(g.closing, g.timeout)
	defer cancel()
	c, err := g.connect(ctx)
	if err == nil && g.listens() {
		g.letListen(ctx)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.spare != nil {
		_ = g.spare.Close() // from before the last failure
	}
	g.failure, g.failed, g.spare = err, time.Now(), c
	close(g.attempt)
	g.attempt = nil
}

// letListen has the change feed come first when the server is back, but for a moment only. What callers read before it is live would have to
// be read once more when it is: two queries for each org instead of one.
func (g *gate) letListen(ctx context.Context) {
	const headStart = 300 * time.Millisecond
	opened := make(chan struct{})
	g.mu.Lock()
	if g.failure == nil {
		g.mu.Unlock()
		return
	}
	g.opened = opened
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
	select {
	case <-opened:
	case <-ctx.Done():
	case <-time.After(headStart):
	}
}

// open lets callers try at once: somebody else has reached the server.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failure = nil
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

// close closes what nobody came for.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.spare != nil {
		_ = g.spare.Close()
		g.spare = nil
	}
}
