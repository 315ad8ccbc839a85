package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	testSID   = "AC0123456789abcdef0123456789abcdef"
	testToken = "9f8e7d6c5b4a39281706f5e4d3c2b1a0"
	testJSON  = `{"account_sid":"` + testSID + `","auth_token":"` + testToken + `"}`
)

func TestCredentials(t *testing.T) {
	b := newRig(t)
	if out := b.ok(testJSON, "credentials", "set", "--org", "acme", "--provider", "twilio"); out != "acme twilio: version 1, active\n" {
		t.Errorf("set: %q", out)
	}
	list := b.ok("", "credentials", "list", "--org", "acme", "--json")
	got := items(t, list)
	if len(got) != 1 || got[0]["provider"] != "twilio" || got[0]["version"] != 1.0 || got[0]["fields"].(map[string]any)["account_sid"] != testSID {
		t.Errorf("list: %s", list)
	}
	show := b.ok("", "credentials", "show", "--org", "acme", "--provider", "twilio")
	for _, text := range []string{list, show, b.ok("", "credentials", "list"), b.ok("", "credentials", "show", "--org", "acme", "--provider", "twilio", "--json")} {
		if strings.Contains(text, testToken[:5]) || !strings.Contains(text, "acme") {
			t.Errorf("shows the token, or nothing: %s", text)
		}
	}
	if !strings.Contains(show, testToken[len(testToken)-4:]) || !strings.Contains(show, testSID) {
		t.Errorf("show: %s", show)
	}
	if out := b.ok("", "credentials", "disable", "--org", "acme", "--provider", "twilio"); out != "acme twilio: version 2, disabled\n" {
		t.Errorf("disable: %q", out)
	}
	if out := b.ok("", "credentials", "enable", "--org", "acme", "--provider", "twilio"); out != "acme twilio: version 3, active\n" {
		t.Errorf("enable: %q", out)
	}
	b.ok("", "credentials", "delete", "--org", "acme", "--provider", "twilio")
	for _, word := range []string{"show", "disable", "enable", "delete"} {
		b.fails(exitNotFound, "no credential", "", "credentials", word, "--org", "acme", "--provider", "twilio")
	}
	if len(items(t, b.ok("", "credentials", "list", "--org", "acme", "--json"))) != 0 {
		t.Error("deleted, and still listed")
	}
}

func TestCredentialsAreReadFromAFile(t *testing.T) {
	b := newRig(t)
	file := filepath.Join(t.TempDir(), "twilio.json")
	if err := os.WriteFile(file, []byte(testJSON+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.ok("", "credentials", "set", "--org", "acme", "--provider", "twilio", "--file", file)
	b.ok(testJSON, "credentials", "set", "--org", "acme", "--provider", "twilio", "--file", "-")
	b.fails(exitUsage, "--file", "", "credentials", "set", "--org", "acme", "--provider", "twilio", "--file", file+".no")
}

func TestSecretsOnTheCommandLineAreRefused(t *testing.T) {
	b := newRig(t)
	for _, args := range [][]string{
		{"--auth-token", testToken}, {"--auth-token=" + testToken}, {testToken}, {testJSON}, {"auth_token=" + testToken}, {"-t", testToken}, {"--api_key", testToken},
	} {
		r := b.run(testJSON, append([]string{"credentials", "set", "--org", "acme", "--provider", "twilio"}, args...)...)
		isFailure(t, r, exitUsage, "stdin or with --file")
		if strings.Contains(r.err, testToken[:5]) {
			t.Errorf("%v: repeats the secret: %s", args, r.err)
		}
	}
	if len(items(t, b.ok("", "credentials", "list", "--json"))) != 0 {
		t.Error("something was stored")
	}
}

func TestBadCredentialsNameTheField(t *testing.T) {
	b := newRig(t)
	set := []string{"credentials", "set", "--org", "acme", "--provider", "twilio"}
	b.fails(exitUsage, "auth_token", `{"account_sid":"`+testSID+`"}`, set...)
	b.fails(exitUsage, "account_sid", `{"account_sid":"AC1","auth_token":"`+testToken+`"}`, set...)
	b.fails(exitUsage, "color", `{"account_sid":"`+testSID+`","auth_token":"`+testToken+`","color":"red"}`, set...)
	b.fails(exitUsage, "auth_token stands twice", `{"account_sid":"`+testSID+`","auth_token":"`+testToken+`","auth_token":"`+testToken+`"}`, set...)
	b.fails(exitUsage, "stdin is empty", "", set...)
	b.fails(exitUsage, "no JSON object", testToken, set...)
	b.fails(exitUsage, "no JSON object", `{"account_sid":`, set...)
	b.fails(exitUsage, "no JSON object", `["x"]`, set...)
	b.fails(exitUsage, "more than", `{"auth_token":"`+strings.Repeat("x", maxFields)+`"}`, set...)
	b.fails(exitUsage, "--org is missing", testJSON, "credentials", "set", "--provider", "twilio")
	b.fails(exitUsage, "--provider is missing", testJSON, "credentials", "set", "--org", "acme")
	b.fails(exitUsage, "org is malformed", testJSON, "credentials", "set", "--org", "-acme", "--provider", "twilio")
	b.fails(exitNotFound, "no such provider", testJSON, "credentials", "set", "--org", "acme", "--provider", "nosuch")
	b.ok(testJSON, set...)
	b.fails(exitRefused, "another org", testJSON, "credentials", "set", "--org", "globex", "--provider", "twilio")
}

func TestListOfAllOrgs(t *testing.T) {
	b := newRig(t)
	if r := b.run("", "credentials", "list"); r.code != 0 || r.out != "" || r.err != "no credentials\n" {
		t.Errorf("%+v", r)
	}
	for _, org := range []string{"globex", "acme"} {
		b.ok(`{"api_key":"re_12345678_abcdefghijklmnopqrstuvwx"}`, "credentials", "set", "--org", org, "--provider", "resend")
	}
	lines := strings.Split(b.ok("", "credentials", "list"), "\n")
	if len(lines) != 4 || !strings.HasPrefix(lines[0], "ORG") || !strings.HasPrefix(lines[1], "acme ") || !strings.HasPrefix(lines[2], "globex ") {
		t.Errorf("%q", lines)
	}
}
