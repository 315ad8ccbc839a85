-- What was carried over from an app's own tables, so that a later change there can be told from one made in Keyward.

-- +goose Up
CREATE TABLE legacy_imports (
    kind        text COLLATE "C" NOT NULL, -- credential, assistant
    id          text COLLATE "C" NOT NULL, -- ORG/PROVIDER, or the assistant's id
    digest      bytea       NOT NULL,
    version     bigint      NOT NULL,
    active      boolean     NOT NULL,
    imported_at timestamptz NOT NULL,
    PRIMARY KEY (kind, id)
);

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'keyward_app') THEN
        GRANT SELECT, INSERT, UPDATE, DELETE ON legacy_imports TO keyward_app;
    END IF;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP TABLE legacy_imports;
