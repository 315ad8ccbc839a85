// Package keyward_test holds the tests of the repository as a whole: the directions of its imports, and its documents.
package keyward_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/keyward/keyward"

// mayImport says for every package which others of ours it may import, tests included. Imports run one way: what stands at the top
// knows nothing of the rest, and only the program knows all. A folder's line holds for the folders below it.
var mayImport = map[string][]string{
	"seal":       {},
	"provider":   {},
	"migrations": {},
	"caller":     {},
	"problem":    {},
	"mask":       {},
	"trace":      {},
	"ca":         {},
	"standin":    {"provider"},
	"store":      {"migrations"},
	"cache":      {"store"},
	"credential": {"provider", "seal", "store"},
	"keysource":  {"seal"},
	"lastgood":   {"seal", "store"},

	// The paths of a request: never each other, never the cache. They take a store.Reader.
	"proxy":     {"provider", "seal", "store", "caller", "credential", "problem", "mask", "trace", "internal/peek", "internal/socket"},
	"webhook":   {"provider", "seal", "store", "caller", "credential", "problem", "mask", "trace", "internal/peek", "internal/socket"},
	"assistant": {"provider", "seal", "store", "caller", "credential"},
	"admin":     {"provider", "seal", "store", "caller", "credential"},

	// Beside the paths: an app's own tables, carried over once.
	"legacy": {"provider", "seal", "store", "credential"},
	// A client of the admin API, which it is handed as an http.Handler.
	"console": {},

	// The only package that knows an exporter.
	"telemetry": {"trace"},

	// The paths' own look at a socket, and reading and writing one.
	"internal/peek":   {},
	"internal/socket": {},

	"internal/pgtest":   {},
	"internal/canary":   {"provider"},
	"internal/memdir":   {},
	"internal/freeport": {},
	"internal/built":    {},
	// Stores for the tests of whatever stands above the store.
	"internal/storetest": {"store", "internal/pgtest", "internal/memdir"},

	// These talk to the built program over its sockets.
	"bench":   {"internal/pgtest", "internal/freeport"},
	"torture": {"standin"},

	"cmd/keyward": {
		"seal", "provider", "migrations", "caller", "problem", "standin", "store", "cache", "credential", "proxy", "webhook", "assistant", "admin", "console",
		"telemetry", "trace", "keysource", "legacy", "lastgood", "ca",
	},

	// These tests.
	"": {"standin"},
}

// forTests are what the tests of any package may import besides.
var forTests = []string{"internal/pgtest", "internal/canary", "internal/memdir", "internal/freeport", "internal/built", "internal/storetest"}

// testsMayImport are what only the tests of a package may import: a path's tests need real stand-ins and a real cache in front of it.
var testsMayImport = map[string][]string{
	"cache":      {"seal"},
	"credential": {"cache"},
	"proxy":      {"standin", "cache", "ca"},
	"webhook":    {"standin", "cache"},
	"assistant":  {"standin", "cache"},
	"admin":      {"standin", "cache"},
	"torture":    {"store"},
	"console":    {"admin", "caller", "credential", "provider", "seal", "store"},
}

// oneHome are libraries that belong to one place: whoever else needs one of them, needs that place.
var oneHome = map[string][]string{
	"github.com/valyala/fasthttp":       {"proxy", "webhook", "bench", "cmd/keyward"},
	"github.com/dgraph-io/ristretto/v2": {"cache", "store"}, // the store: its Bloom filter
	"github.com/jackc/pgx/v5":           {"store", "migrations", "legacy", "internal/pgtest"},
	"github.com/ncruces/go-sqlite3":     {"store", "migrations", "legacy"},
	"github.com/pressly/goose/v3":       {"store", "migrations"},
	"go.opentelemetry.io/otel":          {"telemetry"},
	"github.com/prometheus":             {"telemetry"},
	"github.com/aws/aws-sdk-go-v2":      {"keysource"},
	"github.com/aws/smithy-go":          {"keysource"},
	"github.com/spf13/pflag":            {"cmd/keyward", "bench"},
	"go.yaml.in/yaml/v3":                {"cmd/keyward"},
}

// pure are packages that compute on bytes: they open no connection and no database.
var pure = []string{"provider", "caller", "seal", "mask", "trace"}

type listed struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
	CgoFiles     []string
}

func TestImportsRunOneWay(t *testing.T) {
	for _, p := range list(t) {
		allowed, ok := mayImport[p.name()]
		if !ok {
			t.Errorf("%s: a package without a line in mayImport: say what it may import, and docs/architecture.md what it is for", p.ImportPath)
			continue
		}
		for _, i := range ours(p.Imports) {
			if i != p.name() && !slices.Contains(allowed, i) {
				t.Errorf("%s may not import %s", p.name(), i)
			}
		}
		allowed = slices.Concat(allowed, forTests, testsMayImport[p.name()], []string{p.name()})
		for _, i := range ours(append(p.TestImports, p.XTestImports...)) {
			if !slices.Contains(allowed, i) {
				t.Errorf("the tests of %s may not import %s", p.name(), i)
			}
		}
	}
}

func TestLibrariesHaveOneHome(t *testing.T) {
	for _, p := range list(t) {
		for _, i := range p.Imports {
			for library, homes := range oneHome {
				if i != library && !strings.HasPrefix(i, library+"/") {
					continue
				}
				if !slices.Contains(homes, p.name()) {
					t.Errorf("%s imports %s, whose place is %s", p.name(), i, strings.Join(homes, ", "))
				}
			}
			if slices.Contains(pure, p.name()) && (i == "net/http" || i == "database/sql" || i == "context") {
				t.Errorf("%s imports %s, but computes only", p.name(), i)
			}
		}
	}
}

func TestProgramNeedsNoCgo(t *testing.T) {
	for _, p := range list(t) {
		if len(p.CgoFiles) > 0 {
			t.Errorf("%s uses cgo in %v", p.ImportPath, p.CgoFiles)
		}
	}
}

// list is every package of the module.
func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,TestImports,XTestImports,CgoFiles", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var all []listed
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			if len(all) < 2 {
				t.Fatalf("go list found %d packages", len(all))
			}
			return all
		case err != nil:
			t.Fatalf("reading go list: %v", err)
		}
		all = append(all, p)
	}
}

// name is the folder that the package stands under in mayImport: "proxy" for proxy and what is below it.
func (p listed) name() string {
	rel := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
	for dir := rel; dir != ""; {
		if _, ok := mayImport[dir]; ok {
			return dir
		}
		cut := strings.LastIndexByte(dir, '/')
		if cut < 0 {
			break
		}
		dir = dir[:cut]
	}
	return rel
}

// ours are the module's own packages among imports, as folders, each under its name in mayImport.
func ours(imports []string) []string {
	var own []string
	for _, i := range imports {
		if i == module || strings.HasPrefix(i, module+"/") {
			own = append(own, listed{ImportPath: i}.name())
		}
	}
	slices.Sort(own)
	return slices.Compact(own)
}
