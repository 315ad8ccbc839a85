-- Tokens of the admin API, and how each org's agents are configured. Nobody keeps a copy of either, so neither is announced.

-- +goose Up
CREATE TABLE admin_tokens (
    id           text COLLATE "C" PRIMARY KEY,
    name         text COLLATE "C" NOT NULL,
    token_hash   bytea       NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    role         text COLLATE "C" NOT NULL CHECK (role IN ('operator', 'org')),
    org_id       text COLLATE "C" NOT NULL CHECK ((role = 'org') = (org_id <> '')),
    created_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at   timestamptz
);
CREATE UNIQUE INDEX admin_tokens_live_name ON admin_tokens (name) WHERE revoked_at IS NULL;

CREATE TABLE agents (
    org_id     text COLLATE "C" NOT NULL,
    role       text COLLATE "C" NOT NULL CHECK (role IN ('inbound', 'outbound')),
    name       text        NOT NULL,
    config     text        NOT NULL, -- as it was written: jsonb would not keep every number and text
    version    bigint      NOT NULL CHECK (version > 0),
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (org_id, role)
);

-- +goose Down
DROP TABLE agents;
DROP TABLE admin_tokens;
