package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// The roles of an admin token.
const (
	RoleOperator = "operator" // may do everything
	RoleOrg      = "org"      // may do what concerns its one org
)

// An AdminToken is an admin token's row; the token itself is printed once and never stored.
type AdminToken struct {
	ID         string   // "at_" and 16 base32 characters; names it in listings
	Name       string   // unique among the tokens that are not revoked
	Hash       [32]byte // SHA-256 of the token
	Role       string   // RoleOperator or RoleOrg
	Org        string   // of RoleOrg; else empty
	CreatedAt  time.Time
	LastUsedAt time.Time // zero: never; to the minute
}

const adminColumns = "id, name, token_hash, role, org_id, created_at, last_used_at"

const (
	selectAdmin = "SELECT " + adminColumns + " FROM admin_tokens WHERE token_hash = $1 AND revoked_at IS NULL"
	listAdmins  = "SELECT " + adminColumns + " FROM admin_tokens WHERE id > $1 AND revoked_at IS NULL ORDER BY id LIMIT $2"
	namedAdmin  = "SELECT " + adminColumns + " FROM admin_tokens WHERE revoked_at IS NULL AND (id = $1 OR name = $1) ORDER BY (id = $1) DESC LIMIT 1"
	adminByID   = "SELECT " + adminColumns + " FROM admin_tokens WHERE id = $1 AND revoked_at IS NULL"
	insertAdmin = "INSERT INTO admin_tokens (" + adminColumns + ") VALUES ($1, $2, $3, $4, $5, $6, NULL) ON CONFLICT DO NOTHING"
	revokeAdmin = "UPDATE admin_tokens SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL"
	touchAdmin  = "UPDATE admin_tokens SET last_used_at = $1 WHERE id = $2 AND revoked_at IS NULL"
)

// AdminToken reads the admin token of that hash, unless it was revoked. Nothing keeps a copy: a token that is revoked is so at once, in
// every sidecar.
func (d *DB) AdminToken(ctx context.Context, hash [32]byte) (*AdminToken, error) {
	var t *AdminToken
	err := d.read(forNone(ctx), readTimeout, func(ctx context.Context) (err error) {
		t, err = scanAdmin(d.r.QueryRowContext(ctx, selectAdmin, hash[:]))
		return err
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// AdminTokenByID is AdminToken by the token's id.
func (d *DB) AdminTokenByID(ctx context.Context, id string) (t *AdminToken, err error) {
	err = d.read(ctx, readTimeout, func(ctx context.Context) (err error) {
		t, err = scanAdmin(d.r.QueryRowContext(ctx, adminByID, clean(id)))
		return err
	})
	return t, err
}

func scanAdmin(row interface{ Scan(...any) error }) (*AdminToken, error) {
	t := &AdminToken{}
	var hash []byte
	if err := row.Scan(&t.ID, &t.Name, &hash, &t.Role, &t.Org, when{&t.CreatedAt}, when{&t.LastUsedAt}); err != nil {
		return nil, err
	}
	if copy(t.Hash[:], hash) != len(t.Hash) {
		return nil, fmt.Errorf("the hash of admin token %s has %d bytes", t.ID, len(hash))
	}
	return t, nil
}

// PutAdminToken adds an admin token; one of that name that is not revoked is ErrConflict. An empty ID and a zero CreatedAt are set.
func (d *DB) PutAdminToken(ctx context.Context, by Actor, t *AdminToken) error {
	if t.ID == "" {
		t.ID = "at_" + strings.ToLower(rand.Text()[:16])
	}
	if t.CreatedAt.IsZero() {
		t.CreatedAt = time.Now()
	}
	t.CreatedAt = stamp(t.CreatedAt)
	return d.write(ctx, func(x *tx) error {
		n, err := x.exec(insertAdmin, t.ID, t.Name, t.Hash[:], t.Role, t.Org, t.CreatedAt)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrConflict
		}
		return x.audit(by, "admin-token.add", t.Org, t.Name, t.ID+", "+t.Role)
	})
}

// RevokeAdminToken revokes an admin token for good, by its id or its name, and returns it.
func (d *DB) RevokeAdminToken(ctx context.Context, by Actor, idOrName string) (*AdminToken, error) {
	if !storable(idOrName) {
		return nil, ErrNotFound
	}
	var t *AdminToken
	err := d.write(ctx, func(x *tx) (err error) {
		if t, err = scanAdmin(x.row(namedAdmin, idOrName)); err != nil {
			return err
		}
		n, err := x.exec(revokeAdmin, x.now, t.ID)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotFound
		}
		return x.audit(by, "admin-token.revoke", t.Org, t.Name, t.ID)
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// AdminTokens lists the admin tokens that are not revoked, by id, after the cursor.
func (d *DB) AdminTokens(ctx context.Context, after string, limit int) (rows []*AdminToken, next string, err error) {
	limit = page(limit)
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		rows = nil
		return d.list(ctx, func(r *sql.Rows) error {
			t, err := scanAdmin(r)
			rows = append(rows, t)
			return err
		}, listAdmins, clean(after), limit+1)
	})
	rows, next = cut(rows, limit, func(t *AdminToken) string { return t.ID })
	return rows, next, err
}

// AdminTokenUsed notes when an admin token was used: no change to what anybody may do, and so without an audit row.
func (d *DB) AdminTokenUsed(ctx context.Context, id string, at time.Time) error {
	return d.write(ctx, func(t *tx) error {
		_, err := t.exec(touchAdmin, stamp(at), id)
		return err
	})
}
