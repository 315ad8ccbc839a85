-- What each role may, by pgTAP. The orgs acme and globex have one row in every table.
\set QUIET on
BEGIN;
SET search_path = public, tap;
SELECT no_plan();

-- Roles.
SELECT isnt_superuser('keyward_app', 'keyward_app is no superuser');
SELECT isnt_superuser('keyward_owner', 'keyward_owner is no superuser');
SELECT ok(NOT rolbypassrls, rolname || ' does not bypass row security') FROM pg_roles WHERE rolname IN ('keyward_app', 'keyward_owner') ORDER BY 1;
SELECT isnt_member_of('keyward_owner', ARRAY['keyward_app']::name[], 'keyward_app is no member of the owner');

CREATE TEMP TABLE tenant (name name);
INSERT INTO tenant VALUES ('org_credentials'), ('provider_accounts'), ('assistant_org_mapping'), ('agents'), ('assistant_claims'), ('audit_log'),
    ('webhook_deliveries'), ('row_versions'), ('legacy_imports');

-- Tables: every one with an org is behind a forced policy, but for tokens, which are looked up before the org is known.
SELECT ok(c.relrowsecurity, c.relname || ' has row security'), ok(c.relforcerowsecurity, c.relname || ' forces it on its owner')
    FROM pg_class AS c JOIN tenant AS t ON c.oid = t.name::text::regclass ORDER BY c.relname;
SELECT table_owner_is('public'::name, name, 'keyward_owner'::name, name || ' is the owner''s') FROM tenant;
SELECT policies_are('public'::name, name, ARRAY['keyward_tenant']::name[], name || ' has one policy') FROM tenant;
SELECT is_empty($$ SELECT c.relname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
    WHERE a.attname = 'org_id' AND c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND NOT c.relforcerowsecurity
    AND c.relname <> 'admin_tokens' $$, 'no table with an org is without');
SELECT table_privs_are('public'::name, 'audit_log'::name, 'keyward_app'::name, ARRAY['SELECT', 'INSERT'], 'the log only grows');
SELECT table_privs_are('public'::name, 'keyward_schema_version'::name, 'keyward_app'::name, ARRAY['SELECT'], 'the schema is not keyward_app''s to change');
SELECT table_privs_are('public'::name, name, 'keyward_app'::name, ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'], name || ': rows, and no TRUNCATE, TRIGGER or REFERENCES')
    FROM tenant WHERE name <> 'audit_log';

-- Functions that look at everybody's rows.
SELECT is_definer('public'::name, f, f || ' runs as the owner') FROM unnest(ARRAY['keyward_assistant_org', 'keyward_account_org']::name[]) AS f;
SELECT function_returns('public'::name, f, 'text', f || ' returns an org and nothing else') FROM unnest(ARRAY['keyward_assistant_org', 'keyward_account_org']::name[]) AS f;
SELECT ok(EXISTS (SELECT 1 FROM unnest(p.proconfig) AS c WHERE c = 'search_path=pg_catalog, public, pg_temp'), p.proname || ' finds its tables where they are')
    FROM pg_proc AS p WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace ORDER BY p.proname;
SELECT is((SELECT count(*) FROM pg_proc AS p WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace), 2::bigint, 'and there are no others');
SELECT ok(NOT has_function_privilege('public', p.oid, 'EXECUTE'), p.proname || ' is not everybody''s')
    FROM pg_proc AS p WHERE p.prosecdef AND p.pronamespace = 'public'::regnamespace ORDER BY p.proname;
SELECT isnt_definer('public'::name, f, f || ' runs as its caller') FROM unnest(ARRAY['keyward_credential', 'keyward_assistant']::name[]) AS f;

-- What keyward_app sees.
GRANT SELECT ON tenant TO keyward_app, keyward_owner;
SET ROLE keyward_app;
CREATE FUNCTION pg_temp.orgs(one name) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    found text;
BEGIN
    EXECUTE format('SELECT coalesce(string_agg(DISTINCT %s, '','' ORDER BY %1$s), '''') FROM %I %s',
        CASE WHEN one IN ('row_versions', 'legacy_imports') THEN 'split_part(id, ''/'', 1)' ELSE 'org_id' END, one,
        CASE WHEN one IN ('row_versions', 'legacy_imports') THEN 'WHERE kind <> ''assistant''' ELSE '' END) INTO found;
    RETURN found;
END
$$;
SELECT is(pg_temp.orgs(name), '', name || ': who has named no org sees nothing') FROM tenant;
SELECT set_config('keyward.org', 'acme', true) AS _ \gset
SELECT is(pg_temp.orgs(name), 'acme', name || ': acme sees its own rows') FROM tenant;
SELECT is((SELECT count(*) FROM keyward_credential('acme', 'twilio')), 1::bigint, 'its credential is there');
SELECT throws_ok($$ INSERT INTO agents VALUES ('globex', 'outbound', '', '{}', 1, now(), now()) $$, '42501', NULL, 'acme adds no row of globex');
SELECT throws_ok($$ UPDATE org_credentials SET org_id = 'globex', provider = 'vapi' $$, '42501', NULL, 'nor gives it one of its own');
SELECT throws_ok($$ INSERT INTO audit_log VALUES (1, now(), '', '', '', 'globex', '', '', '') $$, '42501', NULL, 'nor writes into its log');
SELECT throws_ok($$ UPDATE audit_log SET actor = 'nobody' $$, '42501', NULL, 'nobody rewrites the log');
SELECT throws_ok($$ DELETE FROM audit_log $$, '42501', NULL, 'nor deletes from it');
SELECT throws_ok(format('TRUNCATE %I', name), '42501', NULL, name || ' is not truncated') FROM tenant;
SELECT throws_ok(format('ALTER TABLE %I DISABLE ROW LEVEL SECURITY', name), '42501', NULL, name || ' stays behind its policy') FROM tenant;
SELECT throws_ok('CREATE TABLE public.mine (x int)', '42501', NULL, 'keyward_app makes no tables');
SELECT ok(NOT pg_has_role('keyward_app', 'keyward_owner', 'MEMBER'), 'and does not become the owner');
SELECT is_empty($$ UPDATE webhook_deliveries SET state = 'dead' WHERE org_id = 'globex' RETURNING 1 $$, 'acme changes no delivery of globex');
SELECT is_empty($$ DELETE FROM assistant_org_mapping WHERE org_id = 'globex' RETURNING 1 $$, 'nor deletes its assistants');

-- Looking up whose an assistant is returns the org, and leaves the caller where it was.
SELECT is(keyward_assistant_org('asst_globex'), 'globex', 'the org of an assistant is found out');
SELECT is(keyward_assistant_org('asst_nobody'), NULL, 'or is not');
SELECT is(keyward_account_org('twilio', 'account_sid', 'ACglobex'), 'globex', 'the org of an account too');
SELECT is(current_setting('keyward.org'), 'acme', 'and the caller is still acme');
SELECT is(pg_temp.orgs('org_credentials'), 'acme', 'who sees what it saw');
CREATE TEMP TABLE assistant_org_mapping (vapi_assistant_id text, org_id text);
INSERT INTO pg_temp.assistant_org_mapping VALUES ('asst_globex', 'acme');
SELECT is(keyward_assistant_org('asst_globex'), 'globex', 'a table of that name elsewhere is not looked at');
DROP TABLE pg_temp.assistant_org_mapping;
SELECT is((SELECT org_id FROM keyward_assistant('asst_globex')), 'globex', 'its row is read as its org');
SELECT set_config('keyward.org', '*', true) AS _ \gset
SELECT is(pg_temp.orgs(name), 'acme,globex', name || ': an operator sees all') FROM tenant;
SELECT set_config('keyward.org', '', true) AS _ \gset
SELECT is(pg_temp.orgs('org_credentials'), '', 'an empty name, as a pooler leaves it, is nobody''s');

-- The owner is behind the policies too.
SET ROLE keyward_owner;
SELECT is((SELECT count(*) FROM org_credentials), 0::bigint, 'the owner sees nothing when it has named no org');
SELECT set_config('keyward.org', 'globex', true) AS _ \gset
SELECT is((SELECT string_agg(DISTINCT org_id, ',') FROM org_credentials), 'globex', 'and else that org''s rows');
RESET ROLE;
SELECT * FROM finish();
ROLLBACK;
