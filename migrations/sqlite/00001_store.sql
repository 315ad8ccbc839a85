-- The first schema. docs/reference/store.md says what each column means; the PostgreSQL folder has the same tables.

-- +goose Up
CREATE TABLE row_versions (
    kind    TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE org_credentials (
    org_id             TEXT    NOT NULL,
    provider           TEXT    NOT NULL,
    encrypted_config   BLOB    NOT NULL,
    key_id             TEXT    NOT NULL,
    version            INTEGER NOT NULL CHECK (version > 0),
    sealed_version     INTEGER NOT NULL CHECK (sealed_version BETWEEN 1 AND version),
    is_active          INTEGER NOT NULL CHECK (is_active IN (0, 1)),
    last_verified_at   TEXT,
    verification_error TEXT    NOT NULL,
    created_at         TEXT    NOT NULL,
    updated_at         TEXT    NOT NULL,
    PRIMARY KEY (org_id, provider)
) STRICT, WITHOUT ROWID;

CREATE TABLE provider_accounts (
    provider   TEXT NOT NULL,
    field      TEXT NOT NULL,
    account_id TEXT NOT NULL,
    org_id     TEXT NOT NULL,
    PRIMARY KEY (provider, field, account_id),
    FOREIGN KEY (org_id, provider) REFERENCES org_credentials (org_id, provider) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX provider_accounts_by_org ON provider_accounts (org_id, provider);

CREATE TABLE assistant_org_mapping (
    vapi_assistant_id TEXT    NOT NULL PRIMARY KEY,
    org_id            TEXT    NOT NULL,
    role              TEXT    NOT NULL,
    name              TEXT    NOT NULL,
    version           INTEGER NOT NULL CHECK (version > 0),
    last_used_at      TEXT,
    created_at        TEXT    NOT NULL,
    updated_at        TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX assistant_org_mapping_by_org ON assistant_org_mapping (org_id, vapi_assistant_id);

CREATE TABLE caller_tokens (
    id            TEXT    NOT NULL PRIMARY KEY,
    name          TEXT    NOT NULL,
    token_hash    BLOB    NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    orgs          TEXT    NOT NULL CHECK (json_valid(orgs)),
    providers     TEXT    NOT NULL CHECK (json_valid(providers)),
    allow         TEXT    NOT NULL CHECK (json_valid(allow)),
    rate          TEXT    NOT NULL,
    secret_routes INTEGER NOT NULL CHECK (secret_routes IN (0, 1)),
    created_at    TEXT    NOT NULL,
    last_used_at  TEXT,
    revoked_at    TEXT
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX caller_tokens_live_name ON caller_tokens (name) WHERE revoked_at IS NULL;

CREATE TABLE audit_log (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         TEXT NOT NULL,
    actor      TEXT NOT NULL,
    actor_from TEXT NOT NULL,
    action     TEXT NOT NULL,
    org_id     TEXT NOT NULL,
    target     TEXT NOT NULL,
    result     TEXT NOT NULL,
    detail     TEXT NOT NULL
) STRICT;
CREATE INDEX audit_log_by_org ON audit_log (org_id, id);

-- +goose StatementBegin
CREATE TRIGGER audit_log_keeps_updates_out BEFORE UPDATE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'audit_log is append-only');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_log_keeps_deletes_out BEFORE DELETE ON audit_log
BEGIN
    SELECT RAISE(ABORT, 'audit_log is append-only');
END;
-- +goose StatementEnd

-- +goose Down
DROP TABLE audit_log;
DROP TABLE caller_tokens;
DROP TABLE assistant_org_mapping;
DROP TABLE provider_accounts;
DROP TABLE org_credentials;
DROP TABLE row_versions;
