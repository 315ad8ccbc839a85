-- The first schema. docs/reference/store.md says what each column means; the SQLite folder has the same tables.
-- Ids have the collation "C": they are compared and listed by their bytes, as in SQLite, whatever the database's locale is.

-- +goose Up
CREATE TABLE row_versions (
    kind    text COLLATE "C" NOT NULL,
    id      text COLLATE "C" NOT NULL,
    version bigint NOT NULL CHECK (version > 0),
    PRIMARY KEY (kind, id)
);

CREATE TABLE org_credentials (
    org_id             text COLLATE "C" NOT NULL,
    provider           text COLLATE "C" NOT NULL,
    encrypted_config   bytea       NOT NULL,
    key_id             text        NOT NULL,
    version            bigint      NOT NULL CHECK (version > 0),
    sealed_version     bigint      NOT NULL CHECK (sealed_version BETWEEN 1 AND version),
    is_active          boolean     NOT NULL,
    last_verified_at   timestamptz,
    verification_error text        NOT NULL,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    PRIMARY KEY (org_id, provider)
);

CREATE TABLE provider_accounts (
    provider   text COLLATE "C" NOT NULL,
    field      text COLLATE "C" NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    org_id     text COLLATE "C" NOT NULL,
    PRIMARY KEY (provider, field, account_id),
    FOREIGN KEY (org_id, provider) REFERENCES org_credentials (org_id, provider) ON DELETE CASCADE
);
CREATE INDEX provider_accounts_by_org ON provider_accounts (org_id, provider);

CREATE TABLE assistant_org_mapping (
    vapi_assistant_id text COLLATE "C" PRIMARY KEY,
    org_id            text COLLATE "C" NOT NULL,
    role              text        NOT NULL,
    name              text        NOT NULL,
    version           bigint      NOT NULL CHECK (version > 0),
    last_used_at      timestamptz,
    created_at        timestamptz NOT NULL,
    updated_at        timestamptz NOT NULL
);
CREATE INDEX assistant_org_mapping_by_org ON assistant_org_mapping (org_id, vapi_assistant_id);

CREATE TABLE caller_tokens (
    id            text COLLATE "C" PRIMARY KEY,
    name          text COLLATE "C" NOT NULL,
    token_hash    bytea       NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    orgs          text        NOT NULL,
    providers     text        NOT NULL,
    allow         text        NOT NULL,
    rate          text        NOT NULL,
    secret_routes boolean     NOT NULL,
    created_at    timestamptz NOT NULL,
    last_used_at  timestamptz,
    revoked_at    timestamptz
);
CREATE UNIQUE INDEX caller_tokens_live_name ON caller_tokens (name) WHERE revoked_at IS NULL;

CREATE SEQUENCE audit_log_id_seq;
CREATE TABLE audit_log (
    id         bigint PRIMARY KEY,
    at         timestamptz NOT NULL,
    actor      text        NOT NULL,
    actor_from text        NOT NULL,
    action     text        NOT NULL,
    org_id     text COLLATE "C" NOT NULL,
    target     text        NOT NULL,
    result     text        NOT NULL,
    detail     text        NOT NULL
);
ALTER SEQUENCE audit_log_id_seq OWNED BY audit_log.id;
CREATE INDEX audit_log_by_org ON audit_log (org_id, id);

-- Who follows the log asks for what came after the last id that it saw. Were ids given out in another order than that of the commits,
-- it would miss rows; so one transaction at a time holds the log, from its audit row to its end.
-- +goose StatementBegin
CREATE FUNCTION keyward_number_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(7737491886); -- any number, the same for all writers
    NEW.id := nextval('audit_log_id_seq');
    RETURN NEW;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER audit_log_number BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION keyward_number_event();

-- +goose StatementBegin
CREATE FUNCTION keyward_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END
$$;
-- +goose StatementEnd
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION keyward_append_only();
CREATE TRIGGER audit_log_no_truncate BEFORE TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION keyward_append_only();

-- Announcements carry a kind and an id, never a value: a channel can be listened to by every role of the database.
-- +goose StatementBegin
CREATE FUNCTION keyward_announce() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed record;
    id text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify('keyward', 'all');
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' THEN
        changed := OLD;
    ELSE
        changed := NEW;
    END IF;
    IF TG_ARGV[0] = 'credential' THEN
        id := changed.org_id;
    ELSIF TG_ARGV[0] = 'assistant' THEN
        id := changed.vapi_assistant_id;
    ELSE
        id := encode(changed.token_hash, 'hex');
    END IF;
    PERFORM pg_notify('keyward', TG_ARGV[0] || ':' || id);
    RETURN NULL;
END
$$;
-- +goose StatementEnd

-- last_used_at is in none of the lists: being used changes nothing that anyone keeps a copy of.
CREATE TRIGGER org_credentials_announce AFTER INSERT OR DELETE
    OR UPDATE OF org_id, provider, encrypted_config, key_id, version, sealed_version, is_active, last_verified_at, verification_error
    ON org_credentials FOR EACH ROW EXECUTE FUNCTION keyward_announce('credential');
CREATE TRIGGER assistant_org_mapping_announce AFTER INSERT OR DELETE
    OR UPDATE OF vapi_assistant_id, org_id, role, name, version
    ON assistant_org_mapping FOR EACH ROW EXECUTE FUNCTION keyward_announce('assistant');
CREATE TRIGGER caller_tokens_announce AFTER INSERT OR DELETE
    OR UPDATE OF id, name, token_hash, orgs, providers, allow, rate, secret_routes, revoked_at
    ON caller_tokens FOR EACH ROW EXECUTE FUNCTION keyward_announce('token');
CREATE TRIGGER org_credentials_announce_all AFTER TRUNCATE ON org_credentials FOR EACH STATEMENT EXECUTE FUNCTION keyward_announce();
CREATE TRIGGER assistant_org_mapping_announce_all AFTER TRUNCATE ON assistant_org_mapping FOR EACH STATEMENT EXECUTE FUNCTION keyward_announce();
CREATE TRIGGER caller_tokens_announce_all AFTER TRUNCATE ON caller_tokens FOR EACH STATEMENT EXECUTE FUNCTION keyward_announce();

-- +goose Down
DROP TABLE audit_log;
DROP TABLE caller_tokens;
DROP TABLE assistant_org_mapping;
DROP TABLE provider_accounts;
DROP TABLE org_credentials;
DROP TABLE row_versions;
DROP FUNCTION keyward_announce();
DROP FUNCTION keyward_append_only();
DROP FUNCTION keyward_number_event();
