package seal

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// file writes a keyset and returns its source.
func file(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return "file:" + path
}

func TestFileRoundTrip(t *testing.T) {
	k := Generate()
	path := filepath.Join(t.TempDir(), "new", "keys.json")
	if err := k.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if st, err := os.Stat(name); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v", name, st.Mode(), err)
		}
	}
	back, err := Load("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := back.Open(nil, k.Seal(nil, []byte("x"), nil), nil); err != nil || string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
	if a, b := k.Keys()[0], back.Keys()[0]; a.ID != b.ID || !a.CreatedAt.Equal(b.CreatedAt) {
		t.Errorf("wrote %+v, read %+v", a, b)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".keys-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Of many who write at once one wins, and its file stays as it is.
func TestNeverOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys.json")
	var won atomic.Pointer[Keyring]
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			k := Generate()
			switch err := k.WriteFile(path); {
			case err == nil && !won.CompareAndSwap(nil, k):
				t.Error("two have written")
			case err != nil && (!errors.Is(err, os.ErrExist) || !strings.Contains(err.Error(), "never overwritten")):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	k, err := Load("file:" + path)
	if err != nil || won.Load() == nil || k.PrimaryID() != won.Load().PrimaryID() {
		t.Errorf("the file is not the winner's: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Dir(path) + "/*"); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
	dangling := filepath.Join(t.TempDir(), "keys.json")
	if err := os.Symlink("/nonexistent/elsewhere", dangling); err != nil {
		t.Fatal(err)
	}
	if err := Generate().WriteFile(dangling); !errors.Is(err, os.ErrExist) {
		t.Errorf("writing over a link that points nowhere: %v", err)
	}
}

func TestModes(t *testing.T) {
	text := keysetJSON(keyJSON("a", "primary", 7))
	for _, mode := range []os.FileMode{0o600, 0o400} {
		if _, err := Load(file(t, text, mode)); err != nil {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o601, 0o666} {
		source := file(t, text, mode)
		_, err := Load(source)
		if err == nil || !strings.Contains(err.Error(), "chmod 600 "+strings.TrimPrefix(source, "file:")) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}

func TestGroupMayReadWhatRootHandsOver(t *testing.T) {
	const root, app = 0, 65532
	for _, tc := range []struct {
		mode   os.FileMode
		owner  uint32
		reader int
		want   bool
	}{
		{0o440, root, app, true},
		{0o640, root, app, true},
		{0o400, root, app, true},
		{0o440, root, root, false}, // who could be handed nothing
		{0o440, app, app, false},   // its own group is everybody that it shares a file with
		{0o660, root, app, false},
		{0o450, root, app, false},
		{0o444, root, app, false},
		{0o441, root, app, false},
	} {
		if got := private(tc.mode, tc.owner, tc.reader); got != tc.want {
			t.Errorf("mode %04o, owned by uid %d, read by uid %d: %v", tc.mode, tc.owner, tc.reader, got)
		}
	}
}

func TestBadSources(t *testing.T) {
	const key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ source, want string }{
		"nothing":                {"", "file:PATH or env:NAME"},
		"a key":                  {key, "file:PATH or env:NAME"},
		"a key as a variable":    {"env:" + key, "file:PATH or env:NAME"},
		"one in hex":             {"env:abababababababababababababababababababababababababababababababab", "file:PATH or env:NAME"},
		"a KMS":                  {"awskms://alias/x", "file:PATH or env:NAME"},
		"no path":                {"file:", "file:PATH or env:NAME"},
		"no name":                {"env:", "file:PATH or env:NAME"},
		"a missing file":         {"file:/nonexistent/keys.json", `key file "/nonexistent/keys.json": no such file`},
		"a folder":               {"file:" + t.TempDir(), "not a file"},
		"a pipe":                 {"file:" + pipe, "not a file"},
		"a file with a bare key": {file(t, key, 0o600), "not JSON: line 1, byte 1"},
		"a huge file":            {file(t, strings.Repeat(" ", maxKeyset+1), 0o600), "at most"},
		"an unset variable":      {"env:KEYWARD_NO_SUCH_KEY", "not set"},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan error, 1)
			go func() { _, err := Load(tc.source); got <- err }()
			select {
			case err := <-got:
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%v lacks %q", err, tc.want)
				}
				if err != nil && (strings.Contains(err.Error(), key[:8]) || strings.Contains(err.Error(), "abab")) {
					t.Errorf("the error quotes a key: %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("waits for ever")
			}
		})
	}
	// Only a missing file may lead to a new key.
	if _, err := Load("file:/nonexistent/keys.json"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file is %v", err)
	}
	if _, err := Load("env:KEYWARD_NO_SUCH_KEY"); errors.Is(err, os.ErrNotExist) {
		t.Errorf("an unset variable is %v", err)
	}
}

func TestKeyFromTheEnvironment(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb}, 32)
	var sealed []byte
	for name, text := range map[string]string{
		"hex": strings.Repeat("fb", 32), "HEX": strings.Repeat("FB", 32), "base64": base64.StdEncoding.EncodeToString(raw),
		"unpadded": base64.RawStdEncoding.EncodeToString(raw), "for URLs": base64.RawURLEncoding.EncodeToString(raw), "with a line end": base64.StdEncoding.EncodeToString(raw) + "\n",
	} {
		t.Setenv("SEAL_TEST_KEY", text)
		k, err := Load("env:SEAL_TEST_KEY")
		if err != nil {
			t.Fatal(name, err)
		}
		if sealed == nil {
			sealed = k.Seal(nil, []byte("x"), nil)
		}
		if got, err := k.Open(nil, sealed, nil); err != nil || string(got) != "x" { // so the id is the same too
			t.Errorf("%s: got %q, %v", name, got, err)
		}
		if _, still := os.LookupEnv("SEAL_TEST_KEY"); still {
			t.Errorf("%s: the variable is still set", name)
		}
	}
	t.Setenv("SEAL_TEST_KEY", " "+keysetJSON(keyJSON("a", "primary", 7))+"\n")
	if k, err := Load("env:SEAL_TEST_KEY"); err != nil || k.PrimaryID() != "a" {
		t.Errorf("a keyset: %v", err)
	}
	for name, text := range map[string]string{
		"empty": "", "short": base64.StdEncoding.EncodeToString(raw[:31]), "long": base64.StdEncoding.EncodeToString(append(raw, raw...)),
		"not hex": strings.Repeat("fx", 32), "a password": "correct horse battery staple", "half a keyset": `{"version":1,"keys":[`,
	} {
		t.Setenv("SEAL_TEST_KEY", text)
		_, err := Load("env:SEAL_TEST_KEY")
		if err == nil || !strings.Contains(err.Error(), "key variable SEAL_TEST_KEY: ") || len(text) > 0 && strings.Contains(err.Error(), text[:4]) {
			t.Errorf("%s: %v", name, err)
		}
		if _, still := os.LookupEnv("SEAL_TEST_KEY"); still {
			t.Errorf("%s: a key that cannot be used is still in the environment", name)
		}
	}
}
