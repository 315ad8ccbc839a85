-- Row-level security by org, for roles that neither own the tables nor bypass it: docs/reference/store.md says how they are made. FORCE puts
-- the owner behind it too. A transaction names its org in the setting keyward.org, which ends with it; '*', which is no org's name, is for what
-- belongs to none in particular. Who has named none sees no row.
--
-- Tokens and keys of webhooks that were seen are looked up by what nobody can guess, before any org is known: they are behind no policy.

-- +goose Up
-- Behind somebody who reads for long, everybody else would wait for this.
SET LOCAL lock_timeout = '5s';

-- The setting is read once for each query, not for each row: hence the SELECT around it.
-- +goose StatementBegin
DO $$
DECLARE
    one text;
BEGIN
    FOREACH one IN ARRAY ARRAY['org_credentials', 'provider_accounts', 'assistant_org_mapping', 'agents', 'assistant_claims', 'audit_log', 'webhook_deliveries'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', one);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', one);
        EXECUTE format('CREATE POLICY keyward_tenant ON %I USING (org_id = (SELECT current_setting(''keyward.org'', true))
            OR (SELECT current_setting(''keyward.org'', true)) = ''*'')', one); -- WITH CHECK is the same
    END LOOP;
END
$$;
-- +goose StatementEnd

-- Ids of credentials and agents are ORG/…; the assistants' are known before their org is.
ALTER TABLE row_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE row_versions FORCE ROW LEVEL SECURITY;
CREATE POLICY keyward_tenant ON row_versions USING (kind = 'assistant' OR split_part(id, '/', 1) = (SELECT current_setting('keyward.org', true))
    OR (SELECT current_setting('keyward.org', true)) = '*');

-- What finds out an org must look at everybody's rows, and returns nothing but the org. It runs as the owner of the tables, so its tables are
-- found where they are now and not where its caller says. Its caller's org is again what it was at the end; after an error the transaction is over.
-- +goose StatementBegin
DO $$
DECLARE
    made text := $f$CREATE FUNCTION %1$I.%2$s RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, %1$I, pg_temp AS $b$
DECLARE
    before text := current_setting('keyward.org', true);
    found text;
BEGIN
    PERFORM set_config('keyward.org', '*', true);
    SELECT org_id INTO found FROM %3$s;
    PERFORM set_config('keyward.org', coalesce(before, ''), true);
    RETURN found;
END
$b$ $f$;
BEGIN
    EXECUTE format(made, current_schema(), 'keyward_assistant_org(assistant text)', 'assistant_org_mapping WHERE vapi_assistant_id = assistant');
    EXECUTE format(made, current_schema(), 'keyward_account_org(of_provider text, of_field text, of_account text)',
        'provider_accounts WHERE provider = of_provider AND field = of_field AND account_id = of_account');
END
$$;
-- +goose StatementEnd

-- What serves requests names the org and reads its row in one statement: one round trip. These run as their caller.
-- +goose StatementBegin
CREATE FUNCTION keyward_credential(of_org text, of_provider text) RETURNS SETOF org_credentials LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('keyward.org', of_org, true);
    RETURN QUERY SELECT * FROM org_credentials WHERE org_id = of_org AND provider = of_provider;
END
$$;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE FUNCTION keyward_assistant(assistant text) RETURNS SETOF assistant_org_mapping LANGUAGE plpgsql AS $$
DECLARE
    org text := keyward_assistant_org(assistant);
BEGIN
    PERFORM set_config('keyward.org', org, true);
    RETURN QUERY SELECT * FROM assistant_org_mapping WHERE vapi_assistant_id = assistant AND org_id = org;
END
$$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION keyward_assistant_org(text), keyward_account_org(text, text, text) FROM PUBLIC;

-- +goose StatementBegin
DO $$
BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'keyward_app') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO keyward_app', current_schema());
        GRANT SELECT, INSERT, UPDATE, DELETE ON org_credentials, provider_accounts, assistant_org_mapping, agents, assistant_claims,
            caller_tokens, admin_tokens, row_versions, webhook_deliveries, webhook_seen TO keyward_app;
        GRANT SELECT, INSERT ON audit_log TO keyward_app;
        GRANT USAGE ON SEQUENCE audit_log_id_seq TO keyward_app;
        GRANT SELECT ON keyward_schema_version TO keyward_app;
        GRANT EXECUTE ON FUNCTION keyward_assistant_org(text), keyward_account_org(text, text, text) TO keyward_app;
    END IF;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION keyward_assistant(text);
DROP FUNCTION keyward_credential(text, text);
DROP FUNCTION keyward_account_org(text, text, text);
DROP FUNCTION keyward_assistant_org(text);
-- +goose StatementBegin
DO $$
DECLARE
    one text;
BEGIN
    FOREACH one IN ARRAY ARRAY['org_credentials', 'provider_accounts', 'assistant_org_mapping', 'agents', 'assistant_claims', 'audit_log', 'webhook_deliveries', 'row_versions'] LOOP
        EXECUTE format('DROP POLICY keyward_tenant ON %I', one);
        EXECUTE format('ALTER TABLE %I NO FORCE ROW LEVEL SECURITY', one);
        EXECUTE format('ALTER TABLE %I DISABLE ROW LEVEL SECURITY', one);
    END LOOP;
END
$$;
-- +goose StatementEnd
