package store

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	channel     = "keyward"              // what the triggers notify: "credential:ORG", "assistant:ID", "token:HASH", "all"
	beatEvery   = 300 * time.Millisecond // how often the listening connection is proven alive
	beatTimeout = 3 * time.Second
	minBackoff  = 50 * time.Millisecond // between attempts to listen
	maxBackoff  = time.Second
	deafBackoff = 30 * time.Second // the same when listening succeeds and nothing is delivered
)

// errDeaf: LISTEN was accepted, but what is notified does not arrive.
var errDeaf = errors.New("notifications are not delivered: the store's URL seems to lead through a transaction pooler")

// A listener is one connection that listens for one watcher.
type listener struct {
	d     *DB
	w     *watcher
	conn  *pgx.Conn
	probe string // a channel of its own, for a notification to itself
	heard bool   // the probe has arrived
}

// listen feeds one watcher until ctx ends, connecting again after every loss.
func (d *DB) listen(ctx context.Context, w *watcher) {
	pause := minBackoff
	for lost, deaf := false, false; ; { // what is in the log since it was live
		l := &listener{d: d, w: w}
		err := l.run(ctx, func() {
			if lost {
				d.log.Info().Msg("the store's change feed is live again")
			}
			lost, deaf, pause = false, false, minBackoff
		})
		w.beat.Store(dead)
		if ctx.Err() != nil {
			return
		}
		isDeaf := errors.Is(err, errDeaf)
		if !lost || isDeaf && !deaf { // which does not pass by itself, and so is said also behind what did
			d.log.Warn().Err(err).Msg("the store's change feed is down; cached values are checked with the store before use")
		}
		lost, deaf = true, deaf || isDeaf
		rest := pause
		if isDeaf {
			rest = deafBackoff
		}
		select {
		case <-ctx.Done():
			return
		case <-d.pg.gate.wake:
		case <-time.After(rest/2 + rand.N(rest/2)): //nolint:gosec // jitter is no secret
		}
		pause = min(2*pause, maxBackoff)
	}
}

// run listens until the connection is lost; live is called when the feed is.
func (l *listener) run(ctx context.Context, live func()) (err error) {
	err = l.d.pg.servers.connect(ctx, func(ctx context.Context, i int) (err error) {
		config := l.d.pg.servers.each[i].Copy()
		config.OnNotification = l.hear
		dial, cancel := context.WithTimeout(ctx, beatTimeout)
		defer cancel()
		l.conn, err = pgx.ConnectConfig(dial, config)
		return err
	})
	if err != nil {
		return err
	}
	l.d.pg.gate.open()
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = l.conn.Close(end)
	}()

	asked := l.d.now()
	if err := l.subscribe(ctx); err != nil {
		return err
	}
	l.d.announceTo(l.w, Change{}) // anything may have happened before
	l.w.prove(asked)
	live()

	// A round trip on this connection proves that what was committed before it has arrived: the server sends notifications first.
	for next := time.Now().Add(beatEvery); ; {
		if err := l.wait(ctx, next); err != nil {
			return err
		}
		if time.Now().Before(next) {
			continue
		}
		asked := l.d.now()
		if err := l.exec(ctx, "-- still there?"); err != nil {
			return err
		}
		l.w.prove(asked)
		next = time.Now().Add(beatEvery)
	}
}

// subscribe listens, and proves by a notification that goes through the pool that this is not in vain: a transaction pooler accepts
// LISTEN, and gives the connection that listens to somebody else.
func (l *listener) subscribe(ctx context.Context) error {
	l.probe = channel + "_probe_" + strconv.FormatUint(rand.Uint64(), 36) //nolint:gosec // a name that no other sidecar has
	if err := l.exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	if err := l.exec(ctx, "LISTEN "+l.probe); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	if _, err := l.d.w.ExecContext(bounded, "SELECT pg_notify($1, '')", l.probe); err != nil {
		return err
	}
	for deadline := time.Now().Add(time.Second); !l.heard; {
		if err := l.wait(ctx, deadline); err != nil {
			return err
		}
		if !l.heard && !time.Now().Before(deadline) {
			return errDeaf
		}
	}
	return l.exec(ctx, "UNLISTEN "+l.probe)
}

func (l *listener) exec(ctx context.Context, statement string) error {
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	_, err := l.conn.Exec(ctx, statement)
	return err
}

// wait returns after a notification, which was heard by then, and at the deadline.
func (l *listener) wait(ctx context.Context, deadline time.Time) error {
	bounded, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	err := l.conn.PgConn().WaitForNotification(bounded)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil && !l.conn.IsClosed() {
		return nil
	}
	return err
}

// hear is called for every notification, within whatever reads from the connection.
func (l *listener) hear(_ *pgconn.PgConn, n *pgconn.Notification) {
	switch n.Channel {
	case channel:
		l.d.announceTo(l.w, parseChange(n.Payload))
	case l.probe:
		l.heard = true
	}
}
