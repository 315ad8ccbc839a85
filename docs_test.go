package keyward_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every answer that Keyward makes by itself is explained, and nothing is explained that it does not make.
func TestErrorsAreDocumented(t *testing.T) {
	made := map[string]bool{}
	files, err := filepath.Glob("proxy/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no source of proxy found")
	}
	for _, f := range files {
		if !strings.HasSuffix(f, "_test.go") {
			for _, m := range regexp.MustCompile(`status: (\d{3}), code: "([a-z_]+)"`).FindAllStringSubmatch(read(t, f), -1) {
				made[m[1]+" "+m[2]] = true
			}
		}
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| (\\d{3}) \\| `([a-z_]+)` \\|").FindAllStringSubmatch(read(t, "docs/outbound.md"), -1) {
		told[m[1]+" "+m[2]] = true
	}
	if len(made) < 20 {
		t.Fatalf("only %d errors found in proxy", len(made))
	}
	delete(made, "499 caller_gone") // for the log: nobody is there to read it
	for e := range made {
		if !told[e] && !strings.HasSuffix(e, " bad_request") {
			t.Errorf("docs/outbound.md does not explain %s", e)
		}
	}
	for e := range told {
		if !made[e] {
			t.Errorf("docs/outbound.md explains %s, which nothing makes", e)
		}
	}
}

// docs/cli.md lists the commands that there are.
func TestCommandsAreDocumented(t *testing.T) {
	help := exec.Command("bin/keyward", "--help")
	help.Dir = folder(t)
	out, err := help.Output()
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^  ([a-z]+(?: [a-z]+)?)  `).FindAllSubmatch(out, -1) {
		there[string(m[1])] = true
	}
	told := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `keyward ([a-z]+)`(?: `([^`]+)`)? \\|").FindAllStringSubmatch(read(t, "docs/cli.md"), -1) {
		for _, word := range strings.Split(m[2], `\|`) {
			told[strings.TrimSpace(m[1]+" "+word)] = true
		}
	}
	if len(there) < 10 {
		t.Fatalf("only %d commands found in\n%s", len(there), out)
	}
	for c := range there {
		if !told[c] {
			t.Errorf("docs/cli.md does not name keyward %s", c)
		}
	}
	for c := range told {
		if !there[c] {
			t.Errorf("docs/cli.md names keyward %s, which there is not", c)
		}
	}
}

// A link between documents leads somewhere.
func TestLinksLeadSomewhere(t *testing.T) {
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range append(append(docs, more...), "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "bench/README.md", "deploy/README.md") {
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`).FindAllStringSubmatch(read(t, doc), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s: %s leads nowhere", doc, m[1])
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
