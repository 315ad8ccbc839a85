-- How often assistants and callers are used; and webhooks that are sealed as credentials are.

-- +goose Up
ALTER TABLE assistant_org_mapping ADD COLUMN use_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE caller_tokens ADD COLUMN use_count INTEGER NOT NULL DEFAULT 0;

-- The table is made anew: a column that is added comes last, and what stands behind the body is slow to reach.
CREATE TABLE webhook_deliveries_new (
    seq             INTEGER PRIMARY KEY AUTOINCREMENT,
    id              TEXT    NOT NULL UNIQUE,
    org_id          TEXT    NOT NULL,
    provider        TEXT    NOT NULL,
    type            TEXT    NOT NULL,
    assistant       TEXT    NOT NULL,
    group_key       TEXT    NOT NULL,
    target          TEXT    NOT NULL,
    method          TEXT    NOT NULL,
    path            TEXT    NOT NULL,
    raw_query       TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts        INTEGER NOT NULL,
    next_attempt_at INTEGER,
    lease_until     INTEGER NOT NULL,
    lease_owner     TEXT    NOT NULL,
    last_error      TEXT    NOT NULL,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    key_id          TEXT    NOT NULL DEFAULT '', -- '': header and body are as they came
    body_size       INTEGER, -- NULL: that of body
    header          BLOB    NOT NULL,
    body            BLOB    NOT NULL
) STRICT;
INSERT INTO webhook_deliveries_new (seq, id, org_id, provider, type, assistant, group_key, target, method, path, raw_query, state, attempts,
    next_attempt_at, lease_until, lease_owner, last_error, created_at, updated_at, header, body)
SELECT seq, id, org_id, provider, type, assistant, group_key, target, method, path, raw_query, state, attempts,
    next_attempt_at, lease_until, lease_owner, last_error, created_at, updated_at, header, body FROM webhook_deliveries;
DROP TABLE webhook_deliveries;
ALTER TABLE webhook_deliveries_new RENAME TO webhook_deliveries;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (target, next_attempt_at, seq) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_order ON webhook_deliveries (group_key, seq) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_done ON webhook_deliveries (updated_at) WHERE state = 'delivered';
CREATE INDEX webhook_deliveries_by_org ON webhook_deliveries (org_id, seq);
CREATE INDEX webhook_deliveries_dead ON webhook_deliveries (seq) WHERE state = 'dead';

-- A sidecar of an older version, which shares the file while one hands over to the next, cannot open them and would deliver them as they
-- are: it leases none. Who can, says so in its name.
-- +goose StatementBegin
CREATE TRIGGER webhook_deliveries_keep_sealed BEFORE UPDATE OF lease_owner ON webhook_deliveries
    WHEN NEW.key_id <> '' AND NEW.lease_owner <> '' AND NEW.lease_owner NOT LIKE 'opener %'
BEGIN
    SELECT RAISE(IGNORE); -- the row is left out
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER webhook_deliveries_keep_sealed;
DELETE FROM webhook_deliveries WHERE key_id <> ''; -- nobody could tell any more that they are sealed, and apps would get what they cannot read
ALTER TABLE webhook_deliveries DROP COLUMN body_size;
ALTER TABLE webhook_deliveries DROP COLUMN key_id;
ALTER TABLE caller_tokens DROP COLUMN use_count;
ALTER TABLE assistant_org_mapping DROP COLUMN use_count;
