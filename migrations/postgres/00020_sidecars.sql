-- Which sidecars run, and which keys each of them has: a new key seals only when all of them open what it has sealed, and an old one goes
-- only when none of them seals with it any more. On SQLite they are on one machine and hold files beside the store instead.

-- +goose Up
CREATE TABLE sidecars (
    id             text COLLATE "C" PRIMARY KEY,
    host           text        NOT NULL,
    pid            bigint      NOT NULL,
    place          text        NOT NULL, -- of its run folder: a process that comes back there has taken its place
    version        text        NOT NULL,
    key_ids        text        NOT NULL,
    primary_key_id text        NOT NULL,
    started_at     timestamptz NOT NULL,
    seen_at        timestamptz NOT NULL
);

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'keyward_app') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON sidecars TO keyward_app;
    END IF;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP TABLE sidecars;
