package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const credentialColumns = `org_id, provider, encrypted_config, key_id, version, sealed_version, is_active, last_verified_at, verification_error, created_at, updated_at,
	verification, previous_config, previous_key_id, previous_sealed_version, previous_until`

// On PostgreSQL these name the org of the row in the same statement: see tenant.go.
const (
	pgCredential = "SELECT " + credentialColumns + " FROM keyward_credential($1, $2)"
	pgOwner      = "SELECT keyward_account_org($1, $2, $3)"
)

// In all queries parameters first appear in the order of their numbers: SQLite takes $1 for a name and numbers names as they come.
const (
	selectCredential = "SELECT " + credentialColumns + " FROM org_credentials WHERE org_id = $1 AND provider = $2"

	listCredentials = "SELECT " + credentialColumns + " FROM org_credentials WHERE org_id = $1 AND provider > $2 ORDER BY provider LIMIT $3"
	eachCredential  = "SELECT " + credentialColumns + " FROM org_credentials WHERE (org_id, provider) > ($1, $2) ORDER BY org_id, provider LIMIT $3"

	listRetiring = "SELECT org_id, provider FROM org_credentials WHERE previous_until > 0 AND previous_until <= $1 ORDER BY org_id, provider LIMIT 1000"

	listOrgs = `SELECT org_id FROM (SELECT DISTINCT org_id FROM org_credentials WHERE org_id > $1 ORDER BY org_id LIMIT $2) AS a
		UNION SELECT org_id FROM (SELECT DISTINCT org_id FROM assistant_org_mapping WHERE org_id > $1 ORDER BY org_id LIMIT $2) AS b
		UNION SELECT org_id FROM (SELECT DISTINCT org_id FROM agents WHERE org_id > $1 ORDER BY org_id LIMIT $2) AS c
		ORDER BY org_id LIMIT $2`

	updateCredential = `UPDATE org_credentials SET encrypted_config = $1, key_id = $2, version = $3, sealed_version = $4, is_active = $5,
		last_verified_at = $6, verification_error = $7, updated_at = $8, verification = $9, previous_config = $10, previous_key_id = $11,
		previous_sealed_version = $12, previous_until = $13 WHERE org_id = $14 AND provider = $15 RETURNING created_at`
	insertCredential = "INSERT INTO org_credentials (" + credentialColumns + ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, NULL, '', 0, 0)"

	setActive   = "UPDATE org_credentials SET is_active = $1, version = $2, updated_at = $3 WHERE org_id = $4 AND provider = $5"
	setVerified = `UPDATE org_credentials SET last_verified_at = $1, verification_error = $2, verification = $3, version = $4, updated_at = $5
		WHERE org_id = $6 AND provider = $7`
	deleteCredential = "DELETE FROM org_credentials WHERE org_id = $1 AND provider = $2"
	hasCredential    = "SELECT 1 FROM org_credentials WHERE org_id = $1 AND provider = $2"

	selectOwner   = "SELECT org_id FROM provider_accounts WHERE provider = $1 AND field = $2 AND account_id = $3"
	ownAccounts   = "SELECT field, account_id FROM provider_accounts WHERE org_id = $1 AND provider = $2"
	claimAccount  = "INSERT INTO provider_accounts (provider, field, account_id, org_id) VALUES ($1, $2, $3, $4) ON CONFLICT (provider, field, account_id) DO NOTHING"
	deleteAccount = "DELETE FROM provider_accounts WHERE provider = $1 AND field = $2 AND account_id = $3 AND org_id = $4"
)

// Credential reads an org's credential; the second result is false: it does not come out of a cache.
func (d *DB) Credential(ctx context.Context, ref Ref) (*Credential, bool, error) {
	if !storable(ref.Org) || !storable(ref.Provider) {
		return nil, false, ErrNotFound
	}
	org, provider := strings.Clone(ref.Org), strings.Clone(ref.Provider)
	var c *Credential
	err := d.read(forNone(ctx), readTimeout, func(ctx context.Context) (err error) {
		c, err = scanCredential(d.credential.row(ctx, d, org, provider))
		return err
	})
	if err != nil {
		return nil, false, err
	}
	return c, false, nil
}

func scanCredential(row interface{ Scan(...any) error }) (*Credential, error) {
	c := &Credential{}
	var p Previous
	err := row.Scan(&c.Org, &c.Provider, &c.Sealed, &c.KeyID, &c.Version, &c.SealedVersion, &c.Active,
		when{&c.LastVerifiedAt}, &c.VerificationError, when{&c.CreatedAt}, when{&c.UpdatedAt},
		&c.Verification, &p.Sealed, &p.KeyID, &p.SealedVersion, micro{&p.Until})
	if err != nil {
		return nil, err
	}
	if p.SealedVersion > 0 {
		c.Previous = &p
	}
	return c, nil
}

// LatestVersion is the last version that the credential ever had, its deletion counted, and whether it exists now; 0: it never did.
// The next write has the version after it.
func (d *DB) LatestVersion(ctx context.Context, ref Ref) (version int64, exists bool, err error) {
	err = d.read(forOrg(ctx, ref.Org), readTimeout, func(ctx context.Context) error {
		err := d.r.QueryRowContext(ctx, `SELECT version, EXISTS (SELECT 1 FROM org_credentials WHERE org_id = $1 AND provider = $2)
			FROM row_versions WHERE kind = $3 AND id = $4`, ref.Org, ref.Provider, string(KindCredential), ref.key()).Scan(&version, &exists)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return version, exists, err
}

// PutCredential writes a credential as c.Version, which must be the one after the latest (LatestVersion): else ErrConflict. Its accounts
// replace those that it claimed before; one that belongs to another org is a *ClaimedError. CreatedAt and UpdatedAt are set.
func (d *DB) PutCredential(ctx context.Context, by Actor, c *Credential) error {
	if !IsOrg(c.Org) {
		return errors.New("writing a credential: the org id is malformed")
	}
	var created, updated time.Time
	err := d.write(forOrg(ctx, c.Org), func(t *tx) error {
		if err := t.claimVersion(KindCredential, c.key(), c.Version); err != nil {
			return err
		}
		created, updated = t.now, t.now
		var old Previous
		var until int64
		if c.Previous != nil {
			old, until = *c.Previous, micros(c.Previous.Until)
		}
		err := t.row(updateCredential, c.Sealed, c.KeyID, c.Version, c.SealedVersion, c.Active,
			nullable(c.LastVerifiedAt), c.VerificationError, t.now, c.Verification, old.Sealed, old.KeyID, old.SealedVersion, until,
			c.Org, c.Provider).Scan(when{&created})
		if errors.Is(err, sql.ErrNoRows) {
			if c.Previous != nil {
				return ErrNotFound // nothing is there that it could take the place of
			}
			_, err = t.exec(insertCredential, c.Org, c.Provider, c.Sealed, c.KeyID, c.Version, c.SealedVersion, c.Active,
				nullable(c.LastVerifiedAt), c.VerificationError, t.now, t.now, c.Verification)
		}
		if err != nil {
			return err
		}
		if err := t.claimAccounts(c); err != nil {
			return err
		}
		state := "active"
		if !c.Active {
			state = "disabled"
		}
		if c.Previous != nil {
			state += ", version " + strconv.FormatInt(c.Previous.SealedVersion, 10) + " beside it"
		}
		t.changed(KindCredential, c.Org)
		return t.audit(by, "credential.put", c.Org, c.Provider, fmt.Sprintf("version %d, key %s, %s", c.Version, c.KeyID, state))
	})
	if err != nil {
		return err
	}
	c.CreatedAt, c.UpdatedAt = created, updated
	if c.Version > 1 {
		d.removed()
	}
	return nil
}

// claimAccounts makes the credential's account ids be c.Accounts. They are taken in one order by everybody, so that two orgs that claim
// the same ids wait for each other in turn.
func (t *tx) claimAccounts(c *Credential) error {
	had, err := t.accounts(c.Ref)
	if err != nil {
		return err
	}
	for _, a := range had {
		if !slices.Contains(c.Accounts, a) {
			if _, err := t.exec(deleteAccount, c.Provider, a.Field, a.ID, c.Org); err != nil {
				return err
			}
		}
	}
	want := slices.Clone(c.Accounts)
	slices.SortFunc(want, func(a, b Account) int { return cmp.Or(cmp.Compare(a.Field, b.Field), cmp.Compare(a.ID, b.ID)) })
	for _, a := range slices.Compact(want) {
		if slices.Contains(had, a) {
			continue
		}
		n, err := t.exec(claimAccount, c.Provider, a.Field, a.ID, c.Org)
		if err != nil {
			return err
		}
		if n == 0 {
			return &ClaimedError{c.Provider, a.Field, a.ID}
		}
	}
	return nil
}

func (t *tx) accounts(ref Ref) ([]Account, error) {
	rows, err := t.tx.QueryContext(t.ctx, ownAccounts, ref.Org, ref.Provider)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Account
	for rows.Next() {
		var a Account
		if err := rows.Scan(&a.Field, &a.ID); err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, rows.Err()
}

// SetActive enables or disables a credential, at the version expect (0: at any), and returns its new version.
func (d *DB) SetActive(ctx context.Context, by Actor, ref Ref, active bool, expect int64) (version int64, err error) {
	action := "credential.disable"
	if active {
		action = "credential.enable"
	}
	err = d.write(forOrg(ctx, ref.Org), func(t *tx) error {
		if version, err = t.nextVersion(KindCredential, ref.key(), expect, hasCredential, ref.Org, ref.Provider); err != nil {
			return err
		}
		return t.credentialWritten(by, action, ref, fmt.Sprintf("version %d", version), setActive, active, version, t.now, ref.Org, ref.Provider)
	})
	if err != nil {
		return 0, err
	}
	return version, nil
}

// SetVerified records what the provider said about the credential of that version. It is a write like any other: the version grows by one.
func (d *DB) SetVerified(ctx context.Context, by Actor, ref Ref, version int64, v Verification) error {
	return d.write(forOrg(ctx, ref.Org), func(t *tx) error {
		next, err := t.nextVersion(KindCredential, ref.key(), version, hasCredential, ref.Org, ref.Provider)
		if err != nil {
			return err
		}
		detail := fmt.Sprintf("version %d: %s", next, v.State)
		if v.Problem != "" {
			detail += ", " + v.Problem
		}
		return t.credentialWritten(by, "credential.verify", ref, detail, setVerified, stamp(v.At), v.Problem, v.State, next, t.now, ref.Org, ref.Provider)
	})
}

// DeleteCredential deletes a credential, at the version expect (0: at any), and gives its accounts free. The deletion has a version too:
// who read the row before cannot bring it back by a write.
func (d *DB) DeleteCredential(ctx context.Context, by Actor, ref Ref, expect int64) error {
	err := d.write(forOrg(ctx, ref.Org), func(t *tx) error {
		version, err := t.nextVersion(KindCredential, ref.key(), expect, hasCredential, ref.Org, ref.Provider)
		if err != nil {
			return err
		}
		return t.credentialWritten(by, "credential.delete", ref, fmt.Sprintf("version %d", version), deleteCredential, ref.Org, ref.Provider)
	})
	if err == nil {
		d.removed()
	}
	return err
}

// credentialWritten runs the statement of a write that must meet the credential's row, and records it.
func (t *tx) credentialWritten(by Actor, action string, ref Ref, detail, statement string, args ...any) error {
	n, err := t.exec(statement, args...)
	if err != nil {
		return err
	}
	if n == 0 {
		return ErrNotFound
	}
	t.changed(KindCredential, ref.Org)
	return t.audit(by, action, ref.Org, ref.Provider, detail)
}

// Credentials lists an org's credentials by provider, after the cursor.
func (d *DB) Credentials(ctx context.Context, org, after string, limit int) (rows []*Credential, next string, err error) {
	limit = page(limit)
	rows, err = d.credentials(forOrg(ctx, org), listCredentials, org, clean(after), limit+1)
	rows, next = cut(rows, limit, func(c *Credential) string { return c.Provider })
	return rows, next, err
}

// EachCredential calls fn for every credential of all orgs, until it returns an error. It reads in pages: what is written meanwhile may
// be seen or not.
func (d *DB) EachCredential(ctx context.Context, fn func(*Credential) error) error {
	const n = 500
	var last Ref
	for {
		rows, err := d.credentials(ctx, eachCredential, last.Org, last.Provider, n)
		if err != nil {
			return err
		}
		for _, c := range rows {
			if err := fn(c); err != nil {
				return err
			}
			last = c.Ref
		}
		if len(rows) < n {
			return nil
		}
	}
}

func (d *DB) credentials(ctx context.Context, query string, args ...any) (rows []*Credential, err error) {
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		rows = nil
		return d.list(ctx, func(r *sql.Rows) error {
			c, err := scanCredential(r)
			rows = append(rows, c)
			return err
		}, query, args...)
	})
	return rows, err
}

// Retiring lists the credentials beside which there still is a former one although its time is over.
func (d *DB) Retiring(ctx context.Context, now time.Time) (refs []Ref, err error) {
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		refs = nil
		return d.list(ctx, func(r *sql.Rows) error {
			var ref Ref
			err := r.Scan(&ref.Org, &ref.Provider)
			refs = append(refs, ref)
			return err
		}, listRetiring, micros(now))
	})
	return refs, err
}

// Orgs lists the orgs that have a credential, an assistant or an agent, after the cursor.
func (d *DB) Orgs(ctx context.Context, after string, limit int) (orgs []string, next string, err error) {
	limit = page(limit)
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		orgs = nil
		return d.list(ctx, func(r *sql.Rows) error {
			var org string
			err := r.Scan(&org)
			orgs = append(orgs, org)
			return err
		}, listOrgs, clean(after), limit+1)
	})
	orgs, next = cut(orgs, limit, func(org string) string { return org })
	return orgs, next, err
}

// AccountOwner is the org that a provider's own id belongs to.
func (d *DB) AccountOwner(ctx context.Context, provider, field, id string) (org string, err error) {
	if !storable(id) {
		return "", ErrNotFound
	}
	err = d.read(forNone(ctx), readTimeout, func(ctx context.Context) error {
		if d.pg == nil {
			return d.r.QueryRowContext(ctx, selectOwner, provider, field, id).Scan(&org)
		}
		var found sql.NullString
		err := d.r.QueryRowContext(ctx, pgOwner, provider, field, id).Scan(&found)
		if err == nil && !found.Valid {
			return ErrNotFound
		}
		org = found.String
		return err
	})
	return org, err
}

// key names the credential in row_versions. No org id holds a slash.
func (r Ref) key() string { return r.Org + "/" + r.Provider }
