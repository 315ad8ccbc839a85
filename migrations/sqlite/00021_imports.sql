-- What was carried over from an app's own tables, so that a later change there can be told from one made in Keyward.

-- +goose Up
CREATE TABLE legacy_imports (
    kind        TEXT    NOT NULL, -- credential, assistant
    id          TEXT    NOT NULL, -- ORG/PROVIDER, or the assistant's id
    digest      BLOB    NOT NULL,
    version     INTEGER NOT NULL,
    active      INTEGER NOT NULL CHECK (active IN (0, 1)),
    imported_at TEXT    NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

-- +goose Down
DROP TABLE legacy_imports;
