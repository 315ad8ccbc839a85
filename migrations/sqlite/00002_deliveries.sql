-- Webhooks that were acknowledged, until the app has taken them, and what was seen, so that none is taken twice. Times are microseconds
-- since 1970: they are compared, and both engines compare numbers in the same way.

-- +goose Up
CREATE TABLE webhook_deliveries (
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
    header          BLOB    NOT NULL, -- the long ones last: what stands behind them is slow to reach
    body            BLOB    NOT NULL
) STRICT;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (target, next_attempt_at, seq) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_order ON webhook_deliveries (group_key, seq) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_done ON webhook_deliveries (updated_at) WHERE state = 'delivered';
CREATE INDEX webhook_deliveries_by_org ON webhook_deliveries (org_id, seq);
CREATE INDEX webhook_deliveries_dead ON webhook_deliveries (seq) WHERE state = 'dead';

CREATE TABLE webhook_seen (
    key   BLOB    NOT NULL PRIMARY KEY,
    until INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_seen_until ON webhook_seen (until);

-- +goose Down
DROP TABLE webhook_seen;
DROP TABLE webhook_deliveries;
