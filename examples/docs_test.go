package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// shown is a mark like <!-- examples/node/twilio.mjs -->, with the block of code that follows it.
var shown = regexp.MustCompile("<!-- examples/(\\S+) -->\n(?:\n```\\w*\n(?s:.*?)\n```\n)?")

func TestPagesShowTheExamplesAsTheyRun(t *testing.T) {
	pages, err := filepath.Glob("../docs/sdks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "../docs/voice-agent.md", "../docs/unchanged-apps.md")
	seen := map[string]bool{}
	for _, page := range pages {
		is, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		want := shown.ReplaceAllStringFunc(string(is), func(mark string) string {
			name := shown.FindStringSubmatch(mark)[1]
			seen[name] = true
			code, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			language := map[string]string{".mjs": "js", ".go": "go", ".py": "python"}[filepath.Ext(name)]
			return "<!-- examples/" + name + " -->\n\n```" + language + "\n" + string(code) + "```\n"
		})
		if *update {
			if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if d := cmp.Diff(want, string(is)); d != "" {
			t.Errorf("%s (go test . -update mends it):\n%s", page, d)
		}
	}
	var code []string
	for _, pattern := range []string{"node/*.mjs", "node/unchanged/*.mjs", "go/*/*.go", "python/*.py", "python/preload/*.py"} {
		more, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		code = append(code, more...)
	}
	for _, name := range code {
		if !seen[filepath.ToSlash(name)] {
			t.Errorf("no page shows %s", name)
		}
	}
}

func TestLockFileNamesNoRegistry(t *testing.T) {
	lock, err := os.ReadFile("node/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(lock), `"resolved"`) {
		t.Error("package-lock.json names a registry: npm install with node/.npmrc's omit-lockfile-registry-resolved")
	}
}
