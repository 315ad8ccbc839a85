package store

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyward/keyward/internal/pgtest"
)

// as is a URL of pgtest's for another role.
func as(t testing.TB, address, role string) string {
	t.Helper()
	u, err := url.Parse(address)
	ok(t, err)
	q := u.Query()
	q.Set("user", role)
	u.RawQuery = q.Encode()
	return u.String()
}

// root runs statements as the superuser of the cluster.
func root(t testing.TB, address string, statements ...string) {
	t.Helper()
	c, err := pgx.Connect(context.Background(), address)
	ok(t, err)
	defer func() { _ = c.Close(context.Background()) }()
	for _, s := range statements {
		if _, err := c.Exec(context.Background(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

const rolesOf = `DO $$ BEGIN
	IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'keyward_app') THEN
		CREATE ROLE keyward_owner LOGIN;
		CREATE ROLE keyward_app LOGIN;
	END IF;
END $$`

// Who owns a database is not copied with it.
const ownedByOwner = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO keyward_owner', current_database()); END $$"

var tenantDatabase = pgtest.Filled(func(t testing.TB, super string) {
	root(t, super, rolesOf, ownedByOwner)
	migrate(t, as(t, super, "keyward_owner"))
})

// tenants makes a store as docs/reference/store.md says: keyward_owner migrates it, keyward_app uses it. It returns both URLs, and the
// superuser's.
func tenants(t testing.TB) (app, owner, super string) {
	t.Helper()
	super = tenantDatabase(t)
	root(t, super, ownedByOwner)
	return as(t, super, "keyward_app"), as(t, super, "keyward_owner"), super
}

// asTenant runs a query in a transaction that has named org (empty: none), and returns its rows' first columns.
func asTenant(t testing.TB, d *DB, org, query string, args ...any) (rows []string, err error) {
	t.Helper()
	ctx := forNone(t.Context())
	if org != "" {
		ctx = context.WithValue(ctx, tenantKey{}, org)
	}
	all, err := d.r.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	for all.Next() {
		var one string
		ok(t, all.Scan(&one))
		rows = append(rows, one)
	}
	return rows, all.Err()
}

// A query that forgets its WHERE finds one org's rows, or none.
func TestForgottenWhere(t *testing.T) {
	app, owner, _ := tenants(t)
	for role, address := range map[string]string{"app": app, "owner": owner} {
		t.Run(role, func(t *testing.T) {
			d := engine{"postgres", address}.open(t)
			for _, org := range []string{"acme", "globex"} {
				put(t, d, Ref{org, "twilio"}, Account{"account_sid", "AC" + org + role})
				ok(t, d.PutAssistant(t.Context(), by, &Assistant{ID: "asst_" + org, Org: org}, -1))
				ok(t, d.PutImport(t.Context(), &Import{Kind: KindCredential, ID: org + "/twilio", Digest: []byte("d")}))
				ok(t, d.PutAgent(t.Context(), by, &Agent{Org: org, Role: "inbound", Config: []byte("{}")}, -1))
				_, err := d.ClaimAssistant(t.Context(), org, "inbound", "me", 1)
				ok(t, err)
				_, err = d.AcceptDelivery(t.Context(), &Delivery{Org: org, Provider: "vapi", Target: "http://x"})
				ok(t, err)
			}
			for _, table := range tenantTables {
				query := "SELECT DISTINCT org_id FROM " + table
				if table == "row_versions" || table == "legacy_imports" {
					query = "SELECT DISTINCT split_part(id, '/', 1) FROM " + table + " WHERE kind <> 'assistant'"
				}
				for org, want := range map[string]string{"acme": "[acme]", "globex": "[globex]", "initech": "[]", "": "[]", "-": "[]", "*": "[acme globex]"} {
					rows, err := asTenant(t, d, org, query+" ORDER BY 1")
					ok(t, err)
					if got := fmt.Sprint(rows); got != want {
						t.Errorf("%s as %q: %s, want %s", table, org, got, want)
					}
				}
			}
		})
	}
}

// The setting ends with the transaction, also where that failed: the next user of the connection, another client's behind a pooler, is not
// taken for the org.
func TestTenantEndsWithItsTransaction(t *testing.T) {
	app, _, _ := tenants(t)
	d := engine{"postgres", newPooler(t, app, 1)}.open(t)
	put(t, d, acmeTwilio)
	d.w.SetMaxOpenConns(1)
	seen := func() []string {
		rows, err := asTenant(t, d, "", "SELECT org_id FROM org_credentials UNION ALL SELECT org_id FROM audit_log")
		ok(t, err)
		return rows
	}
	for what, call := range map[string]func(){
		"a hot read":        func() { ok(t, read(d)) },
		"a listing":         func() { _, _, err := d.Credentials(t.Context(), "acme", "", 0); ok(t, err) },
		"everybody's":       func() { _, _, err := d.Orgs(t.Context(), "", 0); ok(t, err) },
		"a write":           func() { put(t, d, acmeTwilio) },
		"a conflict":        func() { is(t, d.PutCredential(t.Context(), by, sealed(acmeTwilio, 99)), ErrConflict) },
		"a failed query":    func() { _, _ = asTenant(t, d, "acme", "SELECT 1/0") },
		"a failed exec":     func() { _, _ = d.w.ExecContext(forOrg(t.Context(), "acme"), "SELECT 1/0") },
		"an assistant":      func() { _, _ = d.Assistant(t.Context(), "asst_1") },
		"an account":        func() { _, _ = d.AccountOwner(t.Context(), "twilio", "account_sid", "x") },
		"what is malformed": func() { _, _ = asTenant(t, d, "acme", "SELECT nothing FROM nowhere") },
	} {
		call()
		if rows := seen(); len(rows) > 0 {
			t.Errorf("after %s, without a tenant: %v", what, rows)
		}
	}
	ok(t, read(d))
}

// No write of one org's can reach another's rows, whatever its statement says.
func TestForeignWrites(t *testing.T) {
	app, _, _ := tenants(t)
	d := engine{"postgres", app}.open(t)
	put(t, d, acmeTwilio)
	put(t, d, Ref{"globex", "twilio"})
	for _, statement := range []string{
		"UPDATE org_credentials SET org_id = 'globex', provider = 'vapi' RETURNING org_id",
		"INSERT INTO assistant_org_mapping (vapi_assistant_id, org_id, role, name, version, created_at, updated_at) VALUES ('a', 'globex', '', '', 1, now(), now()) RETURNING org_id",
		"INSERT INTO audit_log (id, at, actor, actor_from, action, org_id, target, result, detail) VALUES (1, now(), '', '', '', 'globex', '', '', '') RETURNING org_id",
	} {
		if rows, err := asTenant(t, d, "acme", statement); err == nil || !strings.Contains(err.Error(), "row-level security") {
			t.Errorf("%s: %v, %v", statement, rows, err)
		}
	}
	rows, err := asTenant(t, d, "acme", "DELETE FROM org_credentials RETURNING org_id")
	ok(t, err)
	same(t, rows, []string{"acme"})
	_, _, err = d.Credential(t.Context(), Ref{"globex", "twilio"})
	ok(t, err)
	for _, statement := range []string{"TRUNCATE org_credentials", "DROP POLICY keyward_tenant ON org_credentials", "ALTER TABLE org_credentials DISABLE ROW LEVEL SECURITY"} {
		if _, err := asTenant(t, d, "*", statement); err == nil || !strings.Contains(err.Error(), "permission denied") && !strings.Contains(err.Error(), "must be owner") {
			t.Errorf("%s: %v", statement, err)
		}
	}
}

func TestSameRole(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"postgres://app@db/keyward", "postgres://app:other@direct:5433/keyward", true},
		{"postgres://app@db/keyward", "postgres://owner@db/keyward", false},
		{"postgres://app@db/keyward", "postgres://[", false},
	} {
		if SameRole(c.a, c.b) != c.same || SameRole(c.b, c.a) != c.same {
			t.Errorf("%s, %s: not %v", c.a, c.b, c.same)
		}
	}
}

// Who may change the schema is told without a change; place says whether two roles see the same tables.
func TestMigrates(t *testing.T) {
	app, owner, super := tenants(t)
	root(t, super, "DROP ROLE IF EXISTS kw_nobody", "CREATE ROLE kw_nobody LOGIN")
	places := map[string]bool{}
	for role, lacks := range map[string]string{owner: "", super: "", app: "does not own", as(t, super, "kw_nobody"): "does not own"} {
		user, place, err := engine{"postgres", role}.open(t).Migrates(t.Context())
		if lacks == "" {
			ok(t, err)
		} else if is(t, err, ErrOwner); !strings.Contains(err.Error(), lacks) || !strings.Contains(err.Error(), user) {
			t.Errorf("%s: %v", user, err)
		}
		places[place] = true
	}
	same(t, len(places), 1)

	_, place, err := engine{"postgres", as(t, pgtest.New(t), "kw_nobody")}.open(t).Migrates(t.Context())
	if is(t, err, ErrOwner); !strings.Contains(err.Error(), "may not make tables") || places[place] {
		t.Errorf("%q: %v", place, err)
	}
	_, _, err = engine{"sqlite", "sqlite:" + t.TempDir() + "/keyward.db"}.open(t).Migrates(t.Context())
	ok(t, err)
}

// A role that row-level security does not hold for is told so, and what to do.
func TestCheckRole(t *testing.T) {
	app, owner, super := tenants(t)
	check := func(address string) (bool, error) { return engine{"postgres", address}.open(t).CheckRole(t.Context()) }

	apart, err := check(app)
	ok(t, err)
	same(t, apart, true)

	root(t, super, "DROP ROLE IF EXISTS kw_member", "CREATE ROLE kw_member LOGIN IN ROLE keyward_owner",
		"DROP ROLE IF EXISTS kw_bypass", "CREATE ROLE kw_bypass LOGIN BYPASSRLS IN ROLE keyward_app",
		"DROP ROLE IF EXISTS kw_sidecar", "CREATE ROLE kw_sidecar LOGIN IN ROLE keyward_app")
	for role, want := range map[string]string{"keyward_owner": "owns the tables", "kw_member": "member of the role", "kw_bypass": "BYPASSRLS", "keyward": "superuser"} {
		_, err := check(as(t, super, role))
		if is(t, err, ErrRole); !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), role) || !strings.Contains(err.Error(), "keyward_app") {
			t.Errorf("%s: %v", role, err)
		}
	}
	_, err = check(as(t, super, "kw_sidecar"))
	ok(t, err)

	d := engine{"postgres", owner}.open(t)
	_, err = d.w.ExecContext(t.Context(), "ALTER TABLE agents NO FORCE ROW LEVEL SECURITY")
	ok(t, err)
	_, err = check(app)
	if is(t, err, ErrRole); !strings.Contains(err.Error(), "agents") {
		t.Error(err)
	}
	_, err = engine{"sqlite", "sqlite:" + t.TempDir() + "/keyward.db"}.open(t).CheckRole(t.Context())
	ok(t, err)
}
