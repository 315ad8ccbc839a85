package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ErrRole: the role that the store's URL names is not behind the store's row-level security, or there is none.
var ErrRole = errors.New("row-level security does not hold for this role")

// ErrOwner: the role may not change the schema.
var ErrOwner = errors.New("this role cannot change the schema")

// tenantTables are those that hold rows of tenants: each is behind a policy.
var tenantTables = []string{
	"agents", "assistant_claims", "assistant_org_mapping", "audit_log", "legacy_imports", "org_credentials", "provider_accounts", "row_versions",
	"webhook_deliveries",
}

// roleQuery asks what the role may, and what the tables are. keyward_app is there when an operator has set roles apart.
const roleQuery = `SELECT current_user::text, r.rolsuper OR r.rolbypassrls, EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'keyward_app'),
	coalesce(t.owned, ''), coalesce(t.bare, '')
	FROM pg_roles AS r CROSS JOIN (SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FILTER (WHERE pg_has_role(c.relowner, 'MEMBER')) AS owned,
		string_agg(c.relname, ', ' ORDER BY c.relname) FILTER (WHERE NOT (c.relrowsecurity AND c.relforcerowsecurity)) AS bare
		FROM unnest($1::text[]) AS n (name) JOIN pg_class AS c ON c.oid = to_regclass(n.name)) AS t
	WHERE r.rolname = current_user`

// CheckRole is nil when the role that serves is behind row-level security: on PostgreSQL it must neither bypass it nor own the tables, and
// no table may be without. Else it is an ErrRole that says what to do. apart says whether the store has roles of its own, as it should: the
// role keyward_app exists. SQLite has no roles.
func (d *DB) CheckRole(ctx context.Context) (apart bool, err error) {
	if d.pg == nil {
		return false, nil
	}
	var user, owned, bare string
	var bypasses bool
	err = d.read(forNone(ctx), readTimeout, func(ctx context.Context) error {
		return d.r.QueryRowContext(ctx, roleQuery, tenantTables).Scan(&user, &bypasses, &apart, &owned, &bare)
	})
	if errors.Is(err, ErrNotFound) || errors.Is(err, sql.ErrNoRows) {
		return false, fmt.Errorf("%w: PostgreSQL does not know it", ErrRole)
	}
	switch {
	case err != nil:
		return false, err
	case bare != "":
		return apart, fmt.Errorf("%w: somebody has switched it off for %s; ALTER TABLE … ENABLE ROW LEVEL SECURITY, and FORCE, mend that", ErrRole, bare)
	case bypasses:
		return apart, fmt.Errorf("%w: %q is a superuser or has BYPASSRLS; let --store name a role that is neither, as keyward_app in docs/reference/store.md", ErrRole, user)
	case owned != "":
		list := strings.Split(owned, ", ")
		if len(list) == len(tenantTables) {
			list = []string{"the tables"}
		}
		return apart, fmt.Errorf("%w: %q owns %s, or is a member of the role that does; let --store name another, as keyward_app in docs/reference/store.md, and --migrate-url the owner",
			ErrRole, user, strings.Join(slices.Compact(list), ", "))
	}
	return apart, nil
}

// migrationQuery asks what the role may change, and where it is. Tables that are not there yet are nobody's.
const migrationQuery = `SELECT current_user::text, current_database() || ' ' || coalesce(to_regclass('org_credentials')::oid::text, ''),
	coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
	coalesce((SELECT string_agg(c.relname, ', ' ORDER BY c.relname) FROM unnest($1::text[]) AS n (name) JOIN pg_class AS c ON c.oid = to_regclass(n.name)
		WHERE NOT pg_has_role(c.relowner, 'USAGE')), '')`

// Migrates says whether the role that d was opened for may change the schema, without trying. err is an ErrOwner that says what it lacks. place names the
// database and its tables: the same for every role that sees the same ones. SQLite has no roles, and one place.
func (d *DB) Migrates(ctx context.Context) (user, place string, err error) {
	if d.pg == nil {
		return "", "", nil
	}
	var creates bool
	var foreign string
	err = d.read(forNone(ctx), readTimeout, func(ctx context.Context) error {
		return d.r.QueryRowContext(ctx, migrationQuery, tenantTables).Scan(&user, &place, &creates, &foreign)
	})
	switch {
	case err != nil:
		return "", "", err
	case foreign != "":
		return user, place, fmt.Errorf("%w: %q does not own %s; name the owner in --migrate-url", ErrOwner, user, foreign)
	case !creates:
		return user, place, fmt.Errorf("%w: %q may not make tables in the schema; GRANT CREATE ON SCHEMA to it, or name its owner in --migrate-url", ErrOwner, user)
	}
	return user, place, nil
}

// SameRole says whether two addresses of PostgreSQL name the same role.
func SameRole(a, b string) bool {
	one, err := pgx.ParseConfig(a)
	other, err2 := pgx.ParseConfig(b)
	return err == nil && err2 == nil && one.User == other.User
}
