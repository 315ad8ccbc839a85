-- What a provider said of a credential; the credential that was there before, while another takes its place; and who may make an org's
-- assistant. Times that are compared are microseconds since 1970, as those of webhooks.

-- +goose Up
ALTER TABLE org_credentials
    ADD COLUMN verification            text NOT NULL DEFAULT '' CHECK (verification IN ('', 'valid', 'valid_restricted', 'invalid', 'reconnect')),
    ADD COLUMN previous_config         bytea,
    ADD COLUMN previous_key_id         text   NOT NULL DEFAULT '',
    ADD COLUMN previous_sealed_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN previous_until          bigint NOT NULL DEFAULT 0;
CREATE INDEX org_credentials_retiring ON org_credentials (previous_until) WHERE previous_until > 0;

CREATE TABLE assistant_claims (
    org_id      text COLLATE "C" NOT NULL,
    role        text COLLATE "C" NOT NULL,
    nonce       text COLLATE "C" NOT NULL,
    lease_owner text COLLATE "C" NOT NULL,
    lease_until bigint NOT NULL,
    unsettled   bigint NOT NULL,
    created_at  bigint NOT NULL,
    PRIMARY KEY (org_id, role)
);

-- +goose Down
DROP TABLE assistant_claims;
DROP INDEX org_credentials_retiring;
ALTER TABLE org_credentials
    DROP COLUMN verification,
    DROP COLUMN previous_config,
    DROP COLUMN previous_key_id,
    DROP COLUMN previous_sealed_version,
    DROP COLUMN previous_until;
