package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// An Agent is how an org wants one of its agents to be: what the assistant manager makes a Vapi assistant of.
type Agent struct {
	Org    string
	Role   string // "inbound" or "outbound"
	Name   string
	Config []byte // compact JSON object

	Version   int64
	CreatedAt time.Time
	UpdatedAt time.Time
}

// The roles of agents: an org has at most one of each.
const (
	Inbound  = "inbound"
	Outbound = "outbound"
)

// kindAgent names agents in row_versions. Nobody keeps a copy of one, so no Change has it.
const kindAgent Kind = "agent"

const agentColumns = "org_id, role, name, config, version, created_at, updated_at"

const (
	selectAgent = "SELECT " + agentColumns + " FROM agents WHERE org_id = $1 AND role = $2"
	listAgents  = "SELECT " + agentColumns + " FROM agents WHERE org_id = $1 ORDER BY role"
	updateAgent = "UPDATE agents SET name = $1, config = $2, version = $3, updated_at = $4 WHERE org_id = $5 AND role = $6 RETURNING created_at"
	insertAgent = "INSERT INTO agents (" + agentColumns + ") VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (org_id, role) DO NOTHING"
	deleteAgent = "DELETE FROM agents WHERE org_id = $1 AND role = $2"
	hasAgent    = "SELECT 1 FROM agents WHERE org_id = $1 AND role = $2"
)

// Agent reads an org's agent of a role.
func (d *DB) Agent(ctx context.Context, org, role string) (*Agent, error) {
	if !storable(org) || !storable(role) {
		return nil, ErrNotFound
	}
	var a *Agent
	err := d.read(forOrg(ctx, org), readTimeout, func(ctx context.Context) (err error) {
		a, err = scanAgent(d.r.QueryRowContext(ctx, selectAgent, org, role))
		return err
	})
	if err != nil {
		return nil, err
	}
	return a, nil
}

func scanAgent(row interface{ Scan(...any) error }) (*Agent, error) {
	a := &Agent{}
	if err := row.Scan(&a.Org, &a.Role, &a.Name, &a.Config, &a.Version, when{&a.CreatedAt}, when{&a.UpdatedAt}); err != nil {
		return nil, err
	}
	return a, nil
}

// Agents lists an org's agents by role: there are at most two.
func (d *DB) Agents(ctx context.Context, org string) (rows []*Agent, err error) {
	if !storable(org) {
		return nil, nil
	}
	err = d.read(forOrg(ctx, org), listTimeout, func(ctx context.Context) error {
		rows = nil
		return d.list(ctx, func(r *sql.Rows) error {
			a, err := scanAgent(r)
			rows = append(rows, a)
			return err
		}, listAgents, org)
	})
	return rows, err
}

// PutAgent writes an agent whole: at the version expect, as a new one (0), or in any case (-1). Anything else is ErrConflict. Version and
// times of a are set.
func (d *DB) PutAgent(ctx context.Context, by Actor, a *Agent, expect int64) error {
	if !IsOrg(a.Org) {
		return errors.New("writing an agent: the org id is malformed")
	}
	var next Agent
	err := d.write(forOrg(ctx, a.Org), func(t *tx) (err error) {
		next = *a
		next.CreatedAt, next.UpdatedAt = t.now, t.now
		if expect > 0 {
			next.Version, err = t.nextVersion(kindAgent, a.key(), expect, hasAgent, a.Org, a.Role)
			if errors.Is(err, ErrNotFound) {
				err = ErrConflict
			}
		} else {
			next.Version, err = t.anyVersion(kindAgent, a.key())
		}
		if err != nil {
			return err
		}
		err = sql.ErrNoRows
		if expect != 0 {
			err = t.row(updateAgent, a.Name, string(a.Config), next.Version, t.now, a.Org, a.Role).Scan(when{&next.CreatedAt})
		}
		if errors.Is(err, sql.ErrNoRows) {
			if expect > 0 {
				return ErrConflict
			}
			var n int64
			n, err = t.exec(insertAgent, a.Org, a.Role, a.Name, string(a.Config), next.Version, t.now, t.now)
			if err == nil && n == 0 {
				return ErrConflict
			}
		}
		if err != nil {
			return err
		}
		return t.audit(by, "agent.put", a.Org, a.Role, fmt.Sprintf("version %d", next.Version))
	})
	if err == nil {
		*a = next
	}
	return err
}

// DeleteAgent deletes an agent, at the version expect (0 or -1: at any).
func (d *DB) DeleteAgent(ctx context.Context, by Actor, org, role string, expect int64) error {
	return d.write(forOrg(ctx, org), func(t *tx) error {
		version, err := t.nextVersion(kindAgent, org+"/"+role, max(expect, 0), hasAgent, org, role)
		if err != nil {
			return err
		}
		n, err := t.exec(deleteAgent, org, role)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotFound
		}
		return t.audit(by, "agent.delete", org, role, fmt.Sprintf("version %d", version))
	})
}

// key names the agent in row_versions. No org id holds a slash.
func (a *Agent) key() string { return a.Org + "/" + a.Role }
