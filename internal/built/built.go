// Package built is for tests of the program as a process: it is built when the first of a package's tests asks for it, and only once for all of them.
package built

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Main is a package's TestMain: it runs the tests and takes the program away after them.
func Main(m *testing.M) int {
	defer func() {
		if folder != "" {
			_ = os.RemoveAll(folder)
		}
	}()
	return m.Run()
}

// Program is the program's path.
func Program(t testing.TB) string {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	folder  string
	program = sync.OnceValues(func() (string, error) {
		root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/keyward/keyward").Output() // other modules have tests of it too
		if err != nil {
			return "", fmt.Errorf("looking for the program's source: %w", err)
		}
		if folder, err = os.MkdirTemp("", "kwbin"); err != nil {
			return "", err
		}
		path := filepath.Join(folder, "keyward")
		build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "./cmd/keyward")
		build.Dir = string(bytes.TrimSpace(root))
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building the program: %w\n%s", err, out)
		}
		return path, nil
	})
)
