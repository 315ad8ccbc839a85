package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
)

// cmdCredentialsVerify prints what the provider says. What it does not honour, and what could not be found out, is a failure.
func cmdCredentialsVerify(ctx context.Context, f *flags, args []string, std stdio) error {
	t := targetFlags(f)
	if err := t.parse(f, args); err != nil {
		return err
	}
	var answer json.RawMessage
	if err := t.sidecar.do(ctx, http.MethodPost, t.path()+"/verify", nil, &answer); err != nil {
		return err
	}
	var v struct {
		integration
		Outcome string `json:"outcome"`
		Detail  string `json:"detail"`
	}
	if err := json.Unmarshal(answer, &v); err != nil {
		return fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	var err error
	if *t.json {
		err = printJSON(std.out, answer)
	} else {
		line := fmt.Sprintf("%s %s: %s", v.Org, v.Provider, v.Outcome)
		if v.Detail != "" {
			line += ", " + printable(v.Detail)
		}
		if v.Reconnect != "" {
			line += "; a new consent begins at " + printable(v.Reconnect)
		}
		_, err = fmt.Fprintln(std.out, line)
	}
	switch {
	case err != nil:
		return err
	case v.Outcome == "invalid":
		return errors.New("the provider does not honour the credential")
	case v.Outcome == "unproven":
		return errors.New("whether the provider honours the credential could not be found out")
	}
	return nil
}

const credentialsStageExample = `echo '{"api_key":"…"}' | keyward credentials stage --org acme --provider resend --verify
keyward credentials stage --org acme --provider resend --file resend.json --retire-after 72h`

// cmdCredentialsStage puts a new credential in the place of the org's, with that beside it for a while.
func cmdCredentialsStage(ctx context.Context, f *flags, args []string, std stdio) error {
	t := targetFlags(f)
	file := f.String("file", "", "read the JSON from this `FILE` instead of stdin")
	verify := f.Bool("verify", false, "only if the provider honours it")
	after := f.String("retire-after", "24h", "how long the former one stands in where the provider refuses the new one: a `TIME` from 1s to 720h")
	if err := t.parse(f, args); err != nil {
		return secretOnArgv(f, args, err)
	}
	fields, err := readFields(*file, std)
	defer clear(fields)
	if err != nil {
		return err
	}
	rest, err := json.Marshal(map[string]any{"verify": *verify, "retire_after": *after})
	if err != nil {
		return err
	}
	body := slices.Concat([]byte(`{"credentials":`), fields, []byte{','}, rest[1:])
	defer clear(body)
	return t.changeAt(ctx, std, http.MethodPut, "/next", json.RawMessage(body))
}

func cmdCredentialsPromote(ctx context.Context, f *flags, args []string, std stdio) error {
	return endRotation(ctx, f, args, std, http.MethodPost, "/next/promote")
}

func cmdCredentialsUnstage(ctx context.Context, f *flags, args []string, std stdio) error {
	return endRotation(ctx, f, args, std, http.MethodDelete, "/next")
}

func endRotation(ctx context.Context, f *flags, args []string, std stdio, method, suffix string) error {
	t := targetFlags(f)
	if err := t.parse(f, args); err != nil {
		return err
	}
	return t.changeAt(ctx, std, method, suffix, nil)
}
