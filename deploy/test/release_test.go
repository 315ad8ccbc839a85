package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const packed = 1_750_000_000 // the time of everything that is packed here

// release is the built program packed, once for all tests that only look at it.
func release(t *testing.T) string {
	t.Helper()
	releaseOnce.Do(func() {
		program(t) // makes the folder that goes when the tests have ended
		released = pack(t, filepath.Join(builtIn, "release"))
	})
	if released == "" {
		t.Fatal("packing failed before")
	}
	return released
}

var (
	releaseOnce sync.Once
	released    string
)

// pack packs the built program as a release for this machine's architecture.
func pack(t *testing.T, dir string) (out string) {
	t.Helper()
	bin, out := filepath.Join(dir, "bin"), filepath.Join(dir, "out")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile(t, program(t), filepath.Join(bin, "keyward_linux_"+runtime.GOARCH))
	written := filepath.Join(dir, "written")
	for name, args := range map[string][]string{
		"man/keyward.1": {"help", "--man"}, "completion/keyward.bash": {"completion", "bash"}, "completion/keyward.zsh": {"completion", "zsh"},
		"completion/keyward.fish": {"completion", "fish"},
	} {
		b, err := exec.Command(program(t), args...).Output()
		at := filepath.Join(written, name)
		if err = errors.Join(err, os.MkdirAll(filepath.Dir(at), 0o755)); err == nil {
			err = os.WriteFile(at, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := filepath.Abs(repo)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "run", "./release", "-repo", root, "-bin", bin, "-written", written, "-out", out, "-version", "v1.2.3", "-epoch", "1750000000")
	cmd.Dir = filepath.Join(root, "tools")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

// Packing adds nothing of its own: the same program in another folder, a moment later, is packed into the same bytes. That the program itself is the same
// each time is make release-test's to show.
func TestPackingIsReproducible(t *testing.T) {
	a := release(t)
	time.Sleep(1100 * time.Millisecond) // formats count whole seconds
	b := pack(t, filepath.Join(t.TempDir(), "another"))
	sums := read(t, a+"/SHA256SUMS")
	if other := read(t, b+"/SHA256SUMS"); sums != other {
		t.Errorf("%s\n%s", sums, other)
	}
	check := exec.Command("sha256sum", "--strict", "-c", "SHA256SUMS")
	check.Dir = a
	if out, err := check.CombinedOutput(); err != nil || strings.Count(string(out), ": OK") != 3 {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestArchiveIsRootsAndHoldsTheProgram(t *testing.T) {
	f, err := os.Open(filepath.Join(release(t), "keyward_1.2.3_linux_"+runtime.GOARCH+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != packed {
			t.Errorf("%s is uid %d's, gid %d's, of %v", h.Name, h.Uid, h.Gid, h.ModTime)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		names = append(names, name)
		if name != "keyward" {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if want := read(t, program(t)); !bytes.Equal(b, []byte(want)) || h.Mode != 0o755 {
			t.Errorf("the program is another one, or has mode %04o", h.Mode)
		}
	}
	for _, want := range []string{"keyward", "LICENSE", "CHANGELOG.md", "systemd/keyward.service", "man/keyward.1", "completion/keyward.zsh"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not in it: %q", want, names)
		}
	}
}

// dpkg takes the package apart into what the units and the documents speak of.
func TestDebianPackage(t *testing.T) {
	dpkg := needs(t, "dpkg-deb")
	out := release(t)
	deb := filepath.Join(out, "keyward_1.2.3_"+runtime.GOARCH+".deb")
	field := func(name string) string {
		b, err := exec.Command(dpkg, "--field", deb, name).Output()
		if err != nil {
			t.Fatalf("reading %s of %s: %v", name, deb, err)
		}
		return strings.TrimSpace(string(b))
	}
	for name, want := range map[string]string{"Package": "keyward", "Version": "1.2.3", "Architecture": runtime.GOARCH, "Depends": ""} {
		if got := field(name); got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	list, err := exec.Command(dpkg, "--contents", deb).Output()
	if err != nil || strings.Contains(strings.ReplaceAll(string(list), "root/root", ""), "/root") || strings.Count(string(list), "root/root") != strings.Count(string(list), "\n") {
		t.Errorf("%v\n%s", err, list)
	}
	root := t.TempDir()
	for _, args := range [][]string{{"--extract", deb, root}, {"--control", deb, root + "/DEBIAN"}} {
		if b, err := exec.Command(dpkg, args...).CombinedOutput(); err != nil {
			t.Fatalf("dpkg-deb %v: %v\n%s", args, err, b)
		}
	}
	for name, mode := range map[string]fs.FileMode{
		"usr/bin/keyward": 0o755, "usr/lib/systemd/system/keyward.service": 0o644, "usr/lib/systemd/system/keyward.socket": 0o644, "etc/keyward/keyward.yaml": 0o640,
		"usr/lib/sysusers.d/keyward.conf": 0o644, "usr/lib/tmpfiles.d/keyward.conf": 0o644, "usr/share/doc/keyward/copyright": 0o644, "usr/share/man/man1/keyward.1.gz": 0o644,
		"usr/share/bash-completion/completions/keyward": 0o644, "usr/share/zsh/vendor-completions/_keyward": 0o644, "usr/share/fish/vendor_completions.d/keyward.fish": 0o644, "DEBIAN/postinst": 0o755,
	} {
		st, err := os.Stat(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
		} else if st.Mode().Perm() != mode {
			t.Errorf("%s has mode %04o", name, st.Mode().Perm())
		}
	}
	if got := read(t, root+"/DEBIAN/conffiles"); got != "/etc/keyward/keyward.yaml\n" {
		t.Errorf("configuration that an upgrade keeps: %q", got)
	}
	md5 := exec.Command("md5sum", "--strict", "--quiet", "-c", "DEBIAN/md5sums")
	md5.Dir = root
	if b, err := md5.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, b)
	}
	for file, word := range map[string]string{"bash-completion/completions/keyward": "complete ", "zsh/vendor-completions/_keyward": "#compdef keyward", "fish/vendor_completions.d/keyward.fish": "complete -c keyward"} {
		if !strings.Contains(read(t, root+"/usr/share/"+file), word) {
			t.Errorf("%s is for no shell, or another one", file)
		}
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		if b, err := exec.Command("sh", "-n", filepath.Join(root, "DEBIAN", script)).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, b)
		}
	}
	isStatic(t, root+"/usr/bin/keyward")
	if b, err := exec.Command(root+"/usr/bin/keyward", "version").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, b)
	}
}

// The bill of materials names every module that the linker put into the program, and the Go release.
func TestBillOfMaterialsIsWhole(t *testing.T) {
	var bom struct {
		Format     string `json:"bomFormat"`
		Metadata   struct{ Component struct{ PURL string } }
		Components []struct {
			Name, Version, PURL string
			Hashes              []struct{ Content string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, filepath.Join(release(t), "keyward_1.2.3_linux_"+runtime.GOARCH+".cdx.json"))), &bom); err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(program(t))
	if err != nil {
		t.Fatal(err)
	}
	if bom.Format != "CycloneDX" || bom.Metadata.Component.PURL != "pkg:golang/github.com/keyward/keyward@v1.2.3" {
		t.Errorf("%+v", bom.Metadata)
	}
	if len(info.Deps) < 20 || len(bom.Components) != len(info.Deps)+1 || bom.Components[0].Name != "std" {
		t.Errorf("%d components of %d modules", len(bom.Components), len(info.Deps))
	}
	for i, m := range info.Deps {
		c := bom.Components[i+1]
		if c.Name != m.Path || c.Version != m.Version || len(c.Hashes) != 1 || len(c.Hashes[0].Content) != 64 {
			t.Errorf("%s %s is %+v", m.Path, m.Version, c)
		}
	}
}
