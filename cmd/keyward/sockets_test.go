package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/keyward/keyward/internal/memdir"
)

// A volume that containers share is open to all of them, as Kubernetes mounts one: the callers' socket stands in a folder that the sidecar
// makes there, which lets those pass whom the socket lets in, and nobody else.
func TestFolderOfTheCallersSocketLetsCallersPass(t *testing.T) {
	for mode, want := range map[string]os.FileMode{"0660": 0o710, "0666": 0o711, "0600": 0o700} {
		volume, run := memdir.New(t), memdir.New(t)
		chmod(t, volume, 0o777)
		serve(t, run, "--socket", filepath.Join(volume, "app", "caller.sock"), "--socket-mode", mode)
		for dir, want := range map[string]os.FileMode{filepath.Join(volume, "app"): want, run: 0o700} {
			st, err := os.Stat(dir)
			if err != nil {
				t.Fatal(err)
			}
			if got := st.Mode().Perm(); got != want {
				t.Errorf("--socket-mode %s: folder %s has mode %04o, want %04o", mode, dir, got, want)
			}
		}
	}
}

// A folder that is there already has the modes that somebody chose.
func TestFolderOfTheCallersSocketIsLeftAsItIs(t *testing.T) {
	dir, run := memdir.New(t), memdir.New(t)
	serve(t, run, "--socket", filepath.Join(dir, "caller.sock"))
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
}

// TestOtherUsersComeAsFarAsTheirGroup runs the sidecar and its callers as users of their own, as in a pod: the group reaches the
// callers' socket and there is told that no rule is for it; others do not reach it, and nobody but the sidecar's own reaches the admin API.
func TestOtherUsersComeAsFarAsTheirGroup(t *testing.T) {
	typed(t)
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root, to be several users")
		}
		t.Skip("NEEDS ROOT, to be several users: what the modes of sockets and folders are worth is NOT TESTED here")
	}
	const sidecar, app, group, other = 61001, 61002, 61003, 61004
	volume, run := memdir.New(t), memdir.New(t)
	for dir, mode := range map[string]os.FileMode{volume: 0o777, run: 0o700} {
		if err := os.Chown(dir, sidecar, group); err != nil {
			t.Fatal(err)
		}
		chmod(t, dir, mode)
	}
	as := func(uid uint32, cmd *exec.Cmd, groups ...uint32) *exec.Cmd {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: groups}}
		return cmd
	}
	// As LoadCredential= and a Secret's volume hand it over: root's, and the group's to read.
	keys := filepath.Join(volume, "keys.json")
	if out, err := exec.Command("keyward", "keys", "generate", "--key", "file:"+keys).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Chown(keys, 0, group); err != nil {
		t.Fatal(err)
	}
	chmod(t, keys, 0o440)
	bin := programForAll(t)
	socket := filepath.Join(volume, "app", "caller.sock")
	s := startCommand(t, run, as(sidecar, exec.Command(bin, "serve", "--data-dir", filepath.Join(run, "data"), "--run-dir", run, "--key", "file:"+keys,
		"--listen", "", "--webhook-listen", "", "--admin-listen", "", "--socket", socket, "--socket-group", "61003"), group))
	s.says("keyward is ready")

	curl := func(uid uint32, socket string, groups ...uint32) string {
		out, _ := as(uid, exec.Command("curl", "-s", "-o", os.DevNull, "-w", "%{http_code}", "--max-time", "60", "--unix-socket", socket, "http://api.resend.com/domains"), groups...).Output()
		return string(out)
	}
	if got := curl(app, socket, group); got != "401" {
		t.Errorf("the app's group is answered %s", got)
	}
	if got := curl(other, socket); got != "000" {
		t.Errorf("others are answered %s", got)
	}
	if got := curl(app, filepath.Join(run, "admin.sock"), group); got != "000" {
		t.Errorf("the app is answered %s by the admin API", got)
	}
	if got := curl(sidecar, filepath.Join(run, "admin.sock")); got != "404" {
		t.Errorf("the sidecar's own user is answered %s by the admin API", got)
	}
}

// programForAll is a copy of the program that every user may run.
func programForAll(t *testing.T) string {
	t.Helper()
	dir := memdir.New(t)
	chmod(t, dir, 0o755)
	path, err := exec.LookPath("keyward")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "keyward")
	if err := os.WriteFile(bin, b, 0o755); err != nil {
		t.Fatal(err)
	}
	chmod(t, bin, 0o755)
	return bin
}
