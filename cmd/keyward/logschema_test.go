package main

import (
	"bytes"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// documentedFields are the fields of docs/logging.md.
func documentedFields(t *testing.T) map[string]bool {
	t.Helper()
	docs, err := os.ReadFile("../../docs/logging.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+) \\|").FindAllSubmatch(docs, -1) {
		for _, f := range regexp.MustCompile("`([a-z0-9_]+)`").FindAllSubmatch(row[1], -1) {
			all[string(f[1])] = true
		}
	}
	if len(all) < 30 {
		t.Fatalf("docs/logging.md has %d fields", len(all))
	}
	return all
}

// TestEveryFieldOfTheLogIsDocumented runs the program through what makes it write, and holds each line against docs/logging.md.
func TestEveryFieldOfTheLogIsDocumented(t *testing.T) {
	documented := documentedFields(t)
	f := newFollowed(t)
	f.webhook("tool-calls", "")
	f.webhook("end-of-call-report", "")
	client := f.client("caller.sock")
	for _, org := range []string{"acme", "nobody"} {
		req, _ := http.NewRequest(http.MethodGet, "http://api.resend.com/domains", nil)
		req.Header.Set("Keyward-Org", org)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	resp, err := http.Post("http://"+f.hooks+"/webhooks/vapi/acme", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	asAdmin(t, f.admin, "", http.MethodGet, "/api/orgs", "")
	eventually(t, "a delivery is in the log", func() bool { return strings.Contains(f.log.String(), `"message":"webhook delivered"`) })
	stop(t, f.served)
	messages := map[string]bool{}
	for line := range bytes.Lines([]byte(f.log.String())) {
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Errorf("no JSON: %s", line)
			continue
		}
		message, _ := fields["message"].(string)
		messages[message] = true
		for name := range fields {
			if !documented[name] {
				t.Errorf("%q is not in docs/logging.md: %s", name, line)
			}
		}
	}
	for _, m := range []string{"request", "webhook", "webhook delivered", "admin", "keyward is ready", "draining", "stopped"} {
		if !messages[m] {
			t.Errorf("no line %q", m)
		}
	}
}

// TestEveryFieldInTheCodeIsDocumented reads which fields the program could ever write, also where no test gets.
func TestEveryFieldInTheCodeIsDocumented(t *testing.T) {
	documented := documentedFields(t)
	notTheProgram := []string{"bench", "torture", "examples", "tools", "internal", "deploy", "docs", ".git", "e2e"}
	kinds := []string{
		"Str", "Strs", "Stringer", "Bytes", "Hex", "RawJSON", "AnErr", "Bool", "Int", "Int8", "Int16", "Int32", "Int64", "Uint", "Uint8", "Uint16", "Uint32", "Uint64",
		"Float32", "Float64", "Time", "Dur", "TimeDiff", "Any", "Interface", "IPAddr",
	}
	found := map[string]bool{}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(notTheProgram, d.Name()):
			return filepath.SkipDir
		case d.IsDir(), !strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 2 {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains(kinds, method.Sel.Name) {
				return true
			}
			name, ok := call.Args[0].(*ast.BasicLit)
			if !ok || name.Kind != token.STRING {
				return true
			}
			field, _ := strconv.Unquote(name.Value)
			found[field] = true
			if !documented[field] {
				t.Errorf("%s writes %q, which is not in docs/logging.md", path, field)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for field := range documented {
		if !found[field] && !slices.Contains([]string{"level", "time", "message", "error"}, field) {
			t.Errorf("docs/logging.md has %q, which nothing writes", field)
		}
	}
}
