-- Tokens of the admin API, and how each org's agents are configured.

-- +goose Up
CREATE TABLE admin_tokens (
    id           TEXT NOT NULL PRIMARY KEY,
    name         TEXT NOT NULL,
    token_hash   BLOB NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    role         TEXT NOT NULL CHECK (role IN ('operator', 'org')),
    org_id       TEXT NOT NULL CHECK ((role = 'org') = (org_id <> '')),
    created_at   TEXT NOT NULL,
    last_used_at TEXT,
    revoked_at   TEXT
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX admin_tokens_live_name ON admin_tokens (name) WHERE revoked_at IS NULL;

CREATE TABLE agents (
    org_id     TEXT    NOT NULL,
    role       TEXT    NOT NULL CHECK (role IN ('inbound', 'outbound')),
    name       TEXT    NOT NULL,
    config     TEXT    NOT NULL CHECK (json_valid(config)),
    version    INTEGER NOT NULL CHECK (version > 0),
    created_at TEXT    NOT NULL,
    updated_at TEXT    NOT NULL,
    PRIMARY KEY (org_id, role)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE agents;
DROP TABLE admin_tokens;
