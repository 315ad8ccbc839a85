package store

import (
	"context"
	"database/sql"
	"errors"
	"syscall"
	"time"
)

const (
	// AttendEvery is how often a sidecar says that it is there, at least.
	AttendEvery = 15 * time.Second

	// absentAfter is how long one that says nothing more counts as running; forgottenAfter, how long its row is kept.
	absentAfter    = "60 seconds"
	forgottenAfter = "1 day"
)

// A Sidecar is a running process that has the store open, as it said of itself.
type Sidecar struct {
	ID      string   `json:"id"` // unlike that of any other, restarts included
	Host    string   `json:"host"`
	PID     int      `json:"pid"`
	Version string   `json:"version"`
	Keys    []string `json:"key_ids"` // that it opens with
	Primary string   `json:"primary_key_id"`

	// Place is the same for those that run in the same folder of the same machine, and for no others. Empty: it is not known.
	Place string `json:"-"`

	StartedAt time.Time `json:"started_at"`
	SeenAt    time.Time `json:"seen_at"`
}

// Times are the server's: the sidecars' clocks need not agree.
const (
	attend = `INSERT INTO sidecars (id, host, pid, place, version, key_ids, primary_key_id, started_at, seen_at)
		VALUES ($1, $2, $3, $8, $4, $5, $6, $7, now()) ON CONFLICT (id) DO UPDATE SET key_ids = $5, primary_key_id = $6, seen_at = now()`
	leave  = "DELETE FROM sidecars WHERE id = $1"
	before = "SELECT id, pid FROM sidecars WHERE place = $1 AND id <> $2"
	forget = "DELETE FROM sidecars WHERE seen_at < now() - interval '" + forgottenAfter + "'"

	listSidecars = `SELECT id, host, pid, version, key_ids, primary_key_id, started_at, seen_at FROM sidecars
		WHERE seen_at > now() - interval '` + absentAfter + `' ORDER BY host, pid, id`
)

// Attend says that a sidecar runs and which keys it has, at its start, after every change of its keys and at least every AttendEvery.
// On SQLite it holds a file, which goes with the process, and nothing is written as long as nothing changes.
func (d *DB) Attend(ctx context.Context, s *Sidecar) error {
	if d.lite != nil {
		return d.lite.attend(s)
	}
	return d.write(ctx, func(t *tx) error {
		if time.Since(s.StartedAt) < AttendEvery { // once in a sidecar's life is often enough
			if _, err := t.exec(forget); err != nil {
				return err
			}
			if err := t.succeed(s); err != nil {
				return err
			}
		}
		_, err := t.exec(attend, s.ID, clean(s.Host), s.PID, clean(s.Version), text(s.Keys), s.Primary, stamp(s.StartedAt), clean(s.Place))
		return err
	})
}

// succeed takes out those that were killed in the same place: they would count as running for a minute, with the keys that they had.
func (t *tx) succeed(s *Sidecar) error {
	if s.Place == "" {
		return nil
	}
	rows, err := t.tx.QueryContext(t.ctx, before, s.Place, s.ID)
	if err != nil {
		return err
	}
	defer rows.Close()
	var dead []string
	for rows.Next() {
		var id string
		var pid int
		if err := rows.Scan(&id, &pid); err != nil {
			return err
		}
		// The first process of a container has the same number each time.
		if pid == s.PID || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			dead = append(dead, id)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	_ = rows.Close()
	for _, id := range dead {
		if _, err := t.exec(leave, id); err != nil {
			return err
		}
	}
	return nil
}

// Leave says that a sidecar ends.
func (d *DB) Leave(ctx context.Context, id string) error {
	if d.lite != nil {
		d.lite.leave()
		return nil
	}
	return d.write(ctx, func(t *tx) error {
		_, err := t.exec(leave, id)
		return err
	})
}

// Sidecars are those that run now. On PostgreSQL, one that was killed counts for a minute longer, or until another one runs in its place.
func (d *DB) Sidecars(ctx context.Context) (all []Sidecar, err error) {
	if d.lite != nil {
		return d.lite.sidecars()
	}
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		all = nil
		return d.list(ctx, func(r *sql.Rows) error {
			var s Sidecar
			err := r.Scan(&s.ID, &s.Host, &s.PID, &s.Version, names{&s.Keys}, &s.Primary, when{&s.StartedAt}, when{&s.SeenAt})
			all = append(all, s)
			return err
		}, listSidecars)
	})
	if errors.Is(err, ErrOldSchema) {
		return nil, nil // none of them can have said anything yet
	}
	return all, err
}
