package test

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An instruction is one of a Dockerfile, its lines put together.
type instruction struct{ name, text string }

func dockerfile(t *testing.T, path string) []instruction {
	t.Helper()
	var all []instruction
	text := regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(read(t, path), "")
	for _, line := range strings.Split(regexp.MustCompile(`\\\n\s*`).ReplaceAllString(text, ""), "\n") {
		if name, rest, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			all = append(all, instruction{name, strings.TrimSpace(rest)})
		}
	}
	return all
}

// words reads the form of an instruction that no shell sees.
func (i instruction) words(t *testing.T) []string {
	t.Helper()
	var w []string
	if err := json.Unmarshal([]byte(i.text[strings.IndexByte(i.text, '['):]), &w); err != nil {
		t.Fatalf("%s %s: %v", i.name, i.text, err)
	}
	return w
}

// An image is what a Dockerfile makes, in a folder.
type image struct {
	root                     string
	env                      []string
	user                     string
	entrypoint, cmd, healthy []string
}

// buildImage executes the Dockerfile's steps without Docker: its first stage in a copy of what is in the repository, its second by copying from there.
func buildImage(t *testing.T, root string) image {
	t.Helper()
	src := t.TempDir()
	args := []string{"TARGETOS=linux", "TARGETARCH=" + runtime.GOARCH, "VERSION=v0.0.0-test"}
	img, stage := image{root: root}, 0
	for _, i := range dockerfile(t, repo+"/deploy/Dockerfile") {
		switch i.name {
		case "FROM":
			stage++
			if stage == 2 && !strings.HasPrefix(i.text, "gcr.io/distroless/static") {
				t.Errorf("the image is made from %s", i.text)
			}
		case "WORKDIR":
			if i.text != "/src" {
				t.Fatalf("WORKDIR %s: this test knows /src", i.text)
			}
		case "COPY":
			switch {
			case stage == 1 && i.text == "go.mod go.sum ./":
				for _, f := range []string{"go.mod", "go.sum"} {
					copyFile(t, filepath.Join(repo, f), filepath.Join(src, f))
				}
			case stage == 1 && i.text == ". .":
				copyRepository(t, src)
			case stage == 2 && i.text == "--from=build --chown=65532:65532 /src/image/ /":
				if out, err := exec.Command("cp", "-a", filepath.Join(src, "image")+"/.", root).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			default:
				t.Fatalf("COPY %s: this test does not know it", i.text)
			}
		case "RUN":
			sh := exec.Command("sh", "-c", i.text)
			sh.Dir = src
			sh.Env = append(os.Environ(), args...)
			if out, err := sh.CombinedOutput(); err != nil {
				t.Fatalf("RUN %s: %v\n%s", i.text, err, out)
			}
		case "ENV":
			img.env = append(img.env, strings.Fields(i.text)...)
		case "USER":
			img.user = i.text
		case "ENTRYPOINT":
			img.entrypoint = i.words(t)
		case "CMD":
			img.cmd = i.words(t)
		case "HEALTHCHECK":
			img.healthy = i.words(t)
		}
	}
	return img
}

// copyRepository copies what is in the repository or new, as a context without what .dockerignore names.
func copyRepository(t *testing.T, to string) {
	t.Helper()
	ignored := strings.Fields(read(t, repo+"/.dockerignore"))
	list := exec.Command("git", "ls-files", "-co", "--exclude-standard", "-z")
	list.Dir = repo
	out, err := list.Output()
	if err != nil {
		t.Fatalf("listing the repository: %v", err)
	}
	for _, name := range strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		st, err := os.Stat(filepath.Join(repo, name))
		if err != nil || !st.Mode().IsRegular() || slices.Contains(ignored, strings.SplitN(name, "/", 2)[0]) {
			continue
		}
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		copyFile(t, filepath.Join(repo, name), path)
		if err := os.Chmod(path, st.Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestImageIsBuiltAndServes: the Dockerfile's steps make an image whose only file is a static program; as the image's user it starts with
// the image's command, is found healthy by the image's check, and drains.
func TestImageIsBuiltAndServes(t *testing.T) {
	root, err := os.MkdirTemp("", "kw") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(root) }()
	img := buildImage(t, root)

	var files []string
	modes := map[string]fs.FileMode{}
	if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		name := strings.TrimPrefix(path, root)
		modes[name] = st.Mode().Perm()
		if !d.IsDir() {
			files = append(files, name)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(files, []string{"/keyward"}) {
		t.Errorf("the image holds %q", files)
	}
	for name, want := range map[string]fs.FileMode{"/keyward": 0o755, "/var/lib/keyward": 0o700, "/run/keyward": 0o700, "/run/callers": 0o711} {
		if modes[name] != want {
			t.Errorf("%s has mode %04o, want %04o", name, modes[name], want)
		}
	}
	if !regexp.MustCompile(`^[1-9][0-9]+:[1-9][0-9]+$`).MatchString(img.user) {
		t.Errorf("the user is %q: Kubernetes' runAsNonRoot needs a number, other than 0", img.user)
	}
	isStatic(t, filepath.Join(root, "keyward"))

	inside := func(s string) string { return strings.ReplaceAll(s, "=/", "="+root+"/") }
	command := func(words []string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(root, words[0]), words[1:]...)
		for _, e := range img.env {
			cmd.Env = append(cmd.Env, inside(e))
		}
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65532, Gid: 65532}}
		}
		return cmd
	}
	if os.Geteuid() == 0 { // as COPY --chown does
		if err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				err = os.Lchown(path, 65532, 65532)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	// The ports of the defaults may be taken on this machine.
	serve := command(slices.Concat(img.entrypoint, img.cmd, []string{"--listen", "", "--webhook-listen", "", "--admin-listen", ""}))
	var log bytes.Buffer
	serve.Stderr = &log
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- serve.Wait() }()
	defer func() { _ = serve.Process.Kill() }()
	healthy := func() error { return command(img.healthy).Run() }
	for end := time.Now().Add(time.Minute); healthy() != nil; {
		if time.Now().After(end) {
			_ = serve.Process.Kill()
			<-ended
			t.Fatalf("never healthy:\n%s", log.String())
		}
	}
	if st, err := os.Stat(root + "/run/callers/caller.sock"); err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("the callers' socket: %v, %v", st, err)
	}
	_ = serve.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it did not end")
	}
	if healthy() == nil {
		t.Error("it is found healthy, and is not there")
	}
	if !strings.Contains(log.String(), `"version":"v0.0.0-test"`) {
		t.Errorf("VERSION did not reach the program:\n%s", log.String())
	}
}

// isStatic: nothing is loaded beside it, so that an image without a C library can run it.
func isStatic(t *testing.T, path string) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("%s is not static: it has a segment %v", path, p.Type)
		}
	}
}

// What the example app is made of is in the repository, under the names that its Dockerfile has.
func TestAppOfComposeIsThere(t *testing.T) {
	n := 0
	for _, i := range dockerfile(t, repo+"/deploy/compose/app.Dockerfile") {
		if i.name != "COPY" {
			continue
		}
		words := strings.Fields(i.text)
		for _, name := range words[:len(words)-1] {
			if _, err := os.Stat(filepath.Join(repo, name)); err != nil {
				t.Error(err)
			}
			n++
		}
	}
	if n != 4 {
		t.Errorf("it copies %d files", n)
	}
}
