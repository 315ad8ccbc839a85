package store

import "database/sql"

// credentialsTable is how re-sealing goes through org_credentials. What a credential was sealed for names sealed_version, which stays.
var credentialsTable = sealedTable{
	name:   "org_credentials",
	counts: "SELECT key_id, count(*), CAST(sum(version) AS bigint) FROM org_credentials GROUP BY key_id ORDER BY key_id",
	gone: `SELECT CAST(coalesce(sum(version), 0) - (SELECT coalesce(sum(version), 0) FROM org_credentials) AS bigint)
		FROM row_versions WHERE kind = 'credential'`,
	start: []any{"", ""},
	next: `SELECT org_id, provider, version, sealed_version, key_id, encrypted_config FROM org_credentials
		WHERE (org_id, provider) > ($1, $2) AND key_id <> $3 ORDER BY org_id, provider LIMIT $4`,
	scan: scanSealedCredential,
	swap: swapCredentials,
}

// formerTable is the same for the credential that stays beside another one for a while, sealed for a version of its own. No watcher is told
// by PostgreSQL: what is cached opens until the old key is dropped, and then nothing that is cached is kept.
var formerTable = sealedTable{
	name: "org_credentials (former)",
	counts: `SELECT previous_key_id, count(*), count(*) FROM org_credentials WHERE previous_sealed_version > 0
		GROUP BY previous_key_id ORDER BY previous_key_id`,
	start: []any{"", ""},
	next: `SELECT org_id, provider, version, previous_sealed_version, previous_key_id, previous_config FROM org_credentials
		WHERE (org_id, provider) > ($1, $2) AND previous_sealed_version > 0 AND previous_key_id <> $3 ORDER BY org_id, provider LIMIT $4`,
	scan: func(r *sql.Rows) (*SealedRow, error) {
		row, err := scanSealedCredential(r)
		if err == nil {
			row.Table = "org_credentials (former)"
		}
		return row, err
	},
	swap: swapFormer,
}

const swapFormerCredential = `UPDATE org_credentials SET previous_config = $1, previous_key_id = $2
	WHERE org_id = $3 AND provider = $4 AND version = $5 AND previous_key_id = $6`

func swapFormer(t *tx, key string, rows []*SealedRow) (written []*SealedRow, err error) {
	for _, r := range rows { // few
		n, err := t.exec(swapFormerCredential, r.Sealed, key, r.args[0], r.args[1], r.args[2], r.KeyID)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			written = append(written, r)
		}
	}
	return written, nil
}

func scanSealedCredential(r *sql.Rows) (*SealedRow, error) {
	c := &Credential{}
	if err := r.Scan(&c.Org, &c.Provider, &c.Version, &c.SealedVersion, &c.KeyID, &c.Sealed); err != nil {
		return nil, err
	}
	return &SealedRow{
		Table: "org_credentials", Name: c.key(), KeyID: c.KeyID, Sealed: c.Sealed, context: c.AppendContext,
		cursor: []any{c.Org, c.Provider}, args: []any{c.Org, c.Provider, c.Version}, change: Change{KindCredential, c.Org},
	}, nil
}

const (
	swapCredential = `UPDATE org_credentials SET encrypted_config = $1, key_id = $2
		WHERE org_id = $3 AND provider = $4 AND version = $5 AND key_id = $6`

	// The same for many at once: a round trip for each row would be what takes the time.
	swapCredentialsAtOnce = `UPDATE org_credentials AS c SET encrypted_config = n.sealed, key_id = $1
		FROM unnest($2::text[], $3::text[], $4::bigint[], $5::text[], $6::bytea[]) WITH ORDINALITY AS n (org, provider, version, was, sealed, at)
		WHERE c.org_id = n.org AND c.provider = n.provider AND c.version = n.version AND c.key_id = n.was RETURNING n.at`
)

func swapCredentials(t *tx, key string, rows []*SealedRow) (written []*SealedRow, err error) {
	if t.postgres {
		return swapCredentialsPostgres(t, key, rows)
	}
	for _, r := range rows {
		n, err := t.exec(swapCredential, r.Sealed, key, r.args[0], r.args[1], r.args[2], r.KeyID)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			written = append(written, r)
		}
	}
	return written, nil
}

func swapCredentialsPostgres(t *tx, key string, rows []*SealedRow) (written []*SealedRow, err error) {
	var orgs, providers, was []string
	var versions []int64
	var sealed [][]byte
	for _, r := range rows {
		orgs, providers, versions = append(orgs, r.args[0].(string)), append(providers, r.args[1].(string)), append(versions, r.args[2].(int64))
		was, sealed = append(was, r.KeyID), append(sealed, r.Sealed)
	}
	found, err := t.tx.QueryContext(t.ctx, swapCredentialsAtOnce, key, orgs, providers, versions, was, sealed)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	for found.Next() {
		var at int64
		if err := found.Scan(&at); err != nil {
			return nil, err
		}
		written = append(written, rows[at-1])
	}
	return written, found.Err()
}
