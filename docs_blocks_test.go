package keyward_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A block is a fenced one. The comment above it, if it has one, says what it is for.
type block struct {
	kind string // one of kinds; empty: a block of commands that is not run
	line int
	text string
}

var kinds = []string{"run", "run in background", "run and be refused", "output"}

// commandLanguages are those of blocks that somebody pastes into a shell.
var commandLanguages = []string{"sh", "bash", "shell", "console", "zsh", "fish"}

// blocks are those that have a kind, and those of commands.
func blocks(t *testing.T, doc string) []block {
	t.Helper()
	var all []block
	open, inside := block{}, false
	comment := ""
	for i, line := range strings.Split(read(t, doc), "\n") {
		language, fence := strings.CutPrefix(line, "```")
		switch {
		case inside && fence:
			if open.kind != "" || open.line > 0 {
				all = append(all, open)
			}
			open, inside, comment = block{}, false, ""
		case inside:
			open.text += line + "\n"
		case fence:
			inside = true
			commands := slices.Contains(commandLanguages, language)
			switch {
			case slices.Contains(kinds, comment):
				open = block{kind: comment, line: i + 2}
			case comment != "" && (commands || language == "text"):
				t.Fatalf("%s:%d: <!-- %s --> is none of %q", doc, i+1, comment, kinds)
			case commands:
				open = block{line: i + 2}
			}
		case strings.HasPrefix(line, "<!-- ") && strings.HasSuffix(line, " -->"):
			comment = strings.TrimSuffix(strings.TrimPrefix(line, "<!-- "), " -->")
		case line != "":
			if slices.Contains(kinds, comment) {
				t.Fatalf("%s:%d: no block after <!-- %s -->", doc, i+1, comment)
			}
			comment = ""
		}
	}
	return all
}

var (
	goesOn  = regexp.MustCompile(`[ \t]*\\\n[ \t]*`)
	remark  = regexp.MustCompile(`(?m)(^|[ \t]+)#( .*)?$`)
	hereDoc = regexp.MustCompile(`(?ms)<<'([A-Z]+)'\n.*?^([A-Z]+)$`)
)

// commandsOf are the block's, one line each: without remarks and without the text that is sent to their standard input.
func commandsOf(b block) []string {
	var all []string
	text := remark.ReplaceAllString(goesOn.ReplaceAllString(hereDoc.ReplaceAllString(b.text, ""), " "), "")
	for _, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			all = append(all, line)
		}
	}
	return all
}
