package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// binaries finds the folder of initdb and postgres: $PGTEST_BIN, PATH, then where Debian keeps them, the newest first.
func binaries() (string, error) {
	var folders []string
	if dir := os.Getenv("PGTEST_BIN"); dir != "" {
		folders = []string{dir} // who names one wants no other
	} else {
		if path, err := exec.LookPath("initdb"); err == nil {
			if real, err := filepath.EvalSymlinks(path); err == nil {
				path = real
			}
			folders = append(folders, filepath.Dir(path))
		}
		debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
		slices.SortFunc(debian, func(a, b string) int { return release(b) - release(a) })
		folders = append(folders, debian...)
	}
	for _, dir := range folders {
		if isProgram(filepath.Join(dir, "initdb")) && isProgram(filepath.Join(dir, "postgres")) {
			return dir, nil
		}
	}
	return "", errors.New("initdb and postgres were not found in $PGTEST_BIN, PATH or /usr/lib/postgresql/*/bin; " +
		"install them (apt-get install postgresql, brew install postgresql), or set KEYWARD_TEST_NO_POSTGRES=1 to go without")
}

// release is the number in /usr/lib/postgresql/NUMBER/bin.
func release(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return n
}

func isProgram(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// credential is the user that runs the server where the tests run as root, which PostgreSQL refuses to run as; nil: the tests' own.
func credential() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := osuser.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("reading user %s: %w", name, err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("the tests run as root, which PostgreSQL refuses, and there is neither a user postgres nor nobody")
}
