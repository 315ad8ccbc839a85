package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	childOwner = "KEYWARD_TEST_CHILD_OWNER"
	someUser   = 12345
)

// Root that runs a sidecar once on another user's store, and is killed, leaves nothing that keeps that user from it.
func TestRootLeavesTheStoreToItsOwner(t *testing.T) {
	if url := os.Getenv(childOwner); url != "" {
		if os.Getenv("KEYWARD_TEST_UID") != "" {
			ok(t, syscall.Setgroups(nil))
			ok(t, syscall.Setgid(someUser))
			ok(t, syscall.Setuid(someUser))
		}
		serveAs(t, url)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can give files away")
	}
	t.Parallel()
	url := newFile(t)
	path := strings.TrimPrefix(url, "sqlite:")
	ok(t, os.Chown(filepath.Dir(path), someUser, someUser))
	ok(t, os.WriteFile(path, nil, 0o600))
	ok(t, os.Chown(path, someUser, someUser))
	for _, uid := range []string{"", "12345", "", "12345"} { // root, the owner, and both once more
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRootLeavesTheStoreToItsOwner$")
		cmd.Env = append(os.Environ(), childOwner+"="+url, "KEYWARD_TEST_UID="+uid)
		lines := linesUntilKilled(t, cmd, time.Millisecond)
		if lines[0] != "serves" {
			t.Fatalf("as %q: %q", uid, lines)
		}
		found := map[string]bool{}
		ok(t, filepath.WalkDir(filepath.Dir(path), func(path string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st, err := os.Lstat(path)
			if err == nil && st.Sys().(*syscall.Stat_t).Uid != someUser {
				t.Errorf("%s is not its owner's", path)
			}
			found[strings.TrimLeft(filepath.Ext(path), ".")] = true
			return err
		}))
		for _, what := range []string{"db-wal", "db-shm", "lock", "sidecars", "json", "keys", "reserve", "log"} {
			if !found[what] {
				t.Errorf("there was no %q: %v", what, found)
			}
		}
	}
}

// serveAs does what makes files beside the store, until it is killed.
func serveAs(t *testing.T, url string) {
	d, err := Open(context.Background(), url, Options{})
	ok(t, err)
	_, err = d.MigrateUp(context.Background())
	ok(t, err)
	ok(t, d.HoldKeys(context.Background()))
	_, err = d.Sidecars(context.Background())
	ok(t, err)
	ok(t, d.Attend(context.Background(), &Sidecar{ID: "one"}))
	eventually(t, "it is alone", d.isAlone)
	for {
		_, _ = os.Stdout.WriteString("serves\n")
		time.Sleep(10 * time.Millisecond)
	}
}

// What root would give away is a file of its own beside the store, and nothing that a link or another name leads to.
func TestRootGivesNothingElseAway(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: only root can give files away")
	}
	for name, link := range map[string]func(old, new string) error{"link": os.Symlink, "second name": os.Link} {
		for _, suffix := range []string{"-shm", ".lock", ".keys/alone", ".keys/0.reserve", ".keys", ".sidecars"} {
			url := newFile(t)
			path := strings.TrimPrefix(url, "sqlite:")
			precious := filepath.Join(filepath.Dir(path), "precious")
			folder := !strings.Contains(suffix, "/") && (suffix == ".keys" || suffix == ".sidecars")
			if folder {
				if name != "link" {
					continue // folders have one name
				}
				ok(t, os.Mkdir(precious, 0o700))
			} else {
				ok(t, os.WriteFile(precious, []byte("precious"), 0o600))
			}
			if strings.Contains(suffix, "/") {
				ok(t, os.Mkdir(path+".keys", 0o700))
			}
			ok(t, os.WriteFile(path, nil, 0o600))
			ok(t, os.Chown(path, someUser, someUser))
			ok(t, link(precious, path+suffix))
			d, err := Open(t.Context(), url, Options{})
			if err == nil {
				if _, err = d.MigrateUp(t.Context()); err == nil {
					if err = d.HoldKeys(t.Context()); err == nil {
						err = d.Attend(t.Context(), &Sidecar{ID: "one"})
					}
				}
				_ = d.Close()
			}
			if err == nil {
				t.Errorf("%s at %s was followed", name, suffix)
			}
			st, err := os.Lstat(precious)
			ok(t, err)
			if st.Sys().(*syscall.Stat_t).Uid != 0 {
				t.Errorf("%s at %s: what it leads to was given away", name, suffix)
			}
		}
	}
}

// A link that takes a folder's place while a sidecar runs leads nobody anywhere: what is there is neither emptied, nor removed, nor given away.
func TestNoLinkInTheFoldersPlaceIsFollowed(t *testing.T) {
	t.Parallel()
	url := newFile(t)
	path := strings.TrimPrefix(url, "sqlite:")
	d, err := Open(t.Context(), url, Options{})
	ok(t, err)
	_, err = d.MigrateUp(t.Context())
	ok(t, errors.Join(err, d.Close()))
	if os.Geteuid() == 0 {
		ok(t, os.Chown(path, someUser, someUser))
	}
	d = holds(t, url)
	ok(t, d.Attend(t.Context(), &Sidecar{ID: "one"}))
	precious := t.TempDir()
	files := []string{logNames[0], logNames[1], reserveName(1), "one.json", "two.json"}
	var b [recordSize]byte
	putRecord(&b, logKey([]byte(seenKey("of somebody else"))), micros(time.Now().Add(time.Hour)))
	for _, name := range files {
		ok(t, os.WriteFile(filepath.Join(precious, name), b[:], 0o600))
	}
	for _, suffix := range []string{".keys", ".sidecars"} {
		ok(t, os.Rename(path+suffix, path+suffix+".moved"))
		ok(t, os.Symlink(precious, path+suffix))
	}
	eventually(t, "it is alone", d.isAlone)
	confirms(t, d, seenKey("answered"), time.Now().Add(time.Hour))
	eventually(t, "SQLite has it", func() bool { return inSQLite(t, d, seenKey("answered")) })
	if _, err := d.Sidecars(t.Context()); err == nil {
		t.Error("a link to a folder was read")
	}
	if err := d.Attend(t.Context(), &Sidecar{ID: "one", Version: "2"}); err == nil {
		t.Error("a link to a folder was written to")
	}
	ok(t, d.Leave(t.Context(), "one"))
	ok(t, d.Close())
	for _, name := range files {
		st, err := os.Stat(filepath.Join(precious, name))
		ok(t, err)
		if st.Size() != recordSize || int(st.Sys().(*syscall.Stat_t).Uid) != os.Geteuid() {
			t.Errorf("%s: %d bytes, of %d", name, st.Size(), st.Sys().(*syscall.Stat_t).Uid)
		}
	}
}
