package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/keyward/keyward/admin"
)

const localPath = "/api/local/disabled"

// setLocal disables or enables in this sidecar alone.
func (t target) setLocal(ctx context.Context, std stdio, off bool) error {
	method := http.MethodDelete
	if off {
		method = http.MethodPut
	}
	var answer struct {
		Changed    bool `json:"changed"`
		InAuditLog bool `json:"in_audit_log"`
	}
	var raw json.RawMessage
	if err := t.sidecar.do(ctx, method, localPath+"/"+segment(*t.org)+"/"+segment(*t.provider), nil, &raw); err != nil {
		return err
	}
	if *t.json {
		return printJSON(std.out, raw)
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	state := "is no longer disabled in this sidecar; what the store says counts"
	if off {
		state = "is disabled in this sidecar; in others it is not"
	}
	if _, err := fmt.Fprintf(std.out, "%s %s %s\n", *t.org, *t.provider, state); err != nil {
		return err
	}
	if !answer.InAuditLog {
		fmt.Fprintln(std.err, "The store cannot be reached now: the sidecar's log has it, the audit log has not.")
	}
	return nil
}

func (s *sidecar) listLocal(ctx context.Context, std stdio, org string, asJSON bool) error {
	l, err := s.list(ctx, localPath)
	if err != nil {
		return err
	}
	l.Items = slices.DeleteFunc(l.Items, func(raw json.RawMessage) bool {
		var item admin.LocalOff
		return org != "" && (json.Unmarshal(raw, &item) != nil || item.Org != org)
	})
	if asJSON {
		return printJSON(std.out, l)
	}
	return printTable(std, l, "no credential is disabled in this sidecar alone", "ORG PROVIDER SINCE", func(o admin.LocalOff) []string {
		return []string{o.Org, o.Provider, ago(&o.Since)}
	})
}
