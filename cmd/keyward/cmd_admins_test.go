package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/keyward/keyward/caller"
)

func TestAdminTokensAddPrintsTheTokenAlone(t *testing.T) {
	b := newRig(t)
	r := b.run("", "admin-tokens", "add", "--name", "ops", "--role", "operator")
	token := strings.TrimSuffix(r.out, "\n")
	if r.code != 0 || !caller.IsAdminToken([]byte(token)) || strings.Contains(r.err, token) {
		t.Fatalf("%+v", r)
	}
	row, err := b.db.AdminToken(t.Context(), caller.HashToken([]byte(token)))
	if err != nil || fmt.Sprintln(row.Name, row.Role, row.Org) != "ops operator \n" {
		t.Errorf("%+v %v", row, err)
	}
	if out := b.ok("", "admin-tokens", "add", "--name", "acme-backend", "--org", "acme", "--json"); !strings.Contains(out, `"role": "org"`) || !strings.Contains(out, `"token": "kwa`) {
		t.Errorf("%s", out)
	}
	got := items(t, b.ok("", "admin-tokens", "list", "--json"))
	if len(got) != 2 || strings.Contains(fmt.Sprint(got), token[3:10]) {
		t.Errorf("%v", got)
	}
	if out := b.ok("", "admin-tokens", "list"); !strings.Contains(out, "acme-backend  org       acme") {
		t.Errorf("%s", out)
	}
	b.fails(exitRefused, "name", "", "admin-tokens", "add", "--name", "ops", "--role", "operator")
	b.ok("", "admin-tokens", "revoke", "ops")
	b.ok("", "admin-tokens", "revoke", idOf(t, got, "acme-backend"))
	b.fails(exitNotFound, "no admin token", "", "admin-tokens", "revoke", "ops")
	b.fails(exitUsage, "--name is missing", "", "admin-tokens", "add", "--role", "operator")
	b.fails(exitUsage, "--role operator or --org", "", "admin-tokens", "add", "--name", "x")
	b.fails(exitUsage, "role", "", "admin-tokens", "add", "--name", "x", "--role", "root")
	b.fails(exitUsage, "org", "", "admin-tokens", "add", "--name", "x", "--role", "operator", "--org", "acme")
	b.fails(exitUsage, "org", "", "admin-tokens", "add", "--name", "x", "--org", "a/b")
	b.fails(exitUsage, "ID_OR_NAME", "", "admin-tokens", "revoke")
}
