package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// Every command that has flags of serve's finds them where serve does: in the file of --config, after command line and environment.
func TestEveryCommandReadsTheFileOfServe(t *testing.T) {
	for _, c := range tables() {
		shared := c.flags.Lookup("run-dir") != nil || c.flags.Lookup("data-dir") != nil
		if has := c.flags.Lookup("config") != nil; has != shared {
			t.Errorf("keyward %s: --config %v, flags of serve's %v", c.name, has, shared)
		}
	}
	b := newRig(t)
	b.ok("", "assistants", "set", "asst_1", "--org", "acme")
	elsewhere := t.TempDir()
	file := writeFile(t, "k.yaml", "run_dir: "+b.dir+"\ndata_dir: "+elsewhere+"\nlisten: 127.0.0.1:1\ncallers: [{name: a, unix: {uid: 0}, orgs: [\"*\"]}]\n")
	if r := runCommand("", "assistants", "resolve", "asst_1", "--config", file); r.code != exitDone || r.out != "acme\n" {
		t.Errorf("%+v", r)
	}
	isFailure(t, runCommand("", "assistants", "resolve", "asst_1", "--config", file, "--run-dir", elsewhere), exitFailed, "no sidecar at "+elsewhere)
	if r := runCommand("", "keys", "generate", "--config", file); r.code != exitDone || !strings.Contains(r.out, filepath.Join(elsewhere, "keys.json")) {
		t.Errorf("%+v", r)
	}
	if r := runCommand("", "migrate", "--config", file); r.code != exitDone {
		t.Errorf("%+v", r)
	}
	if r := runCommand("", "keys", "list", "--config", file); r.code != exitDone || strings.Contains(r.err, "not known") {
		t.Errorf("%+v", r)
	}
}

// A file that the environment names may have got a mistake since the sidecar was started with it, which then runs on: what asks that sidecar
// asks it still. What works on the store itself would take another one.
func TestAMistakeInTheFile(t *testing.T) {
	b := newRig(t)
	file := writeFile(t, "k.yaml", "run_dir: "+b.dir+"\nlissten: 127.0.0.1:1\n")
	isFailure(t, runCommand("", "wait", "--config", file), exitUsage, "lissten")
	isFailure(t, runCommand("", "migrate", "--config", file), exitUsage, "lissten")
	t.Setenv("KEYWARD_CONFIG", file)
	for _, args := range [][]string{{"wait"}, {"wait", "--run-dir", b.dir}, {"callers", "list", "--json"}} {
		if r := runCommand("", args...); r.code != exitDone || !strings.Contains(r.err, "lissten") || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%v: %+v", args, r)
		}
	}
	isFailure(t, runCommand("", "migrate"), exitUsage, "lissten")
	t.Setenv("KEYWARD_CONFIG", file+".none")
	if r := runCommand("", "wait", "--alive", "--run-dir", b.dir); r.code != exitDone || !strings.Contains(r.err, "KEYWARD_CONFIG") {
		t.Errorf("%+v", r)
	}
}
