package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

const tokenColumns = "id, name, token_hash, orgs, providers, allow, rate, secret_routes, created_at, last_used_at, use_count"

const (
	selectToken = "SELECT " + tokenColumns + " FROM caller_tokens WHERE token_hash = $1 AND revoked_at IS NULL"
	listTokens  = "SELECT " + tokenColumns + " FROM caller_tokens WHERE id > $1 AND revoked_at IS NULL ORDER BY id LIMIT $2"
	namedToken  = "SELECT " + tokenColumns + " FROM caller_tokens WHERE revoked_at IS NULL AND (id = $1 OR name = $1) ORDER BY (id = $1) DESC LIMIT 1"
	insertToken = "INSERT INTO caller_tokens (" + tokenColumns + ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0) ON CONFLICT DO NOTHING"
	revokeToken = "UPDATE caller_tokens SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL"
)

// Token reads the token of that hash, unless it was revoked.
func (d *DB) Token(ctx context.Context, hash [32]byte) (*Token, error) {
	var t *Token
	err := d.read(forNone(ctx), readTimeout, func(ctx context.Context) (err error) {
		t, err = scanToken(d.token.row(ctx, d, hash[:]))
		return err
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

func scanToken(row interface{ Scan(...any) error }) (*Token, error) {
	t := &Token{}
	var hash []byte
	err := row.Scan(&t.ID, &t.Name, &hash, names{&t.Orgs}, names{&t.Providers}, names{&t.Allow}, &t.Rate, &t.SecretRoutes,
		when{&t.CreatedAt}, when{&t.LastUsedAt}, &t.UseCount)
	if err != nil {
		return nil, err
	}
	if copy(t.Hash[:], hash) != len(t.Hash) {
		return nil, fmt.Errorf("the hash of token %s has %d bytes", t.ID, len(hash))
	}
	return t, nil
}

// PutToken adds a token; one of that name that is not revoked is ErrConflict. An empty ID and a zero CreatedAt are set.
func (d *DB) PutToken(ctx context.Context, by Actor, t *Token) error {
	if t.ID == "" {
		t.ID = "ct_" + strings.ToLower(rand.Text()[:16])
	}
	if t.CreatedAt.IsZero() {
		t.CreatedAt = time.Now()
	}
	t.CreatedAt = stamp(t.CreatedAt)
	return d.write(ctx, func(x *tx) error {
		n, err := x.exec(insertToken, t.ID, t.Name, t.Hash[:], text(t.Orgs), text(t.Providers), text(t.Allow), t.Rate, t.SecretRoutes,
			t.CreatedAt, nullable(t.LastUsedAt))
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrConflict
		}
		x.changed(KindToken, hex.EncodeToString(t.Hash[:]))
		return x.audit(by, "caller.add", onlyOrg(t), t.Name, t.ID)
	})
}

// RevokeToken revokes a token for good, by its id or its name, and returns it.
func (d *DB) RevokeToken(ctx context.Context, by Actor, idOrName string) (*Token, error) {
	if !storable(idOrName) {
		return nil, ErrNotFound
	}
	var t *Token
	err := d.write(ctx, func(x *tx) (err error) {
		if t, err = scanToken(x.row(namedToken, idOrName)); err != nil {
			return err
		}
		n, err := x.exec(revokeToken, x.now, t.ID)
		if err != nil {
			return err
		}
		if n == 0 {
			return ErrNotFound
		}
		x.changed(KindToken, hex.EncodeToString(t.Hash[:]))
		return x.audit(by, "caller.revoke", onlyOrg(t), t.Name, t.ID)
	})
	if err != nil {
		return nil, err
	}
	return t, nil
}

// Tokens lists the tokens that are not revoked, by id, after the cursor.
func (d *DB) Tokens(ctx context.Context, after string, limit int) (rows []*Token, next string, err error) {
	limit = page(limit)
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		rows = nil
		return d.list(ctx, func(r *sql.Rows) error {
			t, err := scanToken(r)
			rows = append(rows, t)
			return err
		}, listTokens, clean(after), limit+1)
	})
	rows, next = cut(rows, limit, func(t *Token) string { return t.ID })
	return rows, next, err
}

// onlyOrg is the org that a token's events belong to: its only one, else none.
func onlyOrg(t *Token) string {
	if len(t.Orgs) == 1 && t.Orgs[0] != "*" {
		return t.Orgs[0]
	}
	return ""
}

// text is a list as its column keeps it: JSON.
func text(list []string) string {
	if len(list) == 0 {
		return "[]"
	}
	b, _ := json.Marshal(list) // strings always can be
	return string(b)
}

// A names scans what text made; an empty list is nil.
type names struct{ list *[]string }

func (n names) Scan(v any) error {
	*n.list = nil
	switch v := v.(type) {
	case string:
		if v == "[]" {
			return nil
		}
		return json.Unmarshal([]byte(v), n.list)
	case []byte:
		return json.Unmarshal(v, n.list)
	}
	return fmt.Errorf("a list of type %T", v)
}
