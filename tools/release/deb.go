package main

import (
	"bytes"
	"crypto/md5" // Debian's list of a package's files is made with it; SHA256SUMS is what proves anything
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// debian is a Debian package (deb(5)): the program, its units, the user and the folders that it needs, its configuration, its manual, its completion.
func (r *release) debian(program, arch string) ([]byte, error) {
	files, err := r.debianFiles(program)
	if err != nil {
		return nil, err
	}
	data, err := tarball(dotted(files), r.at)
	if err != nil {
		return nil, err
	}
	control, err := r.debianControl(files, arch)
	if err != nil {
		return nil, err
	}
	controls, err := tarball(dotted(control), r.at)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	for _, member := range []struct {
		name string
		b    []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.gz", controls}, {"data.tar.gz", data}} {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", member.name, r.at.Unix(), 0, 0, 0o100644, len(member.b))
		out.Write(member.b)
		if len(member.b)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	return out.Bytes(), nil
}

// dotted has all names begin with "./", as dpkg-deb makes them.
func dotted(files []entry) []entry {
	out := make([]entry, len(files))
	for i, f := range files {
		f.name = "./" + f.name
		out[i] = f
	}
	return out
}

func (r *release) debianFiles(program string) ([]entry, error) {
	systemd := filepath.Join(r.repo, "deploy/systemd")
	all := []entry{
		{name: "usr/bin/keyward", mode: 0o755, from: program},
		{name: "etc/keyward/keyward.yaml", mode: 0o640, from: filepath.Join(systemd, "keyward.yaml")},
		{name: "usr/lib/sysusers.d/keyward.conf", mode: 0o644, from: filepath.Join(systemd, "sysusers.conf")},
		{name: "usr/lib/tmpfiles.d/keyward.conf", mode: 0o644, from: filepath.Join(systemd, "tmpfiles.conf")},
		{name: "usr/share/doc/keyward/copyright", mode: 0o644, from: filepath.Join(r.repo, "LICENSE")},
	}
	units, err := filepath.Glob(filepath.Join(systemd, "keyward*.s*"))
	if err != nil {
		return nil, err
	}
	for _, u := range units {
		all = append(all, entry{name: "usr/lib/systemd/system/" + filepath.Base(u), mode: 0o644, from: u})
	}
	zipped := map[string]string{"usr/share/doc/keyward/changelog.gz": filepath.Join(r.repo, "CHANGELOG.md")}
	about := r.about()
	zipped["usr/share/man/man1/keyward.1.gz"] = about[manual]
	for at, name := range map[string]string{
		"usr/share/bash-completion/completions/keyward":    "completion/keyward.bash",
		"usr/share/zsh/vendor-completions/_keyward":        "completion/keyward.zsh",
		"usr/share/fish/vendor_completions.d/keyward.fish": "completion/keyward.fish",
	} {
		all = append(all, entry{name: at, mode: 0o644, from: about[name]})
	}
	for name, from := range zipped {
		b, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		if b, err = compressed(b); err != nil {
			return nil, err
		}
		all = append(all, entry{name: name, mode: 0o644, text: b})
	}
	return all, nil
}

func (r *release) debianControl(files []entry, arch string) ([]entry, error) {
	var sums, conffiles strings.Builder
	size := 0
	for _, f := range files {
		b, err := f.content()
		if err != nil {
			return nil, err
		}
		size += (len(b) + 1023) / 1024
		if strings.HasPrefix(f.name, "etc/") {
			fmt.Fprintf(&conffiles, "/%s\n", f.name)
			continue
		}
		fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(b), f.name)
	}
	template, err := os.ReadFile(filepath.Join(r.repo, "deploy/debian/control"))
	if err != nil {
		return nil, err
	}
	text := strings.NewReplacer("@VERSION@", debianVersion(r.version), "@ARCH@", arch, "@SIZE@", fmt.Sprint(size)).Replace(string(template))
	all := []entry{
		{name: "control", mode: 0o644, text: []byte(text)},
		{name: "conffiles", mode: 0o644, text: []byte(conffiles.String())},
		{name: "md5sums", mode: 0o644, text: []byte(sortedLines(sums.String()))},
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		all = append(all, entry{name: script, mode: 0o755, from: filepath.Join(r.repo, "deploy/debian", script)})
	}
	return all, nil
}

// debianVersion is a tag, or what git describe makes of one, in Debian's order: v1.2.3 before v1.2.3-4-gabc1234, which is 1.2.3+4.gabc1234;
// what has no tag is before everything else.
func debianVersion(version string) string {
	v := strings.TrimPrefix(version, "v")
	if !regexp.MustCompile(`^[0-9]+\.`).MatchString(v) {
		v = "0~" + v
	}
	v = regexp.MustCompile(`-([0-9]+)-g([0-9a-f]+)`).ReplaceAllString(v, "+$1.g$2")
	return regexp.MustCompile(`[^A-Za-z0-9.+~]`).ReplaceAllString(v, "~")
}

func sortedLines(s string) string {
	lines := strings.SplitAfter(s, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}
