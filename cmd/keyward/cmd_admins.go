package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// An adminToken is a token of the admin API as that shows it.
type adminToken struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Role       string     `json:"role"`
	Org        string     `json:"org"`
	CreatedAt  *time.Time `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
	Token      string     `json:"token"`
}

const adminTokensPath = "/api/admin-tokens"

// cmdAdminTokensAdd prints the token alone on stdout, as callers add does.
func cmdAdminTokensAdd(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	var body struct {
		Name string `json:"name"`
		Role string `json:"role,omitempty"`
		Org  string `json:"org,omitempty"`
	}
	f.StringVar(&body.Name, "name", "", "the token's `NAME` in the audit log")
	f.StringVar(&body.Role, "role", "", "the `ROLE`: operator, for everything, or org, for one org; with --org it is org")
	f.StringVar(&body.Org, "org", "", "the org `ID` that it is bound to")
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if err := required(f, "name"); err != nil {
		return err
	}
	if body.Role == "" && body.Org == "" {
		return usagef("--role operator or --org ID says what the token may do; see keyward %s --help", f.command)
	}
	var answer json.RawMessage
	if err := s.do(ctx, http.MethodPost, adminTokensPath, body, &answer); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, answer)
	}
	var t adminToken
	if err := json.Unmarshal(answer, &t); err != nil {
		return fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	if _, err := fmt.Fprintln(std.out, t.Token); err != nil {
		return err
	}
	what := "an operator's"
	if t.Org != "" {
		what = "bound to org " + t.Org
	}
	fmt.Fprintf(std.err, "admin token %s added as %s, %s; it is shown this once.\n", printable(t.Name), t.ID, what)
	fmt.Fprintln(std.err, "Send it to --admin-listen as Authorization: Bearer.")
	return nil
}

func cmdAdminTokensList(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	l, err := s.list(ctx, adminTokensPath)
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, l)
	}
	return printTable(std, l, "no admin tokens", "ID NAME ROLE ORG CREATED USED", func(t adminToken) []string {
		return []string{t.ID, t.Name, t.Role, t.Org, ago(t.CreatedAt), ago(t.LastUsedAt)}
	})
}

func cmdAdminTokensRevoke(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	if err := f.parse(args, "ID_OR_NAME"); err != nil {
		return err
	}
	if err := s.do(ctx, http.MethodDelete, adminTokensPath+"/"+segment(f.Arg(0)), nil, nil); err != nil {
		return err
	}
	_, err := fmt.Fprintf(std.out, "admin token %s: revoked\n", f.Arg(0))
	return err
}
