package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

const assistantColumns = "vapi_assistant_id, org_id, role, name, version, last_used_at, use_count, created_at, updated_at"

const (
	pgAssistant     = "SELECT " + assistantColumns + " FROM keyward_assistant($1)" // names its org: see tenant.go
	selectAssistant = "SELECT " + assistantColumns + " FROM assistant_org_mapping WHERE vapi_assistant_id = $1"
	listAssistants  = "SELECT " + assistantColumns + " FROM assistant_org_mapping WHERE vapi_assistant_id > $1 ORDER BY vapi_assistant_id LIMIT $2"
	listOfOrg       = "SELECT " + assistantColumns + " FROM assistant_org_mapping WHERE vapi_assistant_id > $1 AND org_id = $2 ORDER BY vapi_assistant_id LIMIT $3"

	listOfRole = "SELECT " + assistantColumns + " FROM assistant_org_mapping WHERE org_id = $1 AND role = $2 ORDER BY created_at, vapi_assistant_id LIMIT 100"

	updateAssistant = `UPDATE assistant_org_mapping SET org_id = $1, role = $2, name = $3, version = $4, updated_at = $5
		WHERE vapi_assistant_id = $6 RETURNING created_at, last_used_at, use_count`
	insertAssistant = "INSERT INTO assistant_org_mapping (" + assistantColumns + ") VALUES ($1, $2, $3, $4, $5, NULL, 0, $6, $7) ON CONFLICT (vapi_assistant_id) DO NOTHING"
	deleteAssistant = "DELETE FROM assistant_org_mapping WHERE vapi_assistant_id = $1 RETURNING org_id"
	hasAssistant    = "SELECT 1 FROM assistant_org_mapping WHERE vapi_assistant_id = $1"
)

// Assistant reads the mapping of an assistant.
func (d *DB) Assistant(ctx context.Context, id string) (*Assistant, error) {
	if !storable(id) {
		return nil, ErrNotFound
	}
	id = strings.Clone(id)
	var a *Assistant
	err := d.read(forNone(ctx), readTimeout, func(ctx context.Context) (err error) {
		a, err = scanAssistant(d.assistant.row(ctx, d, id))
		return err
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

func scanAssistant(row interface{ Scan(...any) error }) (*Assistant, error) {
	a := &Assistant{}
	if err := row.Scan(&a.ID, &a.Org, &a.Role, &a.Name, &a.Version, when{&a.LastUsedAt}, &a.UseCount, when{&a.CreatedAt}, when{&a.UpdatedAt}); err != nil {
		return nil, err
	}
	return a, nil
}

// PutAssistant maps the assistant to a.Org: at the version expect, as a new one (0), or in any case (-1). Anything else is ErrConflict.
// Version and times of a are set.
func (d *DB) PutAssistant(ctx context.Context, by Actor, a *Assistant, expect int64) error {
	if !IsOrg(a.Org) {
		return errors.New("writing an assistant: the org id is malformed")
	}
	var next Assistant
	err := d.write(ctx, func(t *tx) (err error) {
		next, err = t.putAssistant(by, *a, expect)
		return err
	})
	if err == nil {
		*a = next
	}
	return err
}

// putAssistant is PutAssistant within a transaction; it returns a with its new version and times.
func (t *tx) putAssistant(by Actor, a Assistant, expect int64) (next Assistant, err error) {
	next = a
	next.CreatedAt, next.UpdatedAt, next.LastUsedAt, next.UseCount = t.now, t.now, time.Time{}, 0
	if expect > 0 {
		next.Version, err = t.nextVersion(KindAssistant, a.ID, expect, hasAssistant, a.ID)
		if errors.Is(err, ErrNotFound) {
			err = ErrConflict
		}
	} else {
		next.Version, err = t.anyVersion(KindAssistant, a.ID)
	}
	if err != nil {
		return next, err
	}
	err = sql.ErrNoRows
	if expect != 0 {
		err = t.row(updateAssistant, a.Org, a.Role, a.Name, next.Version, t.now, a.ID).Scan(when{&next.CreatedAt}, when{&next.LastUsedAt}, &next.UseCount)
	}
	if errors.Is(err, sql.ErrNoRows) {
		if expect > 0 {
			return next, ErrConflict
		}
		var n int64
		n, err = t.exec(insertAssistant, a.ID, a.Org, a.Role, a.Name, next.Version, t.now, t.now)
		if err == nil && n == 0 {
			return next, ErrConflict
		}
	}
	if err != nil {
		return next, err
	}
	t.changed(KindAssistant, a.ID)
	return next, t.audit(by, "assistant.put", a.Org, a.ID, fmt.Sprintf("version %d", next.Version))
}

// DeleteAssistant removes the mapping, at the version expect (0 or -1: at any).
func (d *DB) DeleteAssistant(ctx context.Context, by Actor, id string, expect int64) error {
	return d.write(ctx, func(t *tx) error { return t.deleteAssistant(by, id, max(expect, 0)) })
}

func (t *tx) deleteAssistant(by Actor, id string, expect int64) error {
	version, err := t.nextVersion(KindAssistant, id, expect, hasAssistant, id)
	if err != nil {
		return err
	}
	var org string
	if err := t.row(deleteAssistant, id).Scan(&org); err != nil {
		return err
	}
	t.changed(KindAssistant, id)
	return t.audit(by, "assistant.delete", org, id, fmt.Sprintf("version %d", version))
}

// Assistants lists the assistants of an org ("": of all), by id, after the cursor.
func (d *DB) Assistants(ctx context.Context, org, after string, limit int) (rows []*Assistant, next string, err error) {
	limit, after = page(limit), clean(after)
	query, args := listAssistants, []any{after, limit + 1}
	if org != "" {
		query, args = listOfOrg, []any{after, org, limit + 1}
	}
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		rows = nil
		return d.list(ctx, func(r *sql.Rows) error {
			a, err := scanAssistant(r)
			rows = append(rows, a)
			return err
		}, query, args...)
	})
	rows, next = cut(rows, limit, func(a *Assistant) string { return a.ID })
	return rows, next, err
}

// AssistantsOf lists the assistants that an org has for a role, the one mapped first in front.
func (d *DB) AssistantsOf(ctx context.Context, org, role string) (rows []*Assistant, err error) {
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		rows = nil
		return d.list(ctx, func(r *sql.Rows) error {
			a, err := scanAssistant(r)
			rows = append(rows, a)
			return err
		}, listOfRole, org, role)
	})
	return rows, err
}
