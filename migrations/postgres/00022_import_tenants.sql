-- The ledger of what was carried over names tenants' rows: it goes behind the same policy as row_versions, whose ids it uses.

-- +goose Up
SET LOCAL lock_timeout = '5s';
ALTER TABLE legacy_imports ENABLE ROW LEVEL SECURITY;
ALTER TABLE legacy_imports FORCE ROW LEVEL SECURITY;
CREATE POLICY keyward_tenant ON legacy_imports USING (kind = 'assistant' OR split_part(id, '/', 1) = (SELECT current_setting('keyward.org', true))
    OR (SELECT current_setting('keyward.org', true)) = '*');

-- +goose Down
DROP POLICY keyward_tenant ON legacy_imports;
ALTER TABLE legacy_imports NO FORCE ROW LEVEL SECURITY;
ALTER TABLE legacy_imports DISABLE ROW LEVEL SECURITY;
