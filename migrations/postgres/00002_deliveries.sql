-- Webhooks that were acknowledged, until the app has taken them, and what was seen, so that none is taken twice. Times are microseconds
-- since 1970: they are compared, and both engines compare numbers in the same way.

-- +goose Up
CREATE TABLE webhook_deliveries (
    seq             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id              text COLLATE "C" NOT NULL UNIQUE,
    org_id          text COLLATE "C" NOT NULL,
    provider        text COLLATE "C" NOT NULL,
    type            text COLLATE "C" NOT NULL,
    assistant       text COLLATE "C" NOT NULL,
    group_key       text COLLATE "C" NOT NULL,
    target          text COLLATE "C" NOT NULL,
    method          text        NOT NULL,
    path            text        NOT NULL,
    raw_query       text        NOT NULL,
    header          bytea       NOT NULL,
    body            bytea       NOT NULL,
    state           text COLLATE "C" NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts        bigint      NOT NULL,
    next_attempt_at bigint,
    lease_until     bigint      NOT NULL,
    lease_owner     text        NOT NULL,
    last_error      text        NOT NULL,
    created_at      bigint      NOT NULL,
    updated_at      bigint      NOT NULL
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (target, next_attempt_at, seq) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_order ON webhook_deliveries (group_key, seq) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_done ON webhook_deliveries (updated_at) WHERE state = 'delivered';
CREATE INDEX webhook_deliveries_by_org ON webhook_deliveries (org_id, seq);
CREATE INDEX webhook_deliveries_dead ON webhook_deliveries (seq) WHERE state = 'dead';
ALTER TABLE webhook_deliveries ALTER COLUMN body SET STORAGE EXTERNAL; -- mostly written once, read once: not worth compressing

CREATE TABLE webhook_seen (
    key   bytea  PRIMARY KEY,
    until bigint NOT NULL
);
CREATE INDEX webhook_seen_until ON webhook_seen (until);

-- +goose Down
DROP TABLE webhook_seen;
DROP TABLE webhook_deliveries;
