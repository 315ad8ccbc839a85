package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/internal/pgtest"
)

// role is a URL of pgtest's for another role.
func role(t *testing.T, address, name string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("user", name)
	u.RawQuery = q.Encode()
	return u.String()
}

// A store with roles of its own is used by keyward_app and migrated by keyward_owner; a role that row-level security does not hold for is
// refused. One role for everything is let in where no others were made, and that is said.
func TestRolesOfTheStore(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t) // roles are the cluster's
	super := server.New(t)
	args := append(keysFor(t, server.New(t)), "--upstream", "api.resend.com="+echo(t))
	on := func(store, migrate string) []string {
		return append(slices.Clone(args), "KEYWARD_STORE="+store, "KEYWARD_MIGRATE_URL="+migrate) // the last one holds
	}
	serve(t, memdir.New(t), args...).says("one role does everything in the store")
	c, err := pgx.Connect(t.Context(), super)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	for _, s := range []string{
		"CREATE ROLE keyward_owner LOGIN", "CREATE ROLE keyward_app LOGIN",
		fmt.Sprintf("ALTER DATABASE %s OWNER TO keyward_owner", c.Config().Database),
	} {
		if _, err := c.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	app, owner := role(t, super, "keyward_app"), role(t, super, "keyward_owner")

	s := serve(t, memdir.New(t), on(app, owner)...)
	s.must(`{"api_key":"re_acme"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	if got, err := s.call(s.client("caller.sock"), "acme"); err != nil || got != "Bearer re_acme" {
		t.Errorf("%q, %v", got, err)
	}
	s.must("", "assistants", "set", "asst_1", "--org", "acme")
	for _, list := range []string{"credentials list --org acme", "assistants list", "audit", "webhooks list", "callers list"} {
		s.must("", strings.Fields(list)...)
	}
	if out := s.must("", "audit"); !strings.Contains(out, "credential.put") || strings.Contains(s.log.String(), "row-level security") {
		t.Errorf("%s\n%s", out, s.log)
	}

	elsewhere := server.New(t)
	for _, c := range []struct{ migrate, status, saw, mend string }{
		{owner, isOK, `"keyward_owner" may change the schema`, ""},
		{app, isFail, `"keyward_app" does not own`, "owns the tables"},
		{elsewhere, isFail, "another database", "the same database"},
		{"postgres://keyward@" + freeport.New(t) + "/keyward", isFail, "127.0.0.1", "PostgreSQL runs"},
	} {
		finds(t, on(app, c.migrate), "migrate-url", c.status, c.saw, c.mend)
	}
	finds(t, append(on(app, app), "--auto-migrate=false"), "migrate-url", isWarn, "does not own", "owns the tables")

	for what, store := range map[string]string{"owns the tables": owner, "superuser": super} {
		for _, migrate := range []string{"", owner} {
			refused := start(t, memdir.New(t), on(store, migrate)...)
			err := <-refused.done
			refused.done <- err
			if out := refused.log.String(); refused.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out, what) || !strings.Contains(out, "keyward_app") {
				t.Errorf("%s: exit code %d: %s", what, refused.cmd.ProcessState.ExitCode(), out)
			}
		}
	}
}
