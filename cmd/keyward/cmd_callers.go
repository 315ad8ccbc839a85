package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// A callerToken is a caller's token as the admin API shows it.
type callerToken struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Orgs       []string   `json:"orgs"`
	Providers  []string   `json:"providers"`
	Allow      []string   `json:"allow"`
	Rate       string     `json:"rate"`
	CreatedAt  *time.Time `json:"created_at"`
	LastUsedAt *time.Time `json:"last_used_at"`
	UseCount   int64      `json:"use_count"`
	Token      string     `json:"token"`
}

// cmdCallersAdd prints the token alone on stdout, so that TOKEN=$(keyward callers add …) holds just that; all else goes to stderr.
func cmdCallersAdd(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	var body struct {
		Name         string   `json:"name"`
		Orgs         []string `json:"orgs"`
		Providers    []string `json:"providers,omitempty"`
		Allow        []string `json:"allow,omitempty"`
		Rate         string   `json:"rate,omitempty"`
		SecretRoutes bool     `json:"secret_routes,omitempty"`
	}
	f.StringVar(&body.Name, "name", "", "the caller's `NAME` in logs and the audit log")
	f.StringArrayVar(&body.Orgs, "org", nil, "an org `ID` that it may act for, or '*' for all; repeatable")
	f.StringArrayVar(&body.Providers, "provider", nil, "a `PROVIDER` that it may use; repeatable; none: all")
	f.StringArrayVar(&body.Allow, "allow", nil, "a `ROUTE` that it may use, as \"POST /2010-04-01/Accounts/*/Messages.json\"; repeatable; none: all")
	f.StringVar(&body.Rate, "rate", "", "the `RATE` of its requests, as 50/s or \"50/s burst 200\"; empty: no limit")
	f.BoolVar(&body.SecretRoutes, "secret-routes", false, "may use routes that hand out reusable secrets")
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if err := required(f, "name", "org"); err != nil {
		return err
	}
	var answer json.RawMessage
	if err := s.do(ctx, http.MethodPost, "/api/callers", body, &answer); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, answer)
	}
	var t callerToken
	if err := json.Unmarshal(answer, &t); err != nil {
		return fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	if _, err := fmt.Fprintln(std.out, t.Token); err != nil {
		return err
	}
	fmt.Fprintf(std.err, "caller %s added as %s; its token is shown this once.\n", t.Name, t.ID)
	fmt.Fprintln(std.err, "Send it as Keyward-Token, or give it to the provider's SDK as its API key.")
	return nil
}

func cmdCallersList(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	l, err := s.list(ctx, "/api/callers")
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, l)
	}
	return printTable(std, l, "no callers with a token", "ID NAME ORGS PROVIDERS ALLOW RATE CREATED USED USES", func(t callerToken) []string {
		return []string{
			t.ID, t.Name, strings.Join(t.Orgs, ","), strings.Join(t.Providers, ","), strings.Join(t.Allow, ", "), t.Rate,
			ago(t.CreatedAt), ago(t.LastUsedAt), strconv.FormatInt(t.UseCount, 10),
		}
	})
}

func cmdCallersRevoke(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	if err := f.parse(args, "ID_OR_NAME"); err != nil {
		return err
	}
	if err := s.do(ctx, http.MethodDelete, "/api/callers/"+segment(f.Arg(0)), nil, nil); err != nil {
		return err
	}
	_, err := fmt.Fprintf(std.out, "caller %s: revoked\n", f.Arg(0))
	return err
}
