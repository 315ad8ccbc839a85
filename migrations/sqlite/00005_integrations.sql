-- What a provider said of a credential; the credential that was there before, while another takes its place; and who may make an org's
-- assistant. Times that are compared are microseconds since 1970, as those of webhooks.

-- +goose Up
ALTER TABLE org_credentials ADD COLUMN verification TEXT NOT NULL DEFAULT '' CHECK (verification IN ('', 'valid', 'valid_restricted', 'invalid', 'reconnect'));
ALTER TABLE org_credentials ADD COLUMN previous_config BLOB;
ALTER TABLE org_credentials ADD COLUMN previous_key_id TEXT NOT NULL DEFAULT '';
ALTER TABLE org_credentials ADD COLUMN previous_sealed_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE org_credentials ADD COLUMN previous_until INTEGER NOT NULL DEFAULT 0;
CREATE INDEX org_credentials_retiring ON org_credentials (previous_until) WHERE previous_until > 0;

CREATE TABLE assistant_claims (
    org_id      TEXT    NOT NULL,
    role        TEXT    NOT NULL,
    nonce       TEXT    NOT NULL,
    lease_owner TEXT    NOT NULL,
    lease_until INTEGER NOT NULL,
    unsettled   INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (org_id, role)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE assistant_claims;
DROP INDEX org_credentials_retiring;
ALTER TABLE org_credentials DROP COLUMN verification;
ALTER TABLE org_credentials DROP COLUMN previous_config;
ALTER TABLE org_credentials DROP COLUMN previous_key_id;
ALTER TABLE org_credentials DROP COLUMN previous_sealed_version;
ALTER TABLE org_credentials DROP COLUMN previous_until;
