package keyward_test

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const troubleshooting = "docs/troubleshooting.md"

// sources is the program's own code of these folders, tests left out.
func sources(t *testing.T, folders ...string) string {
	t.Helper()
	var b strings.Builder
	for _, folder := range folders {
		files, err := filepath.Glob(folder + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("no source of %s found", folder)
		}
		for _, f := range files {
			if !strings.HasSuffix(f, "_test.go") {
				b.WriteString(read(t, f))
			}
		}
	}
	return b.String()
}

// Every code that Keyward answers with, or writes into its log, can be looked up, with how to mend it; and nothing that it does not.
func TestEveryCodeIsInTroubleshooting(t *testing.T) {
	made := map[string]bool{}
	code := regexp.MustCompile(`\b[cC]ode(?:: +| = )"([a-z_]+)"`)
	for _, m := range code.FindAllStringSubmatch(sources(t, "proxy", "webhook", "problem", "admin", "assistant", "credential", "provider"), -1) {
		made[m[1]] = true
	}
	if len(made) < 60 {
		t.Fatalf("only %d codes found", len(made))
	}
	told := map[string]bool{}
	text, _, _ := strings.Cut(read(t, troubleshooting), "## The start")
	for _, row := range regexp.MustCompile("(?m)^\\| (`[a-z_]+`(?:, `[a-z_]+`)*) \\|([^|]+)\\|([^|]+)\\|$").FindAllStringSubmatch(text, -1) {
		for _, one := range strings.Split(row[1], ", ") {
			told[strings.Trim(one, "`")] = true
		}
		if strings.TrimSpace(row[2]) == "" || strings.TrimSpace(row[3]) == "" {
			t.Errorf("%s: what it means, or how to mend it, is missing", row[1])
		}
	}
	for c := range made {
		if !told[c] {
			t.Errorf("%s does not explain %s", troubleshooting, c)
		}
	}
	for c := range told {
		if !made[c] {
			t.Errorf("%s explains %s, which nothing makes", troubleshooting, c)
		}
	}
}

// What is quoted there is what the program prints: who looks for the text finds it.
func TestQuotedErrorsAreWhatIsPrinted(t *testing.T) {
	_, text, found := strings.Cut(read(t, troubleshooting), "## The start")
	if !found {
		t.Fatal("no section on the start")
	}
	code := sources(t, "cmd/keyward", "store", "seal", "keysource", "admin")
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|[^|]+\\|[^|]+\\|$").FindAllStringSubmatch(text, -1)
	if len(rows) < 25 {
		t.Fatalf("only %d texts found", len(rows))
	}
	for _, row := range rows {
		for _, part := range strings.Split(row[1], "…") {
			if !strings.Contains(code, strings.TrimSpace(part)) {
				t.Errorf("nothing prints %q", part)
			}
		}
	}
}
