-- Which sidecars run, and which keys each of them has, is a table on PostgreSQL. On SQLite they hold files beside the store: there is
-- nothing to make here.

-- +goose Up
SELECT 1;

-- +goose Down
SELECT 1;
