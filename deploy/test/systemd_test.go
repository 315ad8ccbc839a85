package test

import (
	"bufio"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	units   = repo + "/deploy/systemd"
	service = units + "/keyward.service"
)

// A unit is a unit file, read: section.key to its values in order.
type unit map[string][]string

func readUnit(t *testing.T, path string) unit {
	t.Helper()
	u, section := unit{}, ""
	for lines := bufio.NewScanner(strings.NewReader(read(t, path))); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
		default:
			key, value, ok := strings.Cut(line, "=")
			if !ok {
				t.Fatalf("%s: %q is no setting", path, line)
			}
			u[section+"."+key] = append(u[section+"."+key], value)
		}
	}
	return u
}

func (u unit) one(t *testing.T, key string) string {
	t.Helper()
	if len(u[key]) != 1 {
		t.Fatalf("%s stands %d times in the unit", key, len(u[key]))
	}
	return u[key][0]
}

// systemd itself finds nothing to say about the units, the program standing where they have it.
func TestUnitsAreVerified(t *testing.T) {
	analyze := needs(t, "systemd-analyze")
	dir := t.TempDir()
	files, err := filepath.Glob(units + "/keyward*.s*")
	if err != nil || len(files) != 4 {
		t.Fatalf("%v, %v", files, err)
	}
	var installed []string
	for _, f := range files {
		to := filepath.Join(dir, filepath.Base(f))
		write(t, to, strings.ReplaceAll(read(t, f), "/usr/bin/keyward", program(t)))
		installed = append(installed, to)
	}
	cmd := exec.Command(analyze, append([]string{"verify", "--man=no"}, installed...)...)
	cmd.Env = append(cmd.Environ(), "SYSTEMD_UNIT_PATH="+dir+":/lib/systemd/system")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), dir) {
		t.Errorf("%v\n%s", err, out)
	}
}

// The service is exposed as little as a program can be that talks to other machines and sees the users of its callers.
func TestServiceIsExposedLittle(t *testing.T) {
	out, err := exec.Command(needs(t, "systemd-analyze"), "security", "--offline=true", "--no-pager", "--threshold=15", service).CombinedOutput()
	if err != nil {
		t.Errorf("%v: over 1.5\n%s", err, out)
	}
	m := regexp.MustCompile(`Overall exposure level for keyward.service: ([0-9.]+)`).FindStringSubmatch(string(out))
	if m == nil {
		t.Fatalf("no level in %s", out)
	}
	t.Logf("exposure: %s", m[1])
}

// Users of callers are told apart by the kernel: what hides users from the service would make all of them "nobody".
func TestServiceSeesUsersOfCallers(t *testing.T) {
	for key := range readUnit(t, service) {
		if key == "Service.PrivateUsers" || key == "Service.DynamicUser" {
			t.Errorf("%s is set", key)
		}
	}
}

// What the service starts is accepted by the program, with the configuration that is installed.
func TestServiceStartsWhatTheProgramKnows(t *testing.T) {
	u := readUnit(t, service)
	words := strings.Fields(u.one(t, "Service.ExecStart"))
	if words[0] != "/usr/bin/keyward" {
		t.Errorf("ExecStart= runs %s", words[0])
	}
	dir := t.TempDir()
	for i, w := range words {
		w = strings.ReplaceAll(w, "/etc/keyward/keyward.yaml", units+"/keyward.yaml")
		words[i] = strings.NewReplacer("%S", dir, "%t", dir, "%d", dir).Replace(w)
	}
	invocation{where: service, args: words[1:]}.accepted(t)
}

// Examples in the installed configuration are accepted too, once their mark is taken away.
func TestExamplesInTheConfigurationAreAccepted(t *testing.T) {
	text := strings.Replace(read(t, units+"/keyward.yaml"), "callers: []\n", "callers:\n", 1)
	text = regexp.MustCompile(`(?m)^#  `).ReplaceAllString(text, "  ")
	text = regexp.MustCompile(`(?m)^# ([a-z_]+: )`).ReplaceAllString(text, "$1")
	text = strings.ReplaceAll(text, "{user: app}", "{uid: 1000}")
	dir := t.TempDir()
	write(t, dir+"/store-url", "postgres://keyward:secret@127.0.0.1/keyward")
	text = strings.ReplaceAll(text, "/etc/keyward/store-url", dir+"/store-url")
	if strings.Count(text, "\n  ") < 4 || !strings.Contains(text, "\nstore_file: ") {
		t.Fatalf("the examples are not where they were:\n%s", text)
	}
	write(t, dir+"/keyward.yaml", text)
	invocation{where: "keyward.yaml", args: []string{"serve", "--config", dir + "/keyward.yaml", "--key", "file:" + dir + "/keys.json"}}.accepted(t)
}

// The sockets are named as the program knows them, belong to the service, and stand where the service makes the folder.
func TestSocketsAreThoseOfTheProgram(t *testing.T) {
	s := readUnit(t, service)
	for file, want := range map[string]struct{ name, listen string }{
		"keyward.socket":         {"caller", "%t/keyward/caller.sock"},
		"keyward-tcp.socket":     {"listen", "127.0.0.1:7450"},
		"keyward-webhook.socket": {"webhook-listen", "127.0.0.1:7451"},
	} {
		u := readUnit(t, filepath.Join(units, file))
		if got := u.one(t, "Socket.FileDescriptorName"); got != want.name {
			t.Errorf("%s: its name is %s", file, got)
		}
		if got := u.one(t, "Socket.ListenStream"); got != want.listen {
			t.Errorf("%s listens on %s", file, got)
		}
		if got := u.one(t, "Socket.Service"); got != "keyward.service" {
			t.Errorf("%s is for %s", file, got)
		}
	}
	if !slices.Contains(strings.Fields(s.one(t, "Service.Sockets")), "keyward.socket") {
		t.Error("a start of the service alone does not make the callers' socket")
	}
	if s.one(t, "Service.RuntimeDirectory") != "keyward" || s.one(t, "Service.RuntimeDirectoryPreserve") != "yes" {
		t.Error("the folder of the sockets goes when the service stops")
	}
}
