package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Who only looks at an SQLite store finds what was written last, beside the one that has it open and after he was killed, and leaves every file as it was.
func TestSQLiteIsLookedAtWithoutATrace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keyward.db")
	look := func() (*DB, error) { return Open(context.Background(), "sqlite:"+path, Options{Look: true}) }
	files := func() (all []string) {
		entries, err := os.ReadDir(dir)
		ok(t, err)
		for _, e := range entries {
			if st, err := e.Info(); err == nil && !e.IsDir() && !strings.HasSuffix(e.Name(), "-shm") { // readers mark in it that they read
				all = append(all, e.Name()+" "+st.Mode().String()+" "+st.ModTime().String())
			}
		}
		return all
	}
	if _, err := look(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	same(t, len(files()), 0)

	d := engine{"sqlite", "sqlite:" + path}.open(t)
	_, err := d.MigrateUp(t.Context())
	ok(t, err)
	put(t, d, acmeTwilio)
	for _, open := range []bool{true, false} {
		if !open {
			ok(t, d.Close())
		}
		before := files()
		looking, err := look()
		ok(t, err)
		c, _, err := looking.Credential(t.Context(), acmeTwilio)
		ok(t, err)
		same(t, c.Ref, acmeTwilio)
		if err := looking.PutCredential(t.Context(), by, sealed(acmeTwilio, 2)); err == nil {
			t.Error("who looks has written")
		}
		ok(t, looking.Close())
		if after := files(); !slices.Equal(before, after) {
			t.Errorf("open %v: before %q, after %q", open, before, after)
		}
	}
	ok(t, os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600))
	if _, err := look(); err == nil || !strings.Contains(err.Error(), "not an SQLite database") {
		t.Error(err)
	}
}

// A file of another sidecar's presence that nobody can read is said, not taken for nobody.
func TestPresenceThatCannotBeRead(t *testing.T) {
	e := engine{"sqlite", newFile(t)}
	d := e.open(t)
	_, err := d.MigrateUp(t.Context())
	ok(t, err)
	f, err := d.lite.present("sc_1", []byte("{"))
	ok(t, err)
	defer func() { _ = f.Close() }()
	if _, err := d.Sidecars(t.Context()); err == nil || !strings.Contains(err.Error(), "sc_1") {
		t.Errorf("half a file: %v", err)
	}
	ok(t, f.Close()) // it has ended
	all, err := d.Sidecars(t.Context())
	ok(t, err)
	same(t, len(all), 0)
	for _, name := range []string{"sc_1", ".new-"} { // and nothing of it stays
		left, _ := filepath.Glob(filepath.Join(d.lite.presences(), name+"*"))
		same(t, len(left), 0)
	}
	// Where the folder cannot be made, attending fails, and leaves nothing half done.
	ok(t, os.RemoveAll(d.lite.presences()))
	ok(t, os.WriteFile(d.lite.presences(), nil, 0o600))
	if err := d.Attend(t.Context(), &Sidecar{ID: "sc_2"}); err == nil {
		t.Error("there is no folder, and it is there")
	}
}
