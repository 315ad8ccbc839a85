package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/keyward/keyward/provider"
)

func TestVerifyExitsByWhatTheProviderSays(t *testing.T) {
	b := newRig(t)
	verify := []string{"credentials", "verify", "--org", "acme", "--provider", "twilio"}
	b.fails(exitNotFound, "no credential", "", verify...)
	b.ok(testJSON, "credentials", "set", "--org", "acme", "--provider", "twilio")

	b.answer = &provider.Reply{Status: 200, Body: []byte(`{"balance":"1.00"}`)}
	if out := b.ok("", verify...); out != "acme twilio: valid\n" {
		t.Errorf("%q", out)
	}
	b.answer = &provider.Reply{Status: 403, Body: []byte(`{"code":70051}`)}
	if out := b.ok("", verify...); !strings.HasPrefix(out, "acme twilio: valid_restricted, ") {
		t.Errorf("%q", out)
	}
	b.answer = &provider.Reply{Status: 401, Body: []byte(`{"code":20003}`)}
	r := b.run("", verify...)
	if r.code != exitFailed || !strings.HasPrefix(r.out, "acme twilio: invalid, ") || !strings.Contains(r.err, "does not honour") {
		t.Errorf("%+v", r)
	}
	if list := b.ok("", "credentials", "list"); !strings.Contains(list, "failed: ") {
		t.Errorf("%s", list)
	}
	b.answer = nil
	if r := b.run("", verify...); r.code != exitFailed || !strings.HasPrefix(r.out, "acme twilio: unproven, ") {
		t.Errorf("%+v", r)
	}
	var shown map[string]any
	if err := json.Unmarshal([]byte(b.run("", append(verify, "--json")...).out), &shown); err != nil || shown["outcome"] != "unproven" || shown["verification"] != "invalid" {
		t.Errorf("%v %v", shown, err)
	}
}

func TestSetWithVerifyChangesNothingUnlessItIsValid(t *testing.T) {
	b := newRig(t)
	set := []string{"credentials", "set", "--org", "acme", "--provider", "twilio", "--verify"}
	b.answer = &provider.Reply{Status: 401, Body: []byte(`{"code":20003}`)}
	b.fails(exitUsage, "nothing was changed", testJSON, set...)
	b.answer = nil
	b.fails(exitFailed, "nothing was changed", testJSON, set...)
	b.fails(exitNotFound, "no credential", "", "credentials", "show", "--org", "acme", "--provider", "twilio")
	b.answer = &provider.Reply{Status: 200, Body: []byte(`{"balance":"1.00"}`)}
	b.ok(testJSON, set...)
}

func TestRotationByCommand(t *testing.T) {
	b := newRig(t)
	at := []string{"--org", "acme", "--provider", "twilio"}
	do := func(word string, more ...string) []string {
		return append(append([]string{"credentials", word}, at...), more...)
	}
	b.fails(exitNotFound, "no credential", testJSON, do("stage")...)
	b.ok(testJSON, do("set")...)
	b.fails(exitNotFound, "no new credential", "", do("promote")...)
	b.fails(exitUsage, "retire_after", testJSON, do("stage", "--retire-after", "never")...)
	next := strings.Replace(testJSON, testToken, strings.Repeat("ab", 16), 1)
	if out := b.ok(next, do("stage", "--retire-after", "1h")...); !strings.HasPrefix(out, "acme twilio: version 2, active, the former one beside it until ") {
		t.Errorf("%q", out)
	}
	if show := b.ok("", do("show")...); !strings.Contains(show, "former one until") || strings.Contains(show, testToken[:5]) {
		t.Errorf("%s", show)
	}
	b.fails(exitRefused, "already", testJSON, do("stage")...)
	b.ok("", do("unstage")...)
	b.ok(next, do("stage")...)
	if out := b.ok("", do("promote")...); strings.Contains(out, "former") {
		t.Errorf("%q", out)
	}
}
