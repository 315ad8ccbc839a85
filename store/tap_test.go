package store

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// The database's own tests say what each role may, without any of our code in between. They are pgTAP's; KEYWARD_TEST_NO_PGTAP=1 goes without, aloud.
func TestPgTAP(t *testing.T) {
	if os.Getenv("KEYWARD_TEST_NO_PGTAP") == "1" {
		t.Skip("NOT TESTED BY PGTAP, what roles may in PostgreSQL: KEYWARD_TEST_NO_PGTAP=1 is set")
	}
	app, _, super := tenants(t)
	root(t, super, "CREATE SCHEMA tap", "GRANT USAGE ON SCHEMA tap TO keyward_owner, keyward_app", "CREATE EXTENSION pgtap SCHEMA tap")
	d := engine{"postgres", app}.open(t)
	for _, org := range []string{"acme", "globex"} {
		put(t, d, Ref{org, "twilio"}, Account{"account_sid", "AC" + org})
		ok(t, d.PutAssistant(t.Context(), by, &Assistant{ID: "asst_" + org, Org: org}, -1))
		ok(t, d.PutImport(t.Context(), &Import{Kind: KindCredential, ID: org + "/twilio", Digest: []byte("d")}))
		ok(t, d.PutAgent(t.Context(), by, &Agent{Org: org, Role: "inbound", Config: []byte("{}")}, -1))
		_, err := d.ClaimAssistant(t.Context(), org, "inbound", "me", 1)
		ok(t, err)
		_, err = d.AcceptDelivery(t.Context(), &Delivery{Org: org, Provider: "vapi", Target: "http://x"})
		ok(t, err)
	}
	psql, err := exec.LookPath("psql") // tools/testdeps.sh sees to it, and to the extension
	ok(t, err)
	cmd := exec.CommandContext(t.Context(), psql, "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1", "--file", "testdata/tenants.sql", super)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	passed := len(regexp.MustCompile(`(?m)^ok `).FindAllString(string(out), -1))
	if failed := regexp.MustCompile(`(?m)^(not ok|#) .*$`).FindAllString(string(out), -1); len(failed) > 0 || passed < 60 {
		t.Errorf("%d assertions hold\n%s", passed, strings.Join(failed, "\n"))
	}
	t.Logf("%d assertions hold", passed)
}
