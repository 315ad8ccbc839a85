package store

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"
	"time"
)

const eventColumns = "at, actor, actor_from, action, org_id, target, result, detail"

const insertEvent = "INSERT INTO audit_log (" + eventColumns + ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"

// An EventFilter says which events to list. Empty fields match all.
type EventFilter struct {
	Org, Actor, Action, Target, Result string

	Since, Until time.Time // at or after, and before; in milliseconds. Zero: no bound

	AfterID int64 // only events with a greater id: the last one seen
	Newest  bool  // the last Limit events instead of the first ones; oldest first all the same
	Limit   int   // 0: 100; at most 1000
}

// audit records the write that the transaction makes. It is a write's last statement: on PostgreSQL, other writers wait from here to its end.
func (t *tx) audit(by Actor, action, org, target, detail string) error {
	return t.addEvent(Event{At: t.now, Actor: by, Action: action, Org: org, Target: target, Result: "ok", Detail: detail})
}

func (t *tx) addEvent(e Event) error {
	_, err := t.exec(insertEvent, stamp(e.At), clean(e.Actor.Name), clean(e.Actor.From), clean(e.Action), clean(e.Org), clean(e.Target), clean(e.Result),
		clean(e.Detail))
	return err
}

// clean makes a text one that PostgreSQL takes: an event may quote what somebody sent, and must not be lost for it.
func clean(s string) string {
	if storable(s) {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// AddEvent records something that is no write: somebody looked at credentials, or was refused. A zero At is now.
func (d *DB) AddEvent(ctx context.Context, e Event) error {
	return d.write(ctx, func(t *tx) error {
		if e.At.IsZero() {
			e.At = t.now
		}
		return t.addEvent(e)
	})
}

// Events lists the audit log, oldest first. Ids grow in the order of the commits, so that who asks for what came after the last one seen
// misses nothing.
func (d *DB) Events(ctx context.Context, f EventFilter) (events []Event, err error) {
	query, args := d.matchingEvents(f)
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		events = nil
		return d.list(ctx, func(r *sql.Rows) error {
			var e Event
			err := r.Scan(&e.ID, when{&e.At}, &e.Actor.Name, &e.Actor.From, &e.Action, &e.Org, &e.Target, &e.Result, &e.Detail)
			events = append(events, e)
			return err
		}, query, args...)
	})
	if f.Newest {
		slices.Reverse(events)
	}
	return events, err
}

// matchingEvents is the query that a filter means.
func (d *DB) matchingEvents(f EventFilter) (query string, args []any) {
	where := "id > $1"
	args = []any{f.AfterID}
	add := func(condition string, arg any) {
		args = append(args, arg)
		where += " AND " + condition + " $" + strconv.Itoa(len(args))
	}
	for _, c := range []struct{ column, value string }{
		{"org_id", f.Org}, {"actor", f.Actor}, {"action", f.Action}, {"target", f.Target}, {"result", f.Result},
	} {
		if c.value != "" {
			add(c.column+" =", clean(c.value))
		}
	}
	for _, c := range []struct {
		compare string
		with    time.Time
	}{{">=", f.Since}, {"<", f.Until}} {
		switch {
		case c.with.IsZero():
		case d.lite != nil: // its times are texts of different lengths
			add("strftime('%Y-%m-%dT%H:%M:%f', at) "+c.compare, c.with.UTC().Format("2006-01-02T15:04:05.000"))
		default:
			add("date_trunc('milliseconds', at) "+c.compare, c.with.UTC().Truncate(time.Millisecond))
		}
	}
	order := "ORDER BY id"
	if f.Newest {
		order = "ORDER BY id DESC"
	}
	args = append(args, page(f.Limit))
	return "SELECT id, " + eventColumns + " FROM audit_log WHERE " + where + " " + order + " LIMIT $" + strconv.Itoa(len(args)), args
}
