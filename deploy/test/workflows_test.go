package test

import (
	"path/filepath"
	"regexp"
	"testing"
)

// What others wrote runs as it was read: an action is named by its commit, its release beside it for people.
func TestActionsArePinnedByCommit(t *testing.T) {
	files, err := filepath.Glob(repo + "/.github/workflows/*.yaml")
	if err != nil || len(files) != 2 {
		t.Fatalf("%q, %v", files, err)
	}
	uses := regexp.MustCompile(`(?m)^\s+(?:- )?uses: (.*)$`)
	pinned := regexp.MustCompile(`^[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	for _, f := range files {
		found := uses.FindAllStringSubmatch(read(t, f), -1)
		if len(found) == 0 {
			t.Errorf("%s uses no action", f)
		}
		for _, m := range found {
			if !pinned.MatchString(m[1]) {
				t.Errorf("%s: %s", f, m[1])
			}
		}
	}
}
