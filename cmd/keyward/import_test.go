package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/internal/pgtest"
)

// An oldApp seals as the app did whose tables are imported: AES-256-GCM, iv:tag:ciphertext.
type oldApp struct {
	t   *testing.T
	url string
	key string // in hexadecimal
	gcm cipher.AEAD
}

const oldTables = `
CREATE TABLE integrations (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), org_id uuid NOT NULL, provider text NOT NULL, is_active boolean NOT NULL DEFAULT true,
	encrypted_config text, config jsonb, updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE integration_settings (id bigserial PRIMARY KEY, org_id uuid NOT NULL, twilio_account_sid text, twilio_auth_token text, resend_api_key text);
CREATE TABLE inbound_agent_config (id bigserial PRIMARY KEY, org_id uuid NOT NULL, vapi_assistant_id text, name text, vapi_api_key text);
CREATE TABLE outbound_agent_config (id bigserial PRIMARY KEY, org_id uuid NOT NULL, vapi_assistant_id text, name text, vapi_api_key text);
`

func newOldApp(t *testing.T) *oldApp {
	var key [32]byte
	_, _ = rand.Read(key[:])
	a := &oldApp{t: t, url: pgtest.New(t), key: hex.EncodeToString(key[:]), gcm: gcmOf(t, key[:], 16)}
	pgtest.Exec(t, a.url, oldTables)
	return a
}

// imports is keyward import from its tables, as a process of its own.
func (a *oldApp) imports(args ...string) *exec.Cmd {
	return program(append([]string{"ENCRYPTION_KEY=" + a.key, "KEYWARD_FROM=" + a.url, "import"}, args...)...)
}

func gcmOf(t *testing.T, key []byte, iv int) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, iv)
	if err != nil {
		t.Fatal(err)
	}
	return gcm
}

func sealOld(gcm cipher.AEAD, text string, encode func([]byte) string) string {
	iv := make([]byte, gcm.NonceSize())
	_, _ = rand.Read(iv)
	out := gcm.Seal(nil, iv, []byte(text), nil)
	at := len(out) - gcm.Overhead()
	return encode(iv) + ":" + encode(out[at:]) + ":" + encode(out[:at])
}

func (a *oldApp) hex(text string) string { return sealOld(a.gcm, text, hex.EncodeToString) }

func (a *oldApp) base64(text string) string {
	return sealOld(a.gcm, text, base64.StdEncoding.EncodeToString)
}

func oldOrg(i int) string { return fmt.Sprintf("0190a000-0000-4000-8000-%012d", i) }

func oldSID(i int) string { return fmt.Sprintf("AC%032x", i) }

// fill writes n orgs, one in twenty of them broken, and returns those with what is wrong.
func (a *oldApp) fill(n int) (broken map[string]string) {
	var other [32]byte
	foreign := gcmOf(a.t, other[:], 12)
	broken = map[string]string{}
	var sql strings.Builder
	for i := range n {
		org, key := oldOrg(i), fmt.Sprintf("re_of_old_org_%d", i)
		sealed := a.hex(key)
		if i%2 == 1 {
			sealed = a.base64(key)
		}
		if i%20 == 7 {
			switch i / 20 % 5 {
			case 0:
				sealed, broken[org] = sealOld(foreign, key, hex.EncodeToString), "sealed under another key"
			case 1:
				sealed, broken[org] = sealed[:len(sealed)-4], "damaged"
			case 2:
				sealed, broken[org] = key, "is not sealed"
			case 3:
				sealed, broken[org] = a.hex("key with a space"), "api_key"
			case 4:
				parts := strings.Split(sealed, ":")
				sealed, broken[org] = parts[0]+":"+parts[1], "is not sealed"
			}
		}
		switch i % 3 {
		case 0: // a column
			fmt.Fprintf(&sql, "INSERT INTO integration_settings (org_id, twilio_account_sid, twilio_auth_token, resend_api_key) VALUES ('%s', '%s', '%s', '%s');\n",
				org, oldSID(i), a.hex(fmt.Sprintf("%032x", i)), sealed)
		case 1: // a member of a document
			doc, _ := json.Marshal(map[string]string{"apiKey": sealed, "fromEmail": "desk@acme.example"})
			fmt.Fprintf(&sql, "INSERT INTO integrations (org_id, provider, config) VALUES ('%s', 'RESEND', '%s');\n", org, doc)
		case 2: // a sealed document; what was broken above breaks it as a whole
			doc := sealed
			if broken[org] == "" || broken[org] == "api_key" {
				inner, _ := json.Marshal(map[string]string{"api_key": map[bool]string{true: key, false: "key with a space"}[broken[org] == ""]})
				doc = a.base64(string(inner))
			} else if broken[org] == "is not sealed" {
				broken[org] = "nor a JSON object"
			}
			fmt.Fprintf(&sql, "INSERT INTO integrations (org_id, provider, encrypted_config) VALUES ('%s', 'resend', '%s');\n", org, doc)
		}
		fmt.Fprintf(&sql, "INSERT INTO inbound_agent_config (org_id, vapi_assistant_id, name, vapi_api_key) VALUES ('%s', 'asst_in_%d', 'Front desk', '%s');\n",
			org, i, a.hex(fmt.Sprintf("01234567-89ab-4cde-8f01-%012d", i)))
	}
	pgtest.Exec(a.t, a.url, sql.String())
	return broken
}

type importedItem struct {
	Org, Provider, Assistant, Action string
	Problems                         []struct{ Table, Row, Column, Problem string }
	Notes                            []string
}

type imported struct {
	Applied bool
	Counts  map[string]int
	Items   []importedItem
	out     string
}

func (a *oldApp) run(code int, args ...string) *imported {
	a.t.Helper()
	cmd := a.imports(append([]string{"--json"}, args...)...)
	var out, errs syncBuffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	r := &imported{out: out.String() + errs.String()}
	if got := cmd.ProcessState.ExitCode(); got != code {
		a.t.Fatalf("keyward import %v: exit code %d, want %d: %s", args, got, code, errs.String())
	}
	if err := json.Unmarshal([]byte(out.String()), r); err != nil && code <= exitFailed {
		a.t.Fatalf("%v: %s", err, r.out)
	}
	return r
}

// TestImportOfManyOrgs: a dry run names what is broken and writes nothing; what is good opens and works; a second run changes nothing.
// Three hundred have each fault in each kind of table; KEYWARD_TORTURE=1: a thousand.
func TestImportOfManyOrgs(t *testing.T) {
	t.Parallel()
	orgs := 300
	if os.Getenv("KEYWARD_TORTURE") == "1" {
		orgs = 1000
	}
	a := newOldApp(t)
	bad := a.fill(orgs)
	dir := memdir.New(t)
	data := []string{"--data-dir", filepath.Join(dir, "data")}
	mustKeys(t, append([]string{"generate"}, data...)...)

	dry := a.run(exitFailed, data...)
	if dry.Applied || dry.Counts["broken"] != len(bad) || len(bad) != orgs/20 {
		t.Errorf("a dry run: applied %t, %v, %d are broken", dry.Applied, dry.Counts, len(bad))
	}
	if strings.Contains(dry.out, "re_of_old_org") || strings.Contains(dry.out, "key with a space") {
		t.Error("the report holds a secret")
	}
	for _, item := range dry.Items {
		switch why := bad[item.Org]; {
		case item.Action == "broken":
			if why == "" || len(item.Problems) != 1 || item.Problems[0].Table == "" || item.Problems[0].Row == "" || !strings.Contains(item.Problems[0].Problem, why) {
				t.Errorf("%+v, want %q", item, why)
			}
		case why != "" && item.Provider == "resend":
			t.Errorf("%+v: it is broken: %s", item, why)
		case item.Action != "create":
			t.Errorf("%+v", item)
		}
	}
	if out, err := exec.Command("ls", filepath.Join(dir, "data")).Output(); strings.Contains(string(out), "keyward.db") {
		t.Errorf("a dry run made a store: %s %v", out, err)
	}

	// It is killed twice on its way, and goes on.
	for range 2 {
		cmd := a.imports(append([]string{"--apply"}, data...)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(400 * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	done := a.run(exitFailed, append(data, "--apply")...)
	if !done.Applied || done.Counts["broken"] != len(bad) || done.Counts["kept"] != 0 || done.Counts["update"] != 0 {
		t.Errorf("%t %v", done.Applied, done.Counts)
	}
	t.Logf("%v, after two kills", done.Counts)

	s := serve(t, dir, "--upstream", "api.resend.com="+echo(t))
	before := s.must("", "audit", "--json", "--limit", "1")
	again := a.run(exitFailed, append(data, "--apply")...)
	if again.Counts["create"]+again.Counts["update"]+again.Counts["kept"] != 0 || again.Counts["same"] != done.Counts["create"]+done.Counts["same"] {
		t.Errorf("a second run: %v", again.Counts)
	}
	if after := s.must("", "audit", "--json", "--limit", "1"); after != before {
		t.Errorf("a second run has written: %s", after)
	}
	c := s.client("caller.sock")
	for i := range orgs {
		got, err := s.call(c, oldOrg(i))
		if want := fmt.Sprintf("Bearer re_of_old_org_%d", i); bad[oldOrg(i)] == "" && (err != nil || got != want) {
			t.Fatalf("%s: %q, %v", oldOrg(i), got, err)
		} else if bad[oldOrg(i)] != "" && got != "424 credential_missing" {
			t.Errorf("%s, which is broken: %q", oldOrg(i), got)
		}
	}
	if out := s.must("", "assistants", "resolve", "asst_in_17"); !strings.Contains(out, oldOrg(17)) {
		t.Errorf("the assistant is %s's", out)
	}
}

// TestImportWatches: both write for a while. What changes in the old tables is carried over; what is changed in Keyward stays.
func TestImportWatches(t *testing.T) {
	t.Parallel()
	a := newOldApp(t)
	put := func(i int, key string) {
		t.Helper()
		pgtest.Exec(t, a.url, fmt.Sprintf("DELETE FROM integration_settings WHERE org_id = '%s'; INSERT INTO integration_settings (org_id, resend_api_key) VALUES ('%s', '%s')",
			oldOrg(i), oldOrg(i), a.hex(key)))
	}
	put(1, "re_one")
	put(2, "re_two")
	dir := memdir.New(t)
	s := serve(t, dir, "--upstream", "api.resend.com="+echo(t))
	c := s.client("caller.sock")
	data := filepath.Join(dir, "data")
	watch := a.imports("--watch", "--interval", "200ms", "--data-dir", data)
	watch.Env = append(watch.Env, "GOOGLE_CLIENT_SECRET=a_secret_constant")
	var said syncBuffer
	watch.Stdout, watch.Stderr = &said, &said
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = watch.Process.Kill(); _ = watch.Wait() })
	becomes := func(i int, want string) {
		t.Helper()
		eventually(t, oldOrg(i)+" has "+want, func() bool {
			got, _ := s.call(c, oldOrg(i))
			return got == want
		})
	}
	becomes(1, "Bearer re_one")
	becomes(2, "Bearer re_two")
	put(1, "re_one_changed")
	put(3, "re_three")
	becomes(1, "Bearer re_one_changed")
	becomes(3, "Bearer re_three")

	s.must(`{"api_key":"re_two_set_in_keyward"}`, "credentials", "set", "--org", oldOrg(2), "--provider", "resend")
	put(2, "re_two_changed_in_the_old_tables")
	eventually(t, "it is said", func() bool { return strings.Contains(said.String(), "kept changed in Keyward since") })
	s.must("", "credentials", "disable", "--org", oldOrg(3), "--provider", "resend")
	put(3, "re_three_changed")
	eventually(t, "it is carried over", func() bool { return strings.Contains(said.String(), oldOrg(3)+" resend: update") })
	becomes(2, "Bearer re_two_set_in_keyward")
	becomes(3, "424 credential_inactive") // it was disabled here, and stays so
	if strings.Count(said.String(), "kept changed") != 1 {
		t.Errorf("it is said again and again: %s", said.String())
	}
	a.run(exitDone, "--data-dir", data, "--apply", "--overwrite", "--org", oldOrg(2))
	becomes(2, "Bearer re_two_changed_in_the_old_tables")
	pgtest.Exec(t, a.url, "DELETE FROM integration_settings")
	r := a.run(exitDone, "--data-dir", data, "--apply")
	if r.Counts["gone"] != 3 {
		t.Errorf("%v", r.Counts)
	}
	a.run(exitDone, "--data-dir", data, "--apply", "--delete")
	becomes(1, "424 credential_missing")
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", watch.Process.Pid))
	if text := string(environ); err == nil && (strings.Contains(text, a.key) || strings.Contains(text, "a_secret_constant")) {
		t.Error("/proc/PID/environ shows the app's key, or what it kept for all orgs")
	}
	if strings.Contains(said.String(), "re_") {
		t.Errorf("a secret was printed: %s", said.String())
	}
}

// A table that is gone is not taken for rows that are, also by a process that has not seen it.
func TestImportOfATableThatIsGone(t *testing.T) {
	t.Parallel()
	a := newOldApp(t)
	pgtest.Exec(t, a.url, fmt.Sprintf("INSERT INTO integration_settings (org_id, resend_api_key) VALUES ('%s', '%s')", oldOrg(1), a.hex("re_one")))
	pgtest.Exec(t, a.url, "DROP TABLE outbound_agent_config") // which it never had, as far as anybody knows
	data := []string{"--data-dir", filepath.Join(memdir.New(t), "data"), "--delete"}
	mustKeys(t, "generate", data[0], data[1])
	a.run(exitDone, append(data, "--apply")...)
	pgtest.Exec(t, a.url, "DROP TABLE integration_settings")
	for _, args := range [][]string{data, append(data, "--apply")} {
		var out syncBuffer
		cmd := a.imports(args...)
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "integration_settings was there and is no more") {
			t.Errorf("%v: %v: %s", args, err, &out)
		}
	}
	if r := a.run(exitDone, data[0], data[1], "--apply"); r.Counts["gone"] != 1 {
		t.Errorf("%v", r.Counts)
	}
}

func TestImportRefuses(t *testing.T) {
	a := newOldApp(t)
	t.Setenv("ENCRYPTION_KEY", a.key)
	t.Setenv("KEYWARD_FROM", a.url)
	dir := t.TempDir()
	data := []string{"--data-dir", dir}
	refuse := func(code int, words string, args ...string) {
		t.Helper()
		isFailure(t, runCommand("", append(append([]string{"import"}, args...), data...)...), code, words)
	}
	write(t, filepath.Join(dir, "mapping.yaml"), "version: 1\ntables:\n  - table: 'integrations; DROP TABLE x'\n    org: org_id\n    columns: {twilio.nothing: a}\n")
	refuse(exitUsage, "must be a table's name", "--mapping", filepath.Join(dir, "mapping.yaml"))
	refuse(exitUsage, `"twilio.nothing" is no field`, "--mapping", filepath.Join(dir, "mapping.yaml"))
	refuse(exitUsage, "never the key itself", "--legacy-key", strings.Repeat("ab", 32))
	refuse(exitUsage, "variable NOT_SET is not set", "--legacy-key", "env:NOT_SET")
	t.Setenv("SHORT", "tooshort")
	refuse(exitUsage, "is neither 64 hexadecimal digits", "--legacy-key", "env:SHORT")
	pgtest.Exec(t, a.url, "DROP TABLE integrations, integration_settings, inbound_agent_config, outbound_agent_config")
	t.Setenv("ENCRYPTION_KEY", strings.Repeat("ab", 32))
	refuse(exitNotFound, "none of the tables")
	t.Setenv("KEYWARD_FROM", "")
	refuse(exitUsage, "--from")
	if r := runCommand("", "import", "--print-mapping"); r.code != 0 || !strings.Contains(r.out, "inbound_agent_config") {
		t.Errorf("%+v", r)
	}
}

// TestImportOfWhatTwoOrgsShare: an id that webhooks are resolved by is one org's only, and an assistant too.
func TestImportOfWhatTwoOrgsShare(t *testing.T) {
	t.Parallel()
	a := newOldApp(t)
	var sql strings.Builder
	for i := range 2 {
		fmt.Fprintf(&sql, "INSERT INTO integration_settings (org_id, twilio_account_sid, twilio_auth_token) VALUES ('%s', '%s', '%s');", oldOrg(i), oldSID(1), a.hex(strings.Repeat("a", 32)))
		fmt.Fprintf(&sql, "INSERT INTO outbound_agent_config (org_id, vapi_assistant_id) VALUES ('%s', 'asst_shared');", oldOrg(i))
	}
	pgtest.Exec(t, a.url, sql.String())
	data := filepath.Join(memdir.New(t), "data")
	mustKeys(t, "generate", "--data-dir", data)
	for _, args := range [][]string{{}, {"--apply"}, {"--apply"}} {
		r := a.run(exitFailed, append(args, "--data-dir", data)...)
		if r.Counts["broken"] != 2 || r.Counts["create"]+r.Counts["same"] != 1 {
			t.Errorf("%v: %v", args, r.Counts)
		}
		for _, words := range []string{"account_sid is org " + oldOrg(0) + "'s too", "an assistant is one org's"} {
			if !strings.Contains(r.out, words) {
				t.Errorf("%v: %q is not said: %s", args, words, r.out)
			}
		}
	}
}
