package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// An assistant is a mapping as the admin API shows it.
type assistant struct {
	ID         string     `json:"id"`
	Org        string     `json:"org"`
	Role       string     `json:"role"`
	Name       string     `json:"name"`
	LastUsedAt *time.Time `json:"last_used_at"`
	UseCount   int64      `json:"use_count"`
}

func assistantPath(id string) string { return "/api/assistants/" + segment(id) }

func cmdAssistantsSet(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	var body struct {
		Org  string `json:"org"`
		Role string `json:"role"`
		Name string `json:"name"`
	}
	f.StringVar(&body.Org, "org", "", "the org `ID` that it belongs to")
	f.StringVar(&body.Role, "role", "", "what it does: inbound, outbound or the app's own `WORD`")
	f.StringVar(&body.Name, "name", "", "a `NAME` for people")
	asJSON := f.json()
	if err := f.parse(args, "ASSISTANT_ID"); err != nil {
		return err
	}
	if err := required(f, "org"); err != nil {
		return err
	}
	var answer json.RawMessage
	if err := s.do(ctx, http.MethodPut, assistantPath(f.Arg(0)), body, &answer); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, answer)
	}
	_, err := fmt.Fprintf(std.out, "assistant %s belongs to org %s\n", f.Arg(0), body.Org)
	return err
}

func cmdAssistantsList(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	org := f.String("org", "", "only those of this org `ID`")
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	path := "/api/assistants"
	if *org != "" {
		path = "/api/orgs/" + segment(*org) + "/assistants"
	}
	l, err := s.list(ctx, path)
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, l)
	}
	return printTable(std, l, "no assistants", "ASSISTANT ORG ROLE NAME USED USES", func(a assistant) []string {
		return []string{a.ID, a.Org, a.Role, a.Name, ago(a.LastUsedAt), strconv.FormatInt(a.UseCount, 10)}
	})
}

// cmdAssistantsResolve prints the org alone, for scripts.
func cmdAssistantsResolve(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	asJSON := f.json()
	if err := f.parse(args, "ASSISTANT_ID"); err != nil {
		return err
	}
	var answer json.RawMessage
	if err := s.do(ctx, http.MethodGet, assistantPath(f.Arg(0)), nil, &answer); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, answer)
	}
	var a assistant
	if err := json.Unmarshal(answer, &a); err != nil {
		return fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	_, err := fmt.Fprintln(std.out, a.Org)
	return err
}

// cmdAssistantsEnsure has the assistant made, changed or left alone; the agent's configuration is in the admin API.
func cmdAssistantsEnsure(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	org := f.String("org", "", "the org `ID`")
	role := f.String("role", "", "which of its agents: inbound or outbound")
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if err := required(f, "org", "role"); err != nil {
		return err
	}
	var answer json.RawMessage
	path := "/api/orgs/" + segment(*org) + "/agents/" + segment(*role) + "/ensure"
	if err := s.do(ctx, http.MethodPost, path, nil, &answer); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, answer)
	}
	var a struct {
		assistant
		Outcome string `json:"outcome"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	_, err := fmt.Fprintf(std.out, "%s of org %s, %s: %s\n", printable(a.ID), *org, *role, printable(a.Outcome))
	return err
}

func cmdAssistantsDelete(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	if err := f.parse(args, "ASSISTANT_ID"); err != nil {
		return err
	}
	if err := s.do(ctx, http.MethodDelete, assistantPath(f.Arg(0)), nil, nil); err != nil {
		return err
	}
	_, err := fmt.Fprintf(std.out, "assistant %s: deleted\n", f.Arg(0))
	return err
}
