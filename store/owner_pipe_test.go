package store

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A pipe that stands where a file of the log should is an error, and nobody waits for its other end: the folder may be another user's than root's who
// runs the sidecar.
func TestLogWaitsForNoPipe(t *testing.T) {
	t.Parallel()
	refuses := func(name string, try func(dir *os.Root) error) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := t.TempDir()
			ok(t, syscall.Mkfifo(filepath.Join(path, name), 0o600))
			dir := folderOf(t, path)
			ended := make(chan error, 1)
			go func() { ended <- try(dir) }()
			select {
			case err := <-ended:
				if !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), name) {
					t.Errorf("%v", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("it waits")
			}
		})
	}
	var key logKey
	for _, name := range []string{"alone", "next", logNames[0], logNames[1]} {
		refuses(name, func(dir *os.Root) error {
			f, err := new(lite).openOwn(dir, name)
			return errors.Join(err, closed(f))
		})
	}
	refuses(logNames[0], func(dir *os.Root) error {
		_, err := inLog(dir, logNames[0], key)
		return err
	})
	refuses(reserveName(0), func(dir *os.Root) error {
		_, _, err := (&keyOthers{dir: dir, mine: 1}).read(key, false)
		return err
	})
}

func closed(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}
