-- Row-level security is PostgreSQL's: an SQLite store has one user, who owns the file.

-- +goose Up
SELECT 1;

-- +goose Down
SELECT 1;
